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

from fbnetv3_zoo.errors import ZooError, printable
from fbnetv3_zoo.images.pixels import to_eight_bits
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.recipes import Recipe
from fbnetv3_zoo.training.checkpoint import Checkpoints, Progress, recipe_identity, restore
from fbnetv3_zoo.training.distributed import World, usable
from fbnetv3_zoo.training.execution import Execution
from fbnetv3_zoo.training.loader import seed_of
from fbnetv3_zoo.training.optim import build_average, build_optimizer
from fbnetv3_zoo.training.preemption import Termination
from fbnetv3_zoo.training.run_folder import claimed, own_randomness
from fbnetv3_zoo.utils.log import LOG

from ..data.coco import AnnotatedImage, CocoData, open_image
from ..data.faults import Unreadable
from ..data.fitting import check_scalable, evaluation_data, mirrored, training_data
from ..models.serialization import DetectorSpec, save_detector
from .evaluate import AveragePrecision, Detections, average_precision, check_objects

Target = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class DetectionEpoch:
    """One finished epoch, a line of ``metrics.jsonl``: mean loss, average precision in validation, seconds.

    ``skipped`` counts the training images of this epoch that could not be read, each once, and were replaced by others.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    ap: float
    ap50: float
    images_per_second: float
    seconds: float
    skipped: int = 0


class DetectionCallback:
    """Is told of everything that happens in a run. Override what is of interest."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """A step has been taken; all count from 1."""

    def on_epoch(self, epoch: DetectionEpoch) -> None:
        """An epoch has ended and its checkpoint is written."""


@dataclass(frozen=True)
class DetectionRun:
    """A finished run: the detector in evaluation mode (averaged weights), its epochs, its precision in validation.

    ``folder`` holds ``model.safetensors``, ``metrics.jsonl`` and ``checkpoints/``; ``faults`` are those of the data,
    with the images that could not be read on the way.
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
    execution: Execution = Execution(), observers: Sequence[DetectionCallback] = (),
) -> DetectionRun:  # fmt: skip
    """Train a detector and leave the result in ``folder``.

    Args:
        spec: what to build; its classes must be those of the data.
        data: images to train on; those without a box that is no crowd are left out, as is what the detector cannot
            take (:func:`~fbnetv3_zoo.detection.data.fitting.training_data`).
        validation: images to judge by after every epoch, with an object at least. One that cannot be read when its turn
            comes counts as if nothing was found in it.
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
    data, validation = _fitted(spec, data, validation, mirror=recipe.augmentation.flip > 0)
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
    """What ``model`` finds in every image (as of :func:`to_pixels`), one by one; it is put into evaluation mode.

    Raises :class:`ZooError` for an image that is so thin that it cannot be scaled for the detector.
    """
    model.eval()
    for image in images:
        check_scalable(model, image.shape[2], image.shape[1])
        with torch.inference_mode():
            (found,) = model([image.to(device)])
        yield Detections(*(found[key].cpu().numpy() for key in ("boxes", "scores", "labels")))


def find_objects(
    model: FasterRCNN, samples: Sequence[AnnotatedImage], unreadable: Unreadable, *, device: torch.device
) -> list[Detections]:
    """What ``model`` finds in the images of a data set: nothing in one that turns out ``unreadable``."""
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    answers = []
    for sample in samples:
        try:
            pixels = read_pixels(sample)
        except ZooError as error:
            unreadable.record(sample.path, "counted as if nothing was found in it", error)
            answers.append(none)
        else:
            answers += detect(model, [pixels], device=device)
    return answers


def to_pixels(image: Image) -> Tensor:
    """An image of any kind as RGB in [0, 1], shape (3, height, width), read as for classifiers."""
    pixels: Tensor = pil_to_tensor(to_eight_bits(image, "RGB"))
    return pixels.float().div_(255)


def read_pixels(sample: AnnotatedImage) -> Tensor:
    """The pixels of a data set's image. Raises :class:`ZooError` where its size is not the annotated one."""
    return to_pixels(open_image(sample))


