"""What a detector can take: boxes and images looked at as they will be when it sees them, mirrored and scaled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.transform import resize_boxes

from fbnetv3_zoo.errors import ZooError

from ..models.faster_rcnn import RCNNSettings
from .coco import AnnotatedImage, CocoData
from .faults import Faults

LEAST_SIDE = 0.01
"""Pixels of the scaled image; torchvision's detectors give no box that is thinner."""


def check_scalable(model: FasterRCNN, width: int, height: int) -> None:
    """Raise :class:`ZooError` where an image of so many pixels is too thin to be scaled for the detector."""
    shortest, longest = model.transform.min_size[-1], model.transform.max_size
    if 0 in scaled_size(width, height, shortest, longest):
        raise ZooError(
            f"an image of {width} x {height} pixels is too thin for this detector: where its longer side has {longest} "
            f"pixels, the shorter has none; crop it"
        )


def scaled_size(width: int, height: int, shortest: int, longest: int) -> tuple[int, int]:
    """Width and height to which torchvision scales an image for ``min_size`` and ``max_size``; 0 where it fails."""
    factor = min(shortest / min(width, height), longest / max(width, height))
    return math.floor(float(width) * factor), math.floor(float(height) * factor)


def mirrored(boxes: Tensor, width: int) -> Tensor:
    """Boxes (objects, 4) in an image of this width that is mirrored left to right."""
    return torch.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), 1)


def to_train_on(data: CocoData, settings: RCNNSettings, *, mirror: bool) -> CocoData:
    """The images of ``data`` with an object to learn from, crowds and what the detector cannot take left out.

    ``mirror``: images are mirrored by chance. ``faults`` tells what was left out besides crowds.
    """
    samples, faults = [], Faults()
    for sample in _scalable(data.samples, settings, faults):
        one = sample.only(~sample.crowd)
        boxes = torch.from_numpy(one.boxes)
        fine = _thick(boxes, one, settings)
        if mirror:
            fine &= _thick(mirrored(boxes, one.width), one, settings)
        for index in np.flatnonzero(~fine):
            name = one.names[index] if one.names else f"object {index}"
            faults.add("boxes too thin to learn from when scaled, left out", f"{name} of {one.path.name}")
        if fine.any():
            samples.append(one.only(fine))
    return replace(data, samples=tuple(samples), faults=(*data.faults, *faults.lines))


def to_judge_by(data: CocoData, settings: RCNNSettings) -> CocoData:
    """``data`` without the images that the detector cannot take, which ``faults`` tells of."""
    faults = Faults()
    samples = tuple(_scalable(data.samples, settings, faults))
    return replace(data, samples=samples, faults=(*data.faults, *faults.lines))


def _scalable(samples: Iterable[AnnotatedImage], settings: RCNNSettings, faults: Faults) -> Iterator[AnnotatedImage]:
    for sample in samples:
        if 0 in _scaled_size(sample, settings):
            where = f"{sample.path.name}: {sample.width} x {sample.height}"
            faults.add("images too thin for the detector's size, left out", where)
        else:
            yield sample


def _scaled_size(sample: AnnotatedImage, settings: RCNNSettings) -> tuple[int, int]:
    return scaled_size(sample.width, sample.height, settings.min_size, settings.max_size)


def _thick(boxes: Tensor, sample: AnnotatedImage, settings: RCNNSettings) -> npt.NDArray[np.bool_]:
    """Which of ``boxes`` have sides of :data:`LEAST_SIDE` when the detector sees them, rounded as it rounds."""
    width, height = _scaled_size(sample, settings)
    seen = resize_boxes(boxes, [sample.height, sample.width], [height, width])
    found: npt.NDArray[np.bool_] = (seen[:, 2:] - seen[:, :2] >= LEAST_SIDE).all(1).numpy()
    return found
