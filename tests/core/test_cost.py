"""Costs: the published ones to the unit, and for any network what the module itself shows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from counting import Counts, count
from golden import facts
from hypothesis import given
from hypothesis import strategies as st
from strategies import archs

from fbnetv3_zoo.arch import Arch, InvertedResidual
from fbnetv3_zoo.arch.cost import Cost, PoolCost, arch_cost, pool_cost, tabulate
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.zoo import ARCHS

FIGURES = {name: record["published"] for name, record in facts().items() if "published" in record}
TOTALS = ("macs", "conv_weights", "parameters", "peak_activation")


@pytest.mark.parametrize("name", FIGURES)
def test_published_counts_to_the_unit(name: str) -> None:
    cost = arch_cost(ARCHS[name], resolution=FIGURES[name]["resolution"])
    rounded = round(cost.conv_weights, -1) if name.startswith("fbnet_") else cost.conv_weights  # published to ten
    assert (cost.macs, rounded) == (FIGURES[name]["macs"], FIGURES[name]["conv_weights"])


def test_twenty_are_published() -> None:
    assert len(FIGURES) == 20


def test_parameters_as_users_count_them() -> None:
    assert arch_cost(ARCHS["fbnetv3_a"]).parameters == 8_598_480


@pytest.mark.parametrize("name", ARCHS)
def test_costs_are_those_of_the_module(name: str) -> None:
    _assert_same(arch_cost(ARCHS[name]), count(ARCHS[name]))


@pytest.mark.parametrize(("name", "resolution"), [("fbnetv3_a", 49), ("fbnetv3_a", 193), ("fbnetv3_f", 101)])
def test_costs_at_another_resolution(name: str, resolution: int) -> None:
    cost = arch_cost(ARCHS[name], resolution=resolution)
    assert cost.resolution == resolution
    _assert_same(cost, count(ARCHS[name], resolution=resolution))


@given(archs())
def test_costs_of_any_network_are_those_of_the_module(arch: Arch) -> None:
    _assert_same(arch_cost(arch), count(arch, device="cpu"))


def _assert_same(cost: Cost, counts: Counts) -> None:
    assert {key: getattr(cost, key) for key in TOTALS} == {key: getattr(counts, key) for key in TOTALS}
    assert tuple(line.size for line in cost.blocks) == counts.sizes


@pytest.mark.parametrize("name", ["fbnet_a", "fbnetv2_f1", "fbnetv3_a"])
def test_lines_of_the_table_add_up(name: str) -> None:
    arch = ARCHS[name]
    cost, width = arch_cost(arch), arch.blocks[-1].out_channels
    assert [line.block for line in cost.blocks] == list(arch.blocks)
    pooled = width * cost.blocks[-1].size ** 2
    assert sum(line.macs for line in cost.blocks) == cost.macs - pooled - width * 1000
    assert sum(line.parameters for line in cost.blocks) == cost.parameters - (width + 1) * 1000
    stages = FBNet(arch).stages
    numels = [sum(p.numel() for p in block.parameters()) for stage in stages.children() for block in stage.children()]
    assert [line.parameters for line in cost.blocks] == numels


@pytest.mark.parametrize("name", ["fbnet_a", "dmasking_f1", "fbnetv2_f1", "fbnetv3_a"])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # at the import of fvcore
def test_fvcore_counts_all_but_the_pools(name: str) -> None:
    """What fvcore calls flops: MACs of convolutions and linear layers, and 2 an element entering a norm.

    It has no rule for ``aten::mean``, our global average pools: their elements are all it leaves out.
    """
    from fvcore.nn import FlopCountAnalysis

    arch = ARCHS[name]
    images = torch.zeros(1, 3, arch.resolution, arch.resolution)
    analysis = FlopCountAnalysis(FBNet(arch).eval(), images).unsupported_ops_warnings(False)
    operators, counts, cost = analysis.by_operator(), count(arch), arch_cost(arch)
    assert set(operators) == {"conv", "linear", "batch_norm"}
    assert operators["conv"] + operators["linear"] == cost.macs - counts.pooled
    assert operators["batch_norm"] == 2 * counts.normed
    assert analysis.total() == cost.macs - counts.pooled + 2 * counts.normed
    pools = sum(isinstance(b.row, InvertedResidual) and b.row.squeeze_excite is not None for b in arch.blocks) + 1
    assert analysis.unsupported_ops()["aten::mean"] == pools


@given(st.lists(archs(), min_size=2, max_size=6))
def test_a_pool_is_counted_as_each_alone(pool: list[Arch]) -> None:
    costs = pool_cost(tabulate(pool))
    for n, arch in enumerate(pool):
        _assert_line(costs, n, arch_cost(arch))


def test_a_pool_at_one_resolution() -> None:
    pool = [ARCHS["fbnet_a"], ARCHS["fbnetv3_g"], ARCHS["fbnetv3_a0"]]
    costs = pool_cost(tabulate(pool, resolution=160))
    for n, arch in enumerate(pool):
        _assert_line(costs, n, arch_cost(arch, resolution=160))


@pytest.mark.long
def test_twenty_thousand_networks_at_once(tiny_arch: Arch) -> None:
    pool = _variants(tiny_arch)
    costs = pool_cost(tabulate(pool))
    assert costs.macs.shape == (20_000,)
    assert len(np.unique(costs.macs)) > 10_000
    for n in range(0, 20_000, 397):
        _assert_line(costs, n, arch_cost(pool[n]))


@cache
def _variants(arch: Arch) -> list[Arch]:
    """20,000 networks: widths, kernel sizes, depths and resolutions."""
    stem, (first, last), head = arch.stages
    assert isinstance(first, InvertedResidual)
    assert isinstance(last, InvertedResidual)
    choices = product(range(1, 101), range(8, 88, 8), (3, 5), (1, 2, 3, 4, 5), (32, 40))
    return [
        replace(
            arch,
            resolution=side,
            stages=(
                stem,
                (replace(first, out_channels=a), replace(last, out_channels=b, kernel_size=k, repeats=n)),
                head,
            ),
        )
        for a, b, k, n, side in choices
    ]


def _assert_line(costs: PoolCost, n: int, alone: Cost) -> None:
    assert {key: int(getattr(costs, key)[n]) for key in TOTALS} == {key: getattr(alone, key) for key in TOTALS}
    depth = len(alone.blocks)
    assert costs.sizes[n, :depth].tolist() == [line.size for line in alone.blocks]
    assert costs.block_macs[n, :depth].tolist() == [line.macs for line in alone.blocks]
    assert costs.block_parameters[n, :depth].tolist() == [line.parameters for line in alone.blocks]
    assert not costs.block_macs[n, depth:].any()
    assert not costs.block_parameters[n, depth:].any()


@given(archs())
def test_a_resolution_too_small_is_refused(arch: Arch) -> None:
    least = arch.min_resolution
    assert arch_cost(arch, resolution=least).blocks[-1].size >= 1
    with pytest.raises(ZooError) as caught:
        arch_cost(arch, resolution=least - 1)
    expected = f"{arch.name}: resolution is {least - 1}; its strides and padding need at least {least}"
    assert str(caught.value) == (expected if least > 1 else "resolution is 0; it must be a whole number of at least 1")
