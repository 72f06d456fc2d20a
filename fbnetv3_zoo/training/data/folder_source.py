"""Reading image files of a folder, and finding equal ones."""

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
from ...images import LeastSize, decode_image, open_image_file, size_of_image
from .dataset import Integers


@dataclass(frozen=True, slots=True)
class FileReader:
    """Reads the image file ``name`` in ``root``."""

    root: str
    name: str

    def __call__(self, at_least: LeastSize | None = None) -> Image.Image:
        """The image. Raises :class:`ZooError` if it cannot be read."""
        with self.open() as file:
            return decode_image(file, self.path, at_least=at_least)

    @property
    def path(self) -> str:
        """The path of the file."""
        return os.path.join(self.root, self.name)

    def open(self) -> BinaryIO:
        """The open file. Raises :class:`ZooError` if it cannot be opened."""
        return open_image_file(self.path)

    def stamp(self) -> str:
        """A text that changes if the file may have changed."""
        try:
            status = os.stat(self.path)
        except (OSError, ValueError) as error:
            raise ZooError(f"{printable(self.path)}: cannot be read ({getattr(error, 'strerror', error)})") from None
        return f"{os.path.abspath(self.path)}\0{status.st_size}\0{status.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class FolderSource:
    """The source of examples whose keys are file names relative to ``root``."""

    root: str

    def reader(self, row: int, key: str) -> FileReader:
        """The reader of the file ``key``."""
        return FileReader(self.root, key)


def first_of_equal(root: str, names: Sequence[str]) -> Integers:
    """For each file in ``root``, the index of the first one with the same contents.

    Only files of equal size are read. Empty files, unreadable ones and those that are no images are equal to no other.
    """
    first = np.arange(len(names))
    sizes = np.fromiter((_size(os.path.join(root, name)) for name in names), np.int64, len(names))
    order = np.argsort(sizes, kind="stable")
    for same in np.split(order, np.flatnonzero(np.diff(sizes[order])) + 1):
        if len(same) < 2 or sizes[same[0]] <= 0:
            continue
        with_digest: dict[bytes, list[int]] = {}
        for n in same.tolist():
            if digest := _digest(os.path.join(root, names[n])):
                with_digest.setdefault(digest, []).append(n)
        for members in with_digest.values():
            if len(members) > 1 and _is_image(os.path.join(root, names[members[0]])):
                first[members] = members[0]
    return first


def _is_image(path: str) -> bool:
    """Whether the file begins as an image does."""
    try:
        with open_image_file(path) as file:
            size_of_image(file, path)
    except ZooError:
        return False
    return True


def _size(path: str) -> int:
    """Size of a regular file in bytes, otherwise -1."""
    try:
        status = os.stat(path)
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


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
