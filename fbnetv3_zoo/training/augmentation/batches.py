"""Augmentation of a batch of images at once, for datasets in memory.

What is drawn has the distributions of :mod:`fbnetv3_zoo.training.augmentation.images`; crop, flip and shift are one
resampling instead of two. The random numbers of an image depend on seed, epoch and its position in the epoch alone, so
neither on the batch that it is in nor on the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ...preprocess import Interpolation, Preprocess
from ...recipes import Augmentation

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
_TRIES = 10  # boxes that are drawn until one fits
_FLIP, _ERASE, _SHIFT, _CROP_PLACE, _ERASE_PLACE, _CROP_BOX = 0, 1, slice(2, 6), slice(6, 8), slice(8, 10), 10
_ERASE_BOX = _CROP_BOX + 2 * _TRIES
NUMBERS = 52
"""Random numbers for an image: a multiple of four, since the generator gives four at a time."""

_DEGREES, _MOVED, _SCALED = 8.0, 0.08, 0.1  # of a shift
_WIDEST_CROP = 4 / 3
_LEAST_ERASED, _MOST_ERASED, _NARROWEST_ERASED, _WIDEST_ERASED = 0.02, 0.33, 0.3, 3.3


def draw_numbers(seed: int, epoch: int, first: int, count: int) -> Doubles:
    """Numbers in [0, 1) for the images at ``count`` positions of an epoch from ``first``, shape (count, 52)."""
    generator = np.random.Philox(key=np.array([seed, epoch], np.uint64)).advance(first * NUMBERS // 4)
    return np.random.Generator(generator).random((count, NUMBERS))


class BatchAugmenter:
    """Augments 8-bit images (images, height, width, channels) of one size to ``side`` x ``side`` pixels.

    ``fill`` has the value of erased pixels for each channel. Without random crops, the images must be of that size.
    """

    def __init__(self, augmentation: Augmentation, side: int, fill: Sequence[int]) -> None:
        self.augmentation, self.side = augmentation, side
        self._fill = torch.tensor(fill, dtype=torch.uint8)[:, None, None]

    @staticmethod
    def suits(augmentation: Augmentation, longest: int, preprocess: Preprocess) -> bool:
        """Whether images with this longer side can be augmented so.

        There must be no policy, and crops must not become smaller, which would need a filter for the size of each.
        """
        grows = longest <= preprocess.resolution and preprocess.interpolation is Interpolation.BILINEAR
        return augmentation.policy is None and (augmentation.crop_area == 1 or grows)

    def __call__(self, pixels: npt.NDArray[np.uint8], numbers: Doubles) -> Tensor:
        """The augmented images (images, channels, side, side) in channels-last; ``numbers`` are (images, 52)."""
        images = torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, 1)
        if self.augmentation.crop_area < 1 or self.augmentation.shift:
            images = self._resampled(images, numbers)
        elif self.augmentation.flip:
            flipped = torch.from_numpy(numbers[:, _FLIP] < self.augmentation.flip)
            images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
        if self.augmentation.erasing:
            images = torch.where(torch.from_numpy(self._erased(numbers))[:, None], self._fill, images)
        return images.contiguous(memory_format=torch.channels_last)

    def _resampled(self, images: Tensor, numbers: Doubles) -> Tensor:
        """The images cropped, flipped and shifted: for every pixel of the result, the place that it comes from."""
        count, _, *size = images.shape
        origins = (
            _unshift(numbers[:, _SHIFT], self.side) if self.augmentation.shift else np.stack([np.eye(2, 3)] * count)
        )
        if self.augmentation.flip:
            origins[numbers[:, _FLIP] < self.augmentation.flip, 0] *= -1
        grid = _places(origins, self.side)
        outside = (np.abs(grid) > 1).any(-1) if self.augmentation.shift else None
        if self.augmentation.crop_area < 1:
            middle, scale = _crops(numbers, size, self.augmentation.crop_area)
            grid = grid * scale[:, None, None].astype(np.float32) + middle[:, None, None].astype(np.float32)
        places = torch.from_numpy(grid)
        drawn = F.grid_sample(images.float(), places, padding_mode="border", align_corners=False)
        if outside is not None:
            drawn.masked_fill_(torch.from_numpy(outside)[:, None], 0.0)
        return drawn.round_().to(torch.uint8)

    def _erased(self, numbers: Doubles) -> Mask:
        """Mask (images, side, side) of the pixels that are erased."""
        side = self.side
        area = side * side * _between(_LEAST_ERASED, _MOST_ERASED, numbers[:, _ERASE_BOX : _ERASE_BOX + _TRIES])
        ratios = numbers[:, _ERASE_BOX + _TRIES : _ERASE_BOX + 2 * _TRIES]
        ratio = np.exp(_between(math.log(_NARROWEST_ERASED), math.log(_WIDEST_ERASED), ratios))
        heights, widths = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fitting: Mask = (heights < side) & (widths < side)
        height, width = _first(heights, fitting), _first(widths, fitting)
        erased: Mask = fitting.any(1) & (numbers[:, _ERASE] < self.augmentation.erasing)
        top, left = np.floor(numbers[:, _ERASE_PLACE] * (side + 1 - np.stack([height, width], 1))).T
        at = np.arange(side)
        rows: Mask = np.logical_and(at >= top[:, None], at < (top + height)[:, None])
        columns: Mask = np.logical_and(at >= left[:, None], at < (left + width)[:, None])
        mask: Mask = erased[:, None, None] & rows[:, :, None] & columns[:, None, :]
        return mask


def _places(origins: Doubles, side: int) -> npt.NDArray[np.float32]:
    """Where the middle of every pixel comes from, (images, side, side, 2) with x first, where an image is from -1 to 1.

    Not by a product of matrices, whose rounding may depend on the number of images.
    """
    at = ((2 * np.arange(side) + 1) / side - 1).astype(np.float32)
    (xx, xy, x), (yx, yy, y) = origins.astype(np.float32).transpose(1, 2, 0)[..., None, None]
    across, down = at[None, None, :], at[None, :, None]
    return np.stack([xx * across + xy * down + x, yx * across + yy * down + y], -1)


def _unshift(numbers: Doubles, side: int) -> Doubles:
    """From a place in a shifted image to that in the original, (images, 2, 3), both from -1 to 1.

    An image is turned and scaled around its middle, then moved by whole pixels.
    """
    turn, scale, *moved = numbers.T
    angle = np.radians(_between(-_DEGREES, _DEGREES, turn))
    size = _between(1 - _SCALED, 1 + _SCALED, scale)
    x, y = (np.rint(_between(-_MOVED * side, _MOVED * side, number)) * 2 / side for number in moved)
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    return np.stack([cos, sin, -cos * x - sin * y, -sin, cos, sin * x - cos * y], 1).reshape(-1, 2, 3)


def _crops(numbers: Doubles, size: Sequence[int], least_area: float) -> tuple[Doubles, Doubles]:
    """Middle and size of a random box in each image, (images, 2) with x first, where an image is from -1 to 1.

    Boxes are whole pixels; if none of ten fits, it is the widest in the middle, as torchvision's.
    """
    height, width = size
    area = height * width * _between(least_area, 1, numbers[:, _CROP_BOX : _CROP_BOX + _TRIES])
    ratios = numbers[:, _CROP_BOX + _TRIES : _CROP_BOX + 2 * _TRIES]
    ratio = np.exp(_between(-math.log(_WIDEST_CROP), math.log(_WIDEST_CROP), ratios))
    widths, heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fitting = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    fallback = min(width, round(height * _WIDEST_CROP)), min(height, round(width * _WIDEST_CROP))
    fits: Mask = np.logical_or.reduce(fitting, 1, keepdims=True)
    whole = np.array([width, height])
    box = np.where(fits, np.stack([_first(widths, fitting), _first(heights, fitting)], 1), fallback)
    drawn = np.floor(numbers[:, _CROP_PLACE] * (whole - box + 1))
    start = np.where(fits, drawn, (whole - box) // 2)
    return (2 * start + box) / whole - 1, box / whole


def _between(low: float, high: float, numbers: Doubles) -> Doubles:
    return low + (high - low) * numbers


def _first(values: Doubles, fitting: Mask) -> Doubles:
    """The first fitting value of each row; the first of all if there is none."""
    first: Doubles = np.take_along_axis(values, fitting.argmax(1)[:, None], 1)[:, 0]
    return first
