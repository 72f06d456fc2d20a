"""Image files below a folder: finding them, reading them, telling which are equal."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.images import LeastSize, decode_image, open_image_file
from fbnetv3_zoo.training.data.dataset import Integers

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class FileReader:
    """The image in the file ``name`` below ``root``."""

    root: str
    name: str

    def __call__(self, at_least: LeastSize | None = None) -> Image.Image:
        """The image; :class:`ZooError` for whatever keeps it from being read."""
        path = os.path.join(self.root, self.name)
        with open_image_file(path) as file:
            return decode_image(file, path, at_least=at_least)


@dataclass(frozen=True, slots=True)
class FolderOrigin:
    """Examples whose keys are the names of files below ``root``."""

    root: str

    def reader(self, row: int, key: str) -> FileReader:
        """What reads the file named ``key``."""
        return FileReader(self.root, key)


def unreadable(path: str | Path, error: OSError) -> ZooError:
    """The error for what the system does not let us read."""
    return ZooError(f"{path}: cannot be read ({error.strerror or error})")


def folders_in(root: Path) -> list[str]:
    """Names of the folders in ``root``, sorted, hidden ones left out."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith("."))
    except OSError as error:
        raise unreadable(root, error) from None


def images_in(folder: Path) -> list[str]:
    """Names of the image files below ``folder``, relative to it with ``/`` between, sorted.

    Whatever is named as an image counts, readable or not; hidden files and folders do not. Links to folders are not
    followed.
    """
    return sorted(_images_in(str(folder), ""))


def _images_in(folder: str, prefix: str) -> Iterator[str]:
    below = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and not _is_folder(entry):
                    yield prefix + entry.name
    except OSError as error:
        raise unreadable(folder, error) from None
    for name in below:
        yield from _images_in(os.path.join(folder, name), f"{prefix}{name}/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False


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
