"""Training a detector on boxes: the recipe, average, checkpoints and resuming of classification, with COCO's precision.

Everything random comes from the recipe's seed, the epoch and the step, so that a resumed run ends with the very weights
of one that was never interrupted. One process.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.transforms.functional import pil_to_tensor

from fbnetv3_zoo.detection.coco import CocoData, Sample
from fbnetv3_zoo.detection.evaluate import AveragePrecision, Detections, average_precision
from fbnetv3_zoo.detection.files import DetectorSpec, save_detector
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.images import read_image
from fbnetv3_zoo.model import FBNet
from fbnetv3_zoo.pixels import to_eight_bits
from fbnetv3_zoo.recipe import Recipe
from fbnetv3_zoo.training.alone import claimed, own_randomness
from fbnetv3_zoo.training.checkpoint import Checkpoints, Progress, recipe_identity, restore
from fbnetv3_zoo.training.execution import Execution
from fbnetv3_zoo.training.interrupt import Termination
from fbnetv3_zoo.training.loader import seed_of
from fbnetv3_zoo.training.optim import build_average, build_optimizer
from fbnetv3_zoo.training.world import World, usable

Target = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class DetectionEpoch:
    """One finished epoch, a line of ``metrics.jsonl``: mean loss, average precision in validation, seconds."""

    epoch: int
    learning_rate: float
    train_loss: float
    ap: float
    ap50: float
    images_per_second: float
    seconds: float


class DetectionObserver:
    """Is told of everything that happens in a run. Override what is of interest."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """A step has been taken; all count from 1."""

    def on_epoch(self, epoch: DetectionEpoch) -> None:
        """An epoch has ended and its checkpoint is written."""


@dataclass(frozen=True)
class DetectionRun:
    """A finished run: the detector in evaluation mode (averaged weights), its epochs, its precision in validation.

    ``folder`` holds ``model.safetensors``, ``metrics.jsonl`` and ``checkpoints/``; ``faults`` are those of the data.
    """

    folder: Path
    model: FasterRCNN
    spec: DetectorSpec
    epochs: tuple[DetectionEpoch, ...]
    precision: AveragePrecision
    faults: tuple[str, ...] = ()


def train_detector(
    spec: DetectorSpec, data: CocoData, validation: CocoData, recipe: Recipe, folder: str | Path, *,
    source: FBNet | None = None, freeze_at: int = 0, fixed_norms: bool = False, resume: bool = False,
    execution: Execution = Execution(), observers: Sequence[DetectionObserver] = (),
) -> DetectionRun:  # fmt: skip
    """Train a detector and leave the result in ``folder``.

    Args:
        spec: what to build; its classes must be those of the data.
        data: images to train on; those without a box that is no crowd are left out.
        validation: images to judge by after every epoch.
        recipe: how to train. Of its augmentation, mirroring (``flip``) is applied; what else changes images, and what
            concerns classes, has no meaning for boxes and is refused where it is set.
        folder: where the files go; must not hold a run unless ``resume``.
        source: a network with weights for the trunk, whose architecture and colours the detector takes.
        freeze_at: first stages of the trunk that keep their weights and statistics; needs ``source``.
        fixed_norms: batch norms of trunk and box head keep theirs; needs ``source``.
        resume: continue the run in ``folder``.
        execution: device, checkpoints; the rest of it is for classification and must be as by default.
        observers: are told of every step and epoch.

    Raises :class:`ZooError` for input that does not fit and a loss that stops being finite; :class:`Interrupted` where
    SIGTERM ends the run, after a checkpoint.
    """
    _check(spec, data, validation, recipe, execution)
    world = World(device=usable(execution.device))
    with claimed(Path(folder), world), own_randomness(world):
        run = _Run(spec, data, validation, recipe, Path(folder), execution, world)
        run.prepare(source, freeze_at, fixed_norms)
        run.begin(resume=resume)
        with Termination() as termination:
            return run.run(observers, termination)


def detect(
    model: FasterRCNN, images: Iterable[Tensor], *, device: torch.device = torch.device("cpu")
) -> Iterator[Detections]:
    """What ``model`` finds in every image (as of :func:`to_pixels`), one by one; it is put into evaluation mode."""
    model.eval()
    for image in images:
        with torch.inference_mode():
            (found,) = model([image.to(device)])
        yield Detections(*(found[key].cpu().numpy() for key in ("boxes", "scores", "labels")))


def to_pixels(image: Image) -> Tensor:
    """An image of any kind as RGB in [0, 1], shape (3, height, width), read as for classifiers."""
    pixels: Tensor = pil_to_tensor(to_eight_bits(image, "RGB"))
    return pixels.float().div_(255)


def read_pixels(sample: Sample) -> Tensor:
    """The pixels of a data set's image. Raises :class:`ZooError` where its size is not the annotated one."""
    image = read_image(sample.path)
    if image.size != (sample.width, sample.height):
        raise ZooError(
            f"{sample.path}: is {image.width} x {image.height} pixels, its annotations say {sample.width} x "
            f"{sample.height}; its boxes would be wrong"
        )
    return to_pixels(image)


