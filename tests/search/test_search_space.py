"""Spaces as values: points and their encoding, what lies inside, sub-spaces, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import DATA
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from fbnetv3_zoo.search.space import (
    PAPER,
    PAPER_RECIPE,
    SPACES,
    TINY,
    Choice,
    ConvChoices,
    Dimension,
    Levels,
    Options,
    PoolingChoices,
    Range,
    RateFactors,
    Space,
    find_space,
)
from fbnetv3_zoo.zoo import ARCHS

FACTS: dict[str, Any] = json.loads((DATA / "search_space.json").read_text())
RNG = np.random.default_rng
every = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def values_of(fact: Any, *, first: bool = True) -> tuple[float, ...]:
    """The values that an entry of the table of facts stands for."""
    if isinstance(fact, dict):
        if "choices" in fact:
            return tuple(fact["choices"])
        return values_of(fact["first" if first else "rest"])
    low, high, step = fact if len(fact) == 3 else (*fact, 1)
    return tuple(range(low, high + 1, step))


def test_the_paper_space_is_the_table() -> None:
    assert PAPER.networks is not None
    table = FACTS["architecture"]
    assert PAPER.networks.resolution.values == values_of(table["resolution"])
    rows = PAPER.networks.rows
    for row, fact in zip(rows, table["stages"], strict=True):
        assert row.channels.values == values_of(fact["channels"])
        if isinstance(row, ConvChoices):
            assert (row.kernel_size.values, row.stride) == (values_of(fact["kernel_size"]), fact["stride"])
        elif isinstance(row, PoolingChoices):
            assert row.expansion.values == values_of(fact["expansion"])
        else:
            wide = fact["expansion"]
            later = wide if isinstance(wide, list) else {"rest": wide.get("choices"), **wide}
            assert row.kernel_size.values == values_of(fact["kernel_size"])
            assert row.expansion_first.values == values_of(wide)
            assert row.expansion_rest.values == (values_of(later, first=False))
            assert row.depth.values == values_of(fact["depth"])
            assert (row.stride, row.squeeze_excite) == (fact["stride"], fact["se"])
            assert row.shared == (wide.get("shared", "") if isinstance(wide, dict) else "")


def test_the_paper_recipes_are_the_table() -> None:
    names = {"learning_rate": "lr", "augmentation.mixup": "mixup"}
    for dimension in PAPER_RECIPE.dimensions:
        field = dimension.name.removeprefix("recipe.")
        if field == "ema_decay":
            assert [value > 0 for value in dimension.options.values] == FACTS["recipe"]["ema"]["choices"]
        elif field == "optimizer":
            assert list(dimension.options.values) == FACTS["recipe"]["optimizer"]["choices"]
        else:
            fact = FACTS["recipe"][names.get(field, field)]
            low, high = fact["range"]
            assert dimension.options.values == pytest.approx([n * fact["unit"] for n in range(low, high + 1)])
    assert [d.name for d in PAPER.dimensions if d.part == "recipe"] == [
        d.name for d in PAPER_RECIPE.dimensions if d.name != "recipe.ema_decay"
    ]


def test_counts() -> None:
    """With a kernel size for a row's first block and one for its rest, and both expansions of row 7 (about 10^20)."""
    assert PAPER.count("architecture") == 315_175_008_101_990_400_000
    assert PAPER.count("recipe") == 11 * 2 * 31 * 22 * 42 * 15 == 9_452_520
    assert PAPER.count() == PAPER.count("architecture") * PAPER.count("recipe")
    assert PAPER_RECIPE.count() == 2 * 9_452_520
    assert TINY.count("recipe") == 12 * 3 * 2 * 7 * 7 * 5 * 2 * 5 * 11


@pytest.mark.long
def test_a_million_points_of_the_paper_come_back_exactly() -> None:
    rng = RNG(2)
    for _ in range(20):
        codes = PAPER.sample(50_000, rng, method="uniform")
        np.testing.assert_array_equal(PAPER.decode(PAPER.encode(codes)), codes)


