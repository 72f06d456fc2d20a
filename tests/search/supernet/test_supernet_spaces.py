"""Spaces of supernets: their points and networks, what they refuse, files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refusal

from fbnetv3_zoo.arch import Activation, Arch, Conv, InvertedResidual, PoolingHead, Row, Skip, SqueezeExcite
from fbnetv3_zoo.search.supernet import LAYER_SPACES, Layer, LayerSpace, find_layer_space
from fbnetv3_zoo.search.supernet.presets import TINY_DMASKING, TINY_DNAS, V1, V1_A, V2
from fbnetv3_zoo.search.supernet.space import fixed, label_of
from fbnetv3_zoo.zoo import ARCHS

RELU, SWISH = Activation.RELU, Activation.HARD_SWISH
STEM = Conv(3, 16, 2, SWISH)
BLOCK = InvertedResidual(3, 16, 1, 1, 3, SWISH)
every = pytest.mark.parametrize("space", LAYER_SPACES.values(), ids=LAYER_SPACES)


def space_of(*layers: Layer, **fields: Any) -> LayerSpace:
    """The stem, then a stage of ``layers``."""
    return replace(LayerSpace("mine", (32,), (fixed(STEM), tuple(layers))), **fields)


# Points


def test_fbnets_space() -> None:
    searched = [layer for layer in V1.layers if len(layer.candidates) > 1]
    assert [len(layer.candidates) for layer in searched] == [9] * 22
    assert V1.count() == V1_A.count() == 9**22
    assert [d.name for d in V1.dimensions] == [f"layer{n}.candidate" for n in range(2, 24)]
    labels = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
    assert {d.options.values for d in V1.dimensions} == {labels}


@pytest.mark.parametrize(("name", "space"), [("fbnet_a", V1_A), ("fbnet_b", V1), ("fbnet_c", V1)])
def test_fbnets_are_points(name: str, space: LayerSpace) -> None:
    code = space.code(ARCHS[name])
    assert len(code) == 22
    assert space.arch(code, name) == ARCHS[name]


SIZE_OF_V2 = (
    6 * 3 * (4 * 3)
    * (8 * 3 * 10) * (9 * 3 * 10) ** 3 * (8 * 4 * 10) * (9 * 4 * 10) ** 3
    * (4 * 5 * 10) * (5 * 5 * 10) ** 3 * (4 * 4 * 10) * (5 * 4 * 10) ** 5
    * (4 * 4 * 10) * (5 * 4 * 10) ** 4 * (4 * 3 * 10)
    * 2
)  # fmt: skip
"""Resolutions, stem and first block; the six rows of layers; the head."""


def test_the_space_of_masks() -> None:
    assert V2.count() == SIZE_OF_V2
    names = [d.name for d in V2.dimensions]
    assert names[:4] == ["resolution", "layer1.channels", "layer2.candidate", "layer2.channels"]
    assert names[-1] == "layer27.channels"
    values = V2.values([len(d) - 1 for d in V2.dimensions])
    assert (values["resolution"], values["layer1.channels"], values["layer3.expansion"]) == (288, 24, 6.25)
    kinds = [f"k{k}{se}_{act}" for k in (3, 5) for se in ("", "_se") for act in ("relu", "hard_swish")]
    assert list(V2.dimensions[names.index("layer4.candidate")].options.values) == [*kinds, "skip"]


@every
def test_networks_and_their_points(space: LayerSpace) -> None:
    """Where the identity is taken, its layer's expansion counts for nothing, and the first one stands for all."""
    codes = space.sample(50, np.random.default_rng(1), method="uniform")
    assert codes.shape == (50, len(space.dimensions))
    assert (codes < [len(d) for d in space.dimensions]).all()
    for code in codes.tolist():
        arch = space.arch(code, "drawn")
        for where, block in zip(space.places, arch.blocks, strict=True):
            if isinstance(block.row, Skip) and where.expansion is not None:
                code[where.expansion] = 0
        assert space.code(arch) == tuple(code)
        assert space.arch(code, "drawn") == arch


