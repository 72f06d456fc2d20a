"""The training loop on real digits: it learns, repeats itself exactly, and says what went wrong."""

from __future__ import annotations

import gc
import json
import multiprocessing
import random
import re
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from refusals import refusal
from runs import (
    PLAIN,
    RECIPE,
    Stopped,
    Stopper,
    assert_same,
    checkpoints,
    few_digits,
    metadata,
    metrics,
    tensors,
    train,
)
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess, stack
from fbnetv3_zoo.recipes import SGD, ExponentialDecay, Optimizer, Recipe, RMSProp
from fbnetv3_zoo.training import Callback, Dataset, Epoch, Execution, Run, Step
from fbnetv3_zoo.training.data import SPLITS, digits
from fbnetv3_zoo.training.data.seen import SAMPLE, sample_of, seen_among
from fbnetv3_zoo.training.engine import Engine
from fbnetv3_zoo.training.evaluation import Evaluation
from fbnetv3_zoo.training.learner import Student
from fbnetv3_zoo.training.loader import TrainingBatches
from fbnetv3_zoo.training.report.results import hint_on
from fbnetv3_zoo.utils.serialization import parse_json
from fbnetv3_zoo.weights.serialization import load, save

EXPLODING = replace(PLAIN, epochs=3, schedule=replace(PLAIN.schedule, factor=9e5))  # in the third epoch

# Python 3.12 and later warn whenever a process with threads forks; torch's workers are forked before they use any.
FORK = "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"


class Telling(Callback):
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.epochs: list[Epoch] = []

    def on_step(self, step: Step) -> None:
        self.steps.append(step)

    def on_epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)


def _without_times(values: Any) -> dict[str, Any]:
    return {key: value for key, value in asdict(values).items() if "second" not in key}


# --- what a run gives ---


def test_the_data_at_a_path_is_split_by_the_seed_of_the_recipe(tiny_arch: Arch, tmp_path: Path) -> None:
    run = train(tiny_arch, "digits", replace(PLAIN, epochs=1, seed=3), tmp_path, report=False)
    trained_on = run.model.description.trained_on
    assert [seen_among(trained_on, digits(seed=3)[split]) for split in ("train", "test")] == [len(trained_on), 0]


@pytest.mark.parametrize(
    ("optimizer", "rate"), [pytest.param(SGD(), 0.2, marks=pytest.mark.long), (RMSProp(), 0.01)], ids=["sgd", "rmsprop"]
)
def test_it_learns(optimizer: Optimizer, rate: float, tiny_arch: Arch, tmp_path: Path) -> None:
    recipe = Recipe(15, 16, optimizer, rate, schedule=ExponentialDecay(0.8), warmup_epochs=1, ema_decay=0.9)
    run = train(tiny_arch, few_digits(every=4), recipe, tmp_path)
    assert run.epochs[0].train_loss > 2
    assert run.epochs[-1].train_loss < 0.8
    assert run.epochs[-1].validation_top1 > 0.7
    assert run.test is not None
    assert run.test.fraction > 0.6


def test_what_a_run_gives(finished: Run, data: Dataset) -> None:
    model = finished.model
    assert [epoch.epoch for epoch in finished.epochs] == [1, 2, 3]
    assert [epoch.learning_rate for epoch in finished.epochs] == pytest.approx([0.004, 0.004, 0.004 * 0.9875])
    assert finished.test is not None
    assert finished.test.total == len(data["test"])
    assert finished.test.class_names == data.class_names
    assert not any(module.training for module in model.modules())
    assert (model.arch.in_channels, model.arch.num_classes) == (1, 10)
    assert model.class_names == data.class_names
    assert model.preprocess == Preprocess(32, 32, mean=data.mean, std=data.std)
    wanted = {
        ".fbnetv3-zoo.lock",
        "best.safetensors",
        "checkpoints",
        "curve.png",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
        "results.json",
    }
    assert wanted <= {file.name for file in finished.folder.iterdir()}
    lines = (finished.folder / "metrics.jsonl").read_text().splitlines()
    assert [asdict(epoch) for epoch in finished.epochs] == [json.loads(line) for line in lines]