@every
def test_encoding_and_decoding_are_exact(space: Space) -> None:
    corners = np.stack([np.zeros_like(space.sizes), space.sizes - 1])
    codes = np.concatenate([corners, space.sample(30_000, RNG(1), method="uniform")])
    encoded = space.encode(codes)
    assert encoded.shape == (30_002, space.width())
    assert encoded.min() == 0
    assert encoded.max() == 1
    np.testing.assert_array_equal(space.decode(encoded), codes)
    assert all((column == np.arange(size)).all() for column, size in
               zip((np.unique(column) for column in codes.T), space.sizes, strict=True))  # fmt: skip
    for code in codes[:20]:
        np.testing.assert_array_equal(space.code(space.values(code)), code)
    columns = space.width("architecture")
    other = codes.copy()
    recipe = [d.part == "recipe" for d in space.dimensions]
    other[:, recipe] = 0
    np.testing.assert_array_equal(space.encode(other)[:, :columns], encoded[:, :columns])


def test_a_one_hot_and_a_number() -> None:
    space = Space("s", others=(Dimension("c", Choice((5, 9, 7))), Dimension("r", Range(1, 9, 2)),
                               Dimension("l", Levels((1, 10, 100))), Dimension("one", Range(4, 4))))  # fmt: skip
    assert space.encode(np.array([[1, 3, 2, 0]])).tolist() == [[0, 1, 0, 0.75, 1]]
    assert space.values((1, 3, 2, 0)) == {"c": 9, "r": 7, "l": 100, "one": 4}


REASONS = {
    "a": [],
    "b": [],
    "c": ["row 5: channels is 88, not among 56, 60, 64, 68, 72, 76, 80, 84"],
    "d": ["row 8: channels is 240, not among 180, 184, 188, ..., 224"],
    "e": ["row 8: channels is 240, not among 180, 184, 188, ..., 224"],
    "f": [
        "row 4: channels is 56, not among 24, 28, 32, 36, 40, 44, 48",
        "row 5: channels is 88, not among 56, 60, 64, 68, 72, 76, 80, 84",
        "row 7: channels is 248, not among 180, 184, 188, ..., 224",
        "row 8: channels is 272, not among 180, 184, 188, ..., 224",
    ],
    "g": [
        "resolution is 320, not among 224, 232, 240, 248, 256, 264, 272",
        "row 1: channels is 32, not among 16, 18, 20, 22, 24",
        "row 3: channels is 40, not among 20, 24, 28, 32",
        "row 4: channels is 56, not among 24, 28, 32, 36, 40, 44, 48",
        "row 5: channels is 104, not among 56, 60, 64, 68, 72, 76, 80, 84",
        "row 6: channels is 160, not among 96, 100, 104, ..., 144",
        "row 7: channels is 264, not among 180, 184, 188, ..., 224",
        "row 8: channels is 288, not among 180, 184, 188, ..., 224",
        "row 8: depth is 2, not among 1",
    ],
}


@pytest.mark.parametrize("letter", REASONS)
def test_published_networks_and_why_they_lie_outside(letter: str) -> None:
    arch = ARCHS[f"fbnetv3_{letter}"]
    assert PAPER.outside(arch) == REASONS[letter]
    assert PAPER.contains(arch) == (not REASONS[letter])
    if REASONS[letter]:
        said = refusal(lambda: PAPER.arch_values(arch))
        assert said == f"fbnetv3_{letter} is no network of space paper: {'; '.join(REASONS[letter])}"
        return
    made = PAPER.networks.arch("again", PAPER.arch_values(arch)) if PAPER.networks else None
    assert made is not None
    assert made.resolution == arch.resolution
    shape = [(b.kernel_size, b.stride, b.out_channels, b.expanded_channels, b.se_channels) for b in made.blocks]
    assert shape == [(b.kernel_size, b.stride, b.out_channels, b.expanded_channels, b.se_channels) for b in arch.blocks]


