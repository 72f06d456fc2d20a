"""COCO average precision of a detector on a dataset, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import ZooError

from ..data.coco import CocoData

SIZES = 32, 96
"""Sides of squares whose areas separate COCO's small, medium and large objects, in pixels."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections in one image: boxes (detections, 4) as x0, y0, x1, y1 in pixels, scores in [0, 1], labels."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's figures in [0, 1]; nan for a size or class without objects.

    ``ap`` is the mean over IoU thresholds from 0.5 to 0.95, ``ap50`` and ``ap75`` are at one. ``small`` (boxes below
    32 x 32 pixels), ``medium`` and ``large`` (from 96 x 96 on) are ``ap`` for objects of that size, ``classes`` is
    ``ap`` by class name.
    """

    ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float
    classes: dict[str, float]


def average_precision(data: CocoData, detections: Sequence[Detections]) -> AveragePrecision:
    """The average precision of ``detections``, one entry per image of ``data``, in the same order.

    Raises :class:`ZooError` if the numbers differ, and as :func:`check_objects` does.
    """
    check_objects(data)
    if len(detections) != len(data):
        raise ZooError(f"{data.name}: has {len(data)} images but detections were given for {len(detections)}")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints every step
        truth, results = COCO(), COCO()
        truth.dataset = _dataset(data, _truth(data))
        results.dataset = _dataset(data, _results(data, detections))
        truth.createIndex()
        results.createIndex()
        evaluation = COCOeval(truth, results, "bbox")
        labels = evaluation.params.catIds = _present_labels(data)  # classes without objects have no precision
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75, small, medium, large = (_figure(value) for value in evaluation.stats[:6])
    precision = evaluation.eval["precision"][:, :, :, 0, 2]  # overlaps, recalls, classes; all sizes, 100 detections
    classes = dict.fromkeys(data.class_names, float("nan"))
    classes |= {data.class_names[label - 1]: _mean(precision[:, :, n]) for n, label in enumerate(labels)}
    return AveragePrecision(ap, ap50, ap75, small, medium, large, classes)


def check_objects(data: CocoData) -> None:
    """Raise :class:`ZooError` if precision cannot be measured: no object in ``data``, or no pycocotools.

    Called before the work, too.
    """
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError:
        raise ZooError("pycocotools is not installed; pip install 'fbnetv3-zoo[detection]'") from None
    if not _present_labels(data):
        crowds = " except crowds" if any(len(sample.boxes) for sample in data.samples) else ""
        raise ZooError(f"{data.name}: has no objects{crowds}, so precision cannot be measured; annotate some")


def _present_labels(data: CocoData) -> list[int]:
    """The labels of all objects except crowds, in ascending order."""
    labels = [sample.labels[~sample.crowd] for sample in data.samples]
    return [int(label) for label in np.unique(np.concatenate([*labels, np.zeros(0, np.int64)]))]


def _figure(value: float) -> float:
    return float("nan") if value < 0 else float(value)


def _mean(precision: npt.NDArray[np.float64]) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")


def _dataset(data: CocoData, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [
            {"id": n, "width": s.width, "height": s.height} for n, s in zip(_ids(data), data.samples, strict=True)
        ],
        "categories": [{"id": n} for n in range(1, 1 + len(data.class_names))],
        "annotations": [{"id": n, **annotation} for n, annotation in enumerate(annotations, start=1)],
    }


def _ids(data: CocoData) -> list[int]:
    """Consecutive ids for the images in the order of their own ids, which decides between equal scores."""
    ordered = sorted(range(len(data)), key=lambda n: data.samples[n].image_id)
    return [int(rank) for rank in np.argsort(ordered)]


def _truth(data: CocoData) -> list[dict[str, Any]]:
    return [
        {**_box(n, box, label), "iscrowd": int(crowd)}
        for n, sample in zip(_ids(data), data.samples, strict=True)
        for box, label, crowd in zip(sample.boxes, sample.labels, sample.crowd, strict=True)
    ]


def _results(data: CocoData, detections: Sequence[Detections]) -> list[dict[str, Any]]:
    return [
        {**_box(n, box, label), "score": float(score)}
        for n, image in zip(_ids(data), detections, strict=True)
        for box, score, label in zip(image.boxes, image.scores, image.labels, strict=True)
    ]


def _box(image: int, box: npt.NDArray[np.float32], label: int) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(value) for value in box)
    width, height = x1 - x0, y1 - y0
    return {
        "image_id": image,
        "category_id": int(label),
        "bbox": [x0, y0, width, height],
        "area": width * height,
    }
