"""What a supernet's networks cost: every point exactly, expectations, gradients; and single networks under a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch
from refusals import refusal
from scipy.stats import chisquare
from torch import Tensor

from fbnetv3_zoo.arch import Activation, Conv, InvertedResidual, PoolingHead, Skip, SqueezeExcite
from fbnetv3_zoo.arch.cost import arch_cost, tabulate
from fbnetv3_zoo.arch.latency import BlockKey, Conditions, LatencyTable, distinct_blocks
from fbnetv3_zoo.search.space import Bound
from fbnetv3_zoo.search.supernet import LAYER_SPACES, Layer, LayerSpace
from fbnetv3_zoo.search.supernet.decoding import Doubles, best_code, check_target, draw, extremes, likeliest, uniform
from fbnetv3_zoo.search.supernet.expected_cost import COSTS, CostTables, ExpectedCost, effective_shapes
from fbnetv3_zoo.search.supernet.presets import TINY_DMASKING, TINY_DNAS, V1, V2
from fbnetv3_zoo.search.supernet.space import Codes, fixed

SWISH = Activation.HARD_SWISH
every = pytest.mark.parametrize("space", LAYER_SPACES.values(), ids=LAYER_SPACES)
of_one_activation = pytest.mark.parametrize("space", [V1, TINY_DNAS, TINY_DMASKING], ids=lambda space: space.name)

_KINDS = (InvertedResidual(3, 16, 1, 1, 3, SWISH), InvertedResidual(5, 16, 1, 1, 3, SWISH, SqueezeExcite("expanded")))
SMALL = LayerSpace("small", (16, 24), (
    (Layer((Conv(3, 16, 2, SWISH),), (8, 16)),),
    (Layer((*_KINDS, Skip(16)), (8, 12, 16), (2, 3)), *fixed(Conv(3, 20, 1, SWISH))),
    (Layer((PoolingHead(24, 3, SWISH),), (16, 24), (2, 3)),),
), num_classes=10)  # fmt: skip
"""288 networks with every kind of choice; some of them are written in two ways."""
FLAT = replace(SMALL, name="flat", resolutions=(17,), stages=SMALL.stages[:2])
"""36 networks that end in a map, at one resolution."""
small = pytest.mark.parametrize("space", [SMALL, FLAT], ids=lambda space: space.name)


@cache
def measured(space: LayerSpace) -> LatencyTable:
    """A table of made-up milliseconds for all blocks of ``space``."""
    parts = [space.tabulate_layer(number) for number in range(len(space.layers))] + [space.tabulate_classifiers()]
    keys = sorted({key for part in parts for key in distinct_blocks(part) if key.out})
    drawn = np.random.default_rng(0).random(len(keys)).tolist()
    activation = Activation.RELU if space is V1 else SWISH
    here = Conditions("a processor", "onnxruntime 1.0", 1, 12)
    return LatencyTable(here, activation, dict(zip(keys, drawn, strict=True)), call=0.5, scale=1.25)


@cache
def tables_of(space: LayerSpace, cost: str) -> CostTables:
    return CostTables.of(space, cost, measured(space) if cost == "latency_ms" else None)


def one_hot(space: LayerSpace, code: Sequence[int]) -> list[Tensor]:
    return [torch.eye(len(d))[n] for n, d in zip(code, space.dimensions, strict=True)]


def all_codes(space: LayerSpace) -> Codes:
    return np.array(list(np.ndindex(*(len(d) for d in space.dimensions))), np.int64)


def soft(space: LayerSpace, seed: int) -> list[Doubles]:
    """A random distribution over the values of every dimension."""
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.ones(len(d))) for d in space.dimensions]


def log_probability(probabilities: Sequence[Doubles], codes: Codes) -> Doubles:
    logs = [np.log(p)[codes[:, n]] for n, p in enumerate(probabilities)]
    total: Doubles = np.sum(logs, axis=0)
    return total


def true_costs(space: LayerSpace, codes: Codes, cost: str) -> Doubles:
    """What the networks of ``codes`` cost, each built and counted as any network is."""
    archs = [space.arch(code, "network") for code in codes]
    if cost == "latency_ms":
        return measured(space)(tabulate(archs))
    return np.array([getattr(arch_cost(arch), cost) for arch in archs], np.float64)


# Costs


@every
@pytest.mark.parametrize("cost", ["macs", "parameters"])
def test_a_point_costs_exactly_what_its_network_does(space: LayerSpace, cost: str) -> None:
    codes, tables = space.sample(200, np.random.default_rng(1), method="uniform"), tables_of(space, cost)
    expected, exact = ExpectedCost(tables), true_costs(space, codes, cost).tolist()
    assert tables.of_codes(codes).tolist() == exact
    assert [float(expected(one_hot(space, code))) for code in codes] == exact
    assert len(set(exact)) > 100


@of_one_activation
def test_a_point_takes_as_long_as_its_network(space: LayerSpace) -> None:
    codes, tables = space.sample(200, np.random.default_rng(2), method="uniform"), tables_of(space, "latency_ms")
    exact = true_costs(space, codes, "latency_ms")
    np.testing.assert_allclose(tables.of_codes(codes), exact, rtol=1e-12)
    expected = [float(ExpectedCost(tables)(one_hot(space, code))) for code in codes]
    np.testing.assert_allclose(expected, exact, rtol=1e-12)


@small
@pytest.mark.parametrize("cost", COSTS)
def test_the_expected_cost_is_the_mean_over_all_networks(space: LayerSpace, cost: str) -> None:
    codes = all_codes(space)
    assert len(codes) == space.count() == {"small": 288, "flat": 36}[space.name]
    exact = true_costs(space, codes, cost)
    for seed in range(5):
        probabilities = soft(space, seed)
        mean = np.exp(log_probability(probabilities, codes)) @ exact
        expected = ExpectedCost(tables_of(space, cost))([torch.from_numpy(p) for p in probabilities])
        assert float(expected) == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("space", [TINY_DNAS, TINY_DMASKING], ids=lambda space: space.name)
@pytest.mark.parametrize("cost", COSTS)
def test_gradients_against_central_differences(space: LayerSpace, cost: str) -> None:
    expected, temperature, step = ExpectedCost(tables_of(space, cost)), 1.7, 1e-4
    generator = torch.Generator().manual_seed(3)
    logits = [torch.randn(len(d), generator=generator, dtype=torch.float64) for d in space.dimensions]

    def at(logits: Sequence[Tensor]) -> Tensor:
        return expected([torch.softmax(logit / temperature, 0) for logit in logits])

    held = [logit.requires_grad_() for logit in logits]
    gradients = torch.autograd.grad(at(held), held)
    largest = max(float(gradient.abs().max()) for gradient in gradients)
    with torch.no_grad():
        for n, gradient in enumerate(gradients):
            for k in range(len(gradient)):
                moved = torch.zeros_like(gradient)
                moved[k] = step
                ends = (at([*logits[:n], logits[n] + sign * moved, *logits[n + 1 :]]) for sign in (1, -1))
                difference = float(next(ends) - next(ends)) / (2 * step)
                assert difference == pytest.approx(float(gradient[k]), rel=1e-6, abs=1e-9 * largest)


def test_costs_that_cannot_be_counted() -> None:
    assert refusal(lambda: CostTables.of(TINY_DNAS, "mac")) == (
        "there is no cost 'mac' (did you mean 'macs'?); known: macs, parameters, latency_ms"
    )
    assert refusal(lambda: CostTables.of(TINY_DNAS, "latency_ms")) == (
        "latency_ms needs a table of measured blocks; make one with `fbnetv3 search lut` and give it"
    )
    assert refusal(lambda: CostTables.of(TINY_DNAS, "latency_ms", measured(V1))) == (
        "the latency table is of relu blocks, space tiny_dnas has hard_swish; a table has blocks of one activation"
    )
    assert refusal(lambda: CostTables.of(V2, "latency_ms", measured(TINY_DNAS))) == (
        "the latency table is of hard_swish blocks, space v2 has hard_swish, relu; a table has blocks of one activation"
    )


@pytest.mark.parametrize("missing", [lambda key: key.pools and not key.classifier, lambda key: key.classifier])
def test_blocks_that_were_not_measured(missing: Callable[[BlockKey], bool]) -> None:
    whole = measured(SMALL)
    part = replace(whole, blocks={key: ms for key, ms in whole.blocks.items() if not missing(key)})
    lacking = part.lacks(sorted(whole.blocks))
    assert refusal(lambda: CostTables.of(SMALL, "latency_ms", part)) == (
        "latency table of a processor, onnxruntime 1.0, 1 thread: lacks "
        f"{len(lacking)} of the blocks asked for, such as: {lacking[0]}; measure them with "
        "`fbnetv3 search lut --space SPACE --output TABLE`"
    )


# Effective shapes


@pytest.mark.parametrize("space", [V1, V2, TINY_DNAS, TINY_DMASKING, FLAT], ids=lambda space: space.name)
def test_shapes_of_points_are_those_of_their_networks(space: LayerSpace) -> None:
    for code in space.sample(20, np.random.default_rng(4), method="uniform"):
        blocks = arch_cost(space.arch(code, "network")).blocks
        assert effective_shapes(space, one_hot(space, code)) == [(b.block.out_channels, b.size) for b in blocks]


def test_effective_shapes_are_means_over_all_networks() -> None:
    probabilities, codes = soft(SMALL, 5), all_codes(SMALL)
    chances = np.exp(log_probability(probabilities, codes))
    blocks = [arch_cost(SMALL.arch(code, "network")).blocks for code in codes]
    shapes = np.array([[(b.block.out_channels, b.size) for b in row] for row in blocks])
    found = effective_shapes(SMALL, [torch.from_numpy(p) for p in probabilities])
    np.testing.assert_allclose(found, np.einsum("n,nls->ls", chances, shapes), rtol=1e-12)


def test_independent_shapes_multiply() -> None:
    """FBNetV2's formula: kernel area x effective widths x effective areas, for convolutions alone."""
    space = LayerSpace("convolutions", (32,), ((
        Layer((Conv(3, 16, 2, SWISH),), (8, 12, 16)),
        Layer((Conv(5, 24, 1, SWISH),), (16, 20, 24)),
        Layer((Conv(1, 40, 2, SWISH),), (32, 40)),
    ),), num_classes=10)  # fmt: skip
    weights = [torch.from_numpy(p) for p in soft(space, 6)]
    shapes = effective_shapes(space, weights)
    total, width = 0.0, 3.0
    for kernel, (out, side) in zip((3, 5, 1), shapes, strict=True):
        total, width = total + kernel**2 * width * out * side**2, out
    total += width * (shapes[-1][1] ** 2 + 10)
    assert float(ExpectedCost(tables_of(space, "macs"))(weights)) == pytest.approx(total, rel=1e-12)


