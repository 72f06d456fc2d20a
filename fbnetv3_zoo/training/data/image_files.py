"""Image files below a folder: reading them, telling which are equal."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image

from ...errors import ZooError, printable
from ...images import LeastSize, decode_image, open_image_file
from .dataset import Integers


@dataclass(frozen=True, slots=True)
class FileReader:
    """The image in the file ``name`` below ``root``."""

    root: str
    name: str

    def __call__(self, at_least: LeastSize | None = None) -> Image.Image:
        """The image; :class:`ZooError` for whatever keeps it from being read."""
        with self.open() as file:
            return decode_image(file, self.path, at_least=at_least)

    @property
    def path(self) -> str:
        """Where the file lies."""
        return os.path.join(self.root, self.name)

    def open(self) -> BinaryIO:
        """The file for reading; :class:`ZooError` where it cannot be opened."""
        return open_image_file(self.path)

    def stamp(self) -> str:
        """Another text where the file may have changed."""
        try:
            found = os.stat(self.path)
        except (OSError, ValueError) as error:
            raise ZooError(f"{printable(self.path)}: cannot be read ({getattr(error, 'strerror', error)})") from None
        return f"{os.path.abspath(self.path)}\0{found.st_size}\0{found.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Examples whose keys are the names of files below ``root``."""

    root: str

    def reader(self, row: int, key: str) -> FileReader:
        """What reads the file named ``key``."""
        return FileReader(self.root, key)


def first_of_equal(root: str, names: Sequence[str]) -> Integers:
    """For each file below ``root`` the index of the first one with the same contents.

    Only files of equal size are read. Empty files, and those that cannot be read, are equal to none.
    """
    first = np.arange(len(names))
    sizes = np.fromiter((_size(os.path.join(root, name)) for name in names), np.int64, len(names))
    order = np.argsort(sizes, kind="stable")
    for same in np.split(order, np.flatnonzero(np.diff(sizes[order])) + 1):
        if len(same) < 2 or sizes[same[0]] <= 0:
            continue
        seen: dict[bytes, int] = {}
        for n in same.tolist():
            digest = _digest(os.path.join(root, names[n]))
            first[n] = n if digest is None else seen.setdefault(digest, n)
    return first


def _size(path: str) -> int:
    """Bytes of a regular file, or -1."""
    try:
        found = os.stat(path)
    except OSError:
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def _digest(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return _digest_of(file)
    except OSError:
        return None


def _digest_of(file: BinaryIO) -> bytes:
    digest = hashlib.sha256()
    while part := file.read(1 << 20):
        digest.update(part)
    return digest.digest()
