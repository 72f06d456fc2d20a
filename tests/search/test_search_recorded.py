"""Recordings: kept in a file, refused when damaged, replayed as an evaluator and as costs."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.search.evaluation import TABLES, Outcome, RecordedCosts, RecordedCurves, Recording, record
from fbnetv3_zoo.search.evaluation.tabular import _FILE
from fbnetv3_zoo.search.predictors import MLP
from fbnetv3_zoo.search.space import LETTERS, TINY, Bound, Choice, Dimension, Levels, NetworkCosts, Space, draw_pool
from fbnetv3_zoo.search.stages import IterativeConfig, IterativeSearch

SPACE = Space(
    "toy",
    others=(
        Dimension("rate", Levels((0.1, 0.3)), "recipe"),
        Dimension("width", Levels((8, 16, 32)), "architecture"),
        Dimension("act", Choice(("relu", "tanh")), "architecture"),
    ),
)
NAN = float("nan")
GIVE = "give (12 points, repeats, epochs), none of them 0"


def codes() -> np.ndarray:
    """All 12 points."""
    return np.stack(np.meshgrid(range(3), range(2), range(2), indexing="ij"), -1).reshape(-1, 3)


def toy(**changes: object) -> Recording:
    """Two repeats of three epochs; point 0 has one repeat, of two epochs."""
    curves = np.arange(12 * 2 * 3, dtype=float).reshape(12, 2, 3)
    curves[0] = [[0, 1, NAN], [NAN, NAN, NAN]]
    given = {"space": SPACE, "codes": codes(), "curves": curves, "statistics": {"size": np.arange(12.0)}}
    return Recording(**{**given, **changes})  # type: ignore[arg-type]


def same(a: Recording, b: Recording) -> bool:
    """Whether two recordings hold the same, bit for bit."""
    assert a.space == b.space
    assert [*a.statistics] == [*b.statistics]
    pairs = [(a.codes, b.codes), (a.curves, b.curves), *((a.statistics[n], b.statistics[n]) for n in a.statistics)]
    assert (a.test_curves is None) == (b.test_curves is None)
    if a.test_curves is not None and b.test_curves is not None:
        pairs.append((a.test_curves, b.test_curves))
    return all(x.tobytes() == y.tobytes() and x.dtype == y.dtype for x, y in pairs)


def test_lengths_scores_and_means_pass_over_what_is_missing() -> None:
    found = toy()
    assert len(found) == 12
    assert found.lengths[0].tolist() == [2, 0]
    assert found.lengths[1].tolist() == [3, 3]
    np.testing.assert_array_equal(found.scores[0], [1, NAN])
    np.testing.assert_array_equal(found.scores[1], [8, 11])
    np.testing.assert_array_equal(found.mean[:3], [1, 9.5, 15.5])


def test_a_recording_is_a_value_of_its_own() -> None:
    given = {"codes": codes(), "curves": np.ones((12, 1, 1)), "statistics": {"size": np.ones(12)}}
    found = toy(**given)
    given["codes"][:], given["curves"][:], given["statistics"]["size"][:] = 0, 5, 5  # type: ignore[index]
    assert found.codes[-1].tolist() == [2, 1, 1]
    assert found.curves.max() == found.statistics["size"].max() == 1
    with pytest.raises(ValueError, match="read-only"):
        found.curves[0] = 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"curves": np.ones((11, 1, 1))}, f"curves have shape (11, 1, 1); {GIVE}"),
        ({"curves": np.ones((12, 3))}, f"curves have shape (12, 3); {GIVE}"),
        ({"curves": np.ones((12, 0, 1))}, f"curves have shape (12, 0, 1); {GIVE}"),
        ({"curves": np.full((12, 1, 1), np.inf)}, "curves have an infinite score; leave failed trainings out"),
        (
            {"curves": np.where(np.arange(12 * 2).reshape(12, 1, 2) == 6, NAN, 1.0)},
            "curves have NaN before a score; it may only stand after a curve's end and after the last repeat",
        ),
        (
            {"curves": np.where(np.arange(12 * 2).reshape(12, 2, 1) == 6, NAN, 1.0)},
            "curves have NaN before a score; it may only stand after a curve's end and after the last repeat",
        ),
        (
            {"curves": np.where(np.arange(12).reshape(12, 1, 1) == 6, NAN, 1.0)},
            "curves[6] has no score; leave such points out",
        ),
        ({"statistics": {"size": np.ones(3)}}, "statistic size: give one finite number for each of the 12 points"),
        (
            {"statistics": {"size": np.full(12, NAN)}},
            "statistic size: give one finite number for each of the 12 points",
        ),
        ({"codes": codes() + 1}, "codes[1, 2] is 2; rate has 2 values, counted from 0"),
        (
            {"test_curves": np.ones((12, 2, 3))},  # has scores that curves lack
            "test_curves: give scores of the shape (12, 2, 3), for the same epochs as curves",
        ),
        (
            {"test_curves": np.ones((12, 2, 2))},
            "test_curves: give scores of the shape (12, 2, 3), for the same epochs as curves",
        ),
        (
            {"codes": np.zeros((12, 3), int)},
            "codes have 11 points twice; give a point's curves as its repeats",
        ),
    ],
)  # fmt: skip
def test_what_is_no_recording_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ZooError, match=f"^{re.escape(said)}$"):
        toy(**changes)


def test_scores_on_test_images_stay_beside_those_that_a_search_sees(tmp_path: Path) -> None:
    tested = toy(test_curves=toy().curves + 100)
    np.testing.assert_array_equal(tested.test_mean, tested.mean + 100)
    tested.save(tmp_path / "a.safetensors")
    assert same(Recording.load(tmp_path / "a.safetensors"), tested)
    part = tested.part(np.array([3, 1]))
    np.testing.assert_array_equal(part.codes, tested.codes[[3, 1]])
    np.testing.assert_array_equal(part.test_mean, tested.test_mean[[3, 1]])
    assert part.statistics["size"].tolist() == [3, 1]
    assert same(tested.within(SPACE), tested)
    with pytest.raises(ZooError, match=r"^the recording has no scores on test images$"):
        _ = toy().test_mean


def test_a_file_gives_back_the_same(tmp_path: Path) -> None:
    toy().save(tmp_path / "a.safetensors")
    assert same(Recording.load(tmp_path / "a.safetensors"), toy())
    bare = Recording(TINY, np.zeros((1, len(TINY.dimensions)), int), np.ones((1, 1, 1)))
    bare.save(tmp_path / "deep" / "b.safetensors")
    assert same(Recording.load(tmp_path / "deep" / "b.safetensors"), bare)
    assert not list(tmp_path.rglob(".*"))


def test_every_cut_and_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    small = toy(codes=codes()[:2], curves=np.ones((2, 1, 1)), statistics={"size": np.ones(2)})
    small.save(path)
    good = path.read_bytes()
    for length in range(0, len(good), 7):
        path.write_bytes(good[:length])
        with pytest.raises(ZooError, match=f"^{re.escape(str(path))}: "):
            Recording.load(path)
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        try:
            read = Recording.load(path)
        except ZooError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 - a harmless place, in the header's padding, is read
        else:
            assert same(read, small)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"w": np.ones(2)}, path)
    with pytest.raises(ZooError, match=r"weights\.safetensors: is no recording \(format 'fbnetv3_zoo.recording 1'\); "):
        Recording.load(path)
    path.write_text("hello")
    with pytest.raises(ZooError, match=r"weights\.safetensors: cannot be read as a recording \(.*\); save it again$"):
        Recording.load(path)
    with pytest.raises(ZooError, match=r"none: no such file$"):
        Recording.load(tmp_path / "none")
    with pytest.raises(ZooError, match=r"is a folder, not a recording$"):
        Recording.load(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "metadata", "said"),
    [
        ({"codes": None}, {}, "lacks codes"),
        ({"curves": None}, {}, "lacks curves"),
        ({}, {"space": None}, "lacks space"),
        ({"curves": None, "codes": None}, {"space": None}, "lacks codes, curves, space"),
        ({"codes": np.full((2, 3), 1e300)}, {}, "has 'codes' of type float64, unlike a recording"),
        ({"curves": np.ones((2, 1, 1), int)}, {}, "has 'curves' of type int64, unlike a recording"),
        ({"statistic.size": np.ones(2, bool)}, {}, "has 'statistic.size' of type bool, unlike a recording"),
    ],
)
def test_a_file_with_a_digest_that_fits_but_other_contents_is_refused(
    arrays: dict[str, np.ndarray | None], metadata: dict[str, str | None], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    entries: dict[str, object] = {"codes": codes()[:2], "curves": np.ones((2, 1, 1)), "statistic.size": np.ones(2)}
    _FILE.write(path, *(
        {name: value for name, value in whole.items() if value is not None}
        for whole in (entries | arrays, {"space": SPACE.to_json()} | metadata)
    ))  # fmt: skip
    with pytest.raises(ZooError, match=f"^{re.escape(f'{path}: {said}; save it again')}$"):
        Recording.load(path)


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_the_package_are_the_recorded_trainings(name: str) -> None:
    """Every curve stands in benchmarks/nars_letters/trainings.jsonl, from which `nars_letters.py tables` makes them."""
    shipped, data = Recording.load(name), name.removeprefix("nars-")
    assert shipped.space == LETTERS
    lines = Path(__file__).parents[2] / "benchmarks" / "nars_letters" / "trainings.jsonl"
    trainings = [row for row in map(json.loads, lines.read_text().splitlines()) if row["data"] == data]
    assert (shipped.lengths > 0).sum() == len(trainings)
    assert set(shipped.lengths.ravel()) <= {0, 12}
    assert shipped.test_curves is not None
    trainings.sort(key=lambda one: one["seed"])
    slots = [0] * len(shipped)
    for row, training in zip(shipped.rows(np.array([one["code"] for one in trainings])), trainings, strict=True):
        assert shipped.curves[row, slots[row]].tolist() == training["validation"]
        assert shipped.test_curves[row, slots[row]].tolist() == training["test"]
        slots[row] += 1
    costs = NetworkCosts(LETTERS)(shipped.codes)
    assert all((shipped.statistics[cost] == values).all() for cost, values in costs.items())
    within = (shipped.statistics["macs"] >= 0.3e6) & (shipped.statistics["macs"] <= 3e6)
    assert within.all()


def test_a_name_that_no_table_has() -> None:
    with pytest.raises(ZooError, match=r"^nars-leters: no such file \(did you mean 'nars-letters'\?\)$"):
        Recording.load("nars-leters")


def draws(recorded: Recording, seed: int) -> list[bool]:
    """Whether the first repeat of every point but the first was drawn."""
    evaluator = RecordedCurves(recorded, seed)
    found = [evaluator(SPACE.candidate(code), 3) for code in recorded.codes[1:]]
    return [curve == first for curve, first in zip(found, recorded.curves[1:, 0].tolist(), strict=True)]


def test_the_evaluator_gives_the_same_repeat_of_a_point_every_time() -> None:
    recorded = toy()
    evaluator = RecordedCurves(recorded, seed=3)
    found = [evaluator(SPACE.candidate(code), 3) for code in recorded.codes[1:]]
    rows = range(1, 12)
    assert all(curve in recorded.curves[row].tolist() for row, curve in zip(rows, found, strict=True))
    again = pickle.loads(pickle.dumps(evaluator))
    assert [again(SPACE.candidate(code, "another name"), 3) for code in recorded.codes[1:]] == found
    assert [evaluator(SPACE.candidate(code), 2) for code in recorded.codes[1:]] == [curve[:2] for curve in found]
    drawn = np.array([draws(recorded, seed) for seed in range(40)])
    assert 0.4 < drawn.mean() < 0.6  # both repeats, as often
    assert 0 < drawn[0].mean() < 1  # a seed does not draw the same repeat of all points


def test_curves_that_are_too_short_or_missing_are_told_of() -> None:
    evaluator = RecordedCurves(toy())
    assert evaluator(SPACE.candidate([0, 0, 0]), 2) == [0, 1]
    with pytest.raises(ZooError, match=r"^candidate: 2 epochs were recorded; 3 are asked for$"):
        evaluator(SPACE.candidate([0, 0, 0]), 3)
    with pytest.raises(ZooError, match=r"^it: 3 epochs were recorded; 4 are asked for$"):
        evaluator(SPACE.candidate([1, 0, 0], "it"), 4)
    part = RecordedCurves(toy(codes=codes()[:2], curves=np.ones((2, 1, 1)), statistics={}))
    said = "^the recording of 2 points of space toy lacks the point width=16, act=relu, rate=0.3$"
    with pytest.raises(ZooError, match=said):
        part(SPACE.candidate([1, 0, 1]), 1)


def test_the_longest_enough_repeat_is_taken() -> None:
    curves = np.array([[[1, 2, 3], [4, NAN, NAN]]], float)
    for seed in range(20):
        assert RecordedCurves(toy(codes=codes()[:1], curves=curves, statistics={}), seed)(
            SPACE.candidate([0, 0, 0]), 2
        ) == [1, 2]


def test_costs_are_those_recorded() -> None:
    costs = RecordedCosts(toy())
    assert costs.names == ("size",)
    assert costs(codes()[[3, 1]])["size"].tolist() == [3, 1]
    pool = draw_pool(SPACE, costs, (Bound("size", at_most=4),), 100, np.random.default_rng(0))
    assert pool.costs["size"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ZooError, match=r"lacks the point width=8, act=tanh, rate=0.1"):
        RecordedCosts(toy(codes=codes()[:2], curves=np.ones((2, 1, 1)), statistics={}))(codes())


def test_a_sub_space_sees_its_own_points() -> None:
    recorded = toy()
    recipes = SPACE.hold_part("architecture", [2, 1, 0])
    part = recorded.within(recipes)
    assert part.codes.tolist() == [[0, 0, 0], [0, 0, 1]]
    assert part.statistics["size"].tolist() == [10, 11]
    evaluator = RecordedCurves(recorded, 1)
    assert evaluator(recipes.candidate([0, 0, 1]), 3) == evaluator(SPACE.candidate([2, 1, 1]), 3)
    with pytest.raises(ZooError, match=r"^the recording of 1 points has none of space toy$"):
        toy(codes=codes()[:1], curves=np.ones((1, 1, 1)), statistics={}).within(recipes)
    with pytest.raises(ZooError, match=r"^space tiny has other dimensions than the recording's space toy$"):
        recorded.within(TINY)


def test_curves_of_searches_become_a_recording() -> None:
    made = record(
        SPACE, [((1, 0, 0), (0.5, 0.6)), ((0, 1, 1), (0.2,)), ((1, 0, 0), (0.7, 0.8, 0.9))], RecordedCosts(toy())
    )
    assert made.codes.tolist() == [[1, 0, 0], [0, 1, 1]]
    np.testing.assert_array_equal(made.curves[0], [[0.7, 0.8, 0.9], [0.5, 0.6, NAN]])
    np.testing.assert_array_equal(made.curves[1], [[0.2, NAN, NAN], [NAN, NAN, NAN]])
    assert made.statistics["size"].tolist() == [4, 3]
    assert not record(SPACE, [((0, 0, 0), (1.0,))]).statistics
    with pytest.raises(ZooError, match=r"^there are no learning curves to record$"):
        record(SPACE, [])
    with pytest.raises(ZooError, match=r"^codes\[0, 0\] is 9; width has 3 values, counted from 0$"):
        record(SPACE, [((9, 0, 0), (1.0,))])


def test_a_search_over_a_recording_finds_its_best_point(tmp_path: Path) -> None:
    toy().save(tmp_path / "toy.safetensors")
    recorded = Recording.load(tmp_path / "toy.safetensors")
    evaluator = RecordedCurves(recorded, 1)
    search = IterativeSearch(
        SPACE, recorded.codes[1:], IterativeConfig(3, rounds=4, batch=3, predictor=MLP(members=2, steps=4))
    )
    while trials := search.ask():
        curves = [evaluator(SPACE.candidate(trial.code), trial.epochs) for trial in trials]
        search.tell([Outcome(trial.number, tuple(curve)) for trial, curve in zip(trials, curves, strict=True)])
    assert search.state.best(1).tolist() == [[2, 1, 1]]
