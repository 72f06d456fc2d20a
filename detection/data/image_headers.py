"""Sizes and orientations from the headers of image files, read before training."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from PIL.Image import Transpose

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.images import FORMATS, open_image_file, size_of_image

_THREADS = 8
"""Reading headers is bound by the disk."""
_ORIENTATION = 0x0112  # the EXIF tag
_BACK = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}


def sizes_of(paths: Iterable[Path]) -> list[tuple[int, int] | ZooError]:
    """Width and height of the upright images, from their headers; an error for each that cannot be read."""
    with ThreadPoolExecutor(_THREADS) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about large images; set here because threads share the filter
        return [*pool.map(_size, paths)]


def orientation_of(path: Path) -> int:
    """The EXIF orientation of an image; 1 (upright) if it has none."""
    try:
        with open_image_file(path) as file, Image.open(file, formats=FORMATS) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's parsers raise many kinds; reading the whole image will say what is wrong
        return 1
    return orientation if orientation in _BACK else 1


def as_stored(image: Image.Image, orientation: int) -> Image.Image:
    """Undo the rotation of an upright image to how a file of this orientation stores it."""
    return image.transpose(_BACK[orientation]) if orientation in _BACK else image


def _size(path: Path) -> tuple[int, int] | ZooError:
    try:
        with open_image_file(path) as file:
            return size_of_image(file, str(path))
    except ZooError as error:
        return error
