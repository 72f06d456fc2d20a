"""Leaves out images and boxes that a detector cannot take once they are mirrored and scaled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.models.detection.transform import resize_boxes

from fbnetv3_zoo.errors import ZooError

from ..models.faster_rcnn import RCNNSettings
from .coco import AnnotatedImage, CocoData
from .faults import Faults

LEAST_SIDE = 0.01
"""In pixels of the scaled image; torchvision's detectors return no thinner box."""


def check_scalable(shortest: int, longest: int, image: Tensor) -> None:
    """Raise :class:`ZooError` if ``image`` (3, height, width) is too thin to be scaled to these sides."""
    height, width = image.shape[1:]
    if 0 in scaled_size(width, height, shortest, longest):
        raise ZooError(
            f"an image of {width} x {height} pixels is too thin for this detector: scaled to {longest} pixels on its "
            f"longer side, nothing is left of the shorter; crop it"
        )


def scaled_size(width: int, height: int, shortest: int, longest: int) -> tuple[int, int]:
    """Width and height to which torchvision scales an image for ``min_size`` and ``max_size``; 0 if it cannot."""
    factor = min(shortest / min(width, height), longest / max(width, height))
    return math.floor(float(width) * factor), math.floor(float(height) * factor)


def mirrored(boxes: Tensor, width: int) -> Tensor:
    """Boxes (objects, 4) in an image of this width mirrored left to right."""
    return torch.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), 1)


def training_data(data: CocoData, settings: RCNNSettings, *, mirror: bool) -> CocoData:
    """The images of ``data`` with at least one object to train on, without crowds and what the detector cannot take.

    ``mirror``: images are randomly mirrored in training. What is left out, except crowds, is added to ``faults``.
    """
    samples, faults = [], Faults()
    for sample in _scalable(data.samples, settings, faults):
        sample = sample.only(~sample.crowd)
        boxes = torch.from_numpy(sample.boxes)
        usable = _thick(boxes, sample, settings)
        if mirror:
            usable &= _thick(mirrored(boxes, sample.width), sample, settings)
        for index in np.flatnonzero(~usable):
            name = sample.names[index] if sample.names else f"object {index}"
            faults.add("boxes too thin to learn from when scaled, left out", f"{name} of {sample.path.name}")
        if usable.any():
            samples.append(sample.only(usable))
    return replace(data, samples=tuple(samples), faults=(*data.faults, *faults.lines))


def evaluation_data(data: CocoData, settings: RCNNSettings) -> CocoData:
    """``data`` without the images that the detector cannot take, which are added to ``faults``."""
    faults = Faults()
    samples = tuple(_scalable(data.samples, settings, faults))
    return replace(data, samples=samples, faults=(*data.faults, *faults.lines))


def fitted_anchors(data: CocoData, settings: RCNNSettings) -> RCNNSettings:
    """``settings`` with anchors as large as the objects of ``data`` are in scaled images.

    They are at five quantiles of the objects' sides (roots of areas), from the tenth to the ninetieth percentile.
    """
    sides = [np.zeros(0)]
    for sample in data.samples:
        factor = min(
            settings.min_size / min(sample.width, sample.height), settings.max_size / max(sample.width, sample.height)
        )
        boxes = sample.boxes[~sample.crowd]
        sides.append(factor * np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1)))
    if not (all_sides := np.concatenate(sides)).size:
        return settings
    sizes = {max(1, round(float(side))) for side in np.quantile(all_sides, (0.1, 0.3, 0.5, 0.7, 0.9))}
    return replace(settings, anchor_sizes=tuple(sorted(sizes)))


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
    """Which of ``boxes`` have sides of at least :data:`LEAST_SIDE` when scaled and rounded as the detector does."""
    width, height = _scaled_size(sample, settings)
    scaled = resize_boxes(boxes, [sample.height, sample.width], [height, width])
    thick: npt.NDArray[np.bool_] = (scaled[:, 2:] - scaled[:, :2] >= LEAST_SIDE).all(1).numpy()
    return thick
