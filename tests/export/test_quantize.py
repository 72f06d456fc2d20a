"""int8 files: what they compute, how their numbers were chosen, what is said of them, and what is refused."""

from __future__ import annotations

import copy
import itertools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from disks import small_disk
from networks import SHORT, V1, V2, fitted, producers, settled
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from runs import PLAIN, train
from shell import run

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.cli.export.int8 import print_report
from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.export.onnx.passes import attribute
from fbnetv3_zoo.export.onnx.preprocessing import take_images
from fbnetv3_zoo.export.quantization import fastest as fastest_form
from fbnetv3_zoo.export.quantization import gptq as rounding
from fbnetv3_zoo.export.quantization.calibration import ValueRange, find_ranges, read_calibration, sample_images
from fbnetv3_zoo.export.quantization.candidates import OnnxBuild
from fbnetv3_zoo.export.quantization.config import QuantizationConfig, Target
from fbnetv3_zoo.export.quantization.fastest import FLOAT, WHOLE, TriedForm, at_size, fastest, layer_choices, macs_of
from fbnetv3_zoo.export.quantization.gptq import input_moments, rounded
from fbnetv3_zoo.export.quantization.qdq import (
    Activations,
    QDQSettings,
    layers_of,
    logits_of,
    observed,
    quantized,
    whole_weights,
)
from fbnetv3_zoo.export.quantization.quantize import QuantizationReport, quantize
from fbnetv3_zoo.export.quantization.sensitivity import by_sensitivity
from fbnetv3_zoo.export.sample_images import photographs
from fbnetv3_zoo.images import IMAGE_SUFFIXES
from fbnetv3_zoo.preprocess import Preprocess, stack
from fbnetv3_zoo.recipes import CosineDecay
from fbnetv3_zoo.training.data import SPLITS, digits, find_dataset
from fbnetv3_zoo.utils.onnx_io import entries_of

