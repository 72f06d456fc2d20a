"""The training loop on real digits: it learns, repeats itself exactly, survives kills, and says what went wrong."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from disks import file_limit
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.model import FBNet
from fbnetv3_zoo.preprocess import Preprocess, stack
from fbnetv3_zoo.recipe import Augmentation, Optimizer, Recipe
from fbnetv3_zoo.training import Dataset, Epoch, Run, train
from fbnetv3_zoo.training.augment import training_batches
from fbnetv3_zoo.training.data import Example, digits
from fbnetv3_zoo.training.optim import build_average, build_optimizer
from fbnetv3_zoo.weights.files import load

# Everything that is random in a run is in it.
RECIPE = Recipe(
    3,
    16,
    Optimizer.SGD,
    0.05,
    Augmentation.SHIFT,
    warmup_epochs=1,
    weight_decay=1e-3,
    ema_decay=0.9,
    label_smoothing=0.1,
    dropout=0.2,
    stochastic_depth=0.2,
)
PLAIN = replace(RECIPE, augmentation=Augmentation.NONE, ema_decay=0.0, label_smoothing=0.0, dropout=0.0)

# What a child process runs until it is killed: it stops at the given moment of epoch 2 and says so.
CHILD = """
import sys, time
from pathlib import Path
from test_training import RECIPE, few_digits
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.training import train
from fbnetv3_zoo.weights import files

folder, arch, moment = Path(sys.argv[1]), Arch.from_json(sys.argv[2]), sys.argv[3]

def stop():
    print("here", flush=True)
    time.sleep(600)

def on_step(epoch, step, steps, loss):
    if moment == "step" and (epoch, step) == (2, 3):
        stop()

def save_half(tensors, path, metadata):
    if moment == "write" and (folder / "checkpoint.safetensors").exists():
        Path(path).write_bytes(b"half a checkpoint")
        stop()
    whole(tensors, path, metadata)

