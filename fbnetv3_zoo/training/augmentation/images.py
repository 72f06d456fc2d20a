"""Augmentation of training images one by one, from file to 8-bit pixels, and mixing of batches.

torchvision's transforms are imported where a recipe uses one: they take longer to import than all the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import ZooError, assert_never, printable
from ...preprocess import Preprocess
from ...recipes import Augmentation, AutoAugment, RandAugment
from ..data import Example


class Augmenter:
    """Reads an example and returns the 8-bit pixels (height, width, channels) of one training image.

    All randomness comes from torch's global generator. Instances are sent to worker processes.
    """

    def __init__(self, preprocess: Preprocess, augmentation: Augmentation) -> None:
        self.preprocess = preprocess
        self.augmentation = augmentation
        self._change = _compose(augmentation)
        fill = [round(255 * mean) for mean in preprocess.mean]
        self._erase = _random_erasing(augmentation.erasing, fill) if augmentation.erasing else None

    def __call__(self, example: Example) -> Tensor:
        """The pixels as a uint8 tensor. Raises :class:`ZooError`, which names the image, if it cannot be used."""
        random = _RandomCrop(self.augmentation.crop_area, self.preprocess.resolution)
        image = example.read(random.least) if self.augmentation.crop_area < 1 else example.read()
        try:
            cropped = self._crop(image, random) if self.augmentation.crop_area < 1 else self.preprocess.crop(image)
        except ZooError as error:  # unlike errors of reading, it does not name the image
            raise ZooError(f"{printable(example.key)}: {error}") from None
        pixels = torch.from_numpy(np.array(self._change(cropped)))
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if self._erase is not None:
            pixels = self._erase(pixels.movedim(-1, 0)).movedim(0, -1)
        return pixels

    def _crop(self, image: Image.Image, crop: _RandomCrop) -> Image.Image:
        side = self.preprocess.resolution
        image = self.preprocess.convert(image)
        filter_ = Image.Resampling[self.preprocess.interpolation.name]
        return image.resize((side, side), filter_, box=crop.box(image.size))


class _RandomCrop:
    """A crop drawn before the image is decoded, so that a JPEG need not be decoded at full size."""

    def __init__(self, least_area: float, side: int) -> None:
        self._least_area, self._side = least_area, side
        self._shares: tuple[float, float, float, float] | None = None

    def least(self, size: tuple[int, int]) -> tuple[int, int]:
        """The least width and height to decode at for the crop to have at least as many pixels as it is resized to."""
        left, top, right, bottom = self._drawn(size)
        return math.ceil(self._side / (right - left)), math.ceil(self._side / (bottom - top))

    def box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in an image of this width and height."""
        width, height = size
        left, top, right, bottom = self._drawn(size)
        return left * width, top * height, min(right, 1.0) * width, min(bottom, 1.0) * height

    def _drawn(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        if self._shares is None:
            width, height = size
            left, top, right, bottom = _draw_box(width, height, self._least_area)
            self._shares = left / width, top / height, right / width, bottom / height
        return self._shares


_WIDEST = 4 / 3
_LOG_WIDEST = math.log(_WIDEST)


def _draw_box(width: int, height: int, least_area: float) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in whole pixels, sampled like torchvision's ``RandomResizedCrop``, but faster."""
    for _ in range(10):
        area = width * height * _uniform(least_area, 1.0)
        aspect = math.exp(_uniform(-_LOG_WIDEST, _LOG_WIDEST))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = _whole_below(height - h + 1), _whole_below(width - w + 1)
            return left, top, left + w, top + h
    w, h = min(width, max(1, round(height * _WIDEST))), min(height, max(1, round(width * _WIDEST)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _uniform(low: float, high: float) -> float:
    return torch.empty(1).uniform_(low, high).item()


def _whole_below(bound: int) -> int:
    return int(torch.randint(bound, (1,)).item())


def _random_erasing(probability: float, fill: Sequence[int]) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import v2

    erasing: Callable[[Tensor], Tensor] = v2.RandomErasing(probability, value=fill)
    return erasing


def _compose(augmentation: Augmentation) -> Callable[[Image.Image], Image.Image]:
    steps: list[Callable[[Image.Image], Image.Image]] = []
    if augmentation.flip:
        steps.append(_Flip(augmentation.flip))
    policy = augmentation.policy
    if augmentation.shift or policy is not None:
        from torchvision.transforms import InterpolationMode, v2

        if augmentation.shift:
            bilinear = InterpolationMode.BILINEAR
            steps.append(v2.RandomAffine(degrees=8, translate=(0.08, 0.08), scale=(0.9, 1.1), interpolation=bilinear))
        if isinstance(policy, AutoAugment):
            steps.append(v2.AutoAugment(v2.AutoAugmentPolicy(policy.found_on.value)))
        elif isinstance(policy, RandAugment):
            steps.append(v2.RandAugment(policy.operations, policy.magnitude))
        elif policy is not None:
            assert_never(policy)
    return partial(_apply, steps)


@dataclass(frozen=True, slots=True)
class _Flip:
    probability: float

    def __call__(self, image: Image.Image) -> Image.Image:
        flipped = torch.rand(1).item() < self.probability
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else image


def _apply(steps: Sequence[Callable[[Image.Image], Image.Image]], image: Image.Image) -> Image.Image:
    for step in steps:
        image = step(image)
    return image


def build_mixer(augmentation: Augmentation, num_classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A function that mixes a batch (images, channels, height, width) and its labels (images,).

    It uses torch's global generator. If the recipe mixes, labels become probabilities, (images, num_classes).
    """
    if not (augmentation.mixup > 0 or augmentation.cutmix > 0):
        return lambda images, labels: (images, labels)
    from torchvision.transforms import v2

    kinds = [
        kind(alpha=alpha, num_classes=num_classes)
        for kind, alpha in ((v2.MixUp, augmentation.mixup), (v2.CutMix, augmentation.cutmix))
        if alpha > 0
    ]
    mixer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = kinds[0] if len(kinds) == 1 else v2.RandomChoice(kinds)
    return mixer
