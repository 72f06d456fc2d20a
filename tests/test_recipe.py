"""Recipes: what they refuse, how they are written and found, and the learning rate they give each step."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.recipe import RECIPES, Augmentation, Optimizer, Recipe, find_recipe

PLAIN = Recipe(10, 8, Optimizer.SGD, 0.5, Augmentation.NONE, warmup_epochs=2, decay_per_epoch=0.5)

shares = st.floats(0, 1, exclude_max=True)
recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 10**6),
    batch_size=st.integers(2, 10**6),
    optimizer=st.sampled_from(Optimizer),
    learning_rate=st.floats(0, 1e6, exclude_min=True, exclude_max=True),
    augmentation=st.sampled_from(Augmentation),
    momentum=shares,
    warmup_epochs=st.integers(0, 100),
    decay_per_epoch=st.floats(0, 10, exclude_min=True),
    weight_decay=st.floats(0, 10),
    ema_decay=shares,
    label_smoothing=shares,
    dropout=shares,
    stochastic_depth=shares,
    seed=st.integers(0, 2**32 - 1),
)


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("epochs", 0, "a whole number of at least 1"),
        ("epochs", 2.0, "a whole number of at least 1"),
        ("epochs", True, "a whole number of at least 1"),
        ("batch_size", 1, "a whole number of at least 2"),
        ("optimizer", "sgd", "an Optimizer"),
        ("augmentation", "shift", "an Augmentation"),
        ("learning_rate", 0, "a number above 0"),
        ("learning_rate", math.inf, "a number above 0 and below 1000000"),
        ("learning_rate", 10**6, "a number above 0 and below 1000000"),
        ("learning_rate", "0.1", "a number above 0"),
        ("warmup_epochs", -1, "a whole number of at least 0"),
        ("decay_per_epoch", 0.0, "a number above 0"),
        ("weight_decay", -1e-5, "a number at least 0"),
        ("weight_decay", math.nan, "a number at least 0"),
        ("momentum", 1, "a number at least 0 and below 1"),
        ("ema_decay", 1.0, "a number at least 0 and below 1"),
        ("label_smoothing", -0.1, "a number at least 0 and below 1"),
        ("dropout", 1.5, "a number at least 0 and below 1"),
        ("stochastic_depth", None, "a number at least 0 and below 1"),
        ("seed", -1, "a whole number of at least 0"),
        ("seed", 2**32, "a whole number of at most 4294967295"),
        ("seed", 0.5, "a whole number of at least 0"),
    ],
)
def test_wrong_values_are_refused(field: str, value: object, remedy: str) -> None:
    with pytest.raises(ZooError) as caught:
        replace(PLAIN, **{field: value})
    assert str(caught.value) == f"Recipe.{field} is {value!r}; it must be {remedy}"


@given(recipes)
def test_json_gives_an_equal_recipe_back(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_json_leaves_out_what_is_default() -> None:
    expected = {
        "format": "fbnetv3_zoo.recipe", "version": 1, "epochs": 10, "batch_size": 8, "optimizer": "sgd",
        "learning_rate": 0.5, "augmentation": "none", "warmup_epochs": 2, "decay_per_epoch": 0.5,
    }  # fmt: skip
    assert json.loads(PLAIN.to_json()) == expected


@pytest.mark.parametrize(
    ("epoch", "progress", "rate"),
    [
        (0, 0.25, 0.0625),
        (0, 0.5, 0.125),
        (0, 1.0, 0.25),
        (1, 0.5, 0.375),
        (1, 1.0, 0.5),  # the peak, reached by the last step of the warm-up
        (2, 0.1, 0.5),
        (2, 1.0, 0.5),  # constant within an epoch
        (3, 0.1, 0.25),
        (4, 1.0, 0.125),
        (7, 0.5, 0.015625),
    ],
)
def test_learning_rate(epoch: int, progress: float, rate: float) -> None:
    assert PLAIN.learning_rate_at(epoch, progress) == rate


def test_learning_rate_without_warm_up_or_decay() -> None:
    assert replace(PLAIN, warmup_epochs=0).learning_rate_at(0, 0.01) == 0.5
    steady = replace(PLAIN, decay_per_epoch=1.0)
    assert {steady.learning_rate_at(epoch, 0.5) for epoch in range(2, 100)} == {0.5}


def test_learning_rate_never_jumps_up() -> None:
    recipe = RECIPES["photos"]
    rates = [recipe.learning_rate_at(epoch, step / 10) for epoch in range(recipe.epochs) for step in range(1, 11)]
    peak = rates.index(max(rates))
    assert max(rates) == recipe.learning_rate
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) > 0


def test_named_recipes() -> None:
    assert list(RECIPES) == ["digits", "photos"]
    for recipe in RECIPES.values():
        assert Recipe(**{f.name: getattr(recipe, f.name) for f in fields(Recipe)}) == recipe
        assert recipe.warmup_epochs < recipe.epochs
    assert RECIPES["digits"].augmentation is Augmentation.SHIFT  # a mirrored digit is another character
    with pytest.raises(TypeError):
        RECIPES["mine"] = PLAIN  # type: ignore[index]


def test_find_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(PLAIN.to_json())
    assert find_recipe(PLAIN) is PLAIN
    assert find_recipe("digits") is RECIPES["digits"]
    assert find_recipe(str(tmp_path / "mine.json")) == PLAIN
    assert find_recipe(tmp_path / "mine.json") == PLAIN


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            b"{",
            "recipe JSON cannot be read: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        (b"[]", 'recipe JSON lacks "format": "fbnetv3_zoo.recipe"; write such files with to_json()'),
        (
            b'{"format": "fbnetv3_zoo.arch", "version": 1}',
            'recipe JSON lacks "format": "fbnetv3_zoo.recipe"; write such files with to_json()',
        ),
        (
            b'{"format": "fbnetv3_zoo.recipe", "version": 2}',
            "recipe JSON has version 2; this release reads version 1",
        ),
        (
            b'{"format": "fbnetv3_zoo.recipe", "version": 1, "epoch": 3}',
            "recipe has an unknown key 'epoch' (did you mean 'epochs'?)",
        ),
        (b'{"format": "fbnetv3_zoo.recipe", "version": 1, "epochs": 3}', "recipe lacks 'batch_size'"),
        (
            PLAIN.to_json().replace('"sgd"', '"adam"').encode(),
            "recipe.optimizer is 'adam'; choose from rmsprop, sgd",
        ),
        (
            PLAIN.to_json().replace('"epochs": 10', '"epochs": 0').encode(),
            "recipe: Recipe.epochs is 0; it must be a whole number of at least 1",
        ),
    ],
)
def test_damaged_files_are_named(text: bytes, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_bytes(text)
    with pytest.raises(ZooError) as caught:
        find_recipe(file)
    assert str(caught.value) == f"{file}: {complaint}"


def test_unknown_recipes() -> None:
    with pytest.raises(ZooError) as caught:
        find_recipe("digit")
    assert str(caught.value) == "unknown recipe 'digit' (did you mean 'digits'?); known are digits, photos"
    with pytest.raises(ZooError) as caught:
        find_recipe("/nowhere/mine.json")
    assert str(caught.value) == "/nowhere/mine.json: cannot be read (No such file or directory)"
