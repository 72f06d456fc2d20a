"""Points under constraints: pools, and refusing at once what no point meets."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refusal

from fbnetv3_zoo.search.space import (
    PAPER,
    TINY,
    Choice,
    Codes,
    Costs,
    Dimension,
    NetworkCosts,
    NoCosts,
    Range,
    Space,
    all_points,
    changed,
    descend,
    distinct,
    draw_pool,
    feasible_points,
    outside,
    parse_constraint,
)

COSTS = NetworkCosts(PAPER)
SMALL = Space("small", others=(Dimension("a", Range(0, 3)), Dimension("b", Choice(("x", "y", "z")))))


class Waves:
    """A cost that rises and falls along every dimension, as latency does."""

    names = ("wave",)

    def __call__(self, codes: Codes) -> Costs:
        return {
            "wave": 10
            + (np.sin(codes * 1.7 + np.arange(codes.shape[1])) * np.arange(1, codes.shape[1] + 1) / codes.shape[1]).sum(
                1
            )
        }


class Sum:
    names = ("sum",)

    def __call__(self, codes: Codes) -> Costs:
        return {"sum": codes.sum(1).astype(np.float64)}


def generator() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize(
    "text",
    ["", "macs<=450M", "400M<=macs<=402M", "400M<=macs<=800M,parameters<=9M", "1200M<=macs"],
)
def test_pools_meet_their_constraint(text: str) -> None:
    constraint = parse_constraint(text)
    pool = draw_pool(PAPER, COSTS, constraint, 80, generator())
    assert pool.codes.shape == (80, len(PAPER.dimensions))
    assert len(distinct(pool.codes)) == 80
    assert not outside(COSTS, constraint, pool.codes).any()
    np.testing.assert_array_equal(PAPER.check(pool.codes), pool.codes)
    for name, values in COSTS(pool.codes).items():
        np.testing.assert_array_equal(pool.costs[name], values)
    again = draw_pool(PAPER, COSTS, constraint, 80, generator())
    np.testing.assert_array_equal(again.codes, pool.codes)


def test_pools_are_spread() -> None:
    """Where few points meet a constraint, those made for it still differ in most of their dimensions."""
    pool = draw_pool(PAPER, COSTS, parse_constraint("300M<=macs<=305M"), 60, generator())
    one, other = pool.codes[:30], pool.codes[30:]
    free = (PAPER.sizes > 1).sum()
    assert np.median((one != other).sum(1)) > 0.4 * free


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        ("macs<=100M", "macs 214,116,360"),
        ("macs<=214116359", "macs 214,116,360"),
        ("parameters<=1M,macs<=1G", None),
        ("3G<=macs", None),
    ],
)
def test_unreachable_constraints_are_refused_with_the_nearest_value(text: str, reached: str | None) -> None:
    constraint = parse_constraint(text)
    said = refusal(lambda: draw_pool(PAPER, COSTS, constraint, 100, generator()))
    start = f"no point of space paper meets {','.join(map(str, constraint))}; the nearest reachable has "
    assert said.startswith(start)
    if reached:
        assert said == start + reached
    corners = COSTS(np.stack([np.zeros_like(PAPER.sizes), PAPER.sizes - 1]))
    if text == "3G<=macs":  # widths are rounded: a narrower row can cost more than the widest
        assert said == start + "macs 2,339,105,544"
        assert corners["macs"][1] < 2_339_105_544
    if text.startswith("parameters"):
        assert said.startswith(start + f"parameters {corners['parameters'][0]:,.0f}, macs ")


def test_the_least_reachable_value_can_be_reached() -> None:
    found = feasible_points(PAPER, COSTS, parse_constraint("macs<=214116360"), generator())
    assert set(COSTS(found)["macs"]) == {214116360}


def test_points_that_are_known_help() -> None:
    code = PAPER.sample(1, generator(), method="uniform")
    exact = f"{COSTS(code)['macs'][0]:.0f}"
    constraint = parse_constraint(f"{exact}<=macs<={exact}")
    found = feasible_points(PAPER, COSTS, constraint, generator(), known=code)
    assert code.tolist()[0] in found.tolist()
    assert not outside(COSTS, constraint, found).any()


def test_costs_that_rise_and_fall() -> None:
    waves = Waves()
    space = Space("waves", others=tuple(Dimension(f"d{n}", Range(0, 9)) for n in range(8)))
    values = waves(space.sample(20_000, generator(), method="uniform"))["wave"]
    constraint = parse_constraint(f"wave<={values.min():.6f}")
    pool = draw_pool(space, waves, constraint, 20, generator())
    assert (waves(pool.codes)["wave"] <= values.min()).all()
    least = 10 + sum(np.sin(np.arange(10) * 1.7 + n).min() * (n + 1) / 8 for n in range(8))
    said = refusal(lambda: feasible_points(space, waves, parse_constraint("wave<=1"), generator()))
    assert said == f"no point of space waves meets wave<=1; the nearest reachable has wave {least:,.10g}"


def test_small_spaces_are_taken_whole() -> None:
    everything = all_points(SMALL)
    assert everything.tolist() == [[a, b] for a in range(4) for b in range(3)]
    np.testing.assert_array_equal(draw_pool(SMALL, NoCosts(), (), 100, generator()).codes, everything)
    few = draw_pool(SMALL, Sum(), parse_constraint("2<=sum<=3"), 100, generator())
    assert few.codes.tolist() == [[a, b] for a, b in everything.tolist() if 2 <= a + b <= 3]
    assert few.costs["sum"].tolist() == few.codes.sum(1).tolist()
    two = draw_pool(SMALL, Sum(), parse_constraint("2<=sum<=3"), 2, generator())
    assert two.codes.shape == (2, 2)
    assert all(code in few.codes.tolist() for code in two.codes.tolist())
    said = refusal(lambda: draw_pool(SMALL, Sum(), parse_constraint("sum<=0.5,0.1<=sum"), 2, generator()))
    assert said == "no point of space small meets sum<=0.5,0.1<=sum; the nearest reachable has sum 0, sum 0"


def test_bounds_on_unknown_costs_are_refused() -> None:
    said = refusal(lambda: draw_pool(PAPER, COSTS, parse_constraint("mac<=1G"), 5, generator()))
    assert said == (
        "bound mac<=1G: there is no cost 'mac' (did you mean 'macs'?); known: macs, parameters, peak_activation"
    )
    said = refusal(lambda: draw_pool(SMALL, NoCosts(), parse_constraint("macs<=1G"), 5, generator()))
    assert said == "bound macs<=1G: there is no cost 'macs'; known: none"


def test_changed_gives_every_neighbor_once() -> None:
    code = TINY.sample(1, generator(), method="uniform")[0]
    near = changed(TINY, code)
    assert len(near) == (TINY.sizes - 1).sum() == len(distinct(near))
    assert ((near != code).sum(1) == 1).all()
    np.testing.assert_array_equal(TINY.check(near), near)


def test_descend_keeps_what_is_inside_and_its_argument() -> None:
    constraint = parse_constraint("macs<=700M")
    codes = PAPER.sample(60, generator(), method="uniform")
    before = codes.copy()
    moved = descend(PAPER, COSTS, constraint, codes, generator(), steps=40)
    np.testing.assert_array_equal(codes, before)
    inside = outside(COSTS, constraint, codes) == 0
    assert 0 < inside.sum() < 60
    np.testing.assert_array_equal(moved[inside], codes[inside])
    assert (outside(COSTS, constraint, moved) <= outside(COSTS, constraint, codes)).all()
    assert (outside(COSTS, constraint, moved) == 0).mean() > inside.mean()


def test_distinct_keeps_the_order() -> None:
    codes = np.array([[3, 1], [0, 0], [3, 1], [2, 2], [0, 0]])
    assert distinct(codes).tolist() == [[3, 1], [0, 0], [2, 2]]