def test_the_model_knows_images_that_it_was_trained_on(finished: Run, data: Dataset) -> None:
    sample = load(finished.folder / "model.safetensors").trained_on
    assert len(set(sample)) == SAMPLE == seen_among(sample, data["train"])
    assert [seen_among(sample, data[split]) for split in ("validation", "test")] == [0, 0]
    assert seen_among((), data["train"]) == 0


def test_images_are_known_by_name_and_pixels(data: Dataset) -> None:
    train = data["train"]
    assert seen_among(sample_of(train[:20]), train[5:]) == 15
    assert sample_of(train) == sample_of(train[::-1])
    others = [replace(one, read=other.read) for one, other in zip(train, data["validation"], strict=False)]
    assert seen_among(sample_of(train), others) == 0

    def unreadable(at_least: object = None) -> Any:
        raise ZooError("damaged")

    damaged = [replace(one, read=unreadable) for one in train[:3]]
    assert (sample_of(damaged), seen_among(sample_of(train), damaged)) == ((), 0)


def test_the_result_for_scripts(finished: Run, data: Dataset) -> None:
    told = parse_json((finished.folder / "results.json").read_text(), "results")
    assert finished.test is not None
    assert told["format"] == "fbnetv3_zoo.results"
    assert told["test"] == finished.test.summary()
    assert told["test"]["interval"] == list(finished.test.interval)
    assert told["validation_accuracy"] == finished.epochs[-1].validation_top1
    assert told["best_validation_accuracy"] == max(epoch.validation_top1 for epoch in finished.epochs)
    assert (told["epochs"], told["classes"]) == (3, list(data.class_names))
    assert told["seconds"] == pytest.approx(sum(epoch.seconds for epoch in finished.epochs), abs=0.01)
    assert told["images"] == {split: len(data[split]) for split in SPLITS}
    assert (finished.folder / told["model"]).is_file()
    assert (told["warning"] or "", told["hint"] or "") == (finished.warning, finished.hint)


@pytest.mark.parametrize(
    ("right", "of", "told"),
    [(6, 12, "12 test images measure accuracy only to ±25 points; use more images for a surer figure"),
     (500, 1000, ""), (12, 12, "")],
)  # fmt: skip
def test_few_test_images_are_told_of(right: int, of: int, told: str) -> None:
    labels, zeros = np.zeros(of, int), np.zeros(of)
    ranks = (np.arange(of) >= right).astype(int)
    found = Evaluation(
        labels=labels, predicted=ranks, ranks=ranks, losses=zeros, probabilities=zeros, positions=np.arange(of),
        skipped=(), seconds=1.0, class_names=("a", "b"),
    )  # fmt: skip
    assert hint_on("test", found) == told


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


def test_with_an_average_that_is_delivered(finished: Run) -> None:
    found = tensors(finished.folder)
    delivered = {name.removeprefix("model."): tensor for name, tensor in found.items() if name.startswith("model.")}
    assert all(torch.equal(tensor, found[f"now.average.module.{name}"]) for name, tensor in delivered.items())
    assert not torch.equal(delivered["classifier.weight"], found["now.student.network.classifier.weight"])
    assert found["now.average.n_averaged"] == 3 * 5


