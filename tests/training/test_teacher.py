"""Teachers of every kind: what they see, what they answer, and what is learned from them."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_hub import FakeHub
from golden import official_checkpoint
from loopback import running
from PIL import Image
from refusals import refusal
from runs import PLAIN, Stopped, Stopper, assert_same, checkpoints, tensors, train
from torch import Tensor, nn
from waiting import PATIENCE

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.recipes import Augmentation, Distillation, Recipe
from fbnetv3_zoo.training import Callback, Dataset, Epoch, Execution, Step, Teacher, find_teacher
from fbnetv3_zoo.training.distributed import World
from fbnetv3_zoo.training.learner import Learner
from fbnetv3_zoo.training.loader import TrainingBatches
from fbnetv3_zoo.weights.cache import WeightsCache
from fbnetv3_zoo.weights.serialization import save

CPU = torch.device("cpu")
ONE_EPOCH = replace(PLAIN, epochs=1)


@pytest.fixture(scope="module")
def own(data: Dataset) -> Preprocess:
    """How the student's images are prepared."""
    return Preprocess(32, 32, mean=data.mean, std=data.std)


@pytest.fixture(scope="module")
def network(tiny_arch: Arch, data: Dataset) -> FBNet:
    """A teacher of three channels and 40 px, with dropout; norms as after some training. Only read."""
    found = FBNet(tiny_arch, drop_rate=0.5, drop_path_rate=0.5, generator=torch.Generator().manual_seed(3))
    found.preprocess = Preprocess(40, 40, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    found.class_names = data.class_names
    with torch.no_grad():
        found(torch.randn(16, 3, 40, 40, generator=torch.Generator().manual_seed(0)))
    return found


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """Gray images in [0, 1] as the student sees them."""
    return torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def _expected(network: FBNet, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and last maps of gray ``pixels``, by hand: three equal channels, 40 px, the teacher's mean and std."""
    larger = F.interpolate(pixels.expand(-1, 3, -1, -1), (40, 40), mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    training = network.training
    with torch.no_grad():
        maps = network.eval().forward_features((larger - mean[:, None, None]) / std[:, None, None])
        logits = network.forward_head(maps)
    network.train(training)
    return logits, maps


class Recording(nn.Module):
    """A teacher that keeps what it is given, and the state it is in then."""

    seen: ClassVar[list[Tensor]] = []
    states: ClassVar[set[tuple[bool, bool]]] = set()

    def __init__(self, classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.clone())
        self.states.add((self.training, torch.is_grad_enabled()))
        answers: Tensor = self.linear(images.mean((2, 3)))
        return answers


@pytest.fixture
def recording() -> Iterator[Recording]:
    Recording.seen.clear()
    Recording.states.clear()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield Recording()


# --- kinds of teacher ---


def test_a_module_is_copied(network: FBNet, pixels: Tensor, own: Preprocess) -> None:
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    teacher = find_teacher(network, preprocess=own, device=CPU)
    logits, maps = teacher(pixels)
    expected = _expected(network, pixels)
    assert torch.equal(logits, expected[0])
    assert maps is not None
    assert torch.equal(maps, expected[1])
    assert (teacher.name, teacher.class_names, teacher.map_channels) == (network.arch.name, network.class_names, 16)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert find_teacher(teacher, preprocess=own, device=CPU) is teacher


def test_files(network: FBNet, pixels: Tensor, own: Preprocess, tmp_path: Path) -> None:
    save(network, tmp_path / "teacher.safetensors")
    export_onnx(network, tmp_path / "teacher.onnx")
    expected, _ = _expected(network, pixels)
    digests = set()
    for name, maps in (("teacher.safetensors", 16), ("teacher.onnx", None)):
        for source in (tmp_path / name, str(tmp_path / name)):
            teacher = find_teacher(source, preprocess=own, device=CPU)
            logits, found = teacher(pixels)
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
            assert (found is None) == (maps is None)
            assert (teacher.name, teacher.map_channels) == (str(tmp_path / name), maps)
            assert teacher.class_names == network.class_names
            digests.add(teacher.digest)
    assert len(digests) == 2
    assert find_teacher(network, preprocess=own, device=CPU).digest in digests


def test_a_published_name(
    data: Dataset, own: Preprocess, tiny_arch: Arch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "fbnetv2_f1"
    (tmp_path / "site" / f"{name}.fb_in1k").mkdir(parents=True)
    torch.save(official_checkpoint(name), tmp_path / "site" / f"{name}.fb_in1k" / "model.pth")
    for variable, place in (("CACHE", "kept"), ("MIRROR", "site"), ("LOCK", "lock.json")):
        monkeypatch.setenv(f"FBNETV3_ZOO_{variable}", str(tmp_path / place))
    monkeypatch.delenv("FBNETV3_ZOO_OFFLINE", raising=False)
    expected = create(name, pretrained=True, cache=WeightsCache()).eval()
    for source in (name, f"{name}.fb_in1k"):
        teacher = find_teacher(source, preprocess=own, device=CPU)
        side = expected.preprocess.resolution
        images = torch.rand(1, 3, side, side)
        mean, std = (torch.tensor(v)[:, None, None] for v in (expected.preprocess.mean, expected.preprocess.std))
        with torch.no_grad():
            assert torch.equal(teacher(images)[0], expected((images - mean) / std))
    said = f"teacher {name}: has 1000 classes, but digits has 10; train one on this data"
    assert refusal(lambda: train(tiny_arch, data, PLAIN, tmp_path / "run", teacher=name)) == said


def test_a_repository_of_the_hub(network: FBNet, pixels: Tensor, tmp_path: Path) -> None:
    save(network, tmp_path / "model.safetensors")
    torch.save(pixels, tmp_path / "pixels.pt")
    code = """
import torch
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.training import find_teacher
pixels, own = torch.load("pixels.pt"), Preprocess(32, 32, mean=(0.5,), std=(0.5,))
found, same = (
    find_teacher(source, preprocess=own, device=torch.device("cpu"))
    for source in ("hf-hub:me/net", "model.safetensors")
)
print(found.name, torch.equal(found(pixels)[0], same(pixels)[0]), found.digest == same.digest)
"""
    with running(FakeHub()) as hub:
        hub.files["me/net/model.safetensors"] = (tmp_path / "model.safetensors").read_bytes()
        given = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **given, **quiet}, cwd=tmp_path, text=True,
            capture_output=True, timeout=PATIENCE,
        )  # fmt: skip
    assert done.stdout == "hf-hub:me/net True True\n", done.stderr


def test_no_teacher(own: Preprocess, tmp_path: Path) -> None:
    for source, said in (
        (tmp_path / "none.safetensors", f"{tmp_path}/none.safetensors: no such file"),
        (
            "fbnetv3_nanno",
            "unknown teacher 'fbnetv3_nanno' (did you mean 'fbnetv3_nano'?); give one of `fbnetv3 list`, or "
            "a model file",
        ),
        (str(tmp_path / "none.onnx"), f"{tmp_path}/none.onnx: no such file"),
    ):
        with pytest.raises(ZooError) as caught:
            find_teacher(source, preprocess=own, device=CPU)
        assert str(caught.value) == said


# --- what it sees ---


def _learner(arch: Arch, data: Dataset, recipe: Recipe, teacher: Teacher) -> tuple[Learner, TrainingBatches]:
    preprocess = Preprocess(32, 32, mean=data.mean, std=data.std)
    student = create(replace(arch, in_channels=len(data.mean)), generator=torch.Generator().manual_seed(0))
    student.preprocess = preprocess
    return Learner(student, recipe, teacher=teacher), TrainingBatches(data["train"], preprocess, recipe)


def test_it_sees_the_mixed_images_of_the_student(
    recording: Recording, tiny_arch: Arch, data: Dataset, own: Preprocess
) -> None:
    recipe = replace(PLAIN, augmentation=Augmentation(shift=True, mixup=1.0, cutmix=1.0))
    learner, batches = _learner(tiny_arch, data, recipe, find_teacher(recording, preprocess=own, device=CPU))
    given: list[Tensor] = []
    learner.student.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].clone()))
    plain = []
    for number, parts in enumerate(batches.epoch(0)):
        learner.gradients(parts, seed=number)
        plain.append((parts[0].images / 255 - own.mean[0]) / own.std[0])
    assert len(given) == len(recording.seen) == 5
    assert all(torch.equal(student, teacher) for student, teacher in zip(given, recording.seen, strict=True))
    assert not any(torch.allclose(student, images) for student, images in zip(given, plain, strict=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_its_own_channels_resolution_and_normalization(channels: int, recording: Recording) -> None:
    """Gray becomes three equal channels; color becomes gray as Pillow has it."""
    chance = np.random.default_rng(0)
    blocks = chance.integers(0, 256, (4, 4, 3) if channels == 1 else (4, 4), np.uint8)
    image = Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1))
    expects = Preprocess(24, 24, mean=(0.2,) * channels, std=(0.3,) * channels)
    teacher = find_teacher(Recording(channels=channels), preprocess=expects, device=CPU)
    array = np.array(image, dtype=np.float32).reshape(32, 32, -1) / 255
    teacher(torch.from_numpy(array).movedim(-1, 0)[None])
    (seen,) = recording.seen
    converted = torch.from_numpy(np.array(image.convert("L" if channels == 1 else "RGB"), dtype=np.float32) / 255)
    wanted = converted.reshape(32, 32, channels).movedim(-1, 0)[None]
    wanted = F.interpolate(wanted, (24, 24), mode="bilinear", antialias=True)
    assert seen.shape == (1, channels, 24, 24)
    torch.testing.assert_close(seen * 0.3 + 0.2, wanted, rtol=0, atol=1 / 255)