Floats = npt.NDArray[np.float32]
TRAIN, TEST = digits()["train"][::10], digits()["test"]
SHOWN = [example.read() for example in TRAIN]
LABELS = [example.label for example in TEST]
ANY = QuantizationConfig(agreement=0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a network that knows the digits, with weights that came from somewhere."""
    folder = tmp_path_factory.mktemp("float")
    recipe = replace(PLAIN, epochs=10, learning_rate=0.2, schedule=CosineDecay())
    network = train(SHORT, digits(), recipe, folder / "run").model
    network.weights, network.license = "tiny.digits", "CC-BY-4.0"
    return export_onnx(network, folder / "net.onnx", batch_sizes=[2]).path


@pytest.fixture(scope="module")
def model(source: Path) -> onnx.ModelProto:
    return onnx.load(source)


def _refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(ZooError) as caught:
        quantize(*arguments, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _constants(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.generic]]:
    return {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}


def _batch(model: onnx.ModelProto) -> Floats:
    """The shown images as ``model`` takes them."""
    description = Description.from_metadata(entries_of(model))
    assert description is not None
    return stack(description.preprocess, SHOWN)


def _chain(
    *nodes: onnx.NodeProto, weights: Mapping[str, npt.NDArray[np.generic]], channels: int = 1,
    shape: Sequence[str] = ("batch", "answers"),
) -> onnx.ModelProto:  # fmt: skip
    """A graph from ``images`` to ``logits``, the answer of the last node, on maps of any size."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", channels, "height", "width"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "chain", [images], [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


# What is said of a file


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite"])
def test_the_report(
    suffix: str, source: Path, model: onnx.ModelProto, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = [example.read() for example in TEST]
    path = tmp_path / "new" / f"int8{suffix}"
    report = quantize(source, path, SHOWN, test=images, labels=LABELS, config=ANY)
    assert capfd.readouterr() == ("", "")
    assert {file.name for file in path.parent.iterdir()} == {path.name, *({"int8.bin"} if suffix == ".xml" else ())}
    on_float, on_int8 = Classifier.open(source), Classifier.open(path)
    batch = stack(on_float.description.preprocess, images)
    expected, found = (classifier.logits(batch).argmax(1) for classifier in (on_float, on_int8))
    assert report.agreement == (expected == found).mean() > 0.95
    assert report.accuracy_float == (expected == LABELS).mean() > 0.8
    assert report.accuracy_int8 == (found == LABELS).mean() > 0.8
    assert (report.path, report.calibrated_on, report.images) == (path, len(SHOWN), len(TEST))
    assert report.route == {".onnx": "ONNX Runtime", ".xml": "OpenVINO", ".tflite": "LiteRT"}[suffix]
    assert report.target == (None if suffix == ".tflite" else Target.here())
    assert report.file_size == sum(file.stat().st_size for file in path.parent.iterdir())
    assert report.size_ratio == report.file_size / source.stat().st_size
    assert report.float_layers == ()
    assert 0 < report.time_quartiles[0] <= report.time_ratio <= report.time_quartiles[1]
    assert on_int8.description == on_float.description
    assert (on_int8.description.weights, on_int8.description.license) == ("tiny.digits", "CC-BY-4.0")
    names = [answers[0].name for answers in on_int8(images[:9])]
    assert names == [on_int8.description.name_of(int(n)) for n in found[:9]]
    if suffix == ".onnx":
        told = f"int8 for {Target.here().value}, {len(SHOWN)} calibration images, 0 layers in float"
        assert entries_of(onnx.load(path)) == {**entries_of(model), "quantized_by": told}


def test_without_labels_or_test_images(source: Path, tmp_path: Path) -> None:
    report = quantize(
        source, tmp_path / "int8.onnx", SHOWN, config=QuantizationConfig(agreement=0, target=Target.ARM64)
    )
    assert (report.accuracy_float, report.accuracy_int8) == (None, None)
    assert (report.images, report.target) == (len(SHOWN), Target.ARM64)


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite"])
def test_twice_gives_the_same_files(suffix: str, source: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        quantize(source, tmp_path / name / f"int8{suffix}", SHOWN, config=ANY)
    # OpenVINO numbers a model's unnamed parts anew in every model of a process
    file = "int8.bin" if suffix == ".xml" else f"int8{suffix}"
    assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    images = np.random.default_rng(0).standard_normal((4, 1, 32, 32), np.float32)
    one, two = (Classifier.open(tmp_path / name / f"int8{suffix}").logits(images) for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)


@pytest.mark.long
@pytest.mark.parametrize("arch", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite"])
def test_networks_of_the_other_papers(arch: Arch, suffix: str, tmp_path: Path) -> None:
    """With shuffles, ReLU and sigmoid gates; images as arrays; another opset."""
    network = settled(arch)
    source = export_onnx(network, tmp_path / "net.onnx", batch_sizes=[2], opset=23).path
    shown, test = (stack(network.preprocess, photographs(32, seed=seed)) for seed in (4, 5))
    quantize(source, tmp_path / f"int8{suffix}", shown, test=test, config=ANY)
    expected, found = (Classifier.open(tmp_path / name).logits(test) for name in ("net.onnx", f"int8{suffix}"))
    bound = 0.1 * 127 / Target.here().weight_levels  # weights of 7 bits are rounded twice as coarsely
    assert np.linalg.norm(found - expected) < bound * np.linalg.norm(expected - expected.mean(0))


# Layers in float


@pytest.mark.long
def test_layers_stay_in_float_until_it_agrees(tiny_arch: Arch, tmp_path: Path) -> None:
    """With a network whose answers are differences of large numbers."""
    source = export_onnx(fitted(tiny_arch), tmp_path / "net.onnx", batch_sizes=[2]).path
    layers = [layer.name for layer in layers_of(onnx.load(source))]
    strict = quantize(
        source,
        tmp_path / "strict.onnx",
        SHOWN,
        config=QuantizationConfig(agreement=1, most_float=16, target=Target.AVX2),
    )
    loose = quantize(source, tmp_path / "loose.onnx", SHOWN, config=QuantizationConfig(agreement=0, target=Target.AVX2))
    none = quantize(
        source, tmp_path / "none.onnx", SHOWN, config=QuantizationConfig(agreement=1, most_float=0, target=Target.AVX2)
    )
    assert loose.float_layers == none.float_layers == ()
    assert loose.agreement == none.agreement < 1
    assert strict.agreement > loose.agreement
    assert 0 < len(strict.float_layers) <= 16
    assert set(strict.float_layers) < set(layers)
    kept = quantize(source, tmp_path / "kept.onnx", SHOWN, config=QuantizationConfig(agreement=0, keep=layers[1:3]))
    assert kept.float_layers == tuple(sorted(layers[1:3]))


def test_a_kept_layer_stays_in_float_in_what_runs(model: onnx.ModelProto, tmp_path: Path) -> None:
    """ONNX Runtime quantizes a float layer between int8 maps by itself where it can, one step for all channels."""
    batch = _batch(model)
    ranges, settings = find_ranges(model, batch, observed(model.graph)), QDQSettings()
    weights = whole_weights(model, settings)
    convolutions = [layer for layer in layers_of(model) if layer.op_type == "Conv"]
    for kept in (layer for layer in convolutions[1:] if _constants(model)[layer.input[1]].any()):
        runs = _optimized(quantized(model, ranges, weights, settings, keep=[kept.name]), tmp_path)
        kinds = Counter(node.op_type for node in runs.graph.node)
        assert kinds["QLinearConv"] == len(convolutions) - 1
        floating = [node for node in runs.graph.node if node.op_type in ("Conv", "FusedConv")]
        assert len(floating) == 1
        weight = _constants(runs)[floating[0].input[1]]
        wanted = _constants(model)[kept.input[1]]
        assert weight.dtype == np.float32
        # but for the step of the map, which is multiplied in
        np.testing.assert_allclose(weight * np.abs(wanted).max(), wanted * np.abs(weight).max(), rtol=1e-5, atol=1e-9)


def _optimized(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath, options.log_severity_level = str(folder / "optimized.onnx"), 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


# How numbers are chosen


def _ramp(count: int = 4001) -> Floats:
    return np.linspace(-8, 8, count, dtype=np.float32).reshape(1, 1, 1, count)


@pytest.mark.parametrize("activations", Activations)
@pytest.mark.parametrize("kind", ["HardSwish", "HardSigmoid"])
def test_gates_saturate_where_floats_do(kind: str, activations: Activations) -> None:
    """Over the whole range within two steps of a map, in what ONNX Runtime makes of it and as it is written."""
    one = np.ones((1, 1, 1, 1), np.float32)
    gate = helper.make_node(kind, ["b"], ["c"], "gate", **({"alpha": 1 / 6} if kind == "HardSigmoid" else {}))
    nodes = [
        helper.make_node("Conv", ["images", "one"], ["b"], "first"),
        gate,
        helper.make_node("Conv", ["c", "one"], ["d"], "second"),
        helper.make_node("Flatten", ["d"], ["logits"]),
    ]
    model, images = _chain(*nodes, weights={"one": one}), _ramp()
    settings = QDQSettings(activations)
    ranges = find_ranges(model, images, observed(model.graph), clip=False)
    made = quantized(model, ranges, whole_weights(model, settings), settings)
    onnx.checker.check_model(made, full_check=True)
    expected = images.reshape(1, -1) * np.clip(images.reshape(1, -1) / 6 + 0.5, 0, 1)
    if kind == "HardSigmoid":
        expected = np.clip(images.reshape(1, -1) / 6 + 0.5, 0, 1)
    step = 16 / 255 if kind == "HardSwish" else 16 / 255 / 6 + 1 / 255
    for optimized in (True, False):
        found = _run(made, images, optimized=optimized)
        assert np.abs(found - expected).max() < 2 * step
    assert not {"HardSwish", "HardSigmoid"} & {node.op_type for node in made.graph.node}
    zero = found[0, np.abs(images.reshape(-1)).argmin()]
    assert abs(zero - (0 if kind == "HardSwish" else 0.5)) < step / 2


def _run(model: onnx.ModelProto, images: Floats, *, optimized: bool) -> Floats:
    if optimized:
        return logits_of(model)(images)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: Floats = session.run(None, {"images": images})[0]
    return found


@pytest.mark.parametrize("target", Target)
def test_whole_numbers_suit_the_processor(target: Target, source: Path, tmp_path: Path) -> None:
    float_model = onnx.load(source)
    model = onnx.load(
        quantize(source, tmp_path / "int8.onnx", SHOWN, config=QuantizationConfig(target=target, agreement=0)).path
    )
    constants, floats, writers = _constants(model), _constants(float_model), producers(model.graph)
    levels = {Target.AVX2: 63, Target.VNNI: 127, Target.ARM64: 127}[target]
    nodes = {node.name: node for node in model.graph.node if node.op_type in ("Conv", "Gemm")}
    assert nodes.keys() == {layer.name for layer in layers_of(float_model)}
    for layer in layers_of(float_model):
        dequantized = writers[nodes[layer.name].input[1]]
        whole, steps = (constants[name] for name in dequantized.input[:2])
        weight = floats[layer.input[1]]
        rows = np.abs(np.moveaxis(weight, attribute(dequantized, "axis", -1), 0).reshape(len(steps), -1)).max(1)
        assert whole.dtype == np.int8
        assert np.abs(whole).max() == (levels if rows.any() else 0)
        assert steps.shape == rows.shape  # each channel has its own step
        np.testing.assert_allclose(steps[rows > 0], rows[rows > 0] / levels, rtol=1e-6)
        assert whole.shape == weight.shape
    zeros = [constants[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(zeros) > len(nodes)
    assert {zero.dtype for zero in zeros} == {np.dtype(target.activations.value)}


@pytest.mark.parametrize("bias", [1.0, -300.0])
def test_a_dead_channel_keeps_its_bias(bias: float) -> None:
    """Its weights are zero, or next to that: their steps are made so large that whole numbers hold the bias."""
    weights = {
        "weight": np.array([0, 1e-10, 0.5], np.float32).reshape(3, 1, 1, 1),
        "bias": np.array([bias, bias, 0.25], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "weight", "bias"], ["a"], "only"),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["logits"]),
    ]
    model, images = _chain(*nodes, weights=weights), np.linspace(-1, 1, 8 * 9, dtype=np.float32).reshape(8, 1, 3, 3)
    ranges, settings = find_ranges(model, images, observed(model.graph)), QDQSettings()
    made = quantized(model, ranges, whole_weights(model, settings), settings)
    step = (max(0.75, bias) - min(-0.25, bias)) / 255
    for optimized in (True, False):
        assert np.abs(_run(made, images, optimized=optimized) - logits_of(model)(images)).max() < step


def test_this_machine_is_one_of_the_targets() -> None:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "avx512_vnni" in flags or "avx_vnni" in flags:
        assert Target.here() is Target.VNNI
    assert [(t.weight_levels, t.activations.value) for t in Target] == [(63, "uint8"), (127, "uint8"), (127, "int8")]


def test_rounding_keeps_answers() -> None:
    """Where inputs depend on one another the errors make up for one another; else each weight is rounded by itself."""
    rng = np.random.default_rng(0)
    weight = rng.uniform(-127, 127, (3, 20, 100))
    mixed = rng.standard_normal((3, 8, 100)) + 0.0
    inputs = rng.standard_normal((3, 5000, 8)) @ mixed + 0.1 * rng.standard_normal((3, 5000, 100))
    moments = np.matmul(inputs.swapaxes(1, 2), inputs) / inputs.shape[1]

    def error(whole: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        off = weight - whole
        found: npt.NDArray[np.float64] = np.einsum("goi,gij,goj->go", off, moments, off)
        return found

    careful, nearest = rounded(weight, moments, 127), np.round(weight)
    assert careful.dtype == np.int8
    assert careful.shape == weight.shape
    assert np.abs(careful).max() <= 127
    assert (error(careful) < error(nearest)).all()
    assert error(careful).mean() < 0.3 * error(nearest).mean()
    alone = np.stack([np.diag(rng.uniform(0.1, 10, 100)) for _ in range(3)])
    np.testing.assert_array_equal(rounded(weight, alone, 127), nearest)
    np.testing.assert_array_equal(rounded(weight, np.zeros_like(alone), 127), nearest)
    assert np.abs(rounded(2 * weight, moments, 63)).max() == 63


def test_moments_are_those_of_a_layers_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "POSITIONS", 10**6)  # all of them
    rng = np.random.default_rng(0)
    images = rng.standard_normal((64, 4, 20, 20), np.float32)
    weights = {
        "whole": rng.standard_normal((4, 4, 1, 1), np.float32),
        "deep": rng.standard_normal((4, 1, 3, 3), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "whole"], ["a"], "pointwise"),
        helper.make_node("Conv", ["a", "deep"], ["b"], "depthwise", group=4, pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Flatten", ["b"], ["logits"]),
    ]
    model = _chain(*nodes, weights=weights, channels=4)
    found = input_moments(model, layers_of(model), images)
    assert {name: moments.shape for name, moments in found.items()} == {"pointwise": (1, 4, 4), "depthwise": (4, 9, 9)}
    flat = images.transpose(1, 0, 2, 3).reshape(4, -1).astype(np.float64)
    batches = 8
    np.testing.assert_allclose(found["pointwise"][0] / batches, flat @ flat.T / flat.shape[1], atol=0.1)
    middle = np.einsum("oi,nihw->nohw", weights["whole"][:, :, 0, 0], images)[:, :, ::2, ::2]
    seen = (middle.astype(np.float64) ** 2).mean((0, 2, 3))  # the kernel's middle never lies outside
    np.testing.assert_allclose(found["depthwise"][:, 4, 4] / batches, seen, rtol=1e-4)


def _error(values: Floats, found: ValueRange) -> float:
    step = (found.high - found.low) / 255
    zero = np.clip(round(-found.low / step), 0, 255)
    levels = np.clip(np.round(values / step) + zero, 0, 255)
    return float(np.square((levels - zero) * step - values).mean())


def test_ranges_cut_off_what_is_rare() -> None:
    images = np.random.default_rng(0).standard_t(3, (16, 1, 60, 60)).astype(np.float32)
    model = _chain(helper.make_node("Relu", ["images"], ["logits"]), weights={}, shape="nchw")
    names = ["images", "logits"]
    whole, part = (find_ranges(model, images, names, clip=clip) for clip in (False, True))
    assert whole["images"] == ValueRange(float(images.min()), float(images.max()))
    assert whole["logits"] == ValueRange(0.0, float(images.max()))
    for name, values in (("images", images), ("logits", np.maximum(images, 0))):
        best = min(
            _error(values, ValueRange(whole[name].low * p, whole[name].high * p)) for p in np.linspace(0.3, 1, 71)
        )
        assert _error(values, part[name]) < 1.05 * best
    assert _error(images, part["images"]) < 0.9 * _error(images, whole["images"])
    even = np.random.default_rng(1).uniform(-1, 2, (16, 1, 60, 60)).astype(np.float32)
    found = find_ranges(model, even, ["images"])["images"]
    assert (found.low, found.high) == pytest.approx((even.min(), even.max()), rel=0.02)


def test_a_map_of_zeros_has_a_range() -> None:
    model = _chain(helper.make_node("Relu", ["images"], ["logits"]), weights={}, shape="nchw")
    images = np.zeros((8, 1, 4, 4), np.float32)
    assert find_ranges(model, images, ["images", "logits"]) == {"images": ValueRange(0, 0), "logits": ValueRange(0, 0)}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_that_are_no_numbers(value: float) -> None:
    model = _chain(helper.make_node("Relu", ["images"], ["logits"]), weights={}, shape="nchw")
    images = np.zeros((8, 1, 4, 4), np.float32)
    images[3, 0, 1, 1] = value
    with pytest.raises(ZooError) as caught:
        find_ranges(model, images, ["images"])
    assert str(caught.value) == "the network's maps are not finite on these images; its weights are damaged"


@pytest.mark.parametrize("value", [1.5e38, -1e38, 1e31])
def test_maps_too_large_for_whole_numbers(value: float) -> None:
    model = _chain(helper.make_node("Relu", ["images"], ["logits"]), weights={}, shape="nchw")
    images = np.zeros((8, 1, 4, 4), np.float32)
    images[3, 0, 1, 1] = value
    told = f"the network's maps reach {abs(value):.2g} on these images, too large for int8; keep it in float"
    with pytest.raises(ZooError) as caught:
        find_ranges(model, images, ["images"])
    assert str(caught.value) == told
    images[3, 0, 1, 1] = value / 1e9
    assert find_ranges(model, images, ["images"], clip=False)["images"].low <= 0


def test_the_layer_that_costs_most_comes_first() -> None:
    """One whose weights for a channel that is always zero are so large that no level is left for the others."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((16, 16, 1, 1), np.float32) / 4 for name in ("w1", "w2", "w3")}
    weights["w1"][0] = 0
    weights["w2"][:, 0] = 50
    nodes = [
        helper.make_node("Conv", ["images", "w1"], ["a"], "first"),
        helper.make_node("Conv", ["a", "w2"], ["b"], "second"),
        helper.make_node("Conv", ["b", "w3"], ["c"], "third"),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["logits"]),
    ]
    model, images = _chain(*nodes, weights=weights, channels=16), rng.standard_normal((8, 16, 8, 8), np.float32)
    ranges, settings = find_ranges(model, images, observed(model.graph)), QDQSettings()
    order = by_sensitivity(model, ranges, whole_weights(model, settings), settings, images)
    assert order[0] == "second"
    assert sorted(order) == ["first", "second", "third"]


# What is refused


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n, image in enumerate(SHOWN[:8]):
        image.save(folder / f"{n}.png")
    return folder


def test_a_folder_of_images(source: Path, pictures: Path, tmp_path: Path) -> None:
    (pictures / "deeper").mkdir()
    SHOWN[9].save(pictures / "deeper" / "nine.PNG")
    (pictures / "notes.txt").write_text("no image")
    images, folders = read_calibration(pictures)
    assert (len(images), folders) == (9, [""] * 8 + ["deeper"])
    assert len(read_calibration(pictures, most=5)[0]) == 5
    report = quantize(source, tmp_path / "int8.onnx", pictures, config=ANY)
    assert (report.calibrated_on, report.accuracy_int8) == (9, None)


def test_a_folder_gives_the_same_images_for_training_and_calibration(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    suffixes = sorted(IMAGE_SUFFIXES | {".PNG", ".pfm", ".j2c", ".jpc", ".mpo", ".avif"})  # whatever else Pillow reads
    places = ["cat/deep", "dog", ".hidden", "cat/@eaDir", "dog/.thumbnails"]
    for number, (place, suffix) in enumerate(itertools.product(places, suffixes), 1):
        path = pictures / place / f"{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (number, 1)).save(path, "PNG")
    (pictures / "cat" / ".left.png").write_bytes(b"not an image")
    data = find_dataset(pictures)
    trained = [example.read().width for split in SPLITS for example in data[split]]
    calibrated = [image.width for image in read_calibration(pictures)[0]]
    assert sorted(calibrated) == sorted(trained)
    assert len(trained) == 2 * (len(IMAGE_SUFFIXES) + 1)


def test_folders_named_after_the_classes_give_accuracies(source: Path, tmp_path: Path) -> None:
    data = digits()["validation"][:12]
    for n, example in enumerate(data):
        path = tmp_path / "images" / str(example.label) / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        example.read().save(path)
    report = quantize(source, tmp_path / "int8.onnx", tmp_path / "images", config=ANY)
    classifier = Classifier.open(source)
    shown = stack(classifier.description.preprocess, [example.read() for example in data])
    right = classifier.logits(shown).argmax(1) == [example.label for example in data]
    assert report.accuracy_float == right.mean()
    assert report.accuracy_int8 is not None
    assert not report.held_out


def test_calibration_images_are_spread_over_a_data_set() -> None:
    @dataclass(frozen=True)
    class Numbered:
        label: int

        def read(self) -> Image.Image:
            return Image.new("L", (1, 1), self.label % 256)

    for count, expected in ((3, 3), (256, 256), (511, 511), (512, 256), (1000, 334)):
        images = sample_images([Numbered(n) for n in range(count)])
        assert len(images) == expected


def test_folders_that_do_not_do(source: Path, pictures: Path, tmp_path: Path) -> None:
    output, least = tmp_path / "int8.onnx", "give at least 8 images like those the network will be used on"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert _refusal(source, output, empty) == f"{empty}: no images; {least}"
    SHOWN[0].save(empty / "one.png")
    assert _refusal(source, output, empty) == f"{empty}: one image; {least}"
    assert (
        _refusal(source, output, tmp_path / "absent") == f"{tmp_path}/absent: no such folder; give a folder of images"
    )
    told = _refusal(source, output, source)
    assert told == f"{source}: is a file; give a folder of images"
    (pictures / "3.png").write_bytes((pictures / "3.png").read_bytes()[:60])
    assert _refusal(source, output, pictures).startswith(f"{pictures}/3.png: cannot be read as an image (")
    assert not output.exists()


def test_files_that_cannot_be_quantized(source: Path, model: onnx.ModelProto, tmp_path: Path) -> None:
    output = tmp_path / "int8.onnx"
    (tmp_path / "cut.onnx").write_bytes(source.read_bytes()[:5000])
    (tmp_path / "noise.onnx").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("cut", "noise", "empty"):
        told = _refusal(tmp_path / f"{name}.onnx", output, SHOWN)
        assert told.startswith(f"{tmp_path}/{name}.onnx: cannot be read as ONNX (")
    assert _refusal(tmp_path / "absent.onnx", output, SHOWN) == f"{tmp_path}/absent.onnx: no such file"
    assert _refusal(tmp_path, output, SHOWN) == f"{tmp_path}: is a folder, not an ONNX file"
    done = quantize(source, tmp_path / "done.onnx", SHOWN, config=ANY).path
    assert _refusal(done, output, SHOWN) == f"{done}: is already quantized; give the float file"
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    onnx.save_model(bare, tmp_path / "bare.onnx")
    assert _refusal(tmp_path / "bare.onnx", output, SHOWN) == (
        f"{tmp_path}/bare.onnx: does not describe its preprocessing; give preprocessed images as an array"
    )
    bare.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save_model(bare, tmp_path / "one.onnx")
    told = f"{tmp_path}/one.onnx: takes batches of 1 only; export it for batches of any size"
    assert _refusal(tmp_path / "one.onnx", output, SHOWN) == told
    helper.set_model_props(bare, {**entries_of(model), "format_version": "9"})
    bare.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save_model(bare, tmp_path / "newer.onnx")
    assert _refusal(tmp_path / "newer.onnx", output, SHOWN) == (
        f"{tmp_path}/newer.onnx: has format version '9'; this release reads '1', upgrade fbnetv3-zoo"
    )
    assert not output.exists()


def test_preprocessing_inside_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    inside, path = copy.deepcopy(model), tmp_path / "net.onnx"
    take_images(inside, Preprocess(32, 32, mean=(0.5,), std=(0.5,)))
    onnx.save_model(inside, path)
    told = f"{path}: does not take batches of float images; export it without preprocessing"
    assert _refusal(path, tmp_path / "int8.onnx", SHOWN) == told


def test_calls_that_do_not_fit(source: Path, tmp_path: Path) -> None:
    def told(**options: object) -> str:
        given = {"output": tmp_path / "int8.onnx", "images": SHOWN, **options}
        return _refusal(source, given.pop("output"), given.pop("images"), **given)

    def misconfigured(**options: object) -> str:
        with pytest.raises(ZooError) as caught:
            QuantizationConfig(**options)  # type: ignore[arg-type]
        return str(caught.value)

    batch = np.zeros((8, 1, 32, 32), np.float32)
    layers = sorted(layer.name for layer in layers_of(onnx.load(source)))
    assert told(output=tmp_path / "int8.ort") == (
        f"{tmp_path}/int8.ort: int8 files end in .onnx (ONNX Runtime), .xml (OpenVINO) or .tflite (LiteRT); change the "
        "extension"
    )
    assert (
        told(output=tmp_path / "int8.tflite", config=QuantizationConfig(target=Target.VNNI))
        == f"{tmp_path}/int8.tflite: LiteRT files are for all processors; leave out the target"
    )
    assert told(output=source) == f"{source}: is the float file itself; give another name for the int8 file"
    assert (
        told(config=QuantizationConfig(keep=["nope"]))
        == f"{source}: has no layer 'nope' to keep in float; layers have names like {layers[0]!r}"
    )
    labels = "labels has 3 entries for {} test images; give one per image"
    assert told(labels=[1, 2, 3]) == labels.format(0)
    assert told(labels=[1, 2, 3], test=SHOWN[:2]) == labels.format(2)
    assert told(labels=[1, 2, 3], test=batch) == labels.format(8)
    assert told(images=SHOWN[:7]) == ("images: 7 images; give at least 8 images like those the network will be used on")
    shape = f"give float32, (batch, 1, 32, 32) for {source}"
    assert told(images=batch[:, :, :31]) == f"images are float32 of shape (8, 1, 31, 32); {shape}"
    assert told(images=batch[:, 0]) == f"images are float32 of shape (8, 32, 32); {shape}"
    assert told(images=batch.astype(np.float64)) == f"images are float64 of shape (8, 1, 32, 32); {shape}"
    assert told(test=batch[:, :, :31]) == f"images are float32 of shape (8, 1, 31, 32); {shape}"
    assert misconfigured(agreement=1.5) == "agreement is 1.5; it must be a number at least 0 and at most 1"
    assert misconfigured(most_float=-1) == "most_float is -1; it must be a whole number of at least 0"
    assert list(tmp_path.iterdir()) == []


def test_few_test_images_do(source: Path, tmp_path: Path) -> None:
    report = quantize(source, tmp_path / "int8.onnx", SHOWN, test=SHOWN[:2], labels=[0, 1], config=ANY)
    assert (report.images, report.held_out) == (2, True)


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite"])
def test_a_full_disk(suffix: str, source: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8192):
        told = _refusal(source, tmp_path / "disk" / f"int8{suffix}", SHOWN, config=ANY)
        assert told.startswith(f"{tmp_path}/disk/int8{'' if suffix == '.xml' else suffix}")
        assert "cannot be written (" in told
        assert list((tmp_path / "disk").iterdir()) == []


def test_without_litert(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("ai_edge_litert", "fbnetv3_zoo.export.litert"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("litert_build", "litert_int8"):
        monkeypatch.delitem(sys.modules, f"fbnetv3_zoo.export.quantization.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    told = f'{tmp_path}/int8.tflite: needs LiteRT, which is not installed; pip install "fbnetv3-zoo[litert]"'
    assert _refusal(source, tmp_path / "int8.tflite", SHOWN, config=ANY) == told
    assert list(tmp_path.iterdir()) == []


def test_without_nncf(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    for n, image in enumerate(SHOWN[:8]):
        image.save(tmp_path / f"{n}.png")
    ended = run("export", "int8", source, "--images", tmp_path, "--output", tmp_path / "int8.xml")
    told = 'needs OpenVINO with NNCF, which is not installed; pip install "fbnetv3-zoo[openvino]"'
    assert (ended.code, ended.out, ended.err) == (2, "", f"error: {tmp_path}/int8.xml: {told}\n")
    assert not list(tmp_path.glob("int8*"))


@pytest.fixture
def images(model: onnx.ModelProto) -> Floats:
    """A few training images, prepared for the network."""
    description = Description.from_metadata(entries_of(model))
    assert description is not None
    return stack(description.preprocess, SHOWN[:16])


def test_choices_of_layers_to_leave_in_float(model: onnx.ModelProto) -> None:
    """SHORT has a stem, a block with a depthwise layer and a gate, and a head; costs are those of the network."""
    macs = macs_of(model)
    assert sum(macs.values()) == pytest.approx(arch_cost(replace(SHORT, in_channels=1)).macs, rel=0.1)
    choices = dict(layer_choices(model))
    names = [layer.name for layer in layers_of(model)]
    by_kind = {layer.name: attribute(layer, "group", 1) > 1 for layer in layers_of(model)}
    assert choices["depthwise in float"] == {name for name in names if by_kind[name]}
    gates = choices["squeeze-excite in float"]
    assert len(gates) == 2
    assert gates.isdisjoint(names[-2:])  # the head, after the last pool
    for share in (0.1, 0.25, 0.5):
        first = choices[f"first layers in float, {share:.0%} of all MACs"]
        last = choices[f"last layers in float, {share:.0%} of all MACs"]
        assert first == set(names[: len(first)])
        assert last == set(names[len(names) - len(last) :])
        assert sum(macs[name] for name in first) <= share * sum(macs.values())
    smallest = choices["smallest layers in float, 30% of all MACs"]
    assert max(macs[name] for name in smallest) <= min(macs[name] for name in names if name not in smallest)


class _Clock:
    """Times forms by a table of seconds, without noise; what is not in it takes as long as int8 throughout."""

    def __init__(self, model: onnx.ModelProto, seconds: Mapping[str, float]) -> None:
        self.model, self.seconds = model, {FLOAT: 1.0, WHOLE: 0.9, **seconds}

    def times(self, forms: Mapping[str, object], rounds: int) -> dict[str, tuple[float, ...]]:
        return {name: (self.seconds.get(name, self.seconds[WHOLE]),) * rounds for name in (FLOAT, *forms)}


@pytest.mark.parametrize(
    ("seconds", "chosen", "ratio"),
    [
        ({"depthwise in float": 0.7}, "depthwise in float", 0.7),
        ({}, WHOLE, 0.9),  # nothing is faster than int8 throughout
        ({WHOLE: 1.6, "depthwise in float": 1.2}, WHOLE, 1.6),  # nothing is faster than float: the smallest
        ({WHOLE: 1.6, "depthwise in float": 0.8}, "depthwise in float", 0.8),
        ({"squeeze-excite in float": 0.8, "first layers in float, 50% of all MACs": 0.85,
          "squeeze-excite in float; first layers in float, 50% of all MACs": 0.6},
         "squeeze-excite in float; first layers in float, 50% of all MACs", 0.6),
    ],
)  # fmt: skip
def test_the_fastest_form_is_chosen(
    seconds: Mapping[str, float], chosen: str, ratio: float, model: onnx.ModelProto, images: Floats
) -> None:
    work = OnnxBuild(model, images, QDQSettings(), clip=False)
    bench: Any = _Clock(model, seconds)
    found = fastest(
        work.build, work.build(frozenset()), (), bench, images=images, expected=logits_of(model)(images), agreement=0.0
    )
    assert (found.chosen.name, found.chosen.ratio) == (chosen, pytest.approx(ratio))
    assert len(found.in_float) == found.chosen.layers
    floats = {node.name for node in found.model.model.graph.node if node.name in found.in_float}  # type: ignore[attr-defined]
    assert floats == found.in_float
    assert {WHOLE, "depthwise in float", "squeeze-excite in float"} <= {form.name for form in found.tried}


def test_a_file_for_any_size_is_timed_at_that_of_the_images(model: onnx.ModelProto, images: Floats) -> None:
    any_size = onnx.ModelProto()
    any_size.CopyFrom(model)
    for axis, name in zip(any_size.graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
        axis.dim_param = name
    assert macs_of(at_size(any_size, images.shape)) == macs_of(model)
    bench = fastest_form.Bench(Path("a.onnx"), at_size(any_size, images.shape), Path("b.onnx"), 2)
    request = bench._request(Path("a.onnx"))
    assert (request.channels, request.side) == images.shape[1:3]


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_forms_are_timed_here(suffix: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest_form, "TRIAL_ROUNDS", 3)
    monkeypatch.setattr(fastest_form, "FINAL_ROUNDS", 3)
    config = QuantizationConfig(agreement=0, fastest=True, threads=2)
    report = quantize(source, tmp_path / f"int8{suffix}", SHOWN, config=config)
    assert report.threads == 2
    assert WHOLE in {form.name for form in report.tried}
    assert report.time_ratio in {form.ratio for form in report.tried}
    assert Classifier.open(report.path).logits(np.zeros((1, 1, 32, 32), np.float32)).shape == (1, 10)


@pytest.mark.parametrize(
    ("ratio", "tried", "first"),
    [
        (1.6, False, "slower than float here on 2 threads: 1.60 (1.50 to 1.70) of its time; keep the float file where "
                     "speed counts"),
        (1.6, True, "no int8 form is faster than float beyond noise here on 2 threads: the fastest takes 1.20 of its "
                    "time, this one, which is small, 1.60 (1.50 to 1.70); keep the float file where speed counts"),
        (1.05, False, "int8.onnx: int8 for ONNX Runtime (vnni), 0.00 MB, 0.30 of float's size"),
        (0.7, True, "int8.onnx: int8 for ONNX Runtime (vnni), 0.00 MB, 0.30 of float's size"),
    ],
)  # fmt: skip
def test_a_report_of_slower_int8_says_so_first(
    ratio: float, tried: bool, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    form = TriedForm("depthwise in float", 1, 1.2, (1.1, 1.3))
    report = QuantizationReport(
        Path("int8.onnx"), "ONNX Runtime", Target.VNNI, 8, 8, 1.0, None, None, (), 1000, 0.3, ratio,
        (ratio - 0.1, ratio + 0.1), threads=2, tried=(form,) if tried else (),
    )  # fmt: skip
    print_report(report, wanted=0.99)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == first
    assert "same class as float: 100.00% of 8 test images" in lines
    print_report(replace(report, agreement=0.98), wanted=0.99)
    missed = "same class as float: 98.00% of 8 test images, less than --agreement 0.99 asks for"
    assert missed in capsys.readouterr().out.splitlines()
