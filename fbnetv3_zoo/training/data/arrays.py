"""Images in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import ZooError
from ...preprocess import LeastSize
from .dataset import Integers

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ArrayReader:
    """Returns an array, (height, width) of gray or (height, width, 3) of RGB, as an image of full size."""

    pixels: Pixels

    def __call__(self, at_least: LeastSize | None = None) -> Image.Image:
        """The image."""
        return Image.fromarray(self.pixels)


@dataclass(frozen=True, slots=True, eq=False)
class ArrayImages:
    """The :class:`~.dataset.ArraySource` of ``images``, (images, height, width) of gray or with 3 channels of RGB."""

    images: Pixels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        _, height, width, *channels = self.images.shape
        return height, width, channels[0] if channels else 1

    def gather(self, rows: Integers) -> Pixels:
        """The pixels of the images ``rows``, shape (images, height, width, channels)."""
        return self.images[rows].reshape(-1, *self.shape)

    def reader(self, row: int, key: str) -> ArrayReader:
        """The reader of image ``row``."""
        return ArrayReader(self.images[row])


NO_IMAGE = "is no image of Pillow or uint8 but"


def array_of(value: Any) -> npt.NDArray[Any]:
    """``value`` as an array; of text, without axes, if it cannot be one."""
    try:
        return np.asarray(value)
    except Exception:  # lists of several lengths, tensors on a GPU
        return np.array("")


def image_of(value: Any, key: str, *, any_integers: bool = False) -> Image.Image:
    """The image in an array or tensor of uint8, or, with ``any_integers``, of other integers from 0 to 255.

    Arrays have their channels last, tensors first. Raises :class:`ZooError`, which names ``key``, for others.
    """
    given = array = array_of(value)
    if any_integers and array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255:
        given = array = array.astype(np.uint8)
    tensor = not isinstance(value, np.ndarray)
    if tensor and array.ndim == 3:
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape or array.shape[2:] not in _CHANNELS:
        remedy = "leave out the dataset's transforms, training has its own"
        if array.dtype == np.uint8:
            remedy = "drop the item" if 0 in array.shape else f"give 1 or 3 channels, {'first' if tensor else 'last'}"
        kind = f"{type(value).__name__} of {given.dtype}, {given.shape}" if given.ndim else type(value).__name__
        raise ZooError(f"{key}: {NO_IMAGE} {kind}; {remedy}")
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2:] == (1,) else array))


_CHANNELS = ((), (1,), (3,))
