"""Latency tables: graphs that compute as networks do, sums over blocks, files, measuring that can be interrupted."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from refusals import refusal
from strategies import archs
from torch import nn
from waiting import until

from fbnetv3_zoo.arch import Activation, Arch, Conv, InvertedResidual, PoolingHead, Row, Skip, SqueezeExcite, latency
from fbnetv3_zoo.arch.cost import Table, tabulate
from fbnetv3_zoo.arch.latency import BlockKey, Conditions, LatencyCheck, LatencyTable, distinct_blocks, network_blocks
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.export.onnx.block_graphs import INPUT, block_graph, frame_graph, framed_graph, network_graph
from fbnetv3_zoo.export.onnx.latency import check_latency, compare, conditions_here, measure_blocks
from fbnetv3_zoo.models.blocks import ConvNormAct
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.utils.serialization import parse_json
from fbnetv3_zoo.zoo import ARCHS

SWISH = Activation.HARD_SWISH
HERE = Conditions("a processor", "onnxruntime 1.0", 1, 12)
SMALL = BlockKey(24, 96, 40, 5, 2, 2, 96, 1, 8, 0, 1, 1, 0, 0, 0, 112)


def in_one_activation(arch: Arch, activation: Activation = SWISH) -> Arch:
    def of(row: Row) -> Row:
        return row if isinstance(row, Skip) else replace(row, activation=activation)

    return replace(arch, stages=tuple(tuple(of(row) for row in stage) for stage in arch.stages))


def everything() -> Arch:
    """Every kind of thing that a block can hold."""
    excite = SqueezeExcite(reduces="input")
    rows = (
        InvertedResidual(3, 8, 1, 1, 1, SWISH),
        InvertedResidual(5, 16, 2, 2, 2, SWISH, excite),
        InvertedResidual(3, 16, 1, 2, 3, SWISH, groups_1x1=2, channels_per_group=2),
        Skip(24, 2, 2),
    )
    return Arch("everything", 32, ((Conv(3, 8, 2, SWISH),), rows, (PoolingHead(32, 2, SWISH),)), num_classes=10)


def keys_of(arch: Arch) -> tuple[BlockKey, ...]:
    return network_blocks(tabulate([arch]))[0]


def answer(graph: onnx.ModelProto, images: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {INPUT: images})[0]  # type: ignore[type-arg]
    return found


# Graphs


def fill(model: nn.Module, graph: onnx.ModelProto) -> None:
    """Give ``model`` the graph's weights, its norms the graph's biases."""
    drawn = [onnx.numpy_helper.to_array(constant) for constant in graph.graph.initializer]
    weights = iter([torch.from_numpy(array.copy()) for array in drawn if array.dtype == np.float32])
    normed = {id(module.conv): module.norm for module in model.modules() if isinstance(module, ConvNormAct)}
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            norm = normed.get(id(module))
            module.weight.data = next(weights)
            if norm is not None:
                norm.running_var.fill_(1 - norm.eps)
                norm.bias.data = next(weights)
                norm.weight.data.fill_(1)
            elif module.bias is not None:
                module.bias.data = next(weights)
    assert not list(weights)


@settings(max_examples=20)
@given(archs(max_stages=3, extra_pixels=12))
def test_a_graph_computes_what_the_network_does(arch: Arch) -> None:
    arch = in_one_activation(arch)
    graph, model = network_graph(keys_of(arch), SWISH), FBNet(arch).eval()
    fill(model, graph)
    side = arch.resolution
    images = torch.randn(1, arch.in_channels, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(images).numpy()
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(answer(graph, images.numpy()) / scale, expected / scale, atol=1e-4)


def test_a_graph_has_the_nodes_of_an_exported_one(tmp_path: Path) -> None:
    arch = everything()
    export_onnx(FBNet(arch), tmp_path / "net.onnx", batch_sizes=[1])
    assert nodes(onnx.load(tmp_path / "net.onnx")) == nodes(network_graph(keys_of(arch), SWISH))


def nodes(graph: onnx.ModelProto) -> list[tuple[str, dict[str, object]]]:
    told = ("group", "kernel_shape", "strides", "pads", "keepdims", "transB", "perm", "alpha", "beta")
    return [
        (
            node.op_type,
            {
                a.name: onnx.helper.get_attribute_value(a)
                for a in node.attribute
                if a.name in told and not (node.op_type == "Gemm" and a.name in ("alpha", "beta"))
            },
        )
        for node in graph.graph.node
    ]


def test_blocks_can_be_run_alone_and_framed() -> None:
    for key in keys_of(everything()):
        shape = [1, key.in_channels, key.side, key.side]
        alone = answer(block_graph(key, SWISH), np.ones(shape, np.float32))
        last = [key.out] if key.classifier else [key.out, key.side_out, key.side_out]
        assert alone.shape == (1, *last)
        framed = framed_graph(key, SWISH)
        shape = [axis.dim_value for axis in framed.graph.input[0].type.tensor_type.shape.dim]
        inside = key.in_channels > 4 and not key.classifier
        assert shape == [1, 1 if inside else key.in_channels, key.side, key.side]
        assert answer(framed, np.ones(shape, np.float32)).shape == (
            (1, key.out) if key.classifier else (1, key.out, 1, 1)
        )
    assert answer(frame_graph(24, 7, SWISH), np.ones((1, 1, 7, 7), np.float32)).shape == (1, 24, 1, 1)


# Blocks


def test_blocks_of_a_network() -> None:
    found = keys_of(everything())
    assert [str(key) for key in found] == [
        "3x3 convolution of stride 2 from 3 to 8 channels, at 32 pixels",
        "3x3 inverted residual from 8 to 8 channels, at 16 pixels",
        "5x5 inverted residual of stride 2 from 8 over 16 to 16 channels, squeeze-excite of 8, at 16 pixels",
        "5x5 inverted residual from 16 over 32 to 16 channels, squeeze-excite of 8, at 8 pixels",
        "3x3 inverted residual from 16 over 48 to 16 channels, at 8 pixels",
        "3x3 inverted residual from 16 over 48 to 16 channels, at 8 pixels",
        "1x1 skip of stride 2 from 16 to 24 channels, at 8 pixels",  # the second one is the identity
        "pooling head from 24 over 48 to 32 channels, at 4 pixels",
        "classifier of 32 features and 10 classes",
    ]
    assert distinct_blocks(tabulate([everything(), everything()])) == tuple(sorted(set(found)))
    assert [key.text for key in found[-2:]] == [
        "in_channels=24 mid=48 out=32 kernel=1 stride=1 groups_1x1=1 expands=1 projects=1 pools=1 side=4",
        "in_channels=32 out=10 classifier=1 side=1",
    ]


@given(archs())
def test_blocks_as_text(arch: Arch) -> None:
    for key in keys_of(arch):
        assert BlockKey.parse(key.text) == key
        assert str(key).isprintable()


@pytest.mark.parametrize("text", ["side", "side=7 side=8", "side=7 in_channels=3", "side=-1", "side=0", "sides=7"])
def test_text_that_is_no_block(text: str) -> None:
    expected = f"block {text!r} cannot be read; write latency tables with to_json()"
    assert refusal(lambda: BlockKey.parse(text)) == expected


# Sums


def made_up(table: Table, **fields: object) -> LatencyTable:
    keys = distinct_blocks(table)
    drawn = np.random.default_rng(0).random(len(keys)).round(6).tolist()
    return replace(LatencyTable(HERE, SWISH, dict(zip(keys, drawn, strict=True))), **fields)  # type: ignore[arg-type]


def test_a_network_takes_as_long_as_its_blocks() -> None:
    pool = tabulate([ARCHS[name] for name in ("fbnetv3_a", "fbnetv3_g", "fbnetv3_b", "fbnet_a")])
    table = made_up(pool, call=0.5, scale=1.25)
    expected = [1.25 * (0.5 + sum(table.blocks[key] for key in keys)) for keys in network_blocks(pool)]
    np.testing.assert_allclose(table(pool), expected, rtol=1e-12)
    assert len(set(expected)) == 4


def test_blocks_that_were_not_measured() -> None:
    pool = tabulate([everything()])
    whole = made_up(pool)
    kept = {key: ms for key, ms in whole.blocks.items() if not key.pools and not key.se}
    part = replace(whole, blocks=kept)
    assert len(part.lacks(keys_of(everything()))) == 3
    example = min(part.lacks(keys_of(everything())))
    told = f"lacks 3 of the blocks asked for, such as: {example}; measure them with"
    expected = (
        f"latency table of a processor, onnxruntime 1.0, 1 thread: {told} "
        "`fbnetv3 search lut --space SPACE --output TABLE`"
    )
    assert refusal(lambda: part(pool)) == expected
    assert refusal(lambda: replace(whole, blocks={})(pool)).count("lacks 8 of the blocks") == 1


def test_a_hash_cannot_deceive(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = tabulate([everything(), ARCHS["fbnetv3_a"]])
    expected = distinct_blocks(pool)
    monkeypatch.setattr(latency, "_FACTORS", np.zeros(len(BlockKey._fields), np.uint64))
    assert distinct_blocks(pool) == expected
    assert "of the blocks asked for" in refusal(lambda: made_up(pool)(pool))


# Files


def test_files(tmp_path: Path) -> None:
    check = LatencyCheck(3, 0.1, -0.05, 0.02, 1.0, 3.25, 12.5)
    table = made_up(tabulate([ARCHS["fbnetv3_a"]]), call=0.25, scale=1.5, check=check)
    assert LatencyTable.from_json(table.to_json()) == table
    table.save(tmp_path / "deep" / "table.json")
    assert LatencyTable.load(tmp_path / "deep" / "table.json") == table
    lines = table.to_json().splitlines()
    assert sum("side=" in line for line in lines) == len(table.blocks)
    assert str(check) == (
        "3 whole networks of 3.25 to 12.5 ms: error of plain sums 10.0% (bias -5.0%), scaled 2.0%; Kendall 1.00"
    )


def test_a_rank_correlation_that_there_is_not() -> None:
    table = made_up(tabulate([ARCHS["fbnetv3_a"]]), check=LatencyCheck(2, 0.1, 0.1, 0.1, math.nan, 3.0, 3.0))
    text = table.to_json()
    assert parse_json(text, "it")["check"]["kendall"] is None
    check = LatencyTable.from_json(text).check
    assert check is not None
    assert math.isnan(check.kendall)


KEY = SMALL.text


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"format": "other"}, 'lacks "format": "fbnetv3_zoo.latency_table"; `fbnetv3 search lut` writes such files'),
        ({"version": 2}, "has version 2; this release reads version 1"),
        ({"blocks": None}, "lacks 'blocks'"),
        ({"blocks": {"side=x": 1.0}}, "block 'side=x' cannot be read; write latency tables with to_json()"),
        ({"blocks": {KEY: -1.0}}, f"milliseconds of the {SMALL} is -1.0; it must be a number at least 0"),
        ({"blocks": {KEY: "1"}}, f"milliseconds of the {SMALL} is '1'; it must be a number at least 0"),
        (
            {"blocks": {KEY: math.nan}},
            "cannot be read: NaN is not a number of JSON; correct the file, or write it again",
        ),
        ({"scale": 0}, "LatencyTable.scale is 0; it must be a number above 0"),
        ({"call": -1}, "LatencyTable.call is -1; it must be a number at least 0"),
        ({"activation": "gelu"}, "latency_table.activation is 'gelu'; choose from relu, hard_swish"),
        ({"conditions": {"processor": "x"}}, "latency_table.conditions lacks 'runtime'"),
        ({"more": 1}, "latency_table has an unknown key 'more'"),
    ],
)
def test_files_that_are_no_tables(changed: dict[str, object], complaint: str, tmp_path: Path) -> None:
    good = json.loads(LatencyTable(HERE, SWISH, {SMALL: 1.0}).to_json())
    path = tmp_path / "table.json"
    path.write_text(json.dumps({**good, **changed}))
    told = refusal(lambda: LatencyTable.load(path))
    assert told.removeprefix(f"{path}: ").removeprefix("latency table ") == complaint
    assert told.startswith(f"{path}: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    assert refusal(lambda: LatencyTable.load(path)) == f"{path}: no such file"
    path.write_text(LatencyTable(HERE, SWISH, {SMALL: 1.0}).to_json()[:-9])
    assert refusal(lambda: LatencyTable.load(path)).startswith(f"{path}: latency table cannot be read: ")
    path.write_bytes(b"[]")
    assert "lacks" in refusal(lambda: LatencyTable.load(path))


# Measuring


def some_blocks() -> Sequence[BlockKey]:
    return distinct_blocks(tabulate([everything()]))


def test_only_what_is_missing_is_measured(tmp_path: Path) -> None:
    blocks, told = some_blocks(), list[int]()
    path = tmp_path / "table.json"
    first = measure_blocks(blocks[:3], SWISH, rounds=3, path=path)
    assert LatencyTable.load(path) == first
    assert set(first.blocks) == set(blocks[:3])
    assert first.conditions == conditions_here(rounds=3)
    faked = replace(first, blocks=dict.fromkeys(blocks[:3], 7.0), scale=2.0)
    second = measure_blocks(blocks, SWISH, rounds=4, table=faked, path=path, on_progress=told.append)
    assert told == [len(blocks) - 3]
    assert {key: second.blocks[key] for key in blocks[:3]} == faked.blocks
    assert set(second.blocks) == set(blocks)
    assert all(0 <= ms < 100 for ms in second.blocks.values())
    assert second.call > 0
    assert LatencyTable.load(path) == second
    assert measure_blocks(blocks[2:], SWISH, table=second) is second


class Weigher:
    """Says of a graph that it takes 0.5 ms and 1 ms a thousand weights: times that add up exactly."""

    def __init__(self, threads: int, rounds: int) -> None:
        pass

    def __call__(self, graphs: Sequence[onnx.ModelProto]) -> np.ndarray:  # type: ignore[type-arg]
        weights = [[np.prod(c.dims) for c in graph.graph.initializer if c.data_type == 1] for graph in graphs]
        return np.array([0.5 + sum(found) / 1000 for found in weights])


def test_frames_cancel_over_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbnetv3_zoo.export.onnx.latency.Timer", Weigher)
    pool = tabulate([ARCHS["fbnetv3_a"], in_one_activation(ARCHS["fbnet_a"]), everything()])
    table = measure_blocks(distinct_blocks(pool), SWISH)
    assert table.call == 0.5
    whole = Weigher(1, 3)([network_graph(keys, SWISH) for keys in network_blocks(pool)])
    np.testing.assert_allclose(table(pool), whole, atol=1e-4)
    checked = check_latency(replace(table, scale=2.0), pool)
    assert checked.check is not None
    assert (checked.check.error, checked.scale) == pytest.approx((0, 1), abs=1e-4)


def test_tables_of_other_conditions_are_left_alone(tmp_path: Path) -> None:
    here = conditions_here()
    other = LatencyTable(HERE, SWISH, {})
    assert refusal(lambda: measure_blocks(some_blocks(), SWISH, table=other)) == (
        f"latency table of a processor, onnxruntime 1.0, 1 thread: this is {here}; measure into another file"
    )
    mine = LatencyTable(here, SWISH, {})
    assert refusal(lambda: measure_blocks(some_blocks(), SWISH, threads=2, table=mine)) == (
        f"latency table of {here}: this is {replace(here, threads=2)}; measure into another file"
    )
    assert refusal(lambda: measure_blocks(some_blocks(), Activation.RELU, table=mine)) == (
        f"latency table of {here}: its blocks have hard_swish, not relu; measure into another file"
    )
    for field in ("threads", "rounds"):
        least = {"threads": 1, "rounds": 3}[field]
        told = refusal(lambda: measure_blocks(some_blocks(), SWISH, **{field: least - 1}))  # noqa: B023
        assert f"it must be a whole number of at least {1 if field == 'threads' else 3}" in told


KILLED = """
import sys
from fbnetv3_zoo.arch.cost import tabulate
from fbnetv3_zoo.export.onnx import latency
from fbnetv3_zoo.arch.latency import distinct_blocks
from fbnetv3_zoo.zoo import ARCHS
from pathlib import Path
latency.SAVE_EVERY, latency.TOGETHER = 0, 4
names = [name for name in ARCHS if name.startswith("fbnetv3_")]
blocks = distinct_blocks(tabulate([ARCHS[name] for name in names], resolution=64))
latency.measure_blocks(blocks, latency.Activation.HARD_SWISH, rounds=3, path=Path(sys.argv[1]))
"""


def test_a_killed_measurement_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)])
    until(lambda: path.exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = LatencyTable.load(path)
    assert left.blocks
    table = measure_blocks(some_blocks(), SWISH, rounds=3, table=left, path=path)
    assert table.blocks.items() >= left.blocks.items()
    assert not table.lacks(some_blocks())


def test_a_table_is_checked_against_whole_networks(tmp_path: Path) -> None:
    pool = tabulate([everything()] * 3)
    table = measure_blocks(some_blocks(), SWISH, rounds=3)
    doubled = replace(table, blocks=dict.fromkeys(table.blocks, 100.0), scale=3.0)
    checked = check_latency(doubled, pool, path=tmp_path / "table.json")
    assert checked.check is not None
    assert (checked.check.networks, checked.check.bias) == (3, checked.check.error)
    assert checked.check.bias > 1  # the sums are far too large, whatever the earlier scale,
    assert checked.scale < 0.5  # and are scaled down
    assert 0 < checked.check.shortest <= checked.check.longest
    np.testing.assert_allclose(checked(pool), checked.scale * doubled(pool) / 3)
    loaded = LatencyTable.load(tmp_path / "table.json")
    assert (loaded.blocks, loaded.scale, loaded.call) == (checked.blocks, checked.scale, checked.call)
    few = "checking a latency table needs at least 3 networks; 2 were given"
    assert refusal(lambda: check_latency(table, tabulate([everything()] * 2))) == few


def test_errors_by_hand() -> None:
    whole = np.array([1.0, 2.0, 4.0, 8.0])
    check = compare(1.1 * whole, whole)
    assert (check.networks, check.shortest, check.longest, check.kendall) == (4, 1.0, 8.0, 1.0)
    assert (check.error, check.bias, check.scaled_error) == pytest.approx((0.1, 0.1, 0.0))
    check = compare(whole * [0.9, 1.1, 1.0, 1.0], whole)
    assert (check.error, check.bias) == pytest.approx((0.05, 0.0))
    check = compare(whole[:3] * [1, 2, 4], whole[:3])  # the middle of the others' ratios: 0.375, 0.625 and 0.75
    assert check.scaled_error == pytest.approx((0.625 + 0.25 + 2.0) / 3)
    assert compare(whole[::-1], whole).kendall == -1.0
