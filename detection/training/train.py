"""Training a detector on boxes, judged by COCO's average precision."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torchvision.models.detection import FasterRCNN

from fbnetv3_zoo.errors import ZooError, check_type
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.recipes import Recipe
from fbnetv3_zoo.training.callbacks import Callback
from fbnetv3_zoo.training.checkpoint import recipe_identity
from fbnetv3_zoo.training.distributed import World, join
from fbnetv3_zoo.training.engine import Engine
from fbnetv3_zoo.training.execution import Execution
from fbnetv3_zoo.training.loader import seed_of
from fbnetv3_zoo.training.report.results import RESULTS, write_results
from fbnetv3_zoo.training.run_folder import METRICS, MODEL, REPORT, check_run, claimed, own_randomness
from fbnetv3_zoo.utils.log import LOG
from fbnetv3_zoo.utils.paths import CONFIG
from fbnetv3_zoo.utils.serialization import to_json

from ..data.coco import AnnotatedImage, CocoData
from ..data.faults import Unreadable
from ..data.fitting import evaluation_data, training_data
from ..models.serialization import DetectorSpec, save_detector
from .batches import DetectionBatch, DetectionBatches
from .evaluate import AveragePrecision, Detections, average_precision, check_objects
from .learner import DetectorLearner
from .page import PICTURE, write_detection_report
from .predict import find_objects, finder

_FILES = (MODEL, RESULTS, REPORT, PICTURE, METRICS, CONFIG)


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


@dataclass(frozen=True)
class DetectionRun:
    """A finished run: the detector in evaluation mode (averaged weights), its epochs, its precision in validation.

    ``folder`` holds ``model.safetensors``, ``results.json``, ``report.html``, ``predictions.png``, ``metrics.jsonl``
    and ``checkpoints/``; ``faults`` are those of the data, and the images that could not be read on the way.
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
    execution: Execution = Execution(), callbacks: Sequence[Callback] = (), report: bool = True,
) -> DetectionRun:  # fmt: skip
    """Train a detector and leave the result in ``folder``; under ``torchrun``, all processes together.

    Args:
        spec: what to build; its classes must be those of the data.
        data: images to train on; those without a box that is no crowd are left out, as is what the detector cannot
            take (:func:`~fbnetv3_zoo.detection.data.fitting.training_data`).
        validation: images to judge by after every epoch, with an object at least. One that cannot be read when its turn
            comes counts as if nothing was found in it.
        recipe: how to train. Of its augmentation, mirroring (``flip``) is applied; what else changes images, and what
            concerns classes, has no meaning for boxes and is refused where it is set.
        folder: where the files go; must not hold a run unless ``resume``.
        source: a network with weights for the trunk, whose architecture and colors the detector takes.
        freeze_at: first stages of the trunk that keep their weights and statistics; needs ``source``.
        fixed_norms: batch norms of trunk and box head keep theirs; needs ``source``.
        resume: continue the run in ``folder``.
        execution: where and how to compute. ``compile``, ``channels_last``, ``gradient_checkpointing`` and
            ``check_images`` must be as by default; images that cannot be read are replaced whatever ``on_bad_image``
            says.
        callbacks: called after every step and epoch, in the leading process.
        report: write ``report.html`` and ``predictions.png`` when the run has ended.

    Raises :class:`ZooError` for input that does not fit and a loss that stops being finite (the batch is then in
    ``folder``); :class:`Interrupted` where
    SIGTERM ends the run, after a checkpoint.
    """
    check_run(folder, execution, callbacks)
    check_type("spec", spec, DetectorSpec, "a DetectorSpec")
    for name, images in (("data", data), ("validation", validation)):
        check_type(name, images, CocoData, "a CocoData, as read_coco(FILE, FOLDER) gives")
    check_type("recipe", recipe, Recipe, "a Recipe, such as fit_detection_recipe(IMAGES).recipe")
    _check(spec, data, validation, recipe, execution)
    with join(execution.device) as world:
        data, validation = _fitted(spec, data, validation, mirror=recipe.augmentation.flip > 0, log=world.leads)
        with (
            claimed(Path(folder), world, _FILES),
            own_randomness(world),
            closing(_DetectorTraining(spec, data, validation, recipe, Path(folder), execution, world)) as training,
        ):
            training.prepare(source, freeze_at, fixed_norms)
            training.begin(resume=resume, epoch=DetectionEpoch)
            run = training.run(callbacks)
            if world.leads:
                _write_results(run, training, recipe)
            if report and world.leads:
                write_detection_report(
                    run, training.data, training.validation, recipe, training.detections, execution=execution
                )
            return run