@pytest.mark.parametrize("space", [PAPER, TINY], ids=lambda space: space.name)
def test_networks_of_a_space_lie_inside_it(space: Space) -> None:
    for code in space.sample(12, RNG(3)):
        candidate = space.candidate(code)
        assert candidate.arch is not None
        assert space.outside(candidate.arch) == []
        found = space.arch_values(candidate.arch)
        assert space.networks is not None
        assert space.networks.arch("candidate", found) == candidate.arch


def test_samples() -> None:
    for method in ("sobol", "uniform"):
        codes = PAPER.sample(1000, RNG(4), method=method)  # type: ignore[arg-type]
        assert codes.shape == (1000, 49)
        np.testing.assert_array_equal(PAPER.check(codes), codes)
        np.testing.assert_array_equal(codes, PAPER.sample(1000, RNG(4), method=method))  # type: ignore[arg-type]
        assert (codes != PAPER.sample(1000, RNG(5), method=method)).any()  # type: ignore[arg-type]
    even = PAPER.sample(1024, RNG(6))
    for column, size in enumerate(PAPER.sizes):  # a Sobol sequence visits all values about equally often
        counts = np.bincount(even[:, column], minlength=size)
        assert abs(counts - 1024 / size).max() <= 2
    assert refusal(lambda: PAPER.sample(0, RNG(0))) == "sample: number is 0; it must be a whole number of at least 1"


def test_mutation() -> None:
    codes = PAPER.sample(2000, RNG(7), method="uniform")
    before = codes.copy()
    np.testing.assert_array_equal(PAPER.mutate(codes, RNG(8), 0), codes)
    all_new = PAPER.mutate(codes, RNG(8), 1)
    np.testing.assert_array_equal(codes, before)
    np.testing.assert_array_equal(PAPER.check(all_new), all_new)
    np.testing.assert_array_equal((all_new != codes).all(0), PAPER.sizes > 1)
    np.testing.assert_array_equal((all_new == codes).all(0), PAPER.sizes == 1)
    some = PAPER.mutate(codes, RNG(8), np.where(np.arange(2000) < 1000, 0.0, 0.2))
    assert (some[:1000] == codes[:1000]).all()
    free = PAPER.sizes > 1
    assert (some[1000:] != codes[1000:])[:, free].mean() == pytest.approx(0.2, abs=0.01)
    mixup = [d.name for d in PAPER.dimensions].index("recipe.augmentation.mixup")
    steps = abs(all_new - codes)[:, mixup]
    assert 0.45 < (steps == 1).mean() < 0.6  # half of the time the next value


def test_sub_spaces() -> None:
    code = PAPER.sample(1, RNG(9))[0]
    fixed = PAPER.hold_part("recipe", code)
    assert fixed.count() == PAPER.count("architecture")
    assert fixed.width("recipe") == 0
    assert fixed.candidate(fixed.sample(1, RNG(1))[0]).recipe == PAPER.candidate(code).recipe
    alone = PAPER.hold_part("architecture", code)
    assert alone.count() == PAPER.count("recipe")
    assert alone.candidate(alone.sample(1, RNG(1))[0]).arch == PAPER.candidate(code).arch
    b = PAPER.recipe_only(ARCHS["fbnetv3_b"])
    assert b.count() == PAPER.count("recipe")
    assert b.outside(ARCHS["fbnetv3_a"])[0].endswith(
        f"the space holds it at {b.values(b.sample(1, RNG(0))[0])['resolution']}"
    )
    for model in ("fbnetv3_g", "torchvision:resnet18"):
        only = PAPER.hold({"resolution": 240}).recipe_only(model)
        candidate = only.candidate(only.sample(1, RNG(2))[0])
        assert (only.count(), candidate.model) == (PAPER.count("recipe"), model)
        assert candidate.arch == ARCHS.get(model)
        assert candidate.recipe is not None
    assert PAPER_RECIPE.candidate(PAPER_RECIPE.sample(1, RNG(0))[0]).arch == ARCHS["fbnetv2_l3"]
    assert PAPER.hold({"resolution": 240}).hold({"resolution": 248}).values(code * 0)["resolution"] == 248


