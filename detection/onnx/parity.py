"""Compares the detections of a detector on ONNX Runtime with those on PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN

from fbnetv3_zoo.errors import ZooError

from ..training.evaluate import Detections

BOX_TOLERANCE = 0.1
SCORE_TOLERANCE = 1e-3


def on_torch(detector: FasterRCNN, image: Tensor) -> Detections:
    """The detections of a PyTorch detector in an image, on the CPU."""
    with torch.inference_mode():
        (output,) = detector([image.cpu()])
    return Detections(*(output[key].numpy() for key in ("boxes", "scores", "labels")))


def on_onnx(path: Path, images: Sequence[Tensor]) -> list[Detections]:
    """The detections of the whole detector in the ONNX file at ``path``, for each image."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = ["boxes", "scores", "labels"]
    return [Detections(*session.run(names, {"image": image.cpu().numpy()})) for image in images]


@dataclass(frozen=True)
class DetectionAgreement:
    """Box and score differences of the matching detections of one image, and the numbers of unmatched ones."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    borderline: int
    unmatched: int


def compare_detections(
    detector: FasterRCNN, expected: Sequence[Detections], actual: Sequence[Detections], path: Path
) -> list[DetectionAgreement]:
    """How far the ``actual`` detections of ONNX Runtime are from the ``expected`` ones of PyTorch, image by image.

    Raises :class:`ZooError`, which begins with ``path``, if a detection has no match, or if there are none to compare.
    """
    heads = detector.roi_heads
    agreements = [_agreement(one, other, heads) for one, other in zip(expected, actual, strict=True)]
    for number, agreement in enumerate(agreements):
        if agreement.unmatched:
            raise ZooError(
                f"{path}: ONNX Runtime differs from PyTorch in images[{number}]: {len(agreement.boxes)} detections "
                f"match, {agreement.unmatched} have no match within {BOX_TOLERANCE} pixels and {SCORE_TOLERANCE}; "
                f"nothing was written"
            )
    if not any(len(agreement.boxes) for agreement in agreements):
        raise ZooError(f"{path}: every score is too close to the score_threshold; give images with clear objects")
    return agreements


def _agreement(one: Detections, other: Detections, heads: nn.Module) -> DetectionAgreement:
    boxes = np.abs(one.boxes[:, None] - other.boxes[None]).max(-1)
    scores = np.abs(one.scores[:, None] - other.scores[None])
    cost = np.maximum(boxes / BOX_TOLERANCE, scores / SCORE_TOLERANCE)
    near = (cost <= 1) & (one.labels[:, None] == other.labels[None])
    rows, columns = linear_sum_assignment(np.where(near, cost, 1e6))
    rows, columns = rows[near[rows, columns]], columns[near[rows, columns]]
    above = np.concatenate(
        [np.delete(one.scores, rows) - _least(other, heads), np.delete(other.scores, columns) - _least(one, heads)]
    )
    borderline = int((above <= SCORE_TOLERANCE).sum())
    return DetectionAgreement(boxes[rows, columns], scores[rows, columns], borderline, len(above) - borderline)


def _least(detections: Detections, heads: Any) -> float:
    """The score that a further detection would have needed."""
    full = len(detections.scores) == heads.detections_per_img
    return float(detections.scores.min()) if full else float(heads.score_thresh)