def _check(spec: DetectorSpec, data: CocoData, validation: CocoData, recipe: Recipe, execution: Execution) -> None:
    for one in (data, validation):
        if one.class_names != spec.class_names:
            raise ZooError(f"{one.name}: has the classes {', '.join(one.class_names)}, the detector others")
    plain = replace(recipe.augmentation, flip=0.0) == type(recipe.augmentation)()
    classes = recipe.label_smoothing or recipe.dropout or recipe.stochastic_depth
    if not plain or classes:
        raise ZooError(
            "recipe: a detector is trained with mirroring (augmentation.flip) alone; set the other augmentation, "
            "label_smoothing, dropout and stochastic_depth to nothing"
        )
    if recipe.weight_levels:
        raise ZooError("recipe: detectors are not trained for int8; set weight_levels to 0")
    allowed = replace(
        Execution(), device=execution.device, checkpoint_steps=execution.checkpoint_steps,
        checkpoint_minutes=execution.checkpoint_minutes, keep_checkpoints=execution.keep_checkpoints,
    )  # fmt: skip
    if execution != allowed:
        raise ZooError("execution: a detector's run takes device and checkpoints; leave the rest as by default")


class _Learner:
    """Detector, optimizer and moving average of a run."""

    def __init__(self, model: FasterRCNN, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.student: nn.Module = model.to(device)
        self.average = build_average(self.student, recipe)
        self.optimizer = build_optimizer(self.student, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=False)

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The optimizer, by its name in a checkpoint."""
        return {"optimizer": self.optimizer}

    @property
    def result(self) -> FasterRCNN:
        found: FasterRCNN = self.student if self.average is None else self.average.module
        return found

    def step(self, images: list[Tensor], targets: list[Target], *, rate: float, seed: int) -> float:
        """One optimizer step; returns the sum of the losses."""
        torch.manual_seed(seed)
        self.student.train()
        self.optimizer.zero_grad()
        losses = self.student(images, targets)
        loss: Tensor = sum(losses.values())
        if not math.isfinite(value := float(loss.detach())):
            return value
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.recipe.clip_norm > 0:
            nn.utils.clip_grad_norm_(self.student.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.student)
        return value


class _Run:
    def __init__(
        self, spec: DetectorSpec, data: CocoData, validation: CocoData, recipe: Recipe, folder: Path,
        execution: Execution, world: World,
    ) -> None:  # fmt: skip
        self.spec, self.data, self.validation, self.recipe = spec, data, validation, recipe
        self.folder, self.execution, self.device = folder, execution, world.device
        self.samples = [sample for sample in data.samples if (~sample.crowd).any()]
        if len(self.samples) < recipe.batch_size:
            raise ZooError(
                f"{data.name}: has {len(self.samples)} images with boxes, fewer than one batch of {recipe.batch_size}"
            )
        self.steps = len(self.samples) // recipe.batch_size
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=execution.keep_checkpoints)
        self.progress = Progress()

    def prepare(self, source: FBNet | None, freeze_at: int, fixed_norms: bool) -> None:
        """Build the detector; its initial values come from the recipe's seed."""
        torch.manual_seed(seed_of(self.recipe.seed))
        if source is not None:
            self.spec = self.spec.with_weights_of(source)
        model = self.spec.build(source=source, freeze_at=freeze_at, fixed_norms=fixed_norms)
        self.learner = _Learner(model, self.recipe, self.device)
        self.identity = {
            "detector": json.dumps([str(self.spec), freeze_at, fixed_norms]),
            "data": _fingerprint(self.samples),
            "recipe": recipe_identity(self.recipe),
        }

    def begin(self, *, resume: bool) -> None:
        """Take up the newest checkpoint where there is one."""
        if (data := self.checkpoints.begin(resume=resume)) is not None:
            self.progress = restore(data, self.learner, identity=self.identity, place=self.folder, epoch=DetectionEpoch)

    def run(self, observers: Sequence[DetectionObserver], termination: Termination) -> DetectionRun:
        """All epochs that are left, then the result."""
        self._last_write = time.monotonic()
        precision = None
        while self.progress.epoch < self.recipe.epochs:
            order = np.random.default_rng([self.recipe.seed, self.progress.epoch]).permutation(len(self.samples))
            while self.progress.step < self.steps:
                loss = self._step(order)
                for observer in observers:
                    observer.on_step(self.progress.epoch + 1, self.progress.step, self.steps, loss)
                self._write_if_due(termination)
            precision = self._end_epoch()
            for observer in observers:
                observer.on_epoch(self.progress.history[-1])
        precision = precision or self._measure()
        model = self.learner.result.cpu().eval()
        save_detector(model, self.spec, self.folder / "model.safetensors")
        self.progress.write_metrics(self.folder)
        faults = (*self.data.faults, *self.validation.faults)
        return DetectionRun(self.folder, model, self.spec, self.progress.history, precision, faults)

    def _step(self, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
        began, at, size = time.monotonic(), self.progress, self.recipe.batch_size
        chosen = order[at.step * size : (at.step + 1) * size]
        pairs = [self._example(self.samples[index], at.epoch, int(index)) for index in chosen]
        rate = self.recipe.learning_rate_at(at.epoch, (at.step + 1) / self.steps)
        seed = seed_of(self.recipe.seed, at.epoch, at.step)
        loss = self.learner.step([image for image, _ in pairs], [box for _, box in pairs], rate=rate, seed=seed)
        if not math.isfinite(loss):
            raise ZooError(
                f"loss is {loss} in epoch {at.epoch + 1}, step {at.step + 1}, at learning rate {rate:.4g}; "
                f"lower learning_rate ({self.recipe.learning_rate:g})"
            )
        self.progress = at.after_step(loss, time.monotonic() - began, 0)
        return loss

    def _example(self, sample: Sample, epoch: int, index: int) -> tuple[Tensor, Target]:
        """The image and its boxes, mirrored by chance."""
        image, kept = read_pixels(sample), ~sample.crowd
        boxes, labels = torch.from_numpy(sample.boxes[kept]), torch.from_numpy(sample.labels[kept])
        if np.random.default_rng([self.recipe.seed, epoch, index]).random() < self.recipe.augmentation.flip:
            image = image.flip(2)
            boxes = torch.stack((sample.width - boxes[:, 2], boxes[:, 1], sample.width - boxes[:, 0], boxes[:, 3]), 1)
        return image.to(self.device), {"boxes": boxes.to(self.device), "labels": labels.to(self.device)}

    def _write_if_due(self, termination: Termination) -> None:
        taken = self.progress.epoch * self.steps + self.progress.step
        due = self.execution.checkpoint_due(taken, time.monotonic() - self._last_write)
        if due or termination.asked:
            self._write()
        if termination.asked:
            raise self.progress.interrupted()

    def _write(self) -> None:
        self.checkpoints.write(self.learner, self.progress, identity=self.identity)
        self._last_write = time.monotonic()

    def _end_epoch(self) -> AveragePrecision:
        began, at = time.monotonic(), self.progress
        precision = self._measure()
        epoch = DetectionEpoch(
            epoch=at.epoch + 1,
            learning_rate=self.recipe.learning_rate_at(at.epoch, 1.0),
            train_loss=at.loss / self.steps,
            ap=precision.ap,
            ap50=precision.ap50,
            images_per_second=round(self.steps * self.recipe.batch_size / at.seconds, 2),
            seconds=round(at.seconds + time.monotonic() - began, 2),
        )
        self.progress = at.after_epoch(epoch)
        self.progress.write_metrics(self.folder)
        self._write()
        return precision

    def _measure(self) -> AveragePrecision:
        found = [*detect(self.learner.result, map(read_pixels, self.validation.samples), device=self.device)]
        return average_precision(self.validation, found)


def _fingerprint(samples: Sequence[Sample]) -> str:
    """What tells data sets apart: names, sizes, boxes and labels, not the pixels."""
    from blake3 import blake3

    digest = blake3()
    for sample in samples:
        told: Mapping[str, object] = {"file": sample.path.name, "size": [sample.width, sample.height]}
        digest.update(json.dumps(told).encode())
        digest.update(sample.boxes.tobytes() + sample.labels.tobytes() + sample.crowd.tobytes())
    return digest.hexdigest()