def _fitted(spec: DetectorSpec, data: CocoData, validation: CocoData, *, mirror: bool) -> tuple[CocoData, CocoData]:
    """Both without what the detector cannot take; what was left out is told at once."""
    fitted = training_data(data, spec.settings, mirror=mirror), evaluation_data(validation, spec.settings)
    for before, after in zip((data, validation), fitted, strict=True):
        for fault in after.faults[len(before.faults) :]:
            LOG.warning("%s: %s", after.name, fault)
    check_objects(fitted[1])
    return fitted


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
        self.samples, self.unreadable = data.samples, Unreadable()
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

    def run(self, observers: Sequence[DetectionCallback], termination: Termination) -> DetectionRun:
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
        save_detector(self.learner.result, self.spec, self.folder / "model.safetensors")
        self.progress.write_metrics(self.folder)
        precision = precision or self._measure()
        model = self.learner.result.cpu().eval()
        faults = (*self.data.faults, *self.validation.faults, *self.unreadable.lines)
        return DetectionRun(self.folder, model, self.spec, self.progress.history, precision, faults)

    def _step(self, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
        began, at, size = time.monotonic(), self.progress, self.recipe.batch_size
        chosen = order[at.step * size : (at.step + 1) * size]
        pairs, bad = [], list[str]()
        for index in chosen:
            pair, replaced = self._example_or_next(int(index))
            pairs.append(pair)
            bad += replaced
        rate = self.recipe.learning_rate_at(at.epoch, (at.step + 1) / self.steps)
        seed = seed_of(self.recipe.seed, at.epoch, at.step)
        loss = self.learner.step([image for image, _ in pairs], [box for _, box in pairs], rate=rate, seed=seed)
        if not math.isfinite(loss):
            raise ZooError(
                f"loss is {loss} in epoch {at.epoch + 1}, step {at.step + 1}, at learning rate {rate:.4g}; "
                f"lower learning_rate ({self.recipe.learning_rate:g})"
            )
        self.progress = at.after_step(loss, time.monotonic() - began, bad)
        return loss

    def _example_or_next(self, index: int) -> tuple[tuple[Tensor, Target], list[str]]:
        """An example, and those that could not be read before it: then it is the next that can be."""
        bad: list[str] = []
        for further in range(len(self.samples)):
            try:
                return self._example((index + further) % len(self.samples)), bad
            except ZooError as error:
                if further + 1 == len(self.samples):
                    raise
                path = self.samples[(index + further) % len(self.samples)].path
                self.unreadable.record(path, "replaced by another in training", error)
                bad.append(printable(str(path)))
        raise AssertionError("a run has samples")

    def _example(self, index: int) -> tuple[Tensor, Target]:
        """The image and its boxes, mirrored by chance."""
        sample, chance = self.samples[index], np.random.default_rng([self.recipe.seed, self.progress.epoch, index])
        image = read_pixels(sample)
        boxes, labels = torch.from_numpy(sample.boxes), torch.from_numpy(sample.labels)
        if chance.random() < self.recipe.augmentation.flip:
            image, boxes = image.flip(2), mirrored(boxes, sample.width)
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
            skipped=len(at.bad),
        )
        self.progress = at.after_epoch(epoch)
        self.progress.write_metrics(self.folder)
        self._write()
        return precision

    def _measure(self) -> AveragePrecision:
        found = find_objects(self.learner.result, self.validation.samples, self.unreadable, device=self.device)
        return average_precision(self.validation, found)


def _fingerprint(samples: Sequence[AnnotatedImage]) -> str:
    """What tells data sets apart: names, sizes, boxes and labels, not the pixels."""
    from blake3 import blake3

    digest = blake3()
    for sample in samples:
        told: Mapping[str, object] = {"file": sample.path.name, "size": [sample.width, sample.height]}
        digest.update(json.dumps(told).encode())
        digest.update(sample.boxes.tobytes() + sample.labels.tobytes() + sample.crowd.tobytes())
    return digest.hexdigest()