class _Meddling(Callback):
    """Puts every network that there is into training mode, once a step, until :meth:`restore`."""

    def __init__(self) -> None:
        self.evaluating: list[nn.Module] = []

    def on_step(self, step: Step) -> None:
        for module in [module for module in gc.get_objects() if type(module) in (FBNet, Recording)]:
            if not module.training:
                self.evaluating.append(module.train())

    def restore(self) -> None:
        for module in self.evaluating:
            module.eval()


@pytest.fixture
def meddling() -> Iterator[_Meddling]:
    callback = _Meddling()
    yield callback
    callback.restore()  # other tests look at networks of this process


def test_in_evaluation_mode_and_without_gradients_whatever_happens(
    meddling: _Meddling, recording: Recording, network: FBNet, tiny_arch: Arch, data: Dataset, tmp_path: Path
) -> None:
    train(tiny_arch, data, ONE_EPOCH, tmp_path / "recording", teacher=recording, callbacks=[meddling])
    assert recording.states == {(False, False)}
    assert recording.training
    assert all(parameter.grad is None for parameter in recording.parameters())
    folders = [tmp_path / "left alone", tmp_path / "meddled with"]
    for folder, callbacks in zip(folders, ([], [meddling]), strict=True):
        train(tiny_arch, data, ONE_EPOCH, folder, teacher=network, callbacks=callbacks)
    assert_same(*folders)


