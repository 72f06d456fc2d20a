"""How a step is carried out: precision, recomputation, parts, devices. Compiling takes longer than a test may."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refusals import refusal
from runs import PLAIN, RECIPE, Stopped, Stopper, assert_same, checkpoints, metadata, tensors, train

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.recipes import SGD
from fbnetv3_zoo.training import Dataset, Execution, Precision
from fbnetv3_zoo.training.learner import Learner
from fbnetv3_zoo.training.loader import Batch, TrainingBatches

EVERY_STEP = Execution(checkpoint_steps=1)
HALF = replace(EVERY_STEP, precision=Precision.FLOAT16)


def _learner(arch: Arch, data: Dataset, execution: Execution, **recipe: float) -> Learner:
    network = create(replace(arch, in_channels=1), generator=torch.Generator().manual_seed(0))
    network.preprocess = Preprocess(32, 32, mean=data.mean, std=data.std)
    return Learner(network, replace(PLAIN, **recipe), execution=execution)  # type: ignore[arg-type]


def _batch(data: Dataset) -> Batch:
    preprocess = Preprocess(32, 32, mean=data.mean, std=data.std)
    ((batch,), *_) = TrainingBatches(data["train"], preprocess, replace(PLAIN, batch_size=32)).epoch(0)
    return batch


@pytest.mark.parametrize("precision", [Precision.BFLOAT16, Precision.FLOAT16])
def test_reduced_precision_learns(precision: Precision, tiny_arch: Arch, data: Dataset) -> None:
    """One batch over and over: the loss falls as in full precision, and the weights stay in 32 bits."""
    batch, found = _batch(data), {}
    for kind in (Precision.FLOAT32, precision):
        learner = _learner(tiny_arch, data, Execution(precision=kind), ema_decay=0.8)
        losses = []
        for number in range(8):
            losses.append(float(learner.gradients([batch], seed=number)))
            learner.update(0.1)
        found[kind] = losses
        assert {tensor.dtype for tensor in learner.student.parameters()} == {torch.float32}
        assert {tensor.dtype for tensor in learner.result.parameters()} == {torch.float32}
    full, reduced = found.values()
    assert reduced != full
    assert reduced[0] == pytest.approx(full[0], rel=0.01)
    fall, fallen = full[0] - full[-1], reduced[0] - reduced[-1]
    assert fall > 0.01
    assert fallen == pytest.approx(fall, rel=0.2)


def test_half_precision_resumes_with_its_scale(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    """The first scale, 65536, is too large for this loss, so that steps are left out and it is halved."""
    recipe = replace(RECIPE, epochs=2, optimizer=SGD(), learning_rate=0.05)
    train(tiny_arch, data, recipe, tmp_path / "straight", execution=HALF)
    with pytest.raises(Stopped):
        train(tiny_arch, data, recipe, tmp_path / "run", execution=HALF, callbacks=[Stopper(2, 3)])
    scaler = metadata(checkpoints(tmp_path / "run")[0])["scaler"]
    assert 0 < scaler["scale"] <= 65536
    assert scaler["_growth_tracker"] > 0 or scaler["scale"] < 65536
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    train(tiny_arch, data, recipe, tmp_path / "run", resume=True, execution=HALF)
    assert_same(tmp_path / "run", tmp_path / "straight")
    run = train(tiny_arch, data, recipe, tmp_path / "other", resume=True)  # goes on in 32 bits
    assert math.isfinite(run.epochs[-1].train_loss)


def test_half_precision_may_begin_later(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tiny_arch, data, PLAIN, tmp_path, execution=EVERY_STEP, callbacks=[Stopper(1, 3)])
    assert metadata(checkpoints(tmp_path)[0])["scaler"] == {}
    train(tiny_arch, data, PLAIN, tmp_path, resume=True, execution=HALF)
    assert metadata(checkpoints(tmp_path)[0])["scaler"]["scale"] > 0


def test_recomputing_changes_nothing(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1)
    train(tiny_arch, data, recipe, tmp_path / "kept")
    train(tiny_arch, data, recipe, tmp_path / "recomputed", execution=Execution(gradient_checkpointing=True))
    assert_same(tmp_path / "recomputed", tmp_path / "kept")


def test_a_batch_in_parts(tiny_arch: Arch, data: Dataset) -> None:
    """Gradients are those of the mean over all parts, each with norms of its own."""
    batch = _batch(data)
    halves = [Batch(batch.images[half], batch.labels[half]) for half in (slice(0, 16), slice(16, 32))]
    whole, divided = (_learner(tiny_arch, data, Execution(accumulation=parts)) for parts in (1, 2))
    for learner in (whole, divided):
        learner.student.eval()
    losses = float(whole.gradients([batch], seed=0)), float(divided.gradients(halves, seed=0))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    for one, other in zip(whole.student.parameters(), divided.student.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-6)
    divided.student.train()
    whole.student.train()
    assert abs(whole.gradients([batch], seed=0) - divided.gradients(halves, seed=0)) > 1e-5


def test_predictions_leave_the_network_as_it_was(tiny_arch: Arch, data: Dataset) -> None:
    learner = _learner(tiny_arch, data, Execution())
    before = {name: tensor.clone() for name, tensor in learner.student.state_dict().items()}
    images = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = learner.predict(images.numpy())
    assert learner.student.network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.student.state_dict().items())
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(logits), learner.student.network.eval()(images))


@pytest.mark.parametrize("device", ["cuda", "nonsense", "meta"])
def test_devices_that_cannot_be_used(device: str, tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    said = refusal(lambda: train(tiny_arch, data, PLAIN, tmp_path / "run", execution=Execution(device=device)))
    assert re.fullmatch(rf"device '{device}' cannot be used \(.+\); choose from cpu(, .+)?", said)
    assert not (tmp_path / "run").exists()


def test_the_layout_of_maps_may_be_chosen(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    """On a CPU the network itself takes no other, so that nothing changes."""
    recipe = replace(PLAIN, epochs=1)
    for last in (None, False):
        train(tiny_arch, data, recipe, tmp_path / str(last), execution=Execution(channels_last=last))
    one, other = tensors(tmp_path / "None"), tensors(tmp_path / "False")
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4)