def rates(space: Space, searched: float) -> dict[str, float]:
    """The learning rate of every optimizer of ``space`` at the same point otherwise; its recipes come back."""
    found = {}
    values = {**space.values(space.sample(1, RNG(1))[0]), "recipe.learning_rate": searched}
    (optimizers,) = (d.options.values for d in space.dimensions if d.name == "recipe.optimizer")
    for optimizer in optimizers:
        values["recipe.optimizer"] = optimizer
        recipe = space.candidate(space.code(values)).recipe
        assert recipe is not None
        assert space.recipes is not None
        assert space.recipes.values_of(recipe) == ({n: v for n, v in values.items() if n.startswith("recipe.")}, [])
        found[optimizer] = recipe.learning_rate
    return found


def test_every_optimizer_has_rates_of_its_own() -> None:
    assert rates(PAPER, 0.021) == {"rmsprop": 0.021, "sgd": 0.084}
    factors = RateFactors(rmsprop=0.5, adamw=0.125)
    assert TINY.recipes is not None
    other = replace(TINY, recipes=replace(TINY.recipes, rate_factors=factors))
    assert rates(other, 0.08) == {"rmsprop": 0.04, "sgd": 0.08, "adamw": 0.01}
    assert Space.from_json(other.to_json()) == other
    said = refusal(lambda: RateFactors(adamw=0))
    assert said == "RateFactors.adamw is 0; it must be a number above 0"


OPTIONS: st.SearchStrategy[Options] = st.one_of(
    st.builds(
        lambda v: Choice(tuple(v)), st.lists(st.text() | st.integers(0, 9), min_size=1, unique_by=str, max_size=5)
    ),
    st.builds(lambda low, step, n, unit: Range(low, low + step * n, step, unit),
              st.integers(0, 99), st.integers(1, 9), st.integers(0, 20), st.sampled_from((1, 0.5, 1e-6))),
    st.builds(lambda v: Levels(tuple(sorted(v))), st.sets(st.floats(-1e5, 1e5), min_size=1, max_size=6)),
)  # fmt: skip


@given(st.lists(OPTIONS, min_size=1, max_size=5), st.data())
def test_any_space_survives_json_and_its_points_the_encoding(options: list[Options], data: st.DataObject) -> None:
    part = st.sampled_from(("architecture", "recipe"))
    space = Space("any", others=tuple(Dimension(f"d{n}", o, data.draw(part)) for n, o in enumerate(options)))
    space = space.hold({"d0": options[0].values[0]}) if data.draw(st.booleans()) else space
    assert Space.from_json(space.to_json()) == space
    codes = space.sample(20, RNG(0), method="uniform")
    np.testing.assert_array_equal(space.decode(space.encode(codes)), codes)
    np.testing.assert_array_equal(np.array([space.code(space.values(code)) for code in codes]), codes)


@every
def test_shipped_spaces_survive_json(space: Space, tmp_path: Path) -> None:
    assert Space.from_json(space.to_json()) == space
    path = tmp_path / "mine.json"
    path.write_text(space.to_json())
    assert find_space(path) == find_space(space.name) == find_space(space) == space


def edited(*path: Any, to: Any) -> Callable[[], Space]:
    data = json.loads(TINY.to_json())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return lambda: Space.from_json(json.dumps(data))


