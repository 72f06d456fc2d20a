"""The report of a detector's training: one HTML page, and a picture of what was found in validation images."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from fbnetv3_zoo.errors import ZooError, printable
from fbnetv3_zoo.recipes import Recipe
from fbnetv3_zoo.report.charts import chart, whole_numbers
from fbnetv3_zoo.report.environment import describe_machine
from fbnetv3_zoo.report.page import Figure, name, write_page
from fbnetv3_zoo.utils.atomic_write import replacing

from ..data.coco import AnnotatedImage, CocoData, open_image
from .evaluate import AveragePrecision, Detections
from .visualize import THRESHOLD, sheet

if TYPE_CHECKING:
    from .train import DetectionRun

SHOWN = 12
"""Validation images that are shown with what was found."""
_RECIPE_FIELDS = (
    "epochs", "batch_size", "optimizer", "learning_rate", "schedule", "warmup_epochs", "ema_decay", "seed",
)  # fmt: skip


def write_detection_report(
    run: DetectionRun, data: CocoData, validation: CocoData, recipe: Recipe, detections: Sequence[Detections]
) -> None:
    """Write ``report.html`` and ``predictions.png`` into the folder of ``run``, trained on ``data`` by ``recipe``.

    ``detections`` are what was found in the images of ``validation``, in their order.
    """
    pairs = list(zip(validation.samples, detections, strict=True))
    predictions = _png(_sheet(pairs[:: max(1, len(pairs) // SHOWN)][:SHOWN], run.spec.class_names))
    with replacing(run.folder / "predictions.png") as temporary:
        temporary.write_bytes(predictions)
    precision = run.precision
    write_page(
        run.folder / "report.html",
        __package__,
        "detection.html.jinja",
        title=f"{printable(run.spec.network)} finds {printable(', '.join(run.spec.class_names[:3]))}",
        tiles=[
            ("AP50", _share(precision.ap50), "boxes that overlap by half"),
            ("AP", _share(precision.ap), "mean over overlaps of 0.5 to 0.95 (COCO)"),
            ("AP75", _share(precision.ap75), "boxes that overlap by three quarters"),
        ],
        curves=_curves(run),
        by_class=[(name(printable(one)), _share(ap)) for one, ap in precision.classes.items()],
        by_size=_by_size(precision),
        threshold=THRESHOLD,
        predictions=base64.b64encode(predictions).decode(),
        run={key: printable(str(value)) for key, value in _settings(data, validation, recipe).items()},
        faults=run.faults,
        machine=describe_machine(),
    )


def _settings(data: CocoData, validation: CocoData, recipe: Recipe) -> dict[str, object]:
    values = {name: value for name, value in recipe.values().items() if name.split(".")[0] in _RECIPE_FIELDS}
    return {"annotations": data.file or data.name, "validation": validation.file or validation.name, **values}


def _sheet(pairs: Sequence[tuple[AnnotatedImage, Detections]], class_names: Sequence[str]) -> Image.Image:
    """Images with what was found in them; those that cannot be read, which were named before, are left out."""
    readable = []
    for sample, detections in pairs:
        try:
            readable.append((open_image(sample), detections))
        except ZooError:
            continue
    return sheet([image for image, _ in readable], [detections for _, detections in readable], class_names)


def _png(image: Image.Image) -> bytes:
    png = io.BytesIO()
    image.save(png, format="PNG")
    return png.getvalue()


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


def _by_size(precision: AveragePrecision) -> list[tuple[str, str]]:
    return [
        ("small (below 32 x 32 pixels)", _share(precision.small)),
        ("medium", _share(precision.medium)),
        ("large (from 96 x 96)", _share(precision.large)),
    ]


def _share(value: float) -> str:
    return "nothing to find" if math.isnan(value) else f"{value:.1%}"
