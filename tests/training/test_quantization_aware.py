"""Training for int8: what is rounded and how, that runs resume and deliver as ever, and that it brings something."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from networks import settled
from onnx import numpy_helper
from runs import PLAIN, RECIPE, Stopped, Stopper, assert_same, checkpoints, tensors, train
from safetensors.torch import load_file
from torch import Tensor, nn

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.export.quantization.calibration import ValueRange, find_ranges
from fbnetv3_zoo.export.quantization.config import QuantizationConfig, Target
from fbnetv3_zoo.export.quantization.qdq import (
    Activations,
    QDQSettings,
    layers_of,
    logits_of,
    observed,
    quantized,
    whole_weights,
)
from fbnetv3_zoo.export.quantization.quantize import quantize
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import stack
from fbnetv3_zoo.recipes import SGD, CosineDecay, Recipe
from fbnetv3_zoo.training import Dataset, Execution, Precision, find_dataset
from fbnetv3_zoo.training.learner import Learner
from fbnetv3_zoo.training.loader import Batch
from fbnetv3_zoo.training.qat import RoundedMap, follow_ranges, imitate_int8, plain_state, rounded_weight
from fbnetv3_zoo.weights.serialization import load

INT8 = replace(RECIPE, epochs=2, weight_levels=63)
EVERY_STEP = Execution(checkpoint_steps=1)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _network(arch: Arch, levels: int = 127) -> FBNet:
    network = FBNet(arch, generator=torch.Generator().manual_seed(0))
    imitate_int8(network, levels)
    return network


def _ranges(network: nn.Module) -> list[tuple[float, float]]:
    return [(float(m.low), float(m.high)) for m in network.modules() if isinstance(m, RoundedMap)]


# --- what is rounded ---


def test_parameters_keep_their_names_and_all_of_them_learn(tiny_arch: Arch, images: Tensor) -> None:
    """Straight through the rounding; before that there is no gradient at all."""
    network, plain = _network(tiny_arch), FBNet(tiny_arch)
    assert [name for name, _ in network.named_parameters()] == [name for name, _ in plain.named_parameters()]
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.ones_(norm.weight)  # or a branch would learn nothing in this step
    nn.functional.cross_entropy(network(images), torch.arange(16) % 10).backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_gradients_pass_within_the_range_alone() -> None:
    x = torch.tensor([-5.0, -2.0, 0.3, 7.0], requires_grad=True)
    RoundedMap(least=-3.0)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1]


def test_steps_of_weights_are_the_exporters(tiny_arch: Arch, tmp_path: Path) -> None:
    """Also with norms folded: the delivered weights lie on the very whole numbers that the int8 file holds."""
    network = settled(tiny_arch)
    rounding = copy.deepcopy(network)
    imitate_int8(rounding, 63)
    network.load_state_dict(plain_state(rounding))
    model = onnx.load(export_onnx(network, tmp_path / "net.onnx", batch_sizes=[2]).path)
    found = whole_weights(model, QDQSettings(weight_levels=63))
    floats = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    assert len(found) == sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in network.modules())
    for layer in layers_of(model):
        whole, weight = found[layer.name], floats[layer.input[1]]
        steps = whole.steps.reshape([-1 if n == whole.axis else 1 for n in range(weight.ndim)])
        np.testing.assert_allclose(whole.whole * steps, weight, rtol=1e-4, atol=1e-7)
        assert np.abs(whole.whole).max() == 63


@pytest.mark.parametrize("levels", [1, 7, 127])
def test_weights_are_few_whole_numbers(levels: int) -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    rounded = rounded_weight(weight, levels)
    steps = weight.flatten(1).abs().amax(1)[:, None, None, None] / levels
    whole = rounded / steps
    torch.testing.assert_close(whole, whole.round(), rtol=0, atol=1e-4)
    assert ((rounded - weight).abs() <= steps * 0.5001).all()
    torch.testing.assert_close(rounded_weight(rounded, levels), rounded)  # what is rounded stays


@pytest.mark.parametrize(("low", "high"), [(-1.5, 4.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0)])
def test_maps_are_rounded_as_the_graph_does(low: float, high: float) -> None:
    """Against what ONNX Runtime computes in a graph of one convolution by 1."""
    values = np.linspace(low, high, 256, dtype=np.float32).reshape(1, 1, 16, 16)
    kind, shape = onnx.TensorProto.FLOAT, [1, 1, 16, 16]
    ends = [onnx.helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    one = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [one])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    ranges = {"x": ValueRange(low, high), "y": ValueRange(low, high)}
    int8 = quantized(model, ranges, whole_weights(model, QDQSettings()), QDQSettings())
    rounding = RoundedMap()
    found = rounding(torch.from_numpy(values))
    step = max(max(high, 0.0) - min(low, 0.0), 1e-9) / 255
    np.testing.assert_allclose(found, logits_of(int8)(values), rtol=0, atol=step * 1e-3)
    assert len(found.unique()) == (1 if low == high else min(256, round((high - low) / step) + 1))


def test_ranges_follow_in_training_and_rest_in_evaluation(tiny_arch: Arch, images: Tensor) -> None:
    network = _network(tiny_arch)
    assert set(_ranges(network)) == {(0.0, 0.0)}
    network(images)
    assert set(_ranges(network)) == {(0.0, 0.0)}  # a step has not been taken
    follow_ranges(network)
    first = _ranges(network)
    assert first[0] == (float(images.min()), float(images.max()))
    assert all(low <= 0 <= high for low, high in first)
    network(2 * images)
    follow_ranges(network)
    second = _ranges(network)
    assert second[0] == pytest.approx([1.1 * end for end in first[0]])
    with torch.no_grad():
        answers = network.eval()(images)
        network(9 * images)
    follow_ranges(network)
    assert _ranges(network) == second
    assert torch.equal(network(images), answers)


def test_every_map_of_the_int8_form_has_a_range(tiny_arch: Arch) -> None:
    """What layers take in, what comes ahead of an activation that is no ReLU, what is added to a residual."""
    maps = [name for name, m in _network(tiny_arch).named_modules() if isinstance(m, RoundedMap)]
    layers = [name for name, m in FBNet(tiny_arch).named_modules() if isinstance(m, nn.Conv2d)]
    curved = [n for n, m in FBNet(tiny_arch).named_modules() if isinstance(m, (nn.Hardswish, nn.Hardsigmoid))]
    projections = [name.removesuffix("conv") for name in layers if name.endswith("project.conv")]
    assert sorted(maps) == sorted(
        [f"{name}.input" for name in layers] + [f"{name}.0" for name in curved]
        + [f"{name}answer" for name in projections] + ["dropout.0"]
    )  # fmt: skip


def test_recomputing_changes_nothing(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    recipe = replace(INT8, epochs=1)
    train(tiny_arch, data, recipe, tmp_path / "kept")
    train(tiny_arch, data, recipe, tmp_path / "recomputed", execution=Execution(gradient_checkpointing=True))
    assert_same(tmp_path / "recomputed", tmp_path / "kept")


@pytest.mark.parametrize("precision", [Precision.BFLOAT16, Precision.FLOAT16])
def test_in_reduced_precision(precision: Precision, tiny_arch: Arch, images: Tensor) -> None:
    """One batch over and over: the loss falls, and weights and ranges stay in 32 bits."""
    learner = Learner(_network(tiny_arch), PLAIN, execution=Execution(precision=precision))
    batch = Batch(images.mul(50).add(128).clamp(0, 255).to(torch.uint8), torch.arange(16) % 10)
    losses = []
    for number in range(8):
        losses.append(float(learner.gradients([batch], seed=number)))
        learner.update(0.1)
    assert losses[-1] < losses[0] - 0.02
    assert {tensor.dtype for tensor in learner.student.parameters()} == {torch.float32}
    assert all(low <= 0 < high for low, high in _ranges(learner.student)[:2])
    assert {m.low.dtype for m in learner.student.modules() if isinstance(m, RoundedMap)} == {torch.float32}


# --- a run ---


def test_resumed_is_as_never_killed(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    """With everything random, RMSProp and a moving average, over ranges too; mid-epoch."""
    straight = train(tiny_arch, data, INT8, tmp_path / "straight")
    with pytest.raises(Stopped):
        train(tiny_arch, data, INT8, tmp_path / "run", execution=EVERY_STEP, callbacks=[Stopper(2, 3)])
    held = load_file(checkpoints(tmp_path / "run")[0])
    for kind in ("student.network", "average.module"):
        assert held[f"{kind}.stages.0.0.conv.input.low"] < 0 < held[f"{kind}.stages.0.0.conv.input.high"]
    run = train(tiny_arch, data, INT8, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", tmp_path / "straight")
    assert [epoch.validation_loss for epoch in run.epochs] == [epoch.validation_loss for epoch in straight.epochs]


@pytest.mark.parametrize("recipe", [INT8, replace(PLAIN, weight_levels=63)], ids=["averaged", "not averaged"])
def test_what_is_delivered_is_plain(recipe: Recipe, tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    run = train(tiny_arch, data, recipe, tmp_path / "run", report=True)
    assert run.model.state_dict().keys() == FBNet(tiny_arch).state_dict().keys()
    assert {type(m) for m in run.model.modules()} == {type(m) for m in FBNet(tiny_arch).modules()}
    weight = run.model.classifier.weight
    assert torch.allclose(rounded_weight(weight, 63), weight, rtol=1e-5)
    assert not torch.allclose(rounded_weight(weight, 31), weight, rtol=1e-5)
    for name in ("model", "best"):
        assert load(tmp_path / "run" / f"{name}.safetensors").arch == run.model.arch
    assert "trained for int8" in (tmp_path / "run" / "report.html").read_text()


def test_off_is_as_if_it_did_not_exist(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    assert PLAIN.weight_levels == 0
    train(tiny_arch, data, replace(PLAIN, epochs=1), tmp_path / "off")
    train(tiny_arch, data, replace(PLAIN, epochs=1, weight_levels=127), tmp_path / "on")
    off, on = tensors(tmp_path / "off"), tensors(tmp_path / "on")
    assert not [name for name in off if name.endswith((".low", ".high"))]
    assert {name for name in on if name not in off} == {name for name in on if name.endswith((".low", ".high"))}
    assert not torch.equal(off["model.classifier.weight"], on["model.classifier.weight"])


# --- what it brings ---


def _int8_accuracy(model: FBNet, levels: int, folder: Path, data: Dataset) -> float:
    """Part of the test images that the static int8 form gets right, each weight rounded to the nearest level."""
    graph = onnx.load(export_onnx(model, folder / "net.onnx", batch_sizes=[2]).path)
    shown = stack(model.preprocess, [example.read() for example in data["train"][::10]])
    settings = QDQSettings(Activations.UINT8, levels)
    ranges = find_ranges(graph, shown, observed(graph.graph))
    int8 = quantized(graph, ranges, whole_weights(graph, settings), settings)
    tested: npt.NDArray[np.float32] = stack(model.preprocess, [example.read() for example in data["test"]])
    return float((logits_of(int8)(tested).argmax(1) == [example.label for example in data["test"]]).mean())


@pytest.mark.long
def test_it_brings_back_what_few_levels_cost(tiny_arch: Arch, tmp_path: Path) -> None:
    """Two levels on either side of 0, so that most is lost: with seeds 0 to 2 at least 0.49 more is right than before.

    As many epochs in float bring back nothing. What the run measures is what the int8 file then does.
    """
    levels, data = 2, find_dataset("digits")
    recipe = Recipe(6, 32, SGD(), 0.05, schedule=CosineDecay(), warmup_epochs=1, ema_decay=0.9)
    start = train(tiny_arch, data, recipe, tmp_path / "start")
    recipe, weights = replace(recipe, epochs=3, learning_rate=0.02), start.folder / "model.safetensors"
    floats = train(tiny_arch, data, recipe, tmp_path / "floats", pretrained=weights)
    tuned = train(tiny_arch, data, replace(recipe, weight_levels=levels), tmp_path / "tuned", pretrained=weights)
    before, other, found = (_int8_accuracy(run.model, levels, run.folder, data) for run in (start, floats, tuned))
    assert found > max(before, other) + 0.25
    assert tuned.test is not None
    assert found == pytest.approx(tuned.test.fraction, abs=0.05)
    shown = [example.read() for example in data["train"][::50]]
    report = quantize(
        tuned.folder / "net.onnx", tuned.folder / "int8.onnx", shown, config=QuantizationConfig(target=Target.AVX2)
    )
    assert (report.float_layers, report.agreement >= 0.99) == ((), True)  # 63 levels hold what was trained for two