whole, files.save_file = files.save_file, save_half
train(arch, few_digits(), RECIPE, folder, on_step=on_step)
"""


def few_digits(seed: int = 0, every: int = 12) -> Dataset:
    """A twelfth of the digits, in all ten classes: 90 to train on, 31 to validate, 31 to test."""
    data = digits(seed=seed)
    return replace(data, splits=MappingProxyType({split: data[split][::every] for split in data.splits}))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return few_digits()


@pytest.fixture(scope="module")
def finished(tiny_arch: Arch, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run of three epochs. Its folder is only read."""
    return train(tiny_arch, data, RECIPE, tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def one_epoch(tiny_arch: Arch, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run, ended after an epoch. Only read; see :func:`begun`."""
    return train(tiny_arch, data, replace(RECIPE, epochs=1), tmp_path_factory.mktemp("one_epoch")).folder


@pytest.fixture
def begun(one_epoch: Path, tmp_path: Path) -> Path:
    """A copy of :func:`one_epoch` to go on with."""
    return Path(shutil.copytree(one_epoch, tmp_path / "begun"))


def _tensors(run: Run) -> dict[str, Tensor]:
    """All tensors of a run's model and checkpoint."""
    files = {name: load_file(run.folder / f"{name}.safetensors") for name in ("model", "checkpoint")}
    return {f"{file}:{name}": tensor for file, tensors in files.items() for name, tensor in tensors.items()}


def _differing(one: Run, other: Run) -> list[str]:
    first, second = _tensors(one), _tensors(other)
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def _metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` without what no two runs share."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def _history(file: Path) -> list[dict[str, Any]]:
    with safe_open(file, framework="pt") as opened:
        history = json.loads(opened.metadata()["history"])
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]


def _assert_same_run(one: Run, other: Run) -> None:
    """Equal to the last bit, but for the time it took."""
    assert _differing(one, other) == []
    assert _metrics(one.folder) == _metrics(other.folder)
    assert _history(one.folder / "checkpoint.safetensors") == _history(other.folder / "checkpoint.safetensors")
    assert [replace(epoch, seconds=0) for epoch in one.epochs] == [replace(epoch, seconds=0) for epoch in other.epochs]
    assert one.test == other.test


def _refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(ZooError) as caught:
        train(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize(("optimizer", "rate"), [(Optimizer.SGD, 0.1), (Optimizer.RMSPROP, 0.005)])
def test_it_learns(optimizer: Optimizer, rate: float, tiny_arch: Arch, tmp_path: Path) -> None:
    recipe = Recipe(12, 16, optimizer, rate, Augmentation.NONE, warmup_epochs=1, decay_per_epoch=0.8, ema_decay=0.9)
    run = train(tiny_arch, few_digits(every=4), recipe, tmp_path)
    assert run.epochs[0].train_loss > 2
    assert run.epochs[-1].train_loss < 0.6
    assert run.epochs[-1].validation_top1 > 0.75
    assert run.test is not None
    assert run.test.fraction > 0.75


def test_what_a_run_gives(finished: Run, data: Dataset) -> None:
    model = finished.model
    assert [epoch.epoch for epoch in finished.epochs] == [1, 2, 3]
    assert [epoch.learning_rate for epoch in finished.epochs] == [0.05, 0.05, 0.05 * 0.9875]
    assert finished.test is not None
    assert finished.test.total == len(data["test"])
    assert not any(module.training for module in model.modules())
    assert (model.arch.in_channels, model.arch.num_classes) == (1, 10)
    assert model.class_names == data.class_names
    assert model.preprocess == Preprocess(32, 32, mean=data.mean, std=data.std)
    names = {"checkpoint.safetensors", "curve.png", "metrics.jsonl", "model.safetensors"}
    assert {file.name for file in finished.folder.iterdir()} == names
    assert [asdict(epoch) for epoch in finished.epochs] == [
        json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()
    ]


def test_the_saved_model_is_the_returned_one(finished: Run, data: Dataset) -> None:
    saved = load(finished.folder / "model.safetensors")
    images = torch.from_numpy(stack(saved.preprocess, [example.read() for example in data["test"]]))
    with torch.inference_mode():
        logits, again = finished.model(images), saved(images)
    assert torch.equal(logits, again)
    assert finished.test is not None
    labels = torch.tensor([example.label for example in data["test"]])
    assert finished.test.top1 == (logits.argmax(1) == labels).sum()
    assert saved.description == finished.model.description


def test_the_arguments_keep_their_values(tiny_arch: Arch, data: Dataset, finished: Run) -> None:
    assert (tiny_arch.in_channels, tiny_arch.num_classes) == (3, 10)
    assert data.fingerprint == few_digits().fingerprint


def test_the_same_seed_gives_the_same_run(tiny_arch: Arch, data: Dataset, finished: Run, tmp_path: Path) -> None:
    torch.manual_seed(12345)  # must not matter
    _assert_same_run(train(tiny_arch, data, RECIPE, tmp_path), finished)


def test_another_seed_gives_another_run(tiny_arch: Arch, data: Dataset, finished: Run, tmp_path: Path) -> None:
    other = train(tiny_arch, data, replace(RECIPE, seed=1), tmp_path)
    weights = {name for name in _tensors(finished) if name.startswith("model:") and name.endswith("conv.weight")}
    assert weights <= set(_differing(other, finished))
    assert _metrics(other.folder) != _metrics(finished.folder)


def test_every_epoch_has_its_own_order(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    """All training images once an epoch, in an order that seed and epoch decide."""

    def orders(seed: int, folder: str) -> list[list[int]]:
        seen: list[int] = []

        def noted(n: int, example: Example) -> Example:
            return replace(example, read=lambda: seen.append(n) or example.read())  # type: ignore[func-returns-value]

        noting = tuple(noted(n, example) for n, example in enumerate(data["train"][:32]))
        some = replace(data, splits={**data.splits, "train": noting})  # type: ignore[dict-item]
        train(tiny_arch, some, replace(PLAIN, epochs=2, seed=seed), tmp_path / folder)
        return [seen[:32], seen[32:]]

    first, again, other = orders(0, "first"), orders(0, "again"), orders(1, "other")
    assert first == again
    assert len({tuple(order) for order in first + other}) == 4
    assert all(sorted(order) == list(range(32)) for order in first + other)


def test_every_epoch_and_step_is_told(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    steps: list[tuple[int, int, int]] = []
    losses: list[float] = []
    epochs: list[Epoch] = []

    def on_step(epoch: int, step: int, of: int, loss: float) -> None:
        steps.append((epoch, step, of))
        losses.append(loss)

    recipe = replace(PLAIN, epochs=2)
    run = train(tiny_arch, data, recipe, tmp_path, on_step=on_step, on_epoch=epochs.append)
    assert steps == [(epoch, step, 5) for epoch in (1, 2) for step in range(1, 6)]  # 90 images, the last 10 left out
    assert tuple(epochs) == run.epochs
    assert [epoch.train_loss for epoch in epochs] == [np.mean(losses[:5]), np.mean(losses[5:])]


def test_the_callers_random_numbers_are_left_alone(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    before = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()
    train(tiny_arch, data, replace(RECIPE, epochs=1), tmp_path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (repr(np.random.get_state()), random.getstate()) == before[1:]


@pytest.mark.parametrize("moment", ["step", "write"])
def test_killed_and_resumed_is_as_never_interrupted(
    moment: str, tiny_arch: Arch, data: Dataset, finished: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "OMP_WAIT_POLICY": "PASSIVE"}
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **threads, "PYTHONPATH": path}
    command = [sys.executable, "-c", CHILD, str(folder), tiny_arch.to_json(), moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert not (folder / "model.safetensors").exists()
    assert len(_history(folder / "checkpoint.safetensors")) == 1
    _assert_same_run(train(tiny_arch, data, RECIPE, folder, resume=True), finished)


def test_more_epochs_on_resume(tiny_arch: Arch, data: Dataset, finished: Run, begun: Path) -> None:
    told: list[Epoch] = []
    run = train(tiny_arch, data, RECIPE, begun, resume=True, on_epoch=told.append)
    assert [epoch.epoch for epoch in told] == [2, 3]
    _assert_same_run(run, finished)


@pytest.mark.parametrize(
    "recipe",
    [
        replace(RECIPE, optimizer=Optimizer.RMSPROP, learning_rate=0.003, epochs=2),
        replace(PLAIN, momentum=0.0, epochs=2),
        replace(PLAIN, augmentation=Augmentation.CROP_FLIP, optimizer=Optimizer.RMSPROP, momentum=0.0, epochs=2),
    ],
    ids=["rmsprop", "sgd without momentum", "rmsprop without momentum or average"],
)
def test_resume_with_other_optimizers(recipe: Recipe, tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    straight = train(tiny_arch, data, recipe, tmp_path / "straight")
    train(tiny_arch, data, replace(recipe, epochs=1), tmp_path / "broken")
    _assert_same_run(train(tiny_arch, data, recipe, tmp_path / "broken", resume=True), straight)


def test_resume_of_a_finished_run_only_measures(tiny_arch: Arch, data: Dataset, begun: Path) -> None:
    before = (begun / "checkpoint.safetensors").read_bytes()
    told: list[Epoch] = []
    run = train(tiny_arch, data, replace(RECIPE, epochs=1), begun, resume=True, on_epoch=told.append)
    assert told == []
    assert (begun / "checkpoint.safetensors").read_bytes() == before
    assert len(run.epochs) == 1


def test_resume_where_nothing_was_begun(tiny_arch: Arch, data: Dataset, one_epoch: Path, tmp_path: Path) -> None:
    run = train(tiny_arch, data, replace(RECIPE, epochs=1), tmp_path / "new", resume=True)
    assert _metrics(run.folder) == _metrics(one_epoch)


@pytest.mark.parametrize("what", ["network", "data", "recipe", "network and recipe"])
def test_resume_with_something_else(what: str, tiny_arch: Arch, data: Dataset, begun: Path) -> None:
    before = {file.name: file.read_bytes() for file in begun.iterdir()}
    arch = tiny_arch.scaled(width=2) if "network" in what else tiny_arch
    data = few_digits(seed=1) if "data" in what else data
    recipe = replace(RECIPE, learning_rate=0.04) if "recipe" in what else RECIPE
    expected = f"{begun}/checkpoint.safetensors: the run was begun with another {what}; give another folder"
    assert _refusal(arch, data, recipe, begun, resume=True) == expected
    assert {file.name: file.read_bytes() for file in begun.iterdir()} == before


def test_resume_from_what_is_no_checkpoint(tiny_arch: Arch, data: Dataset, begun: Path) -> None:
    file = begun / "checkpoint.safetensors"
    shutil.copy(begun / "model.safetensors", file)
    expected = f"{file}: is not a checkpoint of a training run"
    assert _refusal(tiny_arch, data, RECIPE, begun, resume=True) == expected
    file.write_bytes(b"garbage")
    assert _refusal(tiny_arch, data, RECIPE, begun, resume=True).startswith(f"{file}: cannot be read as safetensors (")


def test_a_folder_in_use(tiny_arch: Arch, data: Dataset, begun: Path) -> None:
    before = {file.name: file.read_bytes() for file in begun.iterdir()}
    expected = f"{begun}: holds a run; continue it with --resume (resume=True), or give another folder"
    assert _refusal(tiny_arch, data, RECIPE, begun) == expected
    assert {file.name: file.read_bytes() for file in begun.iterdir()} == before


def test_a_file_where_the_folder_should_be(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("notes")
    steps: list[int] = []
    told = _refusal(tiny_arch, data, RECIPE, tmp_path / "run", on_step=lambda *_: steps.append(1))
    assert told == f"{tmp_path}/run: cannot be made a folder (File exists)"
    assert not steps  # said before the first epoch, not after it


def test_no_weight_decay_on_norms_and_biases(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch)
    model.classifier.bias.requires_grad_(False)
    for optimizer in Optimizer:
        groups = build_optimizer(model, replace(RECIPE, optimizer=optimizer)).param_groups
        decayed = {id(p) for group in groups if group["weight_decay"] == 1e-3 for p in group["params"]}
        others = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
        assert decayed == {id(m.weight) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
        assert decayed | others == {id(p) for p in model.parameters() if p.requires_grad}
        assert not decayed & others


def test_optimizers_are_the_recipes() -> None:
    model = nn.Linear(2, 2)
    sgd = build_optimizer(model, replace(RECIPE, momentum=0.8))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.8, True)
    rmsprop = build_optimizer(model, replace(RECIPE, momentum=0.8, optimizer=Optimizer.RMSPROP))
    assert isinstance(rmsprop, torch.optim.RMSprop)
    assert (rmsprop.defaults["momentum"], rmsprop.defaults["alpha"], rmsprop.defaults["eps"]) == (0.8, 0.9, 1e-3)


def test_the_average_is_the_formula(tiny_arch: Arch) -> None:
    generator = torch.Generator().manual_seed(0)
    model = FBNet(tiny_arch, generator=generator)
    average = build_average(model, replace(RECIPE, ema_decay=0.5))
    assert average is not None
    expected: dict[str, Tensor] = {}
    for step in range(15):  # the warm-up ends at step 8
        with torch.no_grad():
            model(torch.randn(4, 3, 32, 32, generator=generator))  # moves the norms' statistics
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape, generator=generator)
        average.update_parameters(model)
        decay = 0.0 if step == 0 else min(0.5, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            expected[name] = decay * expected.get(name, 0) + (1 - decay) * tensor.double()
    found = average.module.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        if tensor.is_floating_point():  # all but the norms' count of batches
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-5)
            assert not torch.equal(tensor, model.state_dict()[name]), name


def test_with_an_average_that_is_delivered(finished: Run) -> None:
    delivered, kept = load_file(finished.folder / "model.safetensors"), _checkpoint(finished, "average.module.")
    raw = _checkpoint(finished, "model.")
    assert delivered.keys() == kept.keys() == raw.keys()
    assert all(torch.equal(delivered[name], kept[name]) for name in kept)
    assert not torch.equal(delivered["classifier.weight"], raw["classifier.weight"])
    steps = 3 * 5
    assert _checkpoint(finished, "average.")["n_averaged"] == steps


def test_without_an_average_the_network_itself_is_delivered(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    assert build_average(nn.Linear(2, 2), PLAIN) is None
    run = train(tiny_arch, data, replace(PLAIN, epochs=1), tmp_path)
    delivered, raw = load_file(run.folder / "model.safetensors"), _checkpoint(run, "model.")
    assert all(torch.equal(delivered[name], raw[name]) for name in delivered)
    assert _checkpoint(run, "average.") == {}


def _checkpoint(run: Run, prefix: str) -> dict[str, Tensor]:
    tensors = load_file(run.folder / "checkpoint.safetensors")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def test_dropout_and_stochastic_depth_reach_the_network(finished: Run) -> None:
    from torchvision.ops import StochasticDepth

    assert finished.model.dropout.p == 0.2
    rates = [module.p for module in finished.model.modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx([0.2 * 2 / 3, 0.2])  # of four blocks, the first is 0 and the second not residual


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_smoothed_cross_entropy(
    smoothing: float, tiny_arch: Arch, data: Dataset, finished: Run, tmp_path: Path
) -> None:
    """The first loss of a run over all images at once, begun from trained weights, by hand."""
    weights = finished.folder / "model.safetensors"
    model = load(weights).train()
    images = torch.from_numpy(stack(model.preprocess, [example.read() for example in data["train"]]))
    labels = torch.tensor([example.label for example in data["train"]])
    with torch.no_grad():
        logits = model(images)
        expected = F.cross_entropy(logits, labels, label_smoothing=smoothing).item()
        assert abs(expected - F.cross_entropy(logits, labels, label_smoothing=0.15).item()) > 0.001
    losses: list[float] = []
    recipe = replace(PLAIN, epochs=1, batch_size=1000, label_smoothing=smoothing, stochastic_depth=0.0)
    train(tiny_arch, data, recipe, tmp_path, pretrained=weights, on_step=lambda *told: losses.append(told[3]))
    assert losses == [pytest.approx(expected, rel=1e-5)]


def test_a_loss_that_is_no_number(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    recipe = replace(PLAIN, warmup_epochs=0, decay_per_epoch=9e5)  # explodes in the second epoch
    kept: list[bytes] = []
    file = tmp_path / "checkpoint.safetensors"
    told = _refusal(tiny_arch, data, recipe, tmp_path, on_epoch=lambda _: kept.append(file.read_bytes()))
    assert re.fullmatch(r"loss is (nan|inf) in epoch 2, step [2-5]; lower learning_rate \(0\.05\)", told)
    assert [file.read_bytes()] == kept
    assert len(_history(file)) == 1
    assert {entry.name for entry in tmp_path.iterdir()} == {"checkpoint.safetensors", "metrics.jsonl"}


def test_weights_that_broke_in_the_last_step_are_not_kept(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    recipe = replace(PLAIN, batch_size=1000, learning_rate=9e5, warmup_epochs=0)  # a step an epoch: its loss is fine
    told = _refusal(tiny_arch, data, recipe, tmp_path / "run")
    assert told == "validation loss is nan in epoch 1; lower learning_rate (900000)"
    assert list((tmp_path / "run").iterdir()) == []


def test_a_full_disk_keeps_the_old_checkpoint(tiny_arch: Arch, data: Dataset, begun: Path) -> None:
    before = {file.name: file.read_bytes() for file in begun.iterdir()}
    assert len(before["checkpoint.safetensors"]) > 50_000
    with file_limit(50_000):
        told = _refusal(tiny_arch, data, RECIPE, begun, resume=True)
    place = re.escape(f"{begun}/checkpoint.safetensors")
    assert re.fullmatch(rf"{place}: cannot be written \(.*File too large.*\)", told)  # one line
    assert {file.name: file.read_bytes() for file in begun.iterdir()} == before
    assert len(train(tiny_arch, data, RECIPE, begun, resume=True).epochs) == 3


@pytest.mark.parametrize("device", ["nope", "meta", "cuda:99"])
def test_a_device_that_cannot_be_used(device: str, tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises((RuntimeError, AssertionError)) as caught:
        torch.zeros(1, device=device).item()
    reason = str(caught.value).splitlines()[0]
    told = _refusal(tiny_arch, data, RECIPE, tmp_path / "run", device=device)
    assert told == f"device {device!r} cannot be used ({reason}); 'cpu' always can"
    assert not (tmp_path / "run").exists()


def test_too_little_data(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    expected = "digits: needs at least 2 images to train on and 1 to validate on"
    for split, kept in (("train", 1), ("validation", 0)):
        less = replace(data, splits={**data.splits, split: data[split][:kept]})  # type: ignore[index, dict-item]
        assert _refusal(tiny_arch, less, RECIPE, tmp_path) == expected


def test_without_a_test_split(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    less = replace(data, splits={**data.splits, "test": ()})
    assert train(tiny_arch, less, replace(PLAIN, epochs=1), tmp_path).test is None


def test_the_curve_is_a_picture(finished: Run) -> None:
    with Image.open(finished.folder / "curve.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.size == (1080, 432)
        colors = picture.convert("RGB").getcolors(picture.width * picture.height)
    assert len(colors) > 50  # lines, labels and legend


def _batches(
    images: list[Image.Image], augmentation: Augmentation, preprocess: Preprocess, *, batch_size: int = 8, seed: int = 0
) -> list[tuple[Tensor, Tensor]]:
    examples = [Example(lambda image=image: image, label) for label, image in enumerate(images)]  # type: ignore[misc]
    generator = torch.Generator().manual_seed(seed)
    return list(training_batches(examples, preprocess, augmentation, batch_size=batch_size, generator=generator))


@pytest.mark.parametrize("augmentation", Augmentation)
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_augmented_images_fit_the_network(augmentation: Augmentation, mode: str, channels: int) -> None:
    preprocess = Preprocess(36, 32, mean=(0.5,) * channels, std=(0.25,) * channels)
    noise = np.random.default_rng(0).integers(0, 256, (16, 40, 60, 3), dtype=np.uint8)
    for images, labels in _batches(
        [Image.fromarray(pixels).convert(mode) for pixels in noise], augmentation, preprocess
    ):
        assert images.shape == (8, channels, 32, 32)
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert images.min() >= -2
        assert images.max() <= 2
        assert images.std() > 0.2


def test_without_augmentation_training_sees_what_evaluation_sees() -> None:
    preprocess = Preprocess(36, 32)
    noise = np.random.default_rng(0).integers(0, 256, (9, 40, 60, 3), dtype=np.uint8)
    pictures = [Image.fromarray(pixels) for pixels in noise]
    ((images, labels),) = _batches(pictures, Augmentation.NONE, preprocess)
    assert len(set(labels.tolist())) == 8  # shuffled, the ninth left out
    for image, label in zip(images, labels.tolist(), strict=True):
        assert np.array_equal(image.numpy(), preprocess.array(pictures[label]))


def test_the_order_depends_on_the_generator_alone() -> None:
    pictures = [Image.new("L", (32, 32))] * 32
    preprocess = Preprocess(32, 32, mean=(0.5,), std=(0.25,))
    orders = [
        [labels.tolist() for _, labels in _batches(pictures, Augmentation.NONE, preprocess, seed=seed)]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(label for labels in order for label in labels) == list(range(32)) for order in orders)


def _mirrored(augmentation: Augmentation, count: int = 200) -> int:
    """How many of ``count`` augmented copies of a picture that is bright on the left are bright on the right."""
    ramp = np.broadcast_to(np.linspace(255, 0, 48).astype(np.uint8), (48, 48))
    preprocess = Preprocess(32, 32, mean=(0.5,), std=(0.25,))
    ((images, _),) = _batches([Image.fromarray(ramp)] * count, augmentation, preprocess, batch_size=count)
    assert len({image.numpy().tobytes() for image in images}) > (1 if augmentation is Augmentation.NONE else count / 2)
    return int((images[..., :16].mean((1, 2, 3)) < images[..., 16:].mean((1, 2, 3))).sum())


def test_shift_never_flips_and_crop_flip_does() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert _mirrored(Augmentation.SHIFT) == 0
        assert 70 <= _mirrored(Augmentation.CROP_FLIP) <= 130


def test_shift_keeps_the_content_in_view() -> None:
    dot = np.zeros((32, 32), np.uint8)
    dot[12:20, 12:20] = 255
    preprocess = Preprocess(32, 32, mean=(0.0,), std=(1.0,))
    ((images, _),) = _batches([Image.fromarray(dot)] * 100, Augmentation.SHIFT, preprocess, batch_size=100)
    brightness = images.sum((1, 2, 3))
    assert brightness.min() >= 64 * 0.7  # shrunk at most by a tenth either way
    assert brightness.max() <= 64 * 1.4
    assert len(set(brightness.tolist())) > 10


# Python 3.12 and later warn whenever a process with threads forks; torch's workers are forked before they use any.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_worker_process_changes_nothing_from_run_to_run(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1)
    first, second = (train(tiny_arch, data, recipe, tmp_path / name, workers=1) for name in ("first", "second"))
    _assert_same_run(first, second)


def test_training_images_can_go_to_spawned_workers(data: Dataset) -> None:
    """Where processes are spawned, not forked (macOS), the whole of it is pickled."""
    preprocess = Preprocess(32, 32, mean=data.mean, std=data.std)
    for augmentation in Augmentation:
        batches = training_batches(
            data["train"], preprocess, augmentation, batch_size=4, generator=torch.Generator().manual_seed(0)
        )
        again = pickle.loads(pickle.dumps(batches.dataset))
        assert again[0][0].shape == (1, 32, 32)


def test_workers_must_be_a_number(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    assert _refusal(tiny_arch, data, RECIPE, tmp_path, workers=-1) == (
        "workers is -1; it must be a whole number of at least 0"
    )


def test_losses_are_numbers(finished: Run) -> None:
    for epoch in finished.epochs:
        assert math.isfinite(epoch.train_loss)
        assert 0 <= epoch.validation_top1 <= 1
        assert epoch.seconds > 0