def test_sides_of_maps() -> None:
    assert TINY_DMASKING.sides == ((24, 32), (12, 16), (12, 16), (6, 8), (6, 8), (3, 4), (3, 4), (2, 2), (1, 1))
    assert FLAT.sides == ((17,), (9,), (9,), (9,))


# Single networks


@small
@pytest.mark.parametrize("cost", COSTS)
def test_the_best_point_against_all_of_them(space: LayerSpace, cost: str) -> None:
    codes, tables = all_codes(space), tables_of(space, cost)
    exact = true_costs(space, codes, cost)
    for seed in range(10):
        logs = [np.log(p) for p in soft(space, seed)]
        values = log_probability([np.exp(p) for p in logs], codes)
        for price in np.array([-3.0, 0.0, 0.1, 1.0, 10.0, 1000.0]) / exact.mean():
            found = np.array([best_code(tables, logs, price)])
            value = log_probability([np.exp(p) for p in logs], found) - price * true_costs(space, found, cost)
            assert value == pytest.approx((values - price * exact).max(), rel=1e-12)


@small
@pytest.mark.parametrize("cost", COSTS)
def test_the_cheapest_and_the_dearest_network(space: LayerSpace, cost: str) -> None:
    exact = true_costs(space, all_codes(space), cost)
    ends = extremes(tables_of(space, cost))
    assert [end for end, _ in ends] == pytest.approx([exact.min(), exact.max()], rel=1e-12)
    for end, code in ends:
        assert true_costs(space, np.array([code]), cost)[0] == pytest.approx(end, rel=1e-12)


