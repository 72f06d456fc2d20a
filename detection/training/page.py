"""The report of a detector's training: one HTML page, and a picture of what was found in validation images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from fbnetv3_zoo.errors import counted, printable
from fbnetv3_zoo.recipes import Recipe, fit_detection_recipe
from fbnetv3_zoo.report.charts import chart, whole_numbers
from fbnetv3_zoo.report.environment import describe_machine
from fbnetv3_zoo.report.page import Figure, name, write_page
from fbnetv3_zoo.training.execution import Execution
from fbnetv3_zoo.training.report.page import speed
from fbnetv3_zoo.training.run_folder import REPORT
from fbnetv3_zoo.utils.atomic_write import replacing
from fbnetv3_zoo.utils.durations import duration

from ..data.coco import CocoData
from .evaluate import SIZES, AveragePrecision, Detections
from .gallery import evenly_drawn, gallery, outcomes
from .mistakes import OVERLAP, in_short, in_words
from .visualize import THRESHOLD

if TYPE_CHECKING:
    from .train import DetectionRun

PICTURE = "predictions.png"
"""The file of the drawn predictions, in the folder of a run."""


def write_detection_report(
    run: DetectionRun, data: CocoData, validation: CocoData, recipe: Recipe, detections: Sequence[Detections], *,
    execution: Execution = Execution(),
) -> None:  # fmt: skip
    """Write ``report.html`` and ``predictions.png`` into the folder of ``run``, trained on ``data`` by ``recipe``.

    ``detections`` are what was found in the images of ``validation``, in their order.
    """
    with replacing(run.folder / PICTURE) as temporary:
        evenly_drawn(validation, detections).save(temporary, format="PNG")
    results = outcomes(validation, detections)
    write_page(
        run.folder / REPORT,
        __package__,
        "detection.html.jinja",
        title=f"{printable(run.spec.network)} finds {printable(', '.join(run.spec.class_names[:3]))}",
        when=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        tiles=_tiles(run.precision, validation),
        curves=_curves(run),
        by_class=_by_class(data, validation, run.precision),
        by_size=_by_size(data, validation, run.precision),
        threshold=THRESHOLD,
        overlap=OVERLAP,
        summary=in_short(results),
        mistakes=in_words(results, validation.class_names),
        pictures=gallery(validation, detections, results),
        validated=len(validation),
        recipe=_recipe(recipe, len(data)),
        network=_network(run),
        run=_run(run, data, validation, execution),
        faults=run.faults,
        machine=describe_machine(),
    )


def _tiles(precision: AveragePrecision, validation: CocoData) -> list[tuple[str, str, str]]:
    boxes = sum(int((~sample.crowd).sum()) for sample in validation.samples)
    return [
        ("AP50", _share(precision.ap50), "boxes that overlap by half"),
        ("AP", _share(precision.ap), "mean over overlaps of 0.5 to 0.95 (COCO)"),
        ("AP75", _share(precision.ap75), "boxes that overlap by three quarters"),
        ("Measured on", counted(boxes, "object"), f"in {counted(len(validation), 'image')}"),
    ]


def _curves(run: DetectionRun) -> list[Figure]:
    precision = chart("Precision by epoch", _curve, run, {"ap50": "AP50", "ap": "AP"}, "average precision")
    loss = chart("Loss by epoch", _curve, run, {"train_loss": "training"}, "sum of four losses")
    return [
        (precision, "Precision", "on the validation images, of the averaged weights"),
        (loss, "Loss", "while training"),
    ]


def _curve(axes: Any, run: DetectionRun, fields: Mapping[str, str], unit: str) -> None:
    numbers = [epoch.epoch for epoch in run.epochs]
    for field, label in fields.items():
        axes.plot(numbers, [getattr(epoch, field) for epoch in run.epochs], marker=".", label=label)
    axes.set(xlabel="epoch", ylabel=unit)
    whole_numbers(axes.xaxis)
    axes.legend()


def _by_class(data: CocoData, validation: CocoData, precision: AveragePrecision) -> list[tuple[object, ...]]:
    """Class, images and boxes to train on, images and boxes to validate on, AP."""
    return [
        (name(printable(one)), *(f"{count:,}" for part in (data, validation) for count in _with(part, label)),
         _share(ap))
        for label, (one, ap) in enumerate(precision.classes.items(), start=1)
    ]  # fmt: skip


def _with(part: CocoData, label: int) -> tuple[int, int]:
    """The numbers of images and of boxes with this label."""
    boxes = [int((sample.labels == label).sum()) for sample in part.samples]
    return sum(number > 0 for number in boxes), sum(boxes)


def _by_size(data: CocoData, validation: CocoData, precision: AveragePrecision) -> list[tuple[str, ...]]:
    """Size, boxes to train on, boxes to validate on, AP."""
    words = {
        "small": f"small (below {SIZES[0]} x {SIZES[0]} pixels)",
        "medium": "medium",
        "large": f"large (from {SIZES[1]} x {SIZES[1]} on)",
    }
    counts = [_of_each_size(part) for part in (data, validation)]
    return [
        (words[size], *(f"{count[n]:,}" for count in counts), _share(getattr(precision, size)))
        for n, size in enumerate(words)
    ]


def _of_each_size(part: CocoData) -> list[int]:
    boxes = np.concatenate([sample.boxes[~sample.crowd] for sample in part.samples])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    sizes = np.searchsorted(np.square(SIZES), areas, side="right")
    return [int(count) for count in np.bincount(sizes, minlength=3)]


def _share(value: float) -> str:
    return "nothing to find" if math.isnan(value) else f"{value:.1%}"


def _recipe(recipe: Recipe, images: int) -> list[tuple[str, str, str]]:
    """Fields of the recipe with their values, and why they are so."""
    fitted = fit_detection_recipe(images, epochs=recipe.epochs)
    usual = {**fitted.recipe.values(), "epochs": fit_detection_recipe(images).recipe.epochs}
    plain = Recipe(1, 2, recipe.optimizer, 1.0).values()
    return [
        (field, f"{value:g}" if isinstance(value, float) else str(value),
         fitted.source_of(field) if value == usual.get(field) else "chosen for this run")
        for field, value in recipe.values().items()
        if value != plain.get(field) or field in ("epochs", "batch_size")
    ]  # fmt: skip


def _network(run: DetectionRun) -> dict[str, object]:
    spec, settings = run.spec, run.spec.settings
    sizes = ", ".join(map(str, settings.anchor_sizes)) if spec.kind.value == "c4" else "32, 64, 128, 256, 512"
    return {
        "Name": name(printable(spec.network)),
        "Kind": {"c4": "Faster R-CNN on stride 16 (C4)", "fpn": "Faster R-CNN on a feature pyramid (FPN)"}[
            spec.kind.value
        ],
        "Parameters": f"{sum(parameter.numel() for parameter in run.model.parameters()):,}",
        "Images": f"shorter side scaled to {settings.min_size} pixels, longer to at most {settings.max_size}",
        "Anchors": f"{sizes} pixels in the scaled image",
        "Started from": name(printable(spec.weights)) if spec.weights else "random weights, or such without a name",
    }


def _run(run: DetectionRun, data: CocoData, validation: CocoData, execution: Execution) -> dict[str, object]:
    seconds = sum(epoch.seconds for epoch in run.epochs)
    trained, judged = (printable(str(part.file or part.name)) for part in (data, validation))
    each = seconds / max(1, len(run.epochs))
    held_out = trained == judged and not {s.path for s in data.samples} & {s.path for s in validation.samples}
    return {
        "Annotations": name(trained),
        "Validation": "held out of them" if held_out else name(judged),
        "Images": f"{len(data):,} to train on, {len(validation):,} to validate on",
        "Time": f"{duration(seconds)} for {counted(len(run.epochs), 'epoch')}, {duration(each)} each with validation",
        "Speed": f"{speed(run.epochs)} images/s while training",
        "Device": f"{execution.device}, {execution.precision.value}; {execution.workers} processes to load images",
    }
