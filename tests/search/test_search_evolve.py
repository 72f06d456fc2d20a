"""Stage 3: it finds known optima within its calls, under constraints that every point it returns meets."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from refusals import refusal

from fbnetv3_zoo.search.space import (
    PAPER,
    TINY,
    Bound,
    Choice,
    Codes,
    Dimension,
    NetworkCosts,
    NoCosts,
    Range,
    Space,
    all_points,
    distinct,
    outside,
    parse_constraint,
    violation,
)
from fbnetv3_zoo.search.stages import EvolutionConfig, evolve, pareto
from fbnetv3_zoo.search.stages.evolution import Doubles

COSTS = NetworkCosts(PAPER)
WEIGHTS = np.random.default_rng(0).normal(size=PAPER.width())
FEW = EvolutionConfig(evaluations=240, population=16)
NONE = np.zeros((0, len(PAPER.dimensions)), np.int64)


def linear(codes: Codes) -> Doubles:
    """Larger networks are better; every other choice has a value of its own.

    Summed row by row: a matrix product rounds a row by how many others there are, on some processors.
    """
    return (PAPER.encode(codes).astype(np.float64) * WEIGHTS).sum(1) + 20 * np.log(COSTS(codes)["macs"] / 1e9)


class Counted:
    """A score that keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Codes] = []

    def __call__(self, codes: Codes) -> Doubles:
        self.asked.append(codes.copy())
        return linear(codes)


def test_many_constraints_in_one_call() -> None:
    constraints = [parse_constraint(text) for text in ("macs<=550M", "macs<=450M,parameters<=8M", "600M<=macs<=640M")]
    score = Counted()
    seeds = PAPER.sample(20, np.random.default_rng(5), method="uniform")
    found = evolve(score, PAPER, COSTS, constraints, seeds=seeds, evolving=FEW, seed=4)
    asked = np.concatenate(score.asked)
    assert len(asked) <= 3 * FEW.evaluations
    assert not violation(constraints[2], COSTS(found[2].codes)).any()
    for constraint, evolved in zip(constraints, found, strict=True):
        assert evolved.constraint == constraint
        assert not outside(COSTS, constraint, evolved.codes).any()
        np.testing.assert_array_equal(PAPER.check(evolved.codes), evolved.codes)
        assert len(distinct(evolved.codes)) == len(evolved.codes) == FEW.population
        np.testing.assert_allclose(evolved.scores, linear(evolved.codes), atol=1e-9)
        assert (np.diff(evolved.scores) <= 0).all()
        calls, bests = zip(*evolved.progress, strict=True)
        assert max(calls) <= FEW.evaluations
        assert all(a <= b for a, b in pairwise(calls))
        assert all(a <= b for a, b in pairwise(bests))
        assert bests[-1] == evolved.scores[0]
        inside = asked[outside(COSTS, constraint, asked) == 0]
        assert evolved.scores[0] == pytest.approx(linear(inside).max(), abs=1e-9)
    again = evolve(linear, PAPER, COSTS, constraints, seeds=seeds, evolving=FEW, seed=4)
    assert [one.codes.tolist() for one in again] == [one.codes.tolist() for one in found]
    assert evolve(linear, PAPER, COSTS, constraints[:1], evolving=FEW, seed=5)[0].codes.tolist() != (
        found[0].codes.tolist()
    )


def test_looser_bounds_are_no_worse_in_any_order() -> None:
    bounds = (600, 480, 540)
    found = evolve(linear, PAPER, COSTS, [parse_constraint(f"macs<={bound}M") for bound in bounds], evolving=FEW)
    best = {bound: evolved.scores[0] for bound, evolved in zip(bounds, found, strict=True)}
    assert best[480] <= best[540] <= best[600]


