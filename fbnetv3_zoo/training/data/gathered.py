"""Images in memory, in the size that the network sees, for work on many at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import ZooError
from ...preprocess import Preprocess
from .arrays import ArrayImages
from .dataset import ArraySource, Example, Examples, Integers

_LARGEST = 1 << 28
"""Bytes of images that are resized and kept."""


def gathered(
    examples: Sequence[Example], preprocess: Preprocess, *, cropped: bool = True
) -> tuple[ArraySource, Integers] | None:
    """Where the pixels of ``examples`` lie, and their rows there; None if they are not in memory.

    With ``cropped``, the images are as :meth:`Preprocess.crop` gives them, resized once where that changes them; None
    also if that takes too much memory or one of them cannot be cropped.
    """
    if not isinstance(examples, Examples) or not isinstance(source := examples.origin, ArraySource):
        return None
    *size, channels = source.shape
    side = preprocess.resolution
    if channels != len(preprocess.mean):
        return None
    if not cropped or [*size, preprocess.resize] == [side, side, side]:
        return source, examples.rows
    if len(examples) * channels * side**2 > _LARGEST:
        return None
    try:
        pixels = np.stack([np.asarray(preprocess.crop(example.read())) for example in examples])
    except ZooError:  # whoever reads it alone reports it
        return None
    return ArrayImages(pixels), np.arange(len(examples))
