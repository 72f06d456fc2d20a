"""The training loop: epochs that depend on seed and number alone, a checkpoint after each, exact resume."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.atomic import replacing
from fbnetv3_zoo.errors import ZooError, check_whole
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.model import FBNet
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.recipe import Recipe
from fbnetv3_zoo.training.augment import training_batches
from fbnetv3_zoo.training.checkpoint import TrainingState, restore, store
from fbnetv3_zoo.training.curve import draw_curve
from fbnetv3_zoo.training.data import Dataset
from fbnetv3_zoo.training.evaluate import Accuracy, Floats, evaluate
from fbnetv3_zoo.training.optim import build_average, build_optimizer
from fbnetv3_zoo.weights.files import save


@dataclass(frozen=True, slots=True)
class Epoch:
    """One finished epoch, a line of ``metrics.jsonl``. Losses in nats, accuracy in [0, 1], time in seconds."""

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_top1: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: the trained network (averaged weights, evaluation mode), its epochs, its accuracy.

    ``folder`` holds ``model.safetensors``, ``metrics.jsonl``, ``curve.png`` and ``checkpoint.safetensors``. ``test`` is
    None where the data has no test split.
    """

    folder: Path
    model: FBNet
    epochs: tuple[Epoch, ...]
    test: Accuracy | None


Listener = Callable[[int, int, int, float], None]
"""Called after every step with epoch, step and number of steps (from 1), and the step's loss."""