def test_without_an_average_the_network_itself_is_delivered(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    train(tiny_arch, data, replace(PLAIN, epochs=1), tmp_path)
    found = tensors(tmp_path)
    delivered = [name for name in found if name.startswith("model.")]
    assert all(torch.equal(found[name], found[f"now.student.network.{name[6:]}"]) for name in delivered)
    assert not any("average" in name.split(".")[1] for name in found)


def test_dropout_and_stochastic_depth_are_of_training_alone(
    finished: Run, tiny_arch: Arch, data: Dataset, tmp_path: Path
) -> None:
    assert finished.model.dropout.p == 0
    assert not any(module.p for module in finished.model.modules() if isinstance(module, StochasticDepth))
    firsts = []
    for change in ({}, {"dropout": 0.0}, {"stochastic_depth": 0.0}):
        telling = Telling()
        train(tiny_arch, data, replace(RECIPE, epochs=1, **change), tmp_path / str(len(firsts)), callbacks=[telling])  # type: ignore[arg-type]
        firsts.append(telling.steps[-1].loss)
    assert len(set(firsts)) == 3


def test_the_arguments_keep_their_values(tiny_arch: Arch, data: Dataset, finished: Run) -> None:
    assert (tiny_arch.in_channels, tiny_arch.num_classes) == (3, 10)
    assert data.fingerprint == few_digits().fingerprint


def test_without_images_to_test_on(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    some = replace(data, splits=MappingProxyType({**data.splits, "test": ()}))
    run = train(tiny_arch, some, replace(PLAIN, epochs=1), tmp_path)
    assert run.test is None
    assert (tmp_path / "model.safetensors").exists()


# --- exactly again ---


@pytest.mark.filterwarnings(FORK)
def test_the_same_seed_gives_the_same_run_with_any_number_of_workers(
    tiny_arch: Arch, data: Dataset, finished: Run, tmp_path: Path
) -> None:
    torch.manual_seed(12345)  # must not matter
    train(tiny_arch, data, RECIPE, tmp_path, execution=Execution(workers=2))
    assert_same(tmp_path, finished.folder)


def test_another_seed_gives_another_run(tiny_arch: Arch, data: Dataset, finished: Run, tmp_path: Path) -> None:
    train(tiny_arch, data, replace(RECIPE, seed=1), tmp_path)
    one, other = tensors(tmp_path), tensors(finished.folder)
    weights = [name for name in one if name.startswith("model.") and name.endswith("conv.weight")]
    assert weights
    assert not any(torch.equal(one[name], other[name]) for name in weights)
    assert metrics(tmp_path) != metrics(finished.folder)


def test_the_callers_random_numbers_are_left_alone(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    before = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()
    train(tiny_arch, data, replace(RECIPE, epochs=1), tmp_path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (repr(np.random.get_state()), random.getstate()) == before[1:]


# --- what it tells ---


def test_every_step_and_epoch_is_told(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    telling = Telling()
    run = train(tiny_arch, data, PLAIN, tmp_path, callbacks=[telling])
    moments = [(step.epoch, step.step, step.steps) for step in telling.steps]
    assert moments == [(epoch, step, 5) for epoch in (1, 2) for step in range(1, 6)]  # 90 images, the last 10 left out
    rates = [step.learning_rate for step in telling.steps]
    assert rates == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05] + [0.05] * 5)
    assert all(step.images_per_second > 0 for step in telling.steps)
    assert tuple(telling.epochs) == run.epochs
    losses = [step.loss for step in telling.steps]
    assert [epoch.train_loss for epoch in run.epochs] == pytest.approx([np.mean(losses[:5]), np.mean(losses[5:])])
    for epoch in run.epochs:
        assert 0 <= epoch.validation_top1 <= 1
        assert min(epoch.seconds, epoch.images_per_second) > 0
        assert epoch.skipped == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_smoothed_cross_entropy(
    smoothing: float, tiny_arch: Arch, data: Dataset, finished: Run, tmp_path: Path
) -> None:
    """The first loss of a run over all images at once, begun from trained weights, by hand."""
    model, weights = load(finished.folder / "model.safetensors").train(), tmp_path / "begun.safetensors"
    nn.init.normal_(model.classifier.weight, generator=torch.Generator().manual_seed(0))  # answers that are sure
    save(model, weights)
    images = torch.from_numpy(stack(model.preprocess, [example.read() for example in data["train"]]))
    labels = torch.tensor([example.label for example in data["train"]])
    with torch.no_grad():
        logits = model(images)
        expected = F.cross_entropy(logits, labels, label_smoothing=smoothing).item()
        assert abs(expected - F.cross_entropy(logits, labels, label_smoothing=0.15).item()) > 0.001
    telling = Telling()
    recipe = replace(PLAIN, epochs=1, batch_size=1000, label_smoothing=smoothing)
    train(tiny_arch, data, recipe, tmp_path / "run", pretrained=weights, callbacks=[telling])
    assert [step.loss for step in telling.steps] == [pytest.approx(expected, rel=1e-4)]


def test_the_result_tells_which_weights_it_began_as(
    tiny_arch: Arch, data: Dataset, finished: Run, tmp_path: Path
) -> None:
    """Whatever it was trained on since, their license binds; so a run is resumed with the same."""
    assert (finished.model.weights, finished.model.license) == (None, None)
    model, weights = load(finished.folder / "model.safetensors"), tmp_path / "begun.safetensors"
    model.weights, model.license = "facebook/tiny_in1k", "CC-BY-NC-4.0"
    save(model, weights)
    recipe = replace(PLAIN, epochs=1)
    run = train(tiny_arch, data, recipe, tmp_path / "run", pretrained=weights)
    for told in (run.model, load(tmp_path / "run" / "model.safetensors"), load(tmp_path / "run" / "best.safetensors")):
        assert (told.weights, told.license) == ("facebook/tiny_in1k", "CC-BY-NC-4.0")
    assert refusal(lambda: train(tiny_arch, data, recipe, tmp_path / "run", resume=True)) == (
        f"{tmp_path}/run: the run was begun with another set of weights; give another folder"
    )


# --- what goes wrong ---


def _batch(data: Dataset, epoch: int, step: int) -> tuple[Tensor, Tensor]:
    preprocess = Preprocess(32, 32, mean=data.mean, std=data.std)
    ((batch,), *_) = TrainingBatches(data["train"], preprocess, EXPLODING).epoch(epoch - 1, first_step=step - 1)
    return batch.images, batch.labels


def test_a_loss_that_explodes(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    """The batch is kept, and the state before it, from which a resumed run comes to the same end."""
    execution = Execution(checkpoint_steps=1)
    said = refusal(lambda: train(tiny_arch, data, EXPLODING, tmp_path, execution=execution))
    file = tmp_path / "failed-batch-0.safetensors"
    pattern = (
        r"loss is (\S+) in epoch 3, step ([2-5]), at learning rate 4\.5e\+04; lower learning_rate \(0\.05\); "
        rf"the batch is in {re.escape(str(file))}"
    )
    found = re.fullmatch(pattern, said)
    assert found, said
    assert not float(found[1]) <= 1000
    step = int(found[2])
    with safe_open(file, framework="pt") as opened:
        about = opened.metadata()
    assert (about["epoch"], about["step"], float(about["learning_rate"])) == ("3", found[2], pytest.approx(45000))
    assert float(about["loss"]) == pytest.approx(float(found[1]), rel=1e-3, nan_ok=True)
    images, labels = _batch(data, 3, step)
    kept = load_file(file)
    assert kept.keys() == {"images.0", "labels.0"}
    assert torch.equal(kept["images.0"], images)
    assert torch.equal(kept["labels.0"], labels)
    progress = metadata(checkpoints(tmp_path)[0])["progress"]
    assert (progress["epoch"], progress["step"]) == (2, step - 1)
    assert all(torch.isfinite(tensor).all() for tensor in load_file(checkpoints(tmp_path)[0]).values())
    file.unlink()
    assert refusal(lambda: train(tiny_arch, data, EXPLODING, tmp_path, resume=True)) == said
    assert file.exists()


def _reading_every(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read losses as on a GPU."""
    begin = Engine.begin

    def begun(engine: Any, **given: Any) -> None:
        engine._read_every = number
        begin(engine, **given)

    monkeypatch.setattr(Engine, "begin", begun)


def test_losses_that_are_read_later_are_the_same(
    finished: Run, tiny_arch: Arch, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five steps an epoch: they are read after three, and after the last."""
    _reading_every(3, monkeypatch)
    told = Telling()
    run = train(tiny_arch, data, RECIPE, tmp_path, callbacks=[told])
    assert_same(finished.folder, run.folder)
    assert [(step.epoch, step.step) for step in told.steps] == [(e, s) for e in (1, 2, 3) for s in (1, 2, 3, 4, 5)]
    first = [step.loss for step in told.steps if step.epoch == 1]
    assert run.epochs[0].train_loss == pytest.approx(sum(first) / 5, rel=1e-12)


def test_a_loss_that_explodes_is_told_though_it_is_read_later(
    tiny_arch: Arch, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step and its batch are those of the loss; checkpoints are still written after every step asked for."""
    said = refusal(lambda: train(tiny_arch, data, EXPLODING, tmp_path / "one"))
    _reading_every(10, monkeypatch)
    later = refusal(lambda: train(tiny_arch, data, EXPLODING, tmp_path / "ten"))
    assert later == said.replace("/one/", "/ten/")
    files = [load_file(tmp_path / name / "failed-batch-0.safetensors") for name in ("one", "ten")]
    assert all(torch.equal(files[0][name], files[1][name]) for name in ("images.0", "labels.0"))
    train(tiny_arch, data, replace(RECIPE, epochs=1), tmp_path / "run", execution=Execution(checkpoint_steps=2))
    progress = [metadata(path)["progress"] for path in checkpoints(tmp_path / "run")]
    assert [(found["epoch"], found["step"]) for found in progress] == [(1, 0), (0, 4)]


class _Spoiling(Callback):
    """Spoils the network after a step of the first epoch; after the last, only validation can notice."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step(self, step: Step) -> None:
        if step.step == self._step:
            networks = [found.network for found in gc.get_objects() if type(found) is Student]
            for network in networks:
                if isinstance(network, FBNet):  # others may be left from earlier tests
                    nn.init.constant_(network.classifier.weight, torch.nan)


def test_a_validation_loss_that_is_no_number(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    said = refusal(lambda: train(tiny_arch, data, PLAIN, tmp_path, callbacks=[_Spoiling(5)]))
    assert said == "validation loss is nan in epoch 1; lower learning_rate (0.05)"
    assert not checkpoints(tmp_path)


def test_a_loss_that_is_no_number(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    assert refusal(lambda: train(tiny_arch, data, PLAIN, tmp_path, callbacks=[_Spoiling(2)])) == (
        "loss is nan in epoch 1, step 3, at learning rate 0.03; lower learning_rate (0.05); "
        f"the batch is in {tmp_path}/failed-batch-0.safetensors"
    )


@pytest.mark.filterwarnings(FORK)
def test_no_process_is_left(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    execution, recipe = Execution(workers=2), replace(PLAIN, epochs=1)
    gc.disable()
    try:
        train(tiny_arch, data, recipe, tmp_path / "whole", execution=execution)
        assert multiprocessing.active_children() == []
        with pytest.raises(Stopped) as kept:
            train(tiny_arch, data, recipe, tmp_path / "part", execution=execution, callbacks=[Stopper(1, 2)])
        assert multiprocessing.active_children() == []
    finally:
        gc.enable()
    assert kept.value


@pytest.mark.parametrize("lacking", ["train", "validation"])
def test_too_few_images(lacking: str, tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    some = replace(data, splits=MappingProxyType({**data.splits, lacking: data[lacking][: lacking == "train"]}))  # type: ignore[index]
    said = refusal(lambda: train(tiny_arch, some, PLAIN, tmp_path))
    assert said == "digits: needs at least 2 images to train on and 1 to validate on"