def test_it_finds_the_optimum_without_a_constraint() -> None:
    def sharp(codes: Codes) -> Doubles:
        return -((codes - PAPER.sizes // 3) ** 2).sum(1).astype(np.float64)

    enough = EvolutionConfig(evaluations=30_000)
    found = evolve(sharp, PAPER, COSTS, [()], evolving=enough, seed=1)[0]
    assert found.codes[0].tolist() == (PAPER.sizes // 3).tolist()
    assert found.progress[-1][0] < enough.evaluations  # it stopped when a new beginning brought nothing better


def test_it_begins_anew_where_calls_are_left() -> None:
    """On a function of many basins a beginning often ends in a lesser one; others then find better ones."""
    rng = np.random.default_rng(3)
    one, other = (rng.normal(size=(PAPER.width(), 12)) for _ in range(2))

    def rugged(codes: Codes) -> Doubles:
        encoded = PAPER.encode(codes) - 0.5
        return ((encoded @ one) * (encoded @ other)).sum(1)

    few, many = (
        evolve(rugged, PAPER, COSTS, [()], evolving=EvolutionConfig(evaluations=calls), seed=2)[0]
        for calls in (4800, 20_000)
    )
    assert many.progress[: len(few.progress) - 1] == few.progress[:-1]
    assert many.scores[0] > few.scores[0] + 5
    assert many.scores[0] == many.progress[-1][1] == pytest.approx(rugged(many.codes[:1])[0])
    assert len(distinct(many.codes)) == len(many.codes) == EvolutionConfig().population


def test_the_optimum_of_a_knapsack() -> None:
    """Twenty items of known worth and weight: the best sum under a bound, by dynamic programming."""
    rng = np.random.default_rng(8)
    worth, weight = rng.integers(10, 100, 20), rng.integers(10, 60, 20)
    items = Space("items", others=tuple(Dimension(f"item{n}", Choice((False, True))) for n in range(20)))

    class Weight:
        names = ("weight",)

        def __call__(self, codes: Codes) -> dict[str, Doubles]:
            return {"weight": (codes @ weight).astype(np.float64)}

    best = np.zeros(301)
    for gain, load in zip(worth, weight, strict=True):
        best[load:] = np.maximum(best[load:], best[: 301 - load] + gain)
    how = EvolutionConfig(evaluations=4000)
    found = evolve(
        lambda c: (c @ worth).astype(float), items, Weight(), [parse_constraint("weight<=300")], evolving=how
    )
    assert found[0].scores[0] == best[300]


def test_it_begins_with_seeds() -> None:
    constraint = parse_constraint("macs<=500M")
    good = evolve(linear, PAPER, COSTS, [constraint], evolving=FEW)[0]
    short = EvolutionConfig(population=16, evaluations=40)
    begun = evolve(linear, PAPER, COSTS, [constraint], seeds=good.codes[:3], evolving=short)[0]
    assert begun.scores[0] >= good.scores[0]
    assert begun.progress[0][1] >= good.scores[0]
    bound = COSTS(good.codes[:1])["macs"][0] - 1e6
    moved = evolve(linear, PAPER, COSTS, [parse_constraint(f"macs<={bound:.0f}")], seeds=good.codes, evolving=short)[0]
    alone = evolve(linear, PAPER, COSTS, [parse_constraint(f"macs<={bound:.0f}")], seeds=NONE, evolving=short)[0]
    assert moved.scores[0] > alone.scores[0]  # seeds just outside are moved inside


def test_small_spaces_are_scored_whole() -> None:
    small = Space("small", others=tuple(Dimension(f"d{n}", Range(0, 4)) for n in range(3)))
    rough = np.random.default_rng(2).normal(size=(5, 5, 5))
    asked: list[Codes] = []

    def score(codes: Codes) -> Doubles:
        asked.append(codes)
        return rough[tuple(codes.T)]

    found = evolve(score, small, NoCosts(), [()])[0]
    assert found.scores[0] == rough.max()
    assert np.concatenate(asked).tolist() == all_points(small).tolist()
    held = small.hold({"d0": 1, "d1": 2, "d2": 3})
    assert evolve(lambda c: c[:, 0] * 1.0, held, NoCosts(), [()])[0].codes.tolist() == [[0, 0, 0]]
    flat = evolve(lambda c: np.zeros(len(c)), PAPER, COSTS, [()], evolving=FEW)[0]
    assert set(flat.scores) == {0.0}


def test_what_it_refuses() -> None:
    said = refusal(lambda: evolve(linear, PAPER, COSTS, [parse_constraint("macs<=450M"), parse_constraint("macs<=9M")]))
    assert said == "no point of space paper meets macs<=9M; the nearest reachable has macs 214,116,360"
    said = refusal(lambda: evolve(linear, PAPER, COSTS, [parse_constraint("latency<=9")]))
    assert said.startswith("bound latency<=9: there is no cost 'latency'")
    said = refusal(lambda: evolve(linear, PAPER, COSTS, [()], seeds=np.zeros((2, 3), np.int64)))
    assert said == "codes have shape (2, 3); space paper has 49 dimensions"
    for bad in (np.nan, np.inf):
        said = refusal(lambda bad=bad: evolve(lambda c: np.full(len(c), bad), PAPER, COSTS, [()], evolving=FEW))  # type: ignore[misc]
        assert said.startswith("score() gave ")
    said = refusal(lambda: evolve(lambda c: np.zeros((len(c), 2)), PAPER, COSTS, [()], evolving=FEW))
    assert said == "score() gave (32, 2) for 32 points; it must give one finite number each"
    for make, expected in (
        (
            lambda: EvolutionConfig(population=3),
            "EvolutionConfig.population is 3; it must be a whole number of at least 4",
        ),
        (
            lambda: EvolutionConfig(evaluations=63),
            "EvolutionConfig.evaluations is 63; it must be a whole number of at least 64",
        ),
        (lambda: EvolutionConfig(patience=0), "EvolutionConfig.patience is 0; it must be a whole number of at least 1"),
        (
            lambda: EvolutionConfig(crossover=-1),
            "EvolutionConfig.crossover is -1; it must be a number at least 0 and at most 1",
        ),
        (
            lambda: EvolutionConfig(mutation=2),
            "EvolutionConfig.mutation is 2; it must be a number above 0 and at most 1",
        ),
    ):
        assert refusal(make) == expected


@pytest.mark.parametrize("switch", ["linear_fit", "local_search", "restarts", "scaled_rates"])
def test_each_switch_to_the_letter_of_the_paper(switch: str) -> None:
    """Without it other points are asked for; what is returned still meets the constraint, and repeats."""
    constraint = parse_constraint("macs<=550M")
    how = EvolutionConfig(population=8, evaluations=6000, patience=1)
    asked = []
    for evolving in (how, replace(how, **{switch: False}), replace(how, **{switch: False})):
        score = Counted()
        (found,) = evolve(score, PAPER, COSTS, [constraint], evolving=evolving, seed=1)
        assert not outside(COSTS, constraint, found.codes).any()
        asked.append(np.concatenate(score.asked).tolist())
    assert asked[0] != asked[1] == asked[2]


def test_mutation_alone_rises_and_ends() -> None:
    """To the letter of the paper, a search ends when its best score has stopped rising."""
    how = EvolutionConfig(
        population=4, evaluations=4000, patience=3, crossover=0, linear_fit=False, local_search=False, restarts=False,
        scaled_rates=False,
    )  # fmt: skip
    score = Counted()
    (found,) = evolve(score, PAPER, COSTS, [parse_constraint("macs<=550M")], evolving=how, seed=0)
    assert sum(map(len, score.asked)) < how.evaluations
    bests = [best for _, best in found.progress]
    assert bests[-1] == bests[-1 - how.patience] > bests[0]


def test_the_front_has_no_point_that_another_surpasses() -> None:
    within = parse_constraint("parameters<=12M")
    how = EvolutionConfig(population=8, evaluations=100)
    front = pareto(linear, PAPER, COSTS, cost="macs", steps=5, within=within, evolving=how, seed=3)
    assert 3 <= len(front.codes) <= 5
    np.testing.assert_array_equal(front.costs, COSTS(front.codes)["macs"])
    np.testing.assert_allclose(front.scores, linear(front.codes), atol=1e-9)
    assert not outside(COSTS, within, front.codes).any()
    assert (np.diff(front.costs) > 0).all()
    assert (np.diff(front.scores) > 0).all()
    assert front.costs[0] == 214116360  # the least reachable


def test_a_bound_that_few_points_meet_is_not_refused_in_a_restart() -> None:
    """What met it before stays, though random points that meet it cannot be found again."""
    costs = NetworkCosts(TINY)
    known = TINY.sample(400, np.random.default_rng(3))
    (value,) = costs(known[:1])["macs"]
    exactly = (Bound("macs", float(value), float(value)),)
    (found,) = evolve(lambda codes: codes.sum(1).astype(float), TINY, costs, [exactly], seeds=known[:1])
    assert (costs(found.codes)["macs"] == value).all()


def test_fronts_that_are_refused() -> None:
    said = refusal(lambda: pareto(linear, PAPER, COSTS, steps=1))
    assert said == "pareto: steps is 1; it must be a whole number of at least 2"
    said = refusal(lambda: pareto(linear, PAPER, COSTS, cost="mac"))
    assert said.startswith("bound mac<=1: there is no cost 'mac' (did you mean 'macs'?)")
