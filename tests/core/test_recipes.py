"""The named recipes beside what the paper states, and finding them."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from folders import DATA
from refusals import refusal

from fbnetv3_zoo.recipes import NAMED, OWN, RECIPES, SGD, Augmentation, ExponentialDecay, Recipe, RMSProp, find_recipe

LETTERS = "abcdefg"
PAPERS = [f"fbnetv3_{letter}" for letter in LETTERS]
TABLE_2: dict[str, Any] = json.loads((DATA / "search_space.json").read_text())["recipe"]
FACTS = {"learning_rate": "lr", "dropout": "dropout", "stochastic_depth": "stochastic_depth",
         "augmentation.mixup": "mixup", "weight_decay": "weight_decay"}  # fmt: skip
KINDS = {"SGD": "sgd", "RMSProp": "rmsprop"}


def test_their_names() -> None:
    assert list(RECIPES) == list(NAMED) == [*PAPERS, "proxy", "cifar10", "digits"]
    for name, named in NAMED.items():
        assert RECIPES[name] is named.recipe
        assert named.purpose
    with pytest.raises(TypeError):
        RECIPES["mine"] = RECIPES["digits"]  # type: ignore[index]


@pytest.mark.parametrize("name", RECIPES)
def test_each_is_whole(name: str) -> None:
    recipe = RECIPES[name]
    assert Recipe(**{f.name: getattr(recipe, f.name) for f in fields(Recipe)}) == recipe
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.warmup_epochs < recipe.epochs
    moments = [(epoch, step / 4) for epoch in range(recipe.epochs) for step in range(1, 5)]
    rates = [round(recipe.learning_rate_at(*moment), 12) for moment in moments]
    peak = rates.index(max(rates))
    assert rates[peak] == recipe.learning_rate
    assert rates == [*sorted(rates[:peak]), *sorted(rates[peak:], reverse=True)]
    assert min(rates) > 0


@pytest.mark.parametrize("name", RECIPES)
def test_sources_speak_of_values(name: str) -> None:
    assert set(NAMED[name].sources) <= set(RECIPES[name].values())
    for field in RECIPES[name].values():
        expected = NAMED[name].sources.get(field, "this project's choice")
        assert NAMED[name].source_of(field) == expected
    assert NAMED[name].source_of("seed") == OWN


def _in_table_2(recipe: Recipe, field: str) -> bool:
    value: Any = recipe.values()[field]
    if field == "optimizer":
        return KINDS.get(value) in TABLE_2["optimizer"]["choices"]
    fact = TABLE_2[FACTS[field]]
    low, high = (bound * fact["unit"] for bound in fact["range"])
    if field == "learning_rate" and isinstance(recipe.optimizer, SGD):
        low, high = 4 * low, 4 * high
    return low * (1 - 1e-9) <= value <= high * (1 + 1e-9)


@pytest.mark.parametrize("name", RECIPES)
def test_what_names_table_2_lies_in_its_range(name: str) -> None:
    said = [field for field, source in NAMED[name].sources.items() if "Table 2" in source]
    if name.startswith("fbnetv3_") or name == "proxy":  # F and G have their stochastic depth from the text instead
        depth = set() if name in ("fbnetv3_f", "fbnetv3_g") else {"stochastic_depth"}
        assert set(said) == {"optimizer", *FACTS} - {"stochastic_depth"} | depth
    else:
        assert not said
    assert [field for field in said if not _in_table_2(RECIPES[name], field)] == []


@pytest.mark.parametrize(
    "outside",
    [
        {"learning_rate": 0.0199}, {"learning_rate": 0.031}, {"optimizer": SGD()}, {"dropout": 0.0}, {"dropout": 0.32},
        {"stochastic_depth": 0.09}, {"weight_decay": 6e-6}, {"weight_decay": 2.2e-5},
        {"augmentation": Augmentation(mixup=0.42)},
    ],
)  # fmt: skip
def test_the_range_check_can_fail(outside: dict[str, Any]) -> None:
    recipe = replace(RECIPES["fbnetv3_b"], **outside)
    assert [field for field in ("optimizer", *FACTS) if not _in_table_2(recipe, field)] == [
        {"optimizer": "learning_rate", "augmentation": "augmentation.mixup"}.get(
            next(iter(outside)), next(iter(outside))
        )
    ]  # SGD is in the table, with four times the rate


def test_the_papers_final_training() -> None:
    for name in PAPERS:
        recipe = RECIPES[name]
        assert (recipe.epochs, recipe.warmup_epochs, recipe.schedule) == (400, 5, ExponentialDecay(0.9875))
        assert recipe.distillation.weight == 0.8
        assert recipe.ema_decay > 0
        assert isinstance(recipe.optimizer, RMSProp | SGD)
    assert RECIPES["fbnetv3_a"] == RECIPES["fbnetv3_b"]
    scaled = replace(RECIPES["fbnetv3_e"], stochastic_depth=0.2)
    assert RECIPES["fbnetv3_f"] == RECIPES["fbnetv3_g"] == scaled


def test_what_the_paper_states_names_it() -> None:
    stated = {"epochs", "warmup_epochs", "schedule", "schedule.factor", "distillation.weight"}
    for name in PAPERS:
        named = NAMED[name]
        assert stated <= {field for field, source in named.sources.items() if source.startswith("FBNetV3 paper")}
        assert named.source_of("ema_decay").startswith(OWN)  # the paper has an average, and does not say which
        assert named.source_of("batch_size") == OWN
    assert NAMED["fbnetv3_g"].source_of("stochastic_depth").endswith("with stochastic depth 0.2")


def test_the_papers_proxy_task() -> None:
    recipe = RECIPES["proxy"]
    assert (recipe.epochs, recipe.schedule) == (150, ExponentialDecay(0.963))
    sources = NAMED["proxy"].sources
    assert {field: "proxy task" in source for field, source in sources.items()} == {
        field: field in ("epochs", "schedule", "schedule.factor") for field in sources
    }


def test_digits_are_never_mirrored() -> None:
    """A mirrored digit is another character."""
    assert RECIPES["digits"].augmentation == Augmentation(shift=True)


MINE = Recipe(10, 8, SGD(), 0.5)


def test_find_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(MINE.to_json())
    assert find_recipe(MINE) is MINE
    assert find_recipe("digits") is RECIPES["digits"]
    assert find_recipe(str(file)) == find_recipe(file) == MINE


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "recipe JSON cannot be read: it is empty; correct the file, or write it again"),
        ("[]", 'recipe JSON lacks "format": "fbnetv3_zoo.recipe"; write such files with to_json()'),
        ('{"format": "fbnetv3_zoo.arch", "version": 1}',
         'recipe JSON lacks "format": "fbnetv3_zoo.recipe"; write such files with to_json()'),
        ('{"format": "fbnetv3_zoo.recipe", "version": 2}', "recipe JSON has version 2; this release reads version 1"),
        ('{"format": "fbnetv3_zoo.recipe", "version": 1, "epoch": 3}',
         "recipe has an unknown key 'epoch' (did you mean 'epochs'?)"),
        ('{"format": "fbnetv3_zoo.recipe", "version": 1, "epochs": 3}', "recipe lacks 'batch_size'"),
        (MINE.to_json().replace('"epochs": 10', '"epochs": 0'),
         "recipe: Recipe.epochs is 0; it must be a whole number of at least 1"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text)
    assert refusal(lambda: find_recipe(file)) == f"{file}: {complaint}"


def test_unknown_recipes() -> None:
    known = ", ".join(RECIPES)
    expected = f"unknown recipe 'digit' (did you mean 'digits'?); known are {known}"
    assert refusal(lambda: find_recipe("digit")) == expected
    expected = "/nowhere/mine.json: no such file"
    assert refusal(lambda: find_recipe("/nowhere/mine.json")) == expected