@every
def test_values_of_a_point_are_those_of_its_network(space: LayerSpace) -> None:
    for code in space.sample(10, np.random.default_rng(2), method="uniform"):
        arch, values = space.arch(code, "drawn"), space.values(code)
        assert list(values) == [d.name for d in space.dimensions]
        assert arch.resolution == values.get("resolution", space.resolutions[0])
        for n, (layer, block) in enumerate(zip(space.layers, arch.blocks, strict=True), start=1):
            assert block.out_channels == values.get(f"layer{n}.channels", layer.widths[0])
            if not isinstance(block.row, (Skip, Conv)) and layer.expansions:
                assert block.row.expansion == values[f"layer{n}.expansion"]


def test_rows_that_repeat_are_blocks_of_their_own() -> None:
    row = InvertedResidual(3, 16, 2, 2, 3, SWISH, depthwise_padding=0)
    one, other = replace(row, repeats=1), replace(row, repeats=1, stride=1, depthwise_padding=None)
    space = space_of(*fixed(one, other), Layer((one, replace(one, kernel_size=5, depthwise_padding=1))), *fixed(other))
    arch = Arch("two", 32, ((STEM,), (row, row)))
    assert space.code(arch) == (0,)
    assert space.arch((0,), "two").blocks[1].row == one
    reasons = [f"layer {n} is k5_e3_hard_swish of 16 channels" for n in (2, 3)]
    changed = replace(row, kernel_size=5, depthwise_padding=1)
    assert refusal(lambda: space.code(replace(arch, stages=((STEM,), (changed, row))))) == (
        f"two is no network of space mine: {'; '.join(reasons)}"
    )


def test_labels() -> None:
    rows = {
        "conv_k3": STEM, "pooling_head": PoolingHead(64, 6, SWISH), "skip": Skip(16),
        "k3_e3": BLOCK, "k5_e2.5_g2_se": InvertedResidual(
            5, 16, 1, 1, 2.5, RELU, SqueezeExcite(reduces="input"), groups_1x1=2
        ),
    }  # fmt: skip
    assert {label_of(row): row for row in rows.values()} == rows
    assert label_of(BLOCK, expansion=False, activation=True) == "k3_hard_swish"
    space = space_of(Layer((BLOCK, replace(BLOCK, conv_bias=True), Skip(16))))  # two of one label
    assert space.dimensions[0].options.values == ("1 k3_e3", "2 k3_e3", "3 skip")


def test_spaces_for_other_images() -> None:
    fitted = TINY_DMASKING.fitted(num_classes=4, in_channels=1)
    assert (fitted.num_classes, fitted.in_channels) == (4, 1)
    assert replace(fitted, num_classes=10, in_channels=3) == TINY_DMASKING
    assert fitted.arch([0] * len(fitted.dimensions), "first").blocks[0].in_channels == 1


def test_a_space_of_one_network() -> None:
    space = space_of(*fixed(BLOCK))
    assert (space.count(), space.dimensions) == (1, ())
    assert space.sample(3, np.random.default_rng(0), method="uniform").shape == (3, 0)
    assert space.code(space.arch((), "only")) == ()


# Files


@every
def test_spaces_survive_json(space: LayerSpace, tmp_path: Path) -> None:
    assert LayerSpace.from_json(space.to_json()) == space
    path = tmp_path / "mine.json"
    path.write_text(space.to_json())
    assert find_layer_space(path) == find_layer_space(space.name) == find_layer_space(space) == space


