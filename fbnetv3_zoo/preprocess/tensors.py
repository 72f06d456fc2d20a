"""The steps of :class:`~fbnetv3_zoo.preprocess.preprocess.Preprocess` on tensors, with the same results as Pillow.

Images are float32 batches (batch, channels, height, width) of gray levels from 0 to 255. ``whole`` means that they were
uint8: every step then rounds to whole levels, as Pillow does.
"""

from __future__ import annotations

import math
from itertools import accumulate, repeat

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ZooError
from ..images.formats import no_image

HALF_LEVEL = 0.5 / 255
LUMA = (19595, 38470, 7471)
"""Weights of red, green and blue in gray (0.299, 0.587, 0.114) in 65536ths, as in Pillow."""


def checked(image: object, dims: tuple[int, ...], channels: int) -> Tensor:
    """``image``, a tensor with one of the numbers of dimensions ``dims`` that fits a network of ``channels`` channels.

    Raises :class:`ZooError` for anything else.
    """
    if not isinstance(image, Tensor):
        array = "Image.fromarray(array) or torch.from_numpy(array)"
        raise no_image(image, "a Pillow image or a tensor", array)
    shape = tuple(image.shape)
    if image.ndim not in dims:
        batch = " or a batch (images, channels, height, width)" if 4 in dims else ""
        raise ZooError(f"a tensor of shape {shape}; give (channels, height, width){batch}")
    if shape[0] == 0 and image.ndim == 4:
        raise ZooError(f"an empty batch of shape {shape}; give at least one image")
    _check_channels(shape, (3, 1) if channels in (1, 3) else (channels,))
    return image


def _check_channels(shape: tuple[int, ...], fits: tuple[int, ...]) -> None:
    if shape[-3] in fits:
        return
    text = f"a tensor of shape {shape} has {shape[-3]} channels, not {' or '.join(map(str, fits))}"
    if shape[-1] in fits:
        order = "0, 3, 1, 2" if len(shape) == 4 else "2, 0, 1"
        raise ZooError(f"{text}; channels come first: give image.permute({order})")
    if shape[-3] == 4 and 3 in fits:
        raise ZooError(f"{text}; leave out the alpha channel: give image[..., :3, :, :]")
    raise ZooError(f"{text}; channels come first: (channels, height, width)")


def levels(image: Tensor) -> Tensor:
    """The pixels of a uint8 tensor (0 to 255) or a floating one (0 to 1) as float32 gray levels."""
    if image.dtype == torch.uint8:
        return image.to(torch.float32)
    if not image.is_floating_point():
        kind = str(image.dtype).removeprefix("torch.")
        raise ZooError(f"a tensor of {kind}; give uint8 from 0 to 255 or floating numbers from 0 to 1")
    image = image.to(torch.float32)
    low, high = (float(end) for end in image.detach().aminmax())
    if math.isnan(low):
        raise ZooError("a tensor with nan; give numbers from 0 to 1")
    if low < -HALF_LEVEL or high > 1 + HALF_LEVEL:  # less is rounding error, and clamped
        remedy = "divide by 255" if low >= 0 and 2 < high < 256 else "scale or clamp it, and do not normalize it yet"
        raise ZooError(f"a floating tensor from {low:.4g} to {high:.4g}, not from 0 to 1; {remedy}")
    return image.clamp(0, 1) * 255


def gray(levels: Tensor, *, whole: bool) -> Tensor:
    """RGB images as one channel of gray."""
    weights = levels.new_tensor(LUMA)[:, None, None] / 65536
    return _settle((levels * weights).sum(1, keepdim=True), whole)


def resize(levels: Tensor, axis: int, length: int, mode: str, *, whole: bool) -> Tensor:
    """``levels`` with ``length`` pixels along ``axis`` (2 or 3); ``mode`` is the value of an ``Interpolation``."""
    if levels.shape[axis] == length:
        return levels
    if mode == "nearest":
        return levels.index_select(axis, _nearest(levels.shape[axis], length).to(levels.device))
    size = (levels.shape[2], length) if axis == 3 else (length, levels.shape[3])
    return _settle(F.interpolate(levels, size, mode=mode, antialias=True), whole)


def _nearest(old: int, new: int) -> Tensor:
    """Index of the old pixel for each new one. "nearest-exact" differs if a center falls on an edge."""
    step = old / new  # Pillow accumulates it, and rounding errors decide those cases
    return torch.tensor([min(int(center), old - 1) for center in accumulate(repeat(step, new - 1), initial=step / 2)])


def _settle(levels: Tensor, whole: bool) -> Tensor:
    return ((levels + 0.5).floor() if whole else levels).clamp(0, 255)