def _write_results(run: DetectionRun, training: _DetectorTraining, recipe: Recipe) -> None:
    images = {"train": len(training.data), "validation": len(training.validation)}
    write_results(
        run.folder, run.spec.network, training.data.name, images, run.spec.class_names, seed=recipe.seed,
        epochs=run.epochs, measured={"precision": asdict(run.precision), "faults": run.faults},
    )  # fmt: skip


def _fitted(
    spec: DetectorSpec, data: CocoData, validation: CocoData, *, mirror: bool, log: bool
) -> tuple[CocoData, CocoData]:
    """Both without what the detector cannot take, which is logged if ``log``."""
    fitted = training_data(data, spec.settings, mirror=mirror), evaluation_data(validation, spec.settings)
    for before, after in zip((data, validation), fitted, strict=True) if log else ():
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
    if recipe.balanced or recipe.frozen_stages or recipe.patience:
        raise ZooError("recipe: balanced, frozen_stages and patience are for classifiers; leave them out")
    default = Execution()
    for field in ("compile", "channels_last", "gradient_checkpointing", "check_images"):
        if getattr(execution, field) != getattr(default, field):
            raise ZooError(f"execution: detectors have no use for {field}; leave it at {getattr(default, field)}")


class _DetectorTraining(Engine[DetectionBatch, DetectionRun]):
    learner: DetectorLearner
    highest_loss = sys.float_info.max  # it may be high at first, and recover
    equal_sizes = False

    def __init__(
        self, spec: DetectorSpec, data: CocoData, validation: CocoData, recipe: Recipe, folder: Path,
        execution: Execution, world: World,
    ) -> None:  # fmt: skip
        if len(data) < recipe.batch_size:
            raise ZooError(
                f"{data.name}: has {len(data)} images with boxes, fewer than one batch of {recipe.batch_size}"
            )
        self.spec, self.data, self.validation, self.folder = spec, data, validation, folder
        batches = DetectionBatches(data.samples, recipe, execution=execution, world=world)
        super().__init__(recipe, batches, folder, execution=execution, world=world)
        self.unreadable = Unreadable(log=world.leads)
        self.precision: AveragePrecision | None = None
        self.detections: list[Detections] = []

    def prepare(self, source: FBNet | None, freeze_at: int, fixed_norms: bool) -> None:
        """Build the detector; its initial values come from the recipe's seed."""
        torch.manual_seed(seed_of(self.recipe.seed))
        if source is not None:
            self.spec = self.spec.with_weights_of(source)
        model = self.spec.build(source=source, freeze_at=freeze_at, fixed_norms=fixed_norms)
        self.learner = DetectorLearner(model, self.recipe, execution=self.execution, world=self.world)
        self.identity = {
            "detector": json.dumps([to_json(self.spec), freeze_at, fixed_norms]),
            "data": _fingerprint(self.data.samples),
            "recipe": recipe_identity(self.recipe),
        }

    def on_unreadable(self, images: Sequence[tuple[str, str]]) -> None:
        """Log and count each of them once."""
        for path, complaint in images:
            self.unreadable.record(Path(path), "replaced by another in training", ZooError(complaint))

    def measure_epoch(self) -> DetectionEpoch:
        """Measure the average precision in validation."""
        at, self.precision = self.progress, self._measure()
        return DetectionEpoch(
            epoch=at.epoch + 1,
            learning_rate=self.recipe.learning_rate_at(at.epoch, 1.0),
            train_loss=self.train_loss,
            ap=self.precision.ap,
            ap50=self.precision.ap50,
            images_per_second=self.images_per_second,
            seconds=self.seconds,
            skipped=len(at.bad),
        )

    def finish(self) -> DetectionRun:
        """Save the detector, and measure it if that was not done."""
        if self.world.leads:
            save_detector(self.learner.result, self.spec, self.folder / MODEL)
        precision = self.precision or self._measure()
        model = self.learner.result.cpu().eval()
        faults = (*self.data.faults, *self.validation.faults, *self.unreadable.lines)
        return DetectionRun(self.folder, model, self.spec, self.progress.history, precision, faults)

    def _measure(self) -> AveragePrecision:
        self.world.share_buffers(self.learner.result)
        self.detections = find_objects(
            finder(self.learner.result, device=self.world.device), self.validation.samples, self.unreadable,
            workers=self.execution.workers, world=self.world,
        )  # fmt: skip
        self.learner.student.train()
        return average_precision(self.validation, self.detections)


def _fingerprint(samples: Sequence[AnnotatedImage]) -> str:
    """What tells data sets apart: names, sizes, boxes and labels, not the pixels."""
    from blake3 import blake3

    digest = blake3()
    for sample in samples:
        fields: Mapping[str, object] = {"file": sample.path.name, "size": [sample.width, sample.height]}
        digest.update(json.dumps(fields).encode())
        digest.update(sample.boxes.tobytes() + sample.labels.tobytes() + sample.crowd.tobytes())
    return digest.hexdigest()
