"""How good a detector is on a data set: COCO's average precision, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.detection.coco import CocoData
from fbnetv3_zoo.errors import ZooError


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one image: boxes (found, 4) as x0, y0, x1, y1 in pixels, scores in [0, 1], labels."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's figures, in [0, 1]; nan where there is nothing to find.

    ``ap`` is the mean over overlaps from 0.5 to 0.95, ``ap50`` and ``ap75`` at one. ``small`` (boxes below 32 x 32
    pixels), ``medium`` and ``large`` (from 96 x 96 on) are the mean for objects of that size, ``classes`` has each
    class by name.
    """

    ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float
    classes: dict[str, float]


def average_precision(data: CocoData, found: Sequence[Detections]) -> AveragePrecision:
    """The precision of ``found``, one entry for every image of ``data`` in its order.

    Raises :class:`ZooError` where the numbers differ or pycocotools is not installed.
    """
    if len(found) != len(data):
        raise ZooError(f"{data.name}: has {len(data)} images, and {len(found)} answers were given")
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise ZooError("pycocotools is not installed; pip install 'fbnetv3-zoo[detection]'") from None
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of every step
        truth, answers = COCO(), COCO()
        truth.dataset = _dataset(data, _truth(data))
        answers.dataset = _dataset(data, _answers(data, found))
        truth.createIndex()
        answers.createIndex()
        evaluation = COCOeval(truth, answers, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75, small, medium, large = (_figure(value) for value in evaluation.stats[:6])
    precision = evaluation.eval["precision"][:, :, :, 0, 2]  # overlaps, recalls, classes; all sizes, 100 detections
    classes = {name: _mean(precision[:, :, n]) for n, name in enumerate(data.class_names)}
    return AveragePrecision(ap, ap50, ap75, small, medium, large, classes)


def _figure(value: float) -> float:
    return float("nan") if value < 0 else float(value)


def _mean(precision: npt.NDArray[np.float64]) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")


def _dataset(data: CocoData, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [{"id": s.image_id, "width": s.width, "height": s.height} for s in data.samples],
        "categories": [{"id": n} for n in range(1, 1 + len(data.class_names))],
        "annotations": [{"id": n, **one} for n, one in enumerate(annotations, start=1)],
    }


def _truth(data: CocoData) -> list[dict[str, Any]]:
    return [
        {**_box(sample.image_id, box, label), "iscrowd": int(crowd)}
        for sample in data.samples
        for box, label, crowd in zip(sample.boxes, sample.labels, sample.crowd, strict=True)
    ]


def _answers(data: CocoData, found: Sequence[Detections]) -> list[dict[str, Any]]:
    return [
        {**_box(sample.image_id, box, label), "score": float(score)}
        for sample, one in zip(data.samples, found, strict=True)
        for box, score, label in zip(one.boxes, one.scores, one.labels, strict=True)
    ]


def _box(image_id: int, box: npt.NDArray[np.float32], label: int) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(value) for value in box)
    width, height = x1 - x0, y1 - y0
    return {
        "image_id": image_id,
        "category_id": int(label),
        "bbox": [x0, y0, width, height],
        "area": width * height,
    }
