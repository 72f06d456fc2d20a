"""How good a detector is on a data set: COCO's average precision, computed by pycocotools."""

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


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one image: boxes (found, 4) as x0, y0, x1, y1 in pixels, scores in [0, 1], labels."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's figures, in [0, 1]; nan for a size or class of which there is no object to find.

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

    Raises :class:`ZooError` where the numbers differ, there is nothing to find (:func:`check_objects`), or pycocotools
    is not installed.
    """
    check_objects(data)
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
        labels = evaluation.params.catIds = _labels_to_find(data)  # of the others it would only say that there are none
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75, small, medium, large = (_figure(value) for value in evaluation.stats[:6])
    precision = evaluation.eval["precision"][:, :, :, 0, 2]  # overlaps, recalls, classes; all sizes, 100 detections
    classes = dict.fromkeys(data.class_names, float("nan"))
    classes |= {data.class_names[label - 1]: _mean(precision[:, :, n]) for n, label in enumerate(labels)}
    return AveragePrecision(ap, ap50, ap75, small, medium, large, classes)


def check_objects(data: CocoData) -> None:
    """Raise :class:`ZooError` where ``data`` has no object to find, so that there is no precision to measure."""
    if not _labels_to_find(data):
        among = " that is not a crowd" if any(len(sample.boxes) for sample in data.samples) else ""
        raise ZooError(f"{data.name}: its images have no object{among}: there is nothing to find and to measure by")


def _labels_to_find(data: CocoData) -> list[int]:
    """The labels that objects have, crowds apart."""
    found = [sample.labels[~sample.crowd] for sample in data.samples]
    return [int(label) for label in np.unique(np.concatenate([*found, np.zeros(0, np.int64)]))]


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
        "annotations": [{"id": n, **one} for n, one in enumerate(annotations, start=1)],
    }


def _ids(data: CocoData) -> list[int]:
    """Numbers for the images, small ones in the order of theirs: it decides between equal scores."""
    ordered = sorted(range(len(data)), key=lambda n: data.samples[n].image_id)
    return [int(rank) for rank in np.argsort(ordered)]


def _truth(data: CocoData) -> list[dict[str, Any]]:
    return [
        {**_box(n, box, label), "iscrowd": int(crowd)}
        for n, sample in zip(_ids(data), data.samples, strict=True)
        for box, label, crowd in zip(sample.boxes, sample.labels, sample.crowd, strict=True)
    ]


def _answers(data: CocoData, found: Sequence[Detections]) -> list[dict[str, Any]]:
    return [
        {**_box(n, box, label), "score": float(score)}
        for n, one in zip(_ids(data), found, strict=True)
        for box, score, label in zip(one.boxes, one.scores, one.labels, strict=True)
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