def test_it_is_validated_before_the_first_step(
    recording: Recording, tiny_arch: Arch, data: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A teacher that always answers 0 knows no more than chance would: at most a tenth of the images are zeros."""
    nn.init.zeros_(recording.linear.weight)
    nn.init.zeros_(recording.linear.bias)
    recording.linear.bias.data[0] = 1.0
    events: list[str] = []

    class Noting(Callback):
        def on_step(self, step: Step) -> None:
            events.append(f"{sum(map(len, recording.seen))} images, step {step.step}")

        def on_epoch(self, epoch: Epoch) -> None:
            raise Stopped

    zeros = sum(example.label == 0 for example in data["validation"])
    assert zeros <= 3
    caplog.set_level("INFO")
    with pytest.raises(Stopped):
        train(tiny_arch, data, ONE_EPOCH, tmp_path, teacher=recording, callbacks=[Noting()])
    assert events == [f"{31 + 16 * step} images, step {step}" for step in range(1, 6)]
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith(f"teacher Recording: validation accuracy {zeros / 31:.2%} ({zeros} of 31; 95 % interval ")
    assert said[1] == "teacher Recording is no better than chance on digits"


def test_its_classes_are_others(network: FBNet, tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    other = FBNet(tiny_arch)
    other.class_names = tuple("abcdefghij")
    assert refusal(lambda: train(tiny_arch, data, PLAIN, tmp_path, teacher=other)) == (
        "teacher tiny: its classes differ from those of digits; class 0 is 'a', but '0' in digits; train one on this "
        "data"
    )
    assert refusal(lambda: train(tiny_arch, data, PLAIN, tmp_path, teacher=Recording(classes=9))) == (
        "teacher Recording: has logits of shape (9,), but digits has 10 classes"
    )


def test_its_classes_in_another_order(network: FBNet, data: Dataset, own: Preprocess, pixels: Tensor) -> None:
    """Equal names in another order, or spelled otherwise: from the check on, answers are in the data's order."""
    expected, _ = find_teacher(network, preprocess=own, device=CPU)(pixels)
    names = ("Nine", "eight", "SEVEN", "six", "five", "four", "three", "two", "one_1", "zero, nought")
    wanted = ("zero", "one 1", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for known, asked in ((data.class_names[::-1], data.class_names), (names, wanted)):
        other = deepcopy(network)
        other.class_names = known
        teacher = find_teacher(other, preprocess=own, device=CPU)
        teacher.check(replace(data, class_names=asked), world=World(), execution=Execution())
        assert torch.equal(teacher(pixels)[0], expected.flip(1))


# --- what is learned ---


def test_the_loss_is_that_of_the_paper(network: FBNet, tiny_arch: Arch, data: Dataset, own: Preprocess) -> None:
    """0.8 x divergence + 0.2 x cross entropy, by hand."""
    recipe = replace(PLAIN, label_smoothing=0.1)
    learner, batches = _learner(tiny_arch, data, recipe, find_teacher(network, preprocess=own, device=CPU))
    ((batch,), *_) = batches.epoch(0)
    pixels = batch.images / 255
    with torch.no_grad():
        logits = learner.student.network((pixels - own.mean[0]) / own.std[0])
    answers = _expected(network, pixels)[0].double().softmax(1)
    student = logits.double().log_softmax(1)
    divergence = (answers * (answers.log() - student)).sum(1).mean()
    smoothed = F.one_hot(batch.labels, 10) * 0.9 + 0.01
    labels = -(smoothed * student).sum(1).mean()
    expected = 0.8 * float(divergence) + 0.2 * float(labels)
    assert float(learner.gradients([batch], seed=0)) == pytest.approx(expected, rel=1e-5)
    assert abs(float(divergence) - float(labels)) > 0.01


def test_maps_are_learned_too_and_resumed(network: FBNet, tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    recipe = replace(PLAIN, distillation=Distillation(feature_weight=0.5))
    train(tiny_arch, data, recipe, tmp_path / "straight", teacher=network)
    execution = Execution(checkpoint_steps=1)
    with pytest.raises(Stopped):
        train(
            tiny_arch, data, recipe, tmp_path / "run", teacher=network, execution=execution, callbacks=[Stopper(2, 3)]
        )
    train(tiny_arch, data, recipe, tmp_path / "run", teacher=network, resume=True)
    assert_same(tmp_path / "run", tmp_path / "straight")
    with_maps = tensors(tmp_path / "straight")
    assert with_maps["now.student.projector.weight"].shape == (16, 16, 1, 1)
    assert not any("projector" in name for name in with_maps if not name.startswith("now."))
    train(tiny_arch, data, PLAIN, tmp_path / "without", teacher=network)
    without = tensors(tmp_path / "without")
    convolutions = [name for name in without if name.startswith("model.stages") and name.endswith("conv.weight")]
    assert convolutions
    assert not any(torch.equal(with_maps[name], without[name]) for name in convolutions)
    said = refusal(lambda: train(tiny_arch, data, recipe, tmp_path / "run", resume=True))
    assert said == f"{tmp_path}/run: the run was begun with another teacher; give another folder"
    assert len(checkpoints(tmp_path / "run")) == 2


def test_maps_of_a_teacher_that_has_none(recording: Recording, tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    recipe = replace(PLAIN, distillation=Distillation(feature_weight=0.5))
    assert refusal(lambda: train(tiny_arch, data, recipe, tmp_path, teacher=recording)) == (
        "teacher Recording: has no maps to compare; set distillation.feature_weight to 0"
    )
