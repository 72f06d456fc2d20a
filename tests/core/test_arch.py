"""The value that a network is: what it refuses, and what is derived from it."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from fractions import Fraction
from itertools import groupby
from math import ceil
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusal
from strategies import archs

from fbnetv3_zoo.arch import (
    Activation,
    Arch,
    Block,
    Conv,
    InvertedResidual,
    PoolingHead,
    Skip,
    SqueezeExcite,
    round_width,
)
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.errors import ZooError, nearest
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.zoo import ARCHS, find_arch

RELU = Activation.RELU
STEM = (Conv(3, 8, 2, RELU),)


def _net(*stages: tuple[object, ...], resolution: int = 32) -> Arch:
    return Arch("net", resolution, stages)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: Conv(3, 8, 2.0, RELU), "Conv.stride is 2.0; it must be 1 or 2"),  # type: ignore[arg-type]
        (
            lambda: _net(STEM, (InvertedResidual(3, 9, 1, 1, 1, RELU, groups_1x1=2),)),
            "net: stage 1, block 0: out_channels 9 is not divisible by groups_1x1 = 2; change one of them",
        ),
    ],
)
def test_values_that_do_not_fit_are_refused(wrong: Callable[[], object], text: str) -> None:
    """Others are in ``test_wrong_calls.py``."""
    assert refusal(wrong) == text


@pytest.mark.parametrize("name", ARCHS)
def test_published_networks_survive_json(name: str) -> None:
    assert Arch.from_json(ARCHS[name].to_json()) == ARCHS[name]


@given(archs())
def test_any_network_survives_json(arch: Arch) -> None:
    back = Arch.from_json(arch.to_json().encode())
    assert back == arch
    assert back.blocks == arch.blocks
    assert hash(back) == hash(arch)


def test_json_is_plain_and_leaves_defaults_out(tiny_arch: Arch) -> None:
    data = json.loads(tiny_arch.to_json())
    assert list(data) == ["format", "version", "name", "resolution", "stages", "num_classes"]
    stem = {"op": "conv", "kernel_size": 3, "out_channels": 8, "stride": 2, "activation": "hard_swish"}
    assert data["stages"][0] == [stem]


@settings(max_examples=100)
@given(
    st.integers(1, 1000),
    st.integers(1, 100_000).map(lambda n: n / 10_000) | st.integers(1, 8),
    st.sampled_from((1, 4, 8, 16)),
)
def test_round_width_is_the_facts_rule(channels: int, expansion: float, divisor: int) -> None:
    assert round_width(channels * expansion, divisor) == _rounded_by_the_facts(channels * expansion, divisor)


def _rounded_by_the_facts(width: float, divisor: int) -> int:
    """The width if divisible; else the nearest multiple (halves up, at least one), one more if that is below 95 %."""
    exact = Fraction(width)
    if exact % divisor == 0:
        return int(exact)
    multiples = range(divisor, ceil(exact) + 2 * divisor, divisor)
    nearest = min(multiples, key=lambda multiple: (abs(multiple - exact), -multiple))
    return nearest + divisor if nearest < exact * 95 / 100 else nearest


def test_an_expansion_that_no_width_can_be_divided_by(tiny_arch: Arch) -> None:
    text = tiny_arch.to_json().replace('"expansion": 2', '"expansion": 5e-324')
    assert "InvertedResidual.expansion is 5e-324; it must be a number at least 0.001" in refusal(
        lambda: Arch.from_json(text)
    )


@pytest.mark.parametrize(
    ("reduces", "expansion", "width"), [("input", 4, 16), ("expanded", 4, 64), ("input", 1, 64), ("input", 300, 8)]
)
def test_squeeze_excite_width(reduces: str, expansion: float, width: int) -> None:
    assert SqueezeExcite(reduces).channels(256, expansion, 8) == width  # type: ignore[arg-type]


def test_squeeze_excite_is_never_empty() -> None:
    assert SqueezeExcite("expanded", ratio=0.01).channels(8, 1, 8) == 8
    assert SqueezeExcite("expanded").channels(3, 1, 1) == 1


def test_stride_and_padding_of_a_row_are_its_first_blocks() -> None:
    row = InvertedResidual(5, 16, 2, 3, 2, RELU, depthwise_padding=1)
    blocks = _net(STEM, (row, Conv(3, 24, 2, RELU, repeats=2), Skip(32, 2, 2))).blocks[1:]
    assert [block.stride for block in blocks] == [2, 1, 1, 2, 1, 2, 1]
    assert [block.padding for block in blocks] == [1, 2, 2, 1, 1, 0, 0]
    assert [block.reduction for block in blocks] == [4, 4, 4, 8, 8, 16, 16]
    assert [block.in_channels for block in blocks] == [8, 16, 16, 16, 24, 24, 32]
    assert [block.expanded_channels for block in blocks[:3]] == [16, 32, 32]


@pytest.mark.parametrize("name", ARCHS)
def test_scaling_by_one_changes_nothing(name: str) -> None:
    assert ARCHS[name].scaled() == ARCHS[name]


@given(archs(), st.sampled_from((0.5, 0.75, 1.25, 2.0, 3.0)))
def test_scaling_width_rounds_every_row(arch: Arch, factor: float) -> None:
    arch = _ungrouped(arch)
    wide = arch.scaled(width=factor)
    expected = [_rounded_by_the_facts(row.out_channels * factor, arch.width_divisor) for s in arch.stages for row in s]
    assert [row.out_channels for stage in wide.stages for row in stage] == expected
    assert replace(wide, stages=arch.stages, name=arch.name) == arch
    assert wide.name == f"{arch.name}_w{factor:g}"


def _ungrouped(arch: Arch) -> Arch:
    """``arch`` without groups, which not every width could keep."""
    stages = tuple(
        tuple(replace(r, groups_1x1=1, channels_per_group=1) if isinstance(r, InvertedResidual) else r for r in stage)
        for stage in arch.stages
    )
    return replace(arch, stages=stages)


@given(archs(), st.sampled_from((0.25, 0.5, 1.5, 2.0, 4.0)))
def test_scaling_depth_grows_runs_of_equal_width(arch: Arch, factor: float) -> None:
    arch = _ungrouped(arch)
    deep = arch.scaled(depth=factor)
    expected = []
    for stage, run in _runs(arch):
        fixed = any(isinstance(row, (Conv, PoolingHead)) for row in arch.stages[stage])
        expected.append((stage, run[0].out_channels, len(run) if fixed else ceil(len(run) * factor)))
    assert [(stage, run[0].out_channels, len(run)) for stage, run in _runs(deep)] == expected
    for (_, before), (_, after) in zip(_runs(arch), _runs(deep), strict=True):
        assert (after[0].stride, after[0].kernel_size) == (before[0].stride, before[0].kernel_size)
        assert {block.stride for block in after[len(before) :]} <= {1}


def _runs(arch: Arch) -> list[tuple[int, list[Block]]]:
    """Blocks of equal width that follow one another in a stage."""
    found = groupby(arch.blocks, key=lambda block: (block.stage, block.out_channels))
    return [(stage, list(run)) for (stage, _), run in found]


def test_scaling_names_what_it_did() -> None:
    scaled = ARCHS["fbnetv3_a"].scaled(width=1.25, depth=2, resolution=1.1)
    assert scaled.name == "fbnetv3_a_w1.25_d2_r1.1"
    assert scaled.resolution == 248  # 246.4 to a multiple of 8
    assert scaled.blocks[-1].reduction == 32


@pytest.mark.parametrize("name", [name for name in ARCHS if name != "fbnetv3_nano"])
def test_small_image_form_halves_the_stride(name: str) -> None:
    arch = ARCHS[name]
    small = arch.for_small_images()
    assert (small.name, small.resolution) == (f"{name}_small", 32)
    assert small.min_resolution <= 32
    assert small.blocks[-1].reduction * 2 == arch.blocks[-1].reduction == 32
    assert [block.reduction for block in small.blocks if block.stage == 0] == [2]
    changed = [(a.stride, b.stride) for a, b in zip(arch.blocks, small.blocks, strict=True) if a.stride != b.stride]
    assert changed == [(2, 1)]


def test_small_images_grow_with_the_networks_own_resolution() -> None:
    """As docs/data.md says: A's side is 32 px, the others' follow their resolutions."""
    archs = [ARCHS[f"fbnetv3_{letter}"] for letter in "abcdefg"]
    small = [arch.for_small_images(scale=arch.resolution / archs[0].resolution) for arch in archs]
    assert [arch.resolution for arch in small] == [32, 35, 35, 35, 38, 39, 46]
    assert {arch.name for arch in small} == {f"fbnetv3_{letter}_small" for letter in "abcdefg"}
    assert archs[0].for_small_images(resolution=28, scale=1.5).resolution == 42
    for scale in (0, float("nan")):
        with pytest.raises(ZooError, match=r"for_small_images: scale is .*; it must be a number above 0"):
            archs[0].for_small_images(scale=scale)


@pytest.mark.parametrize("name", ["fbnetv3_a", "fbnetv3_e", "fbnetv2_f1", "fbnet_a"])
def test_small_image_form_takes_the_same_weights(name: str) -> None:
    assert _shapes(ARCHS[name].for_small_images()) == _shapes(ARCHS[name])


@given(archs(), st.integers(0, 60))
def test_symmetric_maps_are_the_side_over_the_stride(arch: Arch, extra: int) -> None:
    symmetric = arch.with_symmetric_padding()
    assert symmetric.min_resolution == 1
    side = 1 + extra
    lines = arch_cost(symmetric, resolution=side).blocks
    maps = [(line.size, line.block.reduction) for line in lines if not isinstance(line.block.row, PoolingHead)]
    assert [size for size, _ in maps] == [ceil(side / reduction) for _, reduction in maps]


@settings(max_examples=30)
@given(archs())
def test_symmetric_form_takes_the_same_weights(arch: Arch) -> None:
    assert _shapes(arch.with_symmetric_padding()) == _shapes(arch)


def _shapes(arch: Arch) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {key: tensor.shape for key, tensor in FBNet(arch).state_dict().items()}


@pytest.mark.parametrize("name", ["fbnetv3_a", "fbnetv3_e", "fbnetv3_f", "fbnetv3_g", "fbnet_a", "dmasking_f1"])
def test_smallest_resolution_is_exact(name: str) -> None:
    known = {"fbnetv3_a": 49, "fbnetv3_e": 17, "fbnetv3_f": 33}
    assert ARCHS[name].min_resolution == known.get(name, 1)
    _assert_min_resolution(ARCHS[name])


@given(archs())
def test_smallest_resolution_is_exact_for_any_network(arch: Arch) -> None:
    _assert_min_resolution(arch)


@torch.inference_mode()
def _assert_min_resolution(arch: Arch) -> None:
    side = arch.min_resolution
    model = FBNet(arch).eval()
    images = torch.zeros(1, arch.in_channels, side, side)
    assert model(images).shape == (1, arch.num_classes)
    if side == 1:
        return
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        model.stages(images[..., 1:, 1:])  # without the check: the convolutions themselves
    with pytest.raises(ZooError) as caught:
        model(images[..., 1:, 1:])
    text = f"{arch.name}: images of {side - 1} x {side - 1} are too small; give at least {side} x {side}"
    assert str(caught.value) == f"{text} or build arch.with_symmetric_padding()"
    with pytest.raises(ZooError) as caught:
        replace(arch, resolution=side - 1)
    text = f"{arch.name}: resolution is {side - 1}; its strides and padding need at least {side}"
    assert str(caught.value) == text


@given(archs())
def test_networks_are_frozen_all_the_way_down(arch: Arch) -> None:
    values = [arch, *(row for stage in arch.stages for row in stage), *arch.blocks]
    values += [row.squeeze_excite for row in values if isinstance(row, InvertedResidual) and row.squeeze_excite]
    for value in values:
        assert is_dataclass(value)
        with pytest.raises(FrozenInstanceError):
            setattr(value, fields(value)[0].name, None)
        hash(value)


@given(archs())
def test_networks_survive_pickling_and_copying(arch: Arch) -> None:
    fresh = pickle.loads(pickle.dumps(replace(arch)))
    assert arch.blocks  # the copies below carry what was computed along
    copies = [fresh, copy.copy(arch), copy.deepcopy(arch), *(pickle.loads(pickle.dumps(arch, p)) for p in range(2, 6))]
    for other in copies:
        assert other == arch
        assert hash(other) == hash(arch)
        assert other.blocks == arch.blocks
        assert other.min_resolution == arch.min_resolution


def test_equal_networks_are_one_key(tiny_arch: Arch) -> None:
    twin = Arch.from_json(tiny_arch.to_json())
    assert {tiny_arch: 1, twin: 2} == {tiny_arch: 2}
    assert replace(tiny_arch, num_classes=11) not in {tiny_arch}


HUGE = [
    ({"repeats": 1_000_000}, "its rows are 1000001 blocks together; at most 1000 can be built"),
    ({"out_channels": 999_999}, "out_channels is 999999; it must be at most 131072"),
    ({"expansion": 99_999.0}, "expanded_channels is 1599984; it must be at most 131072"),
    ({"kernel_size": 999_999}, "kernel_size is 999999; it must be at most 127"),
    ({"kernel_size": 127, "out_channels": 600, "channels_per_group": 600}, "weights; at most 2147483648 can be built"),
]


@pytest.mark.parametrize(("values", "told"), HUGE)
def test_networks_too_large_to_build(values: dict[str, Any], told: str) -> None:
    row = InvertedResidual(3, 16, 1, 1, 1.0, Activation.RELU)
    stem = Conv(3, 16, 2, Activation.RELU)
    data = json.loads(Arch("net", 64, ((stem,), (row,))).to_json())
    data["stages"][1][0] |= values | ({"expansion": 37.5} if "channels_per_group" in values else {})
    with pytest.raises(ZooError, match=re.escape(told)):
        Arch.from_json(json.dumps(data))


def test_maps_too_large_to_compute() -> None:
    with pytest.raises(ZooError, match="its maps have 16000000000000 elements; at most 8589934592 can be computed"):
        Arch("net", 1_000_000, ((Conv(3, 16, 1, Activation.RELU),),))


@pytest.mark.parametrize("factors", [{"depth": 999_999.0}, {"width": 999_999.0}, {"resolution": 99_999.0}])
def test_scaling_beyond_what_can_be_built(factors: dict[str, float]) -> None:
    with pytest.raises(ZooError):
        find_arch("fbnetv3_a").scaled(**factors)


def test_a_large_network_scaled_up() -> None:
    for factors in ({"width": 4.0}, {"depth": 4.0}, {"resolution": 4.0}, {"width": 2.0, "depth": 2.0}):
        assert find_arch("fbnetv3_g").scaled(**factors).blocks


def test_a_name_in_other_case_is_found_again() -> None:
    assert nearest("FBNetV3_A", ["fbnetv3_g", "fbnetv3_a"]) == " (did you mean 'fbnetv3_a'?)"