WRONG: tuple[tuple[tuple[Any, ...], Any, str], ...] = (
    (("netwrks",), 1, "space has an unknown key 'netwrks' (did you mean 'networks'?)"),
    (("networks", "resolution"), {"op": "choice", "values": []},
     "space.networks.resolution: Choice.values is (); give at least one value"),
    (("networks", "resolution"), {"op": "choice", "values": [32, 32]},
     "space.networks.resolution: Choice.values (32, 32) has a value twice"),
    (("networks", "resolution"), {"op": "range", "low": 10, "high": 33, "step": 8},
     "space.networks.resolution: Range from 10 to 33: 8 does not divide it into whole steps"),
    (("networks", "resolution"), {"op": "levels", "values": [32, 16]},
     "space.networks.resolution: Levels.values is (32, 16); give numbers in rising order"),
    (("networks", "resolution"), {"op": "rnge", "low": 10},
     "space.networks.resolution.op is 'rnge'; choose from choice, range, levels"),
    (("networks", "stages", 0), [],
     "space.networks: Networks.stages has an empty stage; every stage needs a row"),
    (("networks", "stages", 1, 0, "depth"), {"op": "choice", "values": [0, 1]},
     "space.networks: row2.depth is 0; it must be a whole number of at least 1"),
    (("recipes", "settings", 0, "field"), "lerning_rate",
     "space.recipes: recipes: 'lerning_rate' is no field of a recipe (did you mean 'learning_rate'?)"),
    (("recipes", "settings", 1, "options"), {"op": "choice", "values": ["adam"]},
     "space.recipes: recipes: optimizer: optimizer is 'adam'; choose from rmsprop, sgd, adamw"),
    (("recipes", "settings", 3, "options"), {"op": "choice", "values": [2.0]},
     "space.recipes: recipes: dropout: Recipe.dropout is 2.0; it must be a number at least 0 and below 1"),
    (("others",), [{"name": "resolution", "options": {"op": "choice", "values": [1]}}],
     "space: space tiny: has dimensions of the same name: resolution"),
    (("held",), [{"name": "resolution", "value": 40}], "space: resolution: 40 is not among 32"),
    (("held",), [{"name": "resolutio", "value": 32}],
     "space: space tiny: has no dimension 'resolutio' to hold (did you mean 'resolution'?)"),
    (("model",), "fbnetv3_a", "space: space tiny: has networks and the fixed model 'fbnetv3_a'; leave one out"),
    (("version",), 2, "space JSON has version 2; this release reads version 1"),
)  # fmt: skip


@pytest.mark.parametrize(("path", "to", "said"), WRONG, ids=["-".join(map(str, path)) for path, *_ in WRONG])
def test_wrong_files(path: tuple[Any, ...], to: Any, said: str) -> None:
    assert refusal(edited(*path, to=to)) == said


def test_wrong_arguments(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    for call, said in (
        (lambda: Space("x"), "space x: has no dimensions"),
        (lambda: find_space("papr"), "unknown space 'papr' (did you mean 'paper'?); shipped are paper, paper_recipe, "
                                     "tiny, letters, others are JSON files"),
        (lambda: find_space(tmp_path / "none.json"),
         f"{tmp_path}/none.json: no such file"),
        (lambda: find_space(tmp_path / "bad.json"),
         f'{tmp_path}/bad.json: space JSON lacks "format": "fbnetv3_zoo.space"; write such files with to_json()'),
        (lambda: PAPER.check(np.zeros((1, 3))), "codes have shape (1, 3); space paper has 49 dimensions"),
        (lambda: PAPER.check(np.full((1, 49), 99)), "codes[0, 0] is 99; resolution has 7 values, counted from 0"),
        (lambda: PAPER.check(np.full((1, 49), -1)), "codes[0, 0] is -1; resolution has 7 values, counted from 0"),
        (lambda: PAPER.hold({"resolution": 225}), "resolution: 225 is not among 224, 232, 240, 248, 256, 264, 272"),
        (lambda: TINY.hold({"recipe.augmentation.shift": 1}), "recipe.augmentation.shift: 1 is not among True, False"),
        (lambda: PAPER_RECIPE.outside(ARCHS["fbnetv3_a"]), "space paper_recipe: searches no networks"),
    ):  # fmt: skip
        assert refusal(call) == said
    assert refusal(lambda: PAPER_RECIPE.code({})).startswith("values lack recipe.learning_rate, recipe.optimizer, ")


@pytest.mark.parametrize("made", [lambda: Range(0, 999_999), lambda: Choice(tuple(range(2000)))])
def test_dimensions_of_more_values_than_anyone_chooses_from(made: Callable[[], object]) -> None:
    assert refusal(made).endswith("can be chosen from")
