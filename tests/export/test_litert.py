"""LiteRT files operator by operator: what the converter and its int8 form compute, and the metadata of the field."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from networks import NAMES
from onnx import TensorProto, helper, numpy_helper

from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export import export_litert
from fbnetv3_zoo.export.litert.convert import converted
from fbnetv3_zoo.export.litert.graph import ALIGNMENT, Model
from fbnetv3_zoo.export.litert.metadata import with_labels
from fbnetv3_zoo.export.quantization.calibration import find_ranges
from fbnetv3_zoo.export.quantization.litert_int8 import quantized
from fbnetv3_zoo.export.quantization.qdq import Activations, QDQSettings, logits_of, observed, whole_weights
from fbnetv3_zoo.runtimes.litert_tflite import Runner, check_whole_file, entries_in
from fbnetv3_zoo.utils.onnx_io import entries_of

Floats = npt.NDArray[np.float32]
SIDES = (15, 12)


def _floats(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _graph(
    nodes: Sequence[onnx.NodeProto], weights: Mapping[str, npt.NDArray[Any]], *, channels: int = 6
) -> onnx.ModelProto:
    """A graph from ``images`` of 15 x 12 pixels to the output of the last node."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", channels, *SIDES])
    last = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "graph", [images], [last], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _ended(node: onnx.NodeProto, weights: dict[str, npt.NDArray[Any]], *more: onnx.NodeProto) -> onnx.ModelProto:
    """``node``, ``more``, and a linear layer that sees every place of their maps, as a graph."""
    end = [helper.make_node("Flatten", [(more or (node,))[-1].output[0]], ["flat"])]
    size = logits_of(_graph([node, *more, *end], weights))(_floats(1, 6, *SIDES)).shape[1]
    linear = helper.make_node("Gemm", ["flat", "matrix", "offset"], ["logits"], name="last", transB=1)
    weights = {**weights, "matrix": _floats(4, size, seed=8) / np.float32(size**0.5), "offset": _floats(4, seed=9)}
    return _graph([node, *more, *end, linear], weights)


def _run(model: Model, images: Floats) -> Floats:
    return Runner(Path("network.tflite"), model.packed({}), 1)(images)


