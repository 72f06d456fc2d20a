"""Images in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

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
