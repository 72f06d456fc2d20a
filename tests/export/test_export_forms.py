"""Rewritten graphs compute the same numbers, in the form that runtimes are fast in."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import V1, V2, producers, settled
from onnx import TensorProto, helper, numpy_helper

from fbnetv3_zoo.arch import Activation, Arch, Conv, InvertedResidual, PoolingHead, SqueezeExcite
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.export.onnx.passes import align_channels, attribute, consumers, convolutions, pool_globally

Floats = npt.NDArray[np.float32]


class Drawing:
    """A random graph, node by node, and what it needs for that."""

    def __init__(self, data: st.DataObject, channels: int) -> None:
        self._data, self._rng = data, np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.channels, self.last = channels, "images"

    def model(self) -> onnx.ModelProto:
        self.add("ReduceMean", self.last, self._constant("axes", np.array([2, 3])), keepdims=1)
        self.add("Reshape", self.last, self._constant("flat", np.array([0, -1])))
        self.nodes[-1].output[0] = "logits"
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 12, 12])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", self.channels])
        graph = helper.make_graph(self.nodes, "drawn", [images], [logits], list(self.constants.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    def add(self, kind: str, *inputs: str, **attributes: int | list[int]) -> str:
        self.last = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [self.last], **attributes))
        return self.last

    def conv(self, width: int, kernel: int = 1, groups: int = 1) -> None:
        inner = self.channels // groups
        weight = self._rng.standard_normal((width, inner, kernel, kernel), np.float32) / (inner * kernel**2) ** 0.5
        inputs = [self.last, self._constant(f"weight{len(self.nodes)}", weight)]
        if self._data.draw(st.booleans()):  # equal widths share a bias, as equal tensors do in torch's files
            inputs.append(self._constant(f"bias{width}", self._rng.standard_normal(width, np.float32)))
        self.add("Conv", *inputs, group=groups, pads=[kernel // 2] * 4, kernel_shape=[kernel, kernel])
        self.channels = width

    def shuffle(self, groups: int) -> None:
        split = np.array([0, groups, self.channels // groups, 12, 12])
        self.add("Reshape", self.last, self._constant(f"split{groups}x{self.channels}", split))
        self.add("Transpose", self.last, perm=[0, 2, 1, 3, 4])
        self.add("Reshape", self.last, self._constant(f"joined{self.channels}", np.array([0, self.channels, 12, 12])))

    def squeeze_excite(self, squeezed: int, gate: str) -> None:
        given, width = self.last, self.channels
        self.add("ReduceMean", self.last, self._constant("axes", np.array([2, 3])), keepdims=1)
        self.conv(squeezed)
        self.add("Relu", self.last)
        self.conv(width)
        self.add("Mul", given, self.add(gate, self.last))

    def _constant(self, name: str, array: npt.NDArray[np.generic]) -> str:
        self.constants.setdefault(name, numpy_helper.from_array(array, name))
        return name


@st.composite
def graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """Blocks of all three papers, one after another, of any width from 8 to 130."""
    data = draw(st.data())
    drawing, widths = Drawing(data, 3), st.integers(8, 130)
    drawing.conv(draw(widths), 3)
    for _ in range(draw(st.integers(1, 3))):
        entered, channels = drawing.last, drawing.channels
        groups = draw(st.sampled_from([1, 1, 2, 4]))
        expanded = draw(widths) // groups * groups if channels % groups == 0 else draw(widths)
        groups = groups if channels % groups == 0 else 1
        drawing.conv(expanded, groups=groups)
        if groups > 1:
            drawing.shuffle(groups)
        drawing.add(draw(st.sampled_from(["Relu", "HardSwish", "Sigmoid"])), drawing.last)
        per_group = 2 if expanded % 2 == 0 and draw(st.booleans()) else 1
        drawing.conv(expanded, 3, expanded // per_group)
        if draw(st.booleans()):
            drawing.squeeze_excite(draw(widths), draw(st.sampled_from(["HardSigmoid", "Sigmoid"])))
        residual = draw(st.booleans())
        drawing.conv(channels if residual else draw(widths))
        if residual:
            drawing.add("Add", drawing.last, entered)
    return drawing.model()


def _answers(model: onnx.ModelProto, images: Floats) -> Floats:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answers: Floats = session.run(None, {model.graph.input[0].name: images})[0]
    return answers


def _widths(graph: onnx.GraphProto) -> dict[str, int]:
    """Channels of every convolution's answer."""
    shapes = {weight.name: weight.dims for weight in graph.initializer}
    return {node.output[0]: shapes[node.input[1]][0] for node in convolutions(graph)}


def _squeezed(graph: onnx.GraphProto) -> list[int]:
    """Channels of the maps that gates multiply, and of those between their two convolutions."""
    widths, writers = _widths(graph), producers(graph)
    found = []
    for gate in (node for node in graph.node if node.op_type in ("HardSigmoid", "Sigmoid")):
        expand = writers[gate.input[0]]
        found.append(widths[expand.output[0]])
        found.append(widths[writers[writers[expand.input[0]].input[0]].output[0]])
    return found