def edited(*path: Any, to: Any) -> Callable[[], LayerSpace]:
    data = inner = json.loads(TINY_DNAS.to_json())
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return lambda: LayerSpace.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("path", "to", "said"),
    [
        (("stage",), [], "layer_space has an unknown key 'stage' (did you mean 'stages'?)"),
        (("resolutions",), [32.5], "layer_space.resolutions[0] is 32.5; it must be a whole number"),
        (("stages", 0, 0, "candidates"), [],
         "layer_space.stages[0][0]: Layer.candidates is empty; give at least one row"),
        (("stages", 0, 0, "candidates", 0, "op"), "con",
         "layer_space.stages[0][0].candidates[0].op is 'con'; choose from conv, inverted_residual, skip, pooling_head"),
        (("stages", 0, 0, "channels"), ["8"],
         "layer_space.stages[0][0].channels[0] is '8'; it must be a whole number"),
        (("version",), 2, "layer_space JSON has version 2; this release reads version 1"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_wrong_files(path: tuple[Any, ...], to: Any, said: str) -> None:
    assert refusal(edited(*path, to=to)) == said


def test_spaces_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "other.json").write_text("{}")
    assert refusal(lambda: find_layer_space("tiny_dns")) == (
        "unknown space 'tiny_dns' (did you mean 'tiny_dnas'?); shipped are v1, v1_a, v2, tiny_dnas, tiny_dmasking, "
        "others are JSON files"
    )
    assert refusal(lambda: find_layer_space(tmp_path / "none.json")) == (f"{tmp_path}/none.json: no such file")
    assert refusal(lambda: find_layer_space(tmp_path / "bad.json")) == (
        f"{tmp_path}/bad.json: layer_space JSON cannot be read: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1); correct the file, or write it again"
    )
    assert refusal(lambda: find_layer_space(tmp_path / "other.json")) == (
        f'{tmp_path}/other.json: layer_space JSON lacks "format": "fbnetv3_zoo.layer_space"; write such files with '
        "to_json()"
    )


# What is refused

HEAD = PoolingHead(64, 6, SWISH)
LAYERS: dict[str, tuple[Callable[[], Layer], str]] = {
    "none": (lambda: Layer(()), "candidates is empty; give at least one row"),
    "twice": (lambda: Layer((BLOCK, BLOCK)), "candidates has a row twice"),
    "repeats": (lambda: Layer((replace(BLOCK, repeats=2),)),
                "candidates: a row has 2 repeats; a layer is one block, write it out"),
    "strides": (lambda: Layer((BLOCK, replace(BLOCK, stride=2))),
                "candidates: rows differ in stride, so that their maps cannot be added"),
    "head": (lambda: Layer((Conv(1, 64, 1, SWISH), HEAD)),
             "candidates: a pooling head stands beside rows that give maps"),
    "widths": (lambda: Layer((BLOCK, Skip(24))),
               "candidates: rows differ in out_channels; give the widths as channels"),
    "zero width": (lambda: Layer((BLOCK,), (0, 8)), "channels is 0; it must be a whole number of at least 1"),
    "broken width": (lambda: Layer((BLOCK,), (8.5,)),  # type: ignore[arg-type]
                     "channels is 8.5; it must be a whole number of at least 1"),
    "falling widths": (lambda: Layer((BLOCK,), (8, 24, 16)), "channels is (8, 24, 16); give them in rising order"),
    "equal widths": (lambda: Layer((BLOCK,), (8, 8)), "channels is (8, 8); give them in rising order"),
    "zero expansion": (lambda: Layer((BLOCK,), (), (0, 2)), "expansions is 0; it must be a number above 0"),
    "equal expansions": (lambda: Layer((BLOCK,), (), (2, 2.0)), "expansions is (2, 2.0); give them in rising order"),
    "no expansion": (lambda: Layer((STEM,), (), (2, 3)), "expansions: none of the candidates has an expansion"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), LAYERS.values(), ids=LAYERS)
def test_layers_that_are_refused(make: Callable[[], Layer], said: str) -> None:
    assert refusal(make) == f"Layer.{said}"


GROUPED = "widths of grouped convolutions cannot be chosen; leave its layer one width"
PARTLY = (
    "some of its expansions need a 1x1 convolution and some do not; make those that do not a candidate of their own"
)
WIDE, NARROW = Layer((BLOCK,), (8, 16)), Layer((BLOCK,), (), (1, 3))
PADDED = replace(BLOCK, kernel_size=5, depthwise_padding=0)
SPACES: dict[str, tuple[Callable[[], LayerSpace], str]] = {
    "no resolution": (lambda: space_of(WIDE, resolutions=()),
                      "mine: resolutions is (); give at least one, in rising order"),
    "falling resolutions": (lambda: space_of(WIDE, resolutions=(32, 24)),
                            "mine: resolutions is (32, 24); give at least one, in rising order"),
    "no stages": (lambda: space_of(WIDE, stages=()),
                  "mine: stages has an empty stage; every stage needs a layer"),
    "empty stage": (lambda: space_of(), "mine: stages has an empty stage; every stage needs a layer"),
    "expansions": (lambda: space_of(NARROW), f"mine: layer 2, candidate 1: {PARTLY}"),
    "rounded expansions": (lambda: space_of(Layer((BLOCK,), (8, 12)), Layer((Skip(12), replace(BLOCK, out_channels=12,
                                                                                               expansion=1)))),
                           f"mine: layer 3, candidate 2: {PARTLY}"),  # 12 channels are rounded to 16
    "groups": (lambda: space_of(Layer((BLOCK, replace(BLOCK, groups_1x1=2)), (8, 16))),
               f"mine: layer 2, candidate 2: {GROUPED}"),
    "groups behind widths": (lambda: space_of(WIDE, *fixed(replace(BLOCK, groups_1x1=2))),
                             f"mine: layer 3, candidate 1: {GROUPED}"),
    "groups and expansions": (lambda: space_of(Layer((replace(BLOCK, channels_per_group=2),), (), (2, 3))),
                              f"mine: layer 2, candidate 1: {GROUPED}"),
    "padding": (lambda: space_of(Layer((BLOCK, PADDED))),
                "mine: layer 2, candidate 1: its map is not as large as those of the other candidates; change their "
                "padding"),
    "head inside": (lambda: space_of(*fixed(HEAD, BLOCK)),
                    "network: stages[1][0] is a PoolingHead; it may only be the last row"),
    "too small": (lambda: space_of(Layer((replace(PADDED, stride=2),)), resolutions=(4, 32)),
                  "network: resolution is 4; its strides and padding need at least 9"),
    "broken resolution": (lambda: space_of(*fixed(BLOCK), resolutions=(16, 20.5, 32)),
                          "network: resolution is 20.5; it must be a whole number of at least 1"),
    "a candidate in the middle": (
        lambda: space_of(Layer(tuple(replace(BLOCK, groups_1x1=n) for n in (1, 3, 2)))),
        "network: stage 1, block 0: in_channels 16 is not divisible by groups_1x1 = 3; change one of them"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), SPACES.values(), ids=SPACES)
def test_spaces_that_are_refused(make: Callable[[], LayerSpace], said: str) -> None:
    assert refusal(make) == said


@pytest.mark.parametrize("code", [(), (0, 0, 0), (0, 2), (-1, 0)])
def test_what_is_no_point(code: tuple[int, ...]) -> None:
    space = space_of(Layer((BLOCK, Skip(16))), WIDE)
    said = f"space mine: {list(code)} is no point of it; it has 2 dimensions"
    assert refusal(lambda: space.arch(code, "network")) == said


def test_what_is_no_network_of_a_space() -> None:
    space = space_of(Layer((BLOCK, Skip(16)), (8, 16)), resolutions=(24, 32))
    inside = space.arch((1, 0, 1), "mine_too")

    def other(stage: tuple[Row, ...], **fields: Any) -> Callable[[], object]:
        return lambda: space.code(replace(inside, stages=((STEM,), stage), **fields))

    for call, said in (
        (other((BLOCK,), resolution=28), "resolution is 28, not among 24, 32"),
        (other((BLOCK,), width_divisor=4), "width_divisor is 4, not 8"),
        (other((BLOCK,), in_channels=1), "in_channels is 1, not 3"),
        (other((BLOCK,), num_classes=10), "num_classes is 10, not 1000"),
        (other((BLOCK, BLOCK)), "its stages have [1, 2] blocks"),
        (other((replace(BLOCK, repeats=3),)), "its stages have [1, 3] blocks"),
        (other((replace(BLOCK, kernel_size=5),)), "layer 2 is k5_e3_hard_swish of 16 channels"),
        (other((replace(BLOCK, out_channels=12),)), "layer 2 is k3_e3_hard_swish of 12 channels"),
        (other((replace(BLOCK, expansion=4),)), "layer 2 is k3_e4_hard_swish of 16 channels"),
        (lambda: space.code(replace(inside, stages=((replace(STEM, bias=False),), (BLOCK,)))),
         "layer 1 is conv_k3 of 16 channels"),
    ):  # fmt: skip
        assert refusal(call) == f"mine_too is no network of space mine: {said}"
    assert space.code(inside) == (1, 0, 1)
