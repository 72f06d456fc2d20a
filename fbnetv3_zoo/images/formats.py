"""The image formats that are read, and the names of files that count as images.

A file is recognized by its name only where a folder or an archive is listed; it is read by its contents.
"""

from __future__ import annotations

import os

from ..errors import ZooError

SUFFIXES = {
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "ICO": (".ico",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""Usual extensions of each format."""

FORMATS = tuple(SUFFIXES)
"""Formats that are read, whatever the suffix. Pillow knows others, some through external programs."""

IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
"""The extensions, in lower case, of files that count as images."""


def is_image(name: str) -> bool:
    """Whether a file of this name counts as an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def no_image(value: object, kinds: str, array: str = "Image.fromarray(array)") -> ZooError:
    """The error for ``value`` where a Pillow image is wanted, or what else ``kinds`` names."""
    import numpy as np

    if isinstance(value, (str, os.PathLike)):
        return ZooError(f"{os.fspath(value)!r} is a path; give read_image(path)")
    if isinstance(value, np.ndarray):
        return ZooError(f"a NumPy array; give {array}")
    return ZooError(f"{type(value).__name__} is not an image; give {kinds}")