def train(
    arch: Arch, data: Dataset, recipe: Recipe, folder: str | Path, *, pretrained: bool | str | Path = False,
    resume: bool = False, device: str = "cpu", workers: int = 0, on_step: Listener = lambda *_: None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> Run:  # fmt: skip
    """Train ``arch`` on ``data`` and leave the result in ``folder``.

    Args:
        arch: the network; its classes and input channels are changed to the data's.
        data: images to train, validate and test on.
        recipe: how to train.
        folder: where the files go; must not hold a run unless ``resume``.
        pretrained: weights to start from; see :func:`fbnetv3_zoo.create`.
        resume: continue the run in ``folder`` after its last finished epoch, with the result of one that was never
            interrupted. Network, data and recipe must be the same, but for a larger number of epochs.
        device: where to compute, as torch names it.
        workers: processes that prepare images (0: this one).
        on_step: called after every step.
        on_epoch: called after every epoch.

    Raises :class:`ZooError` for input that does not fit, and when the loss stops being a finite number.
    """
    folder = Path(folder)
    check_whole("workers", workers, at_least=0)
    arch = replace(arch, num_classes=len(data.class_names), in_channels=len(data.mean))
    state, preprocess, model = _begin(arch, data, recipe, pretrained, device)
    identity = _identity(arch, data, recipe)
    history = _history(folder, state, identity, resume=resume)
    for number in range(len(history), recipe.epochs):
        started = time.perf_counter()
        rate, loss = _train_epoch(state, data, recipe, preprocess, number, workers=workers, on_step=on_step)
        measured = evaluate(_predictor(_result(state)), data["validation"], preprocess)
        if not math.isfinite(measured.loss):
            raise ZooError(f"validation loss is {measured.loss} in epoch {number + 1}; {_remedy(recipe)}")
        seconds = round(time.perf_counter() - started, 2)
        epoch = Epoch(number + 1, rate, loss, measured.loss, measured.fraction, seconds)
        history.append(epoch)
        store(folder / "checkpoint.safetensors", state, identity=identity, history=[asdict(e) for e in history])
        _write_metrics(folder, history)
        on_epoch(epoch)
    model.load_state_dict(_result(state).state_dict())
    save(model.eval(), folder / "model.safetensors")
    draw_curve([asdict(epoch) for epoch in history], folder / "curve.png")
    test = evaluate(_predictor(model), data["test"], preprocess) if data["test"] else None
    return Run(folder, model, tuple(history), test)


def _begin(
    arch: Arch, data: Dataset, recipe: Recipe, pretrained: bool | str | Path, device: str
) -> tuple[TrainingState, Preprocess, FBNet]:
    if len(data["train"]) < 2 or not data["validation"]:
        raise ZooError(f"{data.name}: needs at least 2 images to train on and 1 to validate on")
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ZooError(f"device {device!r} cannot be used ({str(error).splitlines()[0]}); 'cpu' always can") from None
    generator = torch.Generator().manual_seed(recipe.seed)
    model = create(
        arch,
        dropout=recipe.dropout,
        stochastic_depth=recipe.stochastic_depth,
        generator=generator,
        pretrained=pretrained,
    )
    side = arch.resolution
    preprocess = Preprocess(round(side * data.resize_ratio), side, mean=data.mean, std=data.std)
    model.preprocess, model.class_names = preprocess, data.class_names
    model.to(place)
    return TrainingState(model, build_average(model, recipe), build_optimizer(model, recipe)), preprocess, model


def _identity(arch: Arch, data: Dataset, recipe: Recipe) -> dict[str, str]:
    return {"network": arch.to_json(), "data": data.fingerprint, "recipe": replace(recipe, epochs=1).to_json()}


def _history(folder: Path, state: TrainingState, identity: dict[str, str], *, resume: bool) -> list[Epoch]:
    path = folder / "checkpoint.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)  # now, not after the first epoch
    except OSError as error:
        raise ZooError(f"{folder}: cannot be made a folder ({error.strerror})") from None
    if not path.exists():
        return []
    if not resume:
        raise ZooError(f"{folder}: holds a run; continue it with --resume (resume=True), or give another folder")
    return [Epoch(**entry) for entry in restore(path, state, identity=identity)]


def _train_epoch(
    state: TrainingState, data: Dataset, recipe: Recipe, preprocess: Preprocess, number: int, *, workers: int,
    on_step: Listener,
) -> tuple[float, float]:  # fmt: skip
    """One pass over the training split; returns the last learning rate and the mean loss.

    All its randomness comes from seed and epoch number, so that a resumed run repeats it; the caller's generators are
    left as they were.
    """
    device = next(state.model.parameters()).device
    seed = recipe.seed * 1_000_003 + number
    batches = training_batches(
        data["train"], preprocess, recipe.augmentation, batch_size=recipe.batch_size,
        generator=torch.Generator().manual_seed(seed), workers=workers,
    )  # fmt: skip
    state.model.train()
    total, rate = 0.0, 0.0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step, (images, labels) in enumerate(batches, start=1):
            rate = recipe.learning_rate_at(number, step / len(batches))
            loss = _step(state, images.to(device), labels.to(device), recipe, rate)
            if not math.isfinite(loss):
                raise ZooError(f"loss is {loss} in epoch {number + 1}, step {step}; {_remedy(recipe)}")
            total += loss
            on_step(number + 1, step, len(batches), loss)
    return rate, total / len(batches)


def _remedy(recipe: Recipe) -> str:
    return f"lower learning_rate ({recipe.learning_rate:g})"


def _step(state: TrainingState, images: torch.Tensor, labels: torch.Tensor, recipe: Recipe, rate: float) -> float:
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad()
    loss = F.cross_entropy(state.model(images), labels, label_smoothing=recipe.label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    if state.average is not None:
        state.average.update_parameters(state.model)
    return float(loss.detach())


def _result(state: TrainingState) -> nn.Module:
    """The network that a run delivers: the average where there is one."""
    return state.model if state.average is None else state.average.module


def _predictor(model: nn.Module) -> Callable[[Floats], Floats]:
    device = next(model.parameters()).device

    def predict(images: Floats) -> Floats:
        was_training = model.training
        model.eval()
        with torch.inference_mode():
            logits: Floats = model(torch.from_numpy(images).to(device)).float().cpu().numpy()
        model.train(was_training)
        return logits

    return predict


def _write_metrics(folder: Path, history: list[Epoch]) -> None:
    with replacing(folder / "metrics.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(asdict(epoch)) + "\n" for epoch in history))