@given(graphs(), st.sampled_from([8, 16, 32]))
@settings(max_examples=20)
def test_random_graphs_compute_the_same(model: onnx.ModelProto, multiple: int) -> None:
    images = np.random.default_rng(1).standard_normal((2, 3, 12, 12), np.float32)
    expected, before = _answers(model, images), _widths(model.graph)
    pool_globally(model.graph)
    assert "ReduceMean" not in {node.op_type for node in model.graph.node}
    np.testing.assert_allclose(_answers(model, images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    align_channels(model.graph, multiple)
    np.testing.assert_allclose(_answers(model, images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    after = _widths(model.graph)
    assert after.keys() == before.keys()
    for name, width in after.items():
        assert width in (before[name], -(-before[name] // multiple) * multiple)
        assert width == before[name] or width >= multiple
    used = {name for node in model.graph.node for name in node.input}
    assert {weight.name for weight in model.graph.initializer} <= used


@pytest.fixture(scope="module", params=["v1", "v2", pytest.param("v3", marks=pytest.mark.long), "odd"])
def plain(request: pytest.FixtureRequest, tiny_arch: Arch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with its maps as wide as the network's."""
    stem, (_, second), _ = tiny_arch.stages
    block = replace(second, out_channels=20, expansion=3.3, repeats=1)
    odd = replace(tiny_arch, stages=(stem, (block,), (PoolingHead(130, 2, Activation.HARD_SWISH),)), width_divisor=1)
    arch = {"v1": V1, "v2": V2, "v3": tiny_arch, "odd": odd}[request.param]
    path = tmp_path_factory.mktemp("plain") / f"{request.param}.onnx"
    return export_onnx(settled(arch), path, align=1, batch_sizes=[2]).path


def test_files_compute_the_same_in_every_width(plain: Path) -> None:
    images = np.random.default_rng(1).standard_normal((3, 3, 32, 32), np.float32)
    model = onnx.load(plain)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert (kinds["GlobalAveragePool"] > 0) == (plain.stem != "v1")
    assert not {"Shape", "Gather", "Identity"} & set(kinds)
    assert not any(node.op_type == "ReduceMean" and attribute(node, "keepdims", 1) for node in model.graph.node)
    expected, before = _answers(model, images), _widths(model.graph)
    for multiple in (8, 16, 32):
        wide = onnx.load(plain)
        align_channels(wide.graph, multiple)
        np.testing.assert_allclose(_answers(wide, images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        after = _widths(wide.graph)
        assert all(width % multiple == 0 for width in _squeezed(wide.graph) if width >= multiple)
        if plain.stem in ("v2", "odd"):
            assert sum(after.values()) > sum(before.values())
        assert Counter(node.op_type for node in wide.graph.node) == kinds
    once = onnx.load(plain)
    align_channels(once.graph, 1)
    assert _widths(once.graph) == before


def _has_avx512() -> bool:
    return "avx512f" in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else "")


@pytest.mark.parametrize("align", [1, 16])
def test_nothing_is_reordered_behind_a_pool(align: int, tmp_path: Path) -> None:
    """Which ONNX Runtime does at every squeeze-excite where maps are no multiples of the processor's block."""
    se = SqueezeExcite(reduces="expanded", ratio=0.5)
    rows = (InvertedResidual(3, 20, 2, 1, 3, Activation.HARD_SWISH, se),)
    stages = ((Conv(3, 16, 2, Activation.HARD_SWISH),), rows, (PoolingHead(40, 2, Activation.HARD_SWISH),))
    arch = Arch("squeezed", 32, stages, width_divisor=4, num_classes=10)
    path = export_onnx(settled(arch), tmp_path / "net.onnx", align=align, batch_sizes=[1]).path
    assert all(width % align == 0 for width in _squeezed(onnx.load(path).graph) if width >= align)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # it warns that the file is for this processor alone
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "optimized.onnx").graph
    pools = [node for node in graph.node if node.op_type == "GlobalAveragePool"]
    behind = [reader.op_type for pool in pools for reader in consumers(graph)[pool.output[0]]]
    assert len(pools) == 2
    if _has_avx512():  # else blocks have eight channels, or maps keep their order
        assert ("ReorderInput" in behind) == (align == 1)


def test_pools_that_keep_no_axes_stay() -> None:
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["flat"], keepdims=0),
        helper.make_node("ReduceMean", ["images", "axes"], ["logits"], keepdims=1),
    ]
    graph = helper.make_graph(nodes, "two", [], [], [axes])
    pool_globally(graph)
    assert [(node.op_type, list(node.input)) for node in graph.node] == [
        ("ReduceMean", ["images", "axes"]),
        ("GlobalAveragePool", ["images"]),
    ]
    assert attribute(graph.node[0], "keepdims", 1) == 0
