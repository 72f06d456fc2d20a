"""Costs of a space's points: equal to those of the networks built one by one; bounds, read and applied."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from refusals import refusal

from fbnetv3_zoo.arch.cost import COLUMNS, PoolCost, Table, arch_cost, pool_cost, tabulate
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.search.space import (
    PAPER,
    PAPER_RECIPE,
    TINY,
    Bound,
    Codes,
    NetworkCosts,
    Space,
    check_constraint,
    parse_constraint,
    violation,
)

TOTALS = ("macs", "conv_weights", "parameters", "peak_activation")
spaces = pytest.mark.parametrize("space", [PAPER, TINY], ids=lambda space: space.name)


def drawn(space: Space, number: int) -> Codes:
    """Random points, and the corners where all dimensions are smallest or largest."""
    corners = np.stack([np.zeros_like(space.sizes), space.sizes - 1])
    return np.concatenate([corners, space.sample(number, np.random.default_rng(7), method="uniform")])


def lines(table: Table, cost: PoolCost, n: int) -> list[list[int]]:
    """Columns, costs and size of every block of network ``n`` that computes something."""
    c = table.columns
    there = (c["groups"][n] + c["projects"][n]) > 0
    rows = [*(c[name][n] for name in COLUMNS), cost.block_macs[n], cost.block_parameters[n], cost.sizes[n]]
    return np.stack(rows, axis=1)[there].tolist()  # type: ignore[no-any-return]


@spaces
def test_a_pool_of_points_costs_what_its_networks_do(space: Space) -> None:
    codes = drawn(space, 300)
    archs = [space.candidate(code).arch for code in codes]
    built = tabulate([arch for arch in archs if arch is not None])
    table = space.tabulate(codes)
    ours, theirs = pool_cost(table), pool_cost(built)
    for name in TOTALS:
        assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()
    for name in ("resolution", "features", "classes"):
        assert getattr(table, name).tolist() == getattr(built, name).tolist()
    for n in range(len(codes)):
        assert lines(table, ours, n) == lines(built, theirs, n)


@spaces
def test_costs_by_name(space: Space) -> None:
    codes = drawn(space, 600)  # more than are counted at a time
    model = NetworkCosts(space)
    costs = model(codes)
    assert tuple(costs) == model.names == ("macs", "parameters", "peak_activation")
    whole = pool_cost(space.tabulate(codes))
    for name in model.names:
        assert costs[name].dtype == np.float64
        assert costs[name].tolist() == getattr(whole, name).tolist()
    alone = arch_cost(space.candidate(codes[-1]).arch)  # type: ignore[arg-type]
    assert [costs[name][-1] for name in model.names] == [getattr(alone, name) for name in model.names]
    none = model(codes[:0])
    assert {name: found.shape for name, found in none.items()} == dict.fromkeys(model.names, (0,))


def test_held_dimensions_cost_the_same() -> None:
    codes = drawn(PAPER, 20)
    held = PAPER.hold({"resolution": 256, "row4.depth": 5})
    values = [PAPER.values(code) | {"resolution": 256, "row4.depth": 5} for code in codes]
    free, bound = np.stack([PAPER.code(v) for v in values]), np.stack([held.code(v) for v in values])
    assert NetworkCosts(held)(bound)["macs"].tolist() == NetworkCosts(PAPER)(free)["macs"].tolist()


@pytest.mark.parametrize(("space", "number"), [(TINY, 4), (PAPER, 1)], ids=["tiny", "paper"])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # at the import of fvcore
def test_fvcore_counts_all_but_the_pools(space: Space, number: int) -> None:
    from fvcore.nn import FlopCountAnalysis

    codes = space.sample(number, np.random.default_rng(1), method="uniform")
    table, costs = space.tabulate(codes), NetworkCosts(space)(codes)
    pooled = pooled_elements(table)
    for n, code in enumerate(codes):
        arch = space.candidate(code).arch
        assert arch is not None
        images = torch.zeros(1, 3, arch.resolution, arch.resolution)
        model = FBNet(arch).eval()
        counts = FlopCountAnalysis(model, images).unsupported_ops_warnings(False).by_operator()
        assert counts["conv"] + counts["linear"] + pooled[n] == costs["macs"][n]
        assert sum(p.numel() for p in model.parameters()) == costs["parameters"][n]


def pooled_elements(table: Table) -> list[int]:
    """Elements that enter a global average pool, for which fvcore has no rule."""
    c, sizes = table.columns, pool_cost(table).sizes
    before = np.concatenate([table.resolution[:, None], sizes[:, :-1]], axis=1)
    inside = (c["se"] > 0) * c["mid"] * sizes**2 + c["pools"] * c["mid"] * before**2
    found: list[int] = (inside.sum(1) + table.features * sizes[:, -1] ** 2).tolist()
    return found


def test_spaces_without_networks_have_no_costs() -> None:
    expected = "space paper_recipe: searches no networks"
    assert refusal(lambda: NetworkCosts(PAPER_RECIPE)) == f"{expected}, so there is no cost to bound"
    codes = PAPER_RECIPE.sample(2, np.random.default_rng(0))
    assert refusal(lambda: PAPER_RECIPE.tabulate(codes)) == expected


# Bounds


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("", ()),
        ("macs<=450M", (Bound("macs", 450e6),)),
        ("400M<=macs<=800M,parameters<=10M", (Bound("macs", 800e6, 400e6), Bound("parameters", 10e6))),
        (
            " 1.5k <= peak_activation , latency_ms <= 2.5 ",
            (Bound("peak_activation", at_least=1500), Bound("latency_ms", 2.5)),
        ),
        ("0<=macs<=1e9", (Bound("macs", 1e9),)),
        ("macs<=1.2G,", (Bound("macs", 1.2e9),)),
    ],
)
def test_constraints_from_text(text: str, constraint: tuple[Bound, ...]) -> None:
    assert parse_constraint(text) == constraint
    assert parse_constraint(",".join(map(str, constraint))) == constraint


def test_bounds_as_text() -> None:
    assert str(Bound("macs", 450e6)) == "macs<=450M"
    assert str(Bound("macs", 800e6, 400e6)) == "400M<=macs<=800M"
    assert str(Bound("latency_ms", 2.5, 1e-3)) == "0.001<=latency_ms<=2.5"
    assert str(Bound("parameters", at_least=12_345)) == "12.345k<=parameters"


@pytest.mark.parametrize("text", ["macs", "macs<450M", "450M", "<=macs", "macs<=450T", "macs<=-1", "a b<=3"])
def test_text_that_is_no_bound(text: str) -> None:
    expected = f"bound {text!r} cannot be read; write 'macs<=450M' or '400M<=macs<=800M,parameters<=10M'"
    assert refusal(lambda: parse_constraint(f"parameters<=9M,{text}")) == expected


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Bound("macs", 1.0, 2.0), "bound on macs: at_most is 1.0; it must be a number at least 2"),
        (lambda: Bound("macs", -1.0), "bound on macs: at_most is -1.0; it must be a number at least 0"),
        (lambda: Bound("macs", 1.0, -1.0), "bound on macs: at_least is -1.0; it must be a number at least 0"),
        (
            lambda: Bound("macs", float("nan")),
            "bound on macs: at_most is nan; it must be a number at least 0",
        ),
        (
            lambda: check_constraint((Bound("mac", 1.0),), NetworkCosts(TINY).names),
            "bound mac<=1: there is no cost 'mac' (did you mean 'macs'?); known: macs, parameters, peak_activation",
        ),
        (lambda: check_constraint((Bound("x", 1.0),), ()), "bound x<=1: there is no cost 'x'; known: none"),
    ],
)  # fmt: skip
def test_what_bounds_refuse(make: object, complaint: str) -> None:
    told = refusal(make)  # type: ignore[arg-type]
    assert told.startswith(complaint)


def test_how_far_outside() -> None:
    costs = {"macs": np.array([50.0, 100.0, 150.0, 200.0]), "parameters": np.array([10.0, 20.0, 5.0, 30.0])}
    constraint = (Bound("macs", 150.0, 100.0), Bound("parameters", 20.0))
    expected = [0.5, 0.0, 0.0, (200 / 150 - 1) + (30 / 20 - 1)]
    assert violation(constraint, costs) == pytest.approx(expected)
    assert (violation(constraint, costs) == 0).tolist() == [False, True, True, False]
    assert violation((), costs).tolist() == [0.0] * 4
    assert violation((), {}).tolist() == []
    check_constraint(constraint, tuple(costs))