def _same(model: onnx.ModelProto) -> None:
    """LiteRT and ONNX Runtime compute the same, also for several images."""
    for images in (_floats(1, 6, *SIDES), _floats(3, 6, *SIDES, seed=1)):
        expected = logits_of(model)(images)
        found = _run(converted(model, (1, *SIDES, 6)), images)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_convolutions(groups: int, kernel: int, stride: int) -> None:
    """With pads that LiteRT has a word for, and others; depthwise ones with a multiplier."""
    for pads in ([kernel // 2] * 4, [0, 0, 0, 0], [0, 1, 2, 0]):
        weights = {"weight": _floats(12, 6 // groups, kernel, kernel), "bias": _floats(12)}
        node = helper.make_node(
            "Conv", ["images", "weight", "bias"], ["maps"], group=groups, pads=pads, strides=[stride, stride],
            kernel_shape=[kernel, kernel],
        )  # fmt: skip
        _same(_ended(node, weights))


def test_holes_and_sides_that_differ() -> None:
    weights = {"weight": _floats(5, 6, 3, 2)}
    node = helper.make_node("Conv", ["images", "weight"], ["maps"], dilations=[2, 3], strides=[1, 2], pads=[2, 1, 2, 1])
    _same(_ended(node, weights))


def _node(kind: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, ["images"], ["maps"], **attributes)


@pytest.mark.parametrize(
    "node",
    [
        _node("HardSwish"), _node("HardSigmoid", alpha=1 / 6, beta=0.5), _node("Relu"), _node("Sigmoid"),
        _node("GlobalAveragePool"),
        helper.make_node("ReduceMean", ["images", "sides"], ["maps"]),
        helper.make_node("ReduceMean", ["images", "sides"], ["maps"], keepdims=0),
        _node("Identity"), _node("MaxPool", kernel_shape=[2, 3], strides=[2, 3]),
        _node("AveragePool", kernel_shape=[3, 2], strides=[2, 2]), _node("Flatten"),
        helper.make_node("Clip", ["images", "zero", "six"], ["maps"]),
        helper.make_node("Add", ["images", "channels"], ["maps"]),
        helper.make_node("Mul", ["images", "six"], ["maps"]),
        helper.make_node("Concat", ["images", "images"], ["maps"], axis=1),
    ],
    ids=lambda node: node.op_type,
)  # fmt: skip
def test_operators(node: onnx.NodeProto) -> None:
    weights = {"zero": np.float32(0), "six": np.float32(6), "channels": _floats(1, 6, 1, 1), "sides": np.array([-1, 2])}
    _same(_ended(node, {name: np.array(array) for name, array in weights.items() if name in node.input}))


def test_a_shuffle_of_channels() -> None:
    shapes = {"apart": np.array([-1, 2, 3, *SIDES]), "together": np.array([-1, 6, *SIDES])}
    nodes = [
        helper.make_node("Reshape", ["images", "apart"], ["groups"]),
        helper.make_node("Transpose", ["groups"], ["moved"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["moved", "together"], ["maps"]),
    ]
    _same(_ended(nodes[0], shapes, *nodes[1:]))


def test_a_padded_pool_of_positive_maps() -> None:
    pool = helper.make_node("MaxPool", ["rectified"], ["maps"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    _same(_ended(helper.make_node("Relu", ["images"], ["rectified"]), {}, pool))


@pytest.mark.parametrize(
    ("node", "told"),
    [
        (_node("Erf"), "it has the operator Erf"),
        (helper.make_node("ReduceMean", ["images", "one"], ["maps"]),
         "it averages over the axes [1], not over height and width"),
        (_node("HardSigmoid"), "it has a hard sigmoid of another slope than a sixth"),
        (_node("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 0, 0]), "it pads the input of a pool"),
        (_node("MaxPool", kernel_shape=[3, 3], dilations=[2, 2]), "it has a pool with holes, or of incomplete windows"),
        (_node("Transpose", perm=[0, 2, 3, 1]), "it transposes other axes than those of a shuffle of channels"),
        (helper.make_node("Clip", ["images", "low", "high"], ["maps"]), "it clips to [-1.0, 1.0], not from 0 to 6"),
        (helper.make_node("Concat", ["images", "images"], ["maps"], axis=2),
         "it joins maps along another axis than that of the channels"),
        (helper.make_node("Reshape", ["images", "rows"], ["maps"]), "it reshapes 4 axes to 3"),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)  # fmt: skip
def test_what_has_no_form(node: onnx.NodeProto, told: str) -> None:
    weights = {"low": np.float32(-1), "high": np.float32(1), "rows": np.array([-1, 6, 15 * 12]), "one": np.array([1])}
    model = _graph([node], {name: np.array(array) for name, array in weights.items() if name in node.input})
    with pytest.raises(ZooError) as caught:
        converted(model, (1, *SIDES, 6))
    assert str(caught.value) == told


# int8


def _block() -> onnx.ModelProto:
    """What our networks consist of: hard swish, a gate with hard sigmoid, a residual, strides, a head."""
    weights = {
        "widen": _floats(12, 6, 1, 1), "depthwise": _floats(12, 1, 3, 3, seed=1),
        "reduce": _floats(4, 12, 1, 1, seed=2),
        "expand": _floats(12, 4, 1, 1, seed=3), "narrow": _floats(6, 12, 1, 1, seed=4), "bias": _floats(12, seed=5),
        "relu": _floats(8, 6, 3, 3, seed=6), "matrix": _floats(4, 8, seed=7), "sides": np.array([2, 3]),
    }  # fmt: skip

    def conv(source: str, weight: str, output: str, *more: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node("Conv", [source, weight, *more], [output], name=output, **attributes)

    def node(kind: str, source: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, source, [output], **attributes)

    nodes = [
        conv("images", "widen", "wide", "bias"), node("HardSwish", ["wide"], "swish"),
        conv("swish", "depthwise", "deep", group=12, pads=[1] * 4), node("HardSwish", ["deep"], "deepened"),
        node("GlobalAveragePool", ["deepened"], "mean"), conv("mean", "reduce", "few"),
        node("Relu", ["few"], "rectified"), conv("rectified", "expand", "many"),
        node("HardSigmoid", ["many"], "gate", alpha=1 / 6, beta=0.5), node("Mul", ["deepened", "gate"], "gated"),
        conv("gated", "narrow", "narrowed"), node("Add", ["images", "narrowed"], "sum"),
        conv("sum", "relu", "last maps", strides=[2, 2], pads=[1] * 4), node("Relu", ["last maps"], "rectified maps"),
        node("ReduceMean", ["rectified maps", "sides"], "flat", keepdims=0),
        helper.make_node("Gemm", ["flat", "matrix"], ["logits"], name="linear", transB=1),
    ]  # fmt: skip
    return _graph(nodes, weights)


def _int8(model: onnx.ModelProto, images: Floats, *keep: str) -> Model:
    ranges = find_ranges(model, images, observed(model.graph), clip=False)
    weights = whole_weights(model, QDQSettings(Activations.INT8))
    return quantized(model, (1, *SIDES, 6), ranges, weights, keep=keep)


def test_a_block_in_int8() -> None:
    model, images = _block(), _floats(16, 6, *SIDES)
    expected = logits_of(model)(images)
    spread = np.linalg.norm(expected - expected.mean(0))
    whole = np.linalg.norm(_run(_int8(model, images), images) - expected) / spread
    part = np.linalg.norm(_run(_int8(model, images, "wide", "deep", "linear"), images) - expected) / spread
    assert 1e-4 < part < whole < 0.12
    layers = [node.name for node in model.graph.node if node.name]
    none = _int8(model, images, *layers)
    np.testing.assert_allclose(_run(none, images), expected, atol=1e-5 * np.abs(expected).max())


def test_xnnpack_takes_int8_in_one_piece() -> None:
    """No operator is left to LiteRT's own kernels, hard swish neither."""
    model = _int8(_block(), _floats(16, 6, *SIDES))
    assert "HARD_SWISH" not in {operator.code for operator in model.graph.operators}
    interpreter = Interpreter(model_content=model.packed({}), num_threads=1)
    interpreter.allocate_tensors()
    (piece,) = [one for one in interpreter._get_ops_details() if one["op_name"] == "DELEGATE"]
    assert interpreter.get_input_details()[0]["index"] in piece["inputs"]
    assert interpreter.get_output_details()[0]["index"] in piece["outputs"]


@pytest.mark.parametrize("kind", ["HardSwish", "HardSigmoid"])
def test_activations_in_int8_are_off_by_little_more_than_a_step(kind: str) -> None:
    """Over their whole range, ends included: a layer that passes on the maps, the activation, and a layer again."""
    weights = {"same": np.eye(6, dtype=np.float32)[..., None, None], "matrix": np.eye(6, dtype=np.float32)}
    attributes = {"alpha": 1 / 6, "beta": 0.5} if kind == "HardSigmoid" else {}
    nodes = [
        helper.make_node("Conv", ["images", "same"], ["maps"], name="first"),
        helper.make_node(kind, ["maps"], ["active"], **attributes),
        helper.make_node("GlobalAveragePool", ["active"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix"], ["logits"], name="last", transB=1),
    ]
    model = _graph(nodes, weights)
    values = np.linspace(-5, 5, 60, dtype=np.float32).reshape(10, 6, 1, 1)
    images = np.ascontiguousarray(np.broadcast_to(values, (10, 6, *SIDES)))
    found, expected = _run(_int8(model, images), images), logits_of(model)(images)
    step = 10 / 255 if kind == "HardSwish" else 1.5 * 10 / 255 / 6  # of the images, which are the coarsest
    assert np.abs(found - expected).max() < 1.5 * step


def test_dead_channels_in_int8() -> None:
    """Weights of zero, with a bias: the step of such a channel is chosen for the bias."""
    weights = {"weight": np.zeros((6, 6, 1, 1), np.float32), "bias": np.array([0, 1, -2, 50, 1e-3, -1e-9], np.float32)}
    weights["weight"][0, 0] = 1
    node = helper.make_node("Conv", ["images", "weight", "bias"], ["maps"], name="conv")
    model, images = _ended(node, weights), _floats(8, 6, *SIDES)
    found, expected = _run(_int8(model, images), images), logits_of(model)(images)
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


# Files


def test_constants_are_aligned(model_files: Path) -> None:
    data = (model_files / "net.tflite").read_bytes()
    model = schema.Model.GetRootAs(data)
    buffers = [model.Buffers(n) for n in range(model.BuffersLength())]
    places = [one._tab.Vector(one._tab.Offset(4)) for one in buffers if one.DataLength()]
    assert len(places) > 20
    assert {place % ALIGNMENT for place in places} == {0}


def _field(table: Any, slot: int) -> int:
    """The place of a field of a table of a flatbuffer, by its number in the schema."""
    return int(table.Pos + table.Offset(4 + 2 * slot))


def _at(table: Any, *slots: int) -> Any:
    """The table that these fields lead to; from 100 on, the first of the vector in the field of the number less 100."""
    for slot in slots:
        place = table.Vector(table.Offset(4 + 2 * (slot - 100))) if slot >= 100 else _field(table, slot)
        table = flatbuffers.table.Table(table.Bytes, table.Indirect(place))
    return table


def test_the_metadata_of_the_field(model_files: Path) -> None:
    """Normalization and class names, where the schema of LiteRT's metadata has them."""
    data = (model_files / "net.tflite").read_bytes()
    model = schema.Model.GetRootAs(data)
    (entry,) = [one for n in range(model.MetadataLength()) if (one := model.Metadata(n)).Name() == b"TFLITE_METADATA"]
    metadata = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    assert metadata[4:8] == b"M001"
    root = flatbuffers.table.Table(bytearray(metadata), int.from_bytes(metadata[:4], "little"))
    first = 100  # of a vector
    images = _at(root, first + 3, first + 2)
    options = _at(images, first + 4, 1)
    for slot, wanted in ((0, (0.485, 0.456, 0.406)), (1, (0.229, 0.224, 0.225))):
        place = options.Vector(options.Offset(4 + 2 * slot))
        values = np.frombuffer(metadata, np.float32, 3, place)
        np.testing.assert_allclose(values, 255 * np.array(wanted), rtol=1e-6)
    size = _at(images, 3, 1, 1)
    sides = [size.Get(flatbuffers.number_types.Uint32Flags, _field(size, slot)) for slot in (0, 1)]
    assert sides == [32, 32]
    labels = _at(root, first + 3, first + 3, first + 6)
    assert labels.String(_field(labels, 0)) == b"labels.txt"
    with zipfile.ZipFile(model_files / "net.tflite") as archive:
        (file,) = archive.infolist()
        assert (file.filename, file.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert archive.read(file).decode().split("\n")[:-1] == [" ".join(name.splitlines()) for name in NAMES]


def test_unknown_class_names_are_left_out() -> None:
    assert with_labels(b"model", None) == b"model"
    whole = with_labels(b"model", ["one", "two\nlines"])
    assert zipfile.ZipFile(io.BytesIO(whole)).read("labels.txt") == b"one\ntwo lines\n"


def test_int8_weights(model_files: Path, tmp_path: Path) -> None:
    whole = (model_files / "net.tflite").stat().st_size
    report = export_litert(model_files / "net.onnx", tmp_path / "net.tflite", int8=True)
    assert report.int8
    assert report.file_size == report.path.stat().st_size < 0.75 * whole
    assert 1e-4 < report.parity["ONNX Runtime"].relative < 0.2
    classifier = Classifier.open(report.path)
    assert classifier.description == Classifier.open(model_files / "net.tflite").description
    entries = entries_of(onnx.load(model_files / "net.onnx"))
    assert entries_in(report.path.read_bytes()) == {**entries, "quantized_by": "int8 weights"}


def test_a_file_that_cannot_be_converted(model_files: Path, tmp_path: Path) -> None:
    proto = onnx.load(model_files / "net.onnx")
    (last,) = (node for node in proto.graph.node if node.op_type == "Gemm")
    last.output[0] = "before"
    proto.graph.node.append(helper.make_node("Erf", ["before"], ["logits"]))
    onnx.save_model(proto, path := tmp_path / "net.onnx")
    with pytest.raises(ZooError) as caught:
        export_litert(path, tmp_path / "net.tflite")
    assert str(caught.value) == f"{path}: cannot be converted for LiteRT (it has the operator Erf)"
    assert not (tmp_path / "net.tflite").exists()


def test_every_change_of_a_file_is_noticed(model_files: Path) -> None:
    path = model_files / "net.tflite"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    check_whole_file(path, whole)
    for place in [*range(48), *rng.integers(len(whole), size=300).tolist(), len(whole) - 1]:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(ZooError):
            check_whole_file(path, bytes(changed))
    for length in [0, 7, 40, *rng.integers(len(whole), size=50).tolist(), len(whole) - 1]:
        with pytest.raises(ZooError):
            check_whole_file(path, whole[:length])
    with pytest.raises(ZooError, match="it is damaged: its digest is another"):
        check_whole_file(path, whole + b"\0")