@small
@pytest.mark.parametrize("cost", COSTS)
def test_the_likeliest_network_under_a_bound(space: LayerSpace, cost: str) -> None:
    """The most probable one of all that cost no more, or no less."""
    codes, tables = all_codes(space), tables_of(space, cost)
    exact = tables.of_codes(codes)
    low, high = exact.min(), exact.max()
    for seed in range(10):
        probabilities = soft(space, seed)
        if seed % 2:  # nearly even
            probabilities = [p**0.01 / (p**0.01).sum() for p in probabilities]
        values = log_probability(probabilities, codes)
        best = tuple(int(p.argmax()) for p in probabilities)
        assert likeliest(tables, probabilities, None) == best
        assert likeliest(tables, probabilities, Bound(cost, high, low)) == best
        for part in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
            limit = (1 - part) * low + part * high
            for target in (Bound(cost, at_most=limit), Bound(cost, at_least=limit)):
                good = (target.at_least <= exact) & (exact <= target.at_most)
                (place,) = np.flatnonzero((codes == likeliest(tables, probabilities, target)).all(axis=1))
                assert good[place]
                assert values[place] == pytest.approx(values[good].max(), abs=2e-9)


def test_the_likeliest_network_of_a_large_space() -> None:
    """Exchanging up to two choices of it finds none that is more probable and meets the target."""
    tables, probabilities = tables_of(V1, "macs"), soft(V1, 5)
    (low, _), (high, _) = extremes(tables)
    target = Bound("macs", low + 0.2 * (high - low))
    found = np.array(likeliest(tables, probabilities, target))
    others = [found]
    for a, b in combinations(range(len(found)), 2):
        for values in np.ndindex(len(V1.dimensions[a]), len(V1.dimensions[b])):
            others.append(found.copy())
            others[-1][[a, b]] = values
    codes = np.array(others)
    costs, values = tables.of_codes(codes), log_probability(probabilities, codes)
    assert costs[0] <= target.at_most
    assert values[0] == pytest.approx(values[costs <= target.at_most].max(), abs=2e-9)
    assert values[0] < values.max() - 0.1  # so that the target has something to change


def test_impossible_values_are_not_chosen() -> None:
    probabilities = [np.eye(len(d))[0] for d in SMALL.dimensions]
    tables = tables_of(SMALL, "macs")
    assert likeliest(tables, probabilities, None) == (0,) * len(SMALL.dimensions)
    assert likeliest(tables, probabilities, Bound("macs", extremes(tables)[1][0])) == (0,) * len(SMALL.dimensions)


def test_targets_out_of_reach() -> None:
    tables = tables_of(TINY_DNAS, "macs")
    (low, _), (high, _) = extremes(tables)
    assert (low, high) == (265_984, 3_678_272)
    cheap, dear = Bound("macs", low - 1), Bound("macs", at_least=high + 1)
    said = (
        "target macs<=265.983k: the cheapest network of space tiny_dnas has 265,984 macs; raise the target, or widen "
        "the space"
    )
    assert refusal(lambda: check_target(tables, cheap)) == said
    assert refusal(lambda: likeliest(tables, uniform(TINY_DNAS), cheap)) == said
    assert refusal(lambda: check_target(tables, dear)) == (
        "target 3678273<=macs: the dearest network of space tiny_dnas has 3,678,272 macs; lower the target, or "
        "widen the space"
    )
    for target in (Bound("macs", low), Bound("macs", at_least=high), Bound("macs", high, low)):
        check_target(tables, target)


# Drawing

LINE = LayerSpace("line", (16,), ((Layer((Conv(3, 24, 2, SWISH),), (8, 12, 16, 20, 24)),),), num_classes=10)
CHANCES = np.array([0.1, 0.3, 0.05, 0.35, 0.2])


def drawn_alone(times: int, target: Bound | None) -> Codes:
    tables, rng = tables_of(LINE, "parameters"), np.random.default_rng(7)
    return np.concatenate([draw(tables, [CHANCES], 1, rng, target=target) for _ in range(times)])[:, 0]


def test_draws_follow_the_distribution() -> None:
    counts = np.bincount(drawn_alone(4000, None), minlength=5)
    assert chisquare(counts, CHANCES * 4000).pvalue > 0.01
    costs = tables_of(LINE, "parameters").of_codes(np.arange(5)[:, None])
    inside = drawn_alone(4000, Bound("parameters", costs[3], costs[1]))
    counts = np.bincount(inside, minlength=5)
    assert counts[[0, 4]].tolist() == [0, 0]
    assert chisquare(counts[1:4], CHANCES[1:4] / CHANCES[1:4].sum() * 4000).pvalue > 0.01


def test_draws_differ_and_meet_their_target() -> None:
    tables, probabilities = tables_of(SMALL, "macs"), soft(SMALL, 8)
    (low, _), (high, _) = extremes(tables)
    target = Bound("macs", low + 0.6 * (high - low), low + 0.2 * (high - low))
    codes = draw(tables, probabilities, 30, np.random.default_rng(9), target=target)
    assert codes.shape == (30, len(SMALL.dimensions))
    assert len({tuple(code) for code in codes.tolist()}) == 30
    costs = true_costs(SMALL, codes, "macs")
    assert ((target.at_least <= costs) & (costs <= target.at_most)).all()
    again = draw(tables, probabilities, 30, np.random.default_rng(9), target=target)
    np.testing.assert_array_equal(again, codes)
    other = draw(tables, probabilities, 30, np.random.default_rng(10), target=target)
    assert (other != codes).any()


def test_fewer_draws_where_there_are_fewer_networks() -> None:
    tables, rng = tables_of(LINE, "parameters"), np.random.default_rng(11)
    assert sorted(draw(tables, uniform(LINE), 9, rng).tolist()) == [[n] for n in range(5)]
    costs = tables.of_codes(np.arange(5)[:, None])
    assert draw(tables, uniform(LINE), 9, rng, target=Bound("parameters", costs[0])).tolist() == [[0]]
    assert draw(tables, uniform(LINE), 9, rng, target=Bound("parameters", costs[0] - 1)).shape == (0, 1)
    assert draw(tables, uniform(LINE), 0, rng).shape == (0, 1)
