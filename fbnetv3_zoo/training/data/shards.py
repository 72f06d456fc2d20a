"""Shards: tar files of samples in WebDataset's format, with random access to every image."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ...errors import ZooError, first_few, printable
from ...images import MAX_BYTES, LeastSize, decode_image
from ...images.listing import is_debris, unreadable
from ...utils.paths import exists, read_lines
from .dataset import Dataset, Examples, Integers, Names, Split
from .folder import divided, photos
from .folder_contents import folders_in
from .random_split import split_by_seed
from .split_names import class_folders, named_splits, split_of_file, warn_unlabeled
from .tar_samples import UNLABELED, SampleFaults, samples_in

_TAR = re.compile(r"[^.].*\.(tar(\.\w+)?|tgz)", re.IGNORECASE)  # also compressed ones, for a clear error
_MOST_OPEN = 200


def has_shards(root: Path) -> bool:
    """Whether ``root``, or a folder in it named like a split, has tar files and no folders."""
    return bool(_tars(root)) or any(_tars(root / name) for name in named_splits(folders_in(root)))


def shards(path: str | Path, *, seed: int | None = 0, val_split: float | None = None) -> Dataset:
    """A folder of tar files, whose samples are an image (jpg, png, ...) and its class index (cls, or json).

    The tar files are either in folders for splits, or in ``path`` with the split in their names, in the usual
    spellings. If no name has a split, the samples are split randomly by ``seed``, as in
    :func:`~fbnetv3_zoo.training.data.folder`, which also describes how missing splits are handled.
    ``path/classes.txt`` has the class names, one per line; without it, classes are named by their indices.
    ``val_split`` is another share for validation than a fifth.
    """
    root = Path(path)
    names = read_names(root / "classes.txt") if exists(root / "classes.txt") else None
    places = _places(root)
    indexed = _index_all(root, places, None if names is None else len(names))
    if names is None:
        names = [str(n) for n in range(1 + max(int(part.labels.max()) for part in indexed.values()))]
    if len(names) < 2:
        raise ZooError(f"{root}: needs at least 2 classes, has {len(names)}")
    if None not in indexed:
        named = {split: part for split, part in indexed.items() if split is not None}
        return photos(root, names, divided(root, named, seed, val_split, first=_all_differ))
    whole = indexed[None]
    if seed is None:
        return photos(root, names, {"test": whole})
    classes = [f"{root}: class {name!r}" for name in names]
    parts = split_by_seed(
        whole.labels, seed, image=lambda n: root / whole.keys[n], classes=classes, val_split=val_split
    )
    return photos(root, names, {split: whole.at(indices) for split, indices in parts.items()})


def _all_differ(part: Examples) -> Integers:
    """Contents of samples are not compared."""
    return np.arange(len(part))


def _places(root: Path) -> dict[Split | None, list[str]]:
    """The tar files of every split, relative to ``root``; the key is None if the seed splits them."""
    places: dict[Split | None, list[str]] = {}
    if tars := _tars(root):
        for name in tars:
            places.setdefault(split_of_file(root, name), []).append(name)
        if None in places and len(places) > 1:
            lacking = (
                f"{root / places[None][0]}: its name has" if len(places[None]) == 1 else _of_several(root, places[None])
            )
            raise ZooError(f"{lacking} no split, unlike others here; put train, val or test into it")
        return places
    for name, split in named_splits(class_folders(root)).items():
        if split in places:
            raise ZooError(f"{root}: has two folders for the {split} split; keep one of them there")
        places[split] = [f"{name}/{tar}" for tar in _tars(root / name)]
    return places


def _of_several(root: Path, names: Sequence[str]) -> str:
    return f"{root}: the names of {len(names):,} tar files ({first_few(names)}) have"


def _tars(folder: Path) -> list[str]:
    """Sorted names of the tar files in a folder without subfolders."""
    try:
        tars = sorted(name for name in os.listdir(folder) if _TAR.fullmatch(name) and not is_debris(name))
    except OSError as error:
        raise unreadable(folder, error) from None
    return [] if tars and class_folders(folder) else tars


def read_names(path: Path) -> list[str]:
    """The class names in a text file, one per line. Raises :class:`ZooError` if it is not such a file."""
    names = read_lines(path, "a list of class names")
    if "" in names or len(set(names)) < max(2, len(names)):
        twice = [repr(printable(name)) for name, count in Counter(names).items() if name and count > 1]
        repeated = f" ({first_few(twice)})" if twice else ""
        raise ZooError(
            f"{path}: must have at least 2 names, one per line, without blank lines and repetitions{repeated}"
        )
    return names


def _index_all(
    root: Path, places: Mapping[Split | None, Sequence[str]], classes: int | None
) -> dict[Split | None, Examples]:
    """All images of every split. Test shards without any labels are left out."""
    faults = SampleFaults(root)
    indexed = {}
    for split, tars in places.items():
        own = SampleFaults(root) if split == "test" and len(places) > 1 else faults
        examples = _index(root, tars, classes, own)
        if own is not faults and own.count(UNLABELED) == len(examples):
            warn_unlabeled(root / tars[0], len(examples))
            continue
        own.check() if own is not faults else None
        indexed[split] = examples
    faults.check()
    return indexed


def _index(root: Path, tars: Sequence[str], classes: int | None, faults: SampleFaults) -> Examples:
    """All images of the shards ``tars``, in order."""
    if not tars:
        raise ZooError(f"{root}: has a split folder without tar files")
    numbers: list[Integers] = []

    def keys() -> Iterator[str]:
        for n, tar in enumerate(tars):
            samples = list(samples_in(root, tar, classes, faults))
            rows = [(n, sample.label, sample.offset, sample.size) for sample in samples]
            numbers.append(np.array(rows, dtype=np.int64).reshape(-1, 4))
            yield from (f"{tar}/{sample.name}" for sample in samples)

    all_keys = Names.of(keys())
    if not len(all_keys):
        faults.check()
        raise ZooError(f"{root / tars[0]}: has no samples, like all tar files of its split")
    shard, label, offset, size = np.concatenate(numbers).T
    origin = Shards(str(root), tuple(tars), shard.astype(np.int32), offset.copy(), size.copy(), OpenFiles())
    return Examples(all_keys, label.astype(np.int32), np.arange(len(all_keys)), origin)


class OpenFiles:
    """Files kept open for reading, separately in each process."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def __reduce__(self) -> tuple[type[OpenFiles], tuple[()]]:
        return OpenFiles, ()  # open files are not shared with other processes

    def __del__(self) -> None:
        for file in self._open.values():
            os.close(file)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """``size`` bytes of a file from ``offset``; fewer if it ends before. Raises OSError."""
        if not hasattr(os, "pread"):  # Windows: threads would share the position of an open file
            with open(path, "rb") as alone:
                alone.seek(offset)
                return alone.read(size)
        if path in self._open:
            return _read(self._open[path], offset, size)
        file = os.open(path, os.O_RDONLY)
        keep = len(self._open) < _MOST_OPEN and self._open.setdefault(path, file) == file
        try:
            return _read(file, offset, size)
        finally:
            if not keep:
                os.close(file)


def _read(file: int, offset: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.pread(file, size, offset)):
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)


@dataclass(frozen=True, slots=True, eq=False)
class Shards:
    """The location of each image: index of its shard in ``names`` (tar files in ``root``), offset and size in bytes."""

    root: str
    names: tuple[str, ...]
    shard: Integers
    offset: Integers
    size: Integers
    files: OpenFiles

    def reader(self, row: int, key: str) -> ShardReader:
        """The reader of image ``row``."""
        shard = self.names[int(self.shard[row])]
        return ShardReader(self.files, self.root, shard, key, int(self.offset[row]), int(self.size[row]))


@dataclass(frozen=True, slots=True)
class ShardReader:
    """Reads the image ``key``, stored in ``size`` bytes of a shard."""

    files: OpenFiles
    root: str
    shard: str
    key: str
    offset: int
    size: int

    def __call__(self, at_least: LeastSize | None = None) -> Image.Image:
        """The image. Raises :class:`ZooError` if it cannot be read."""
        self._check_size()
        data = self.read(0, self.size)
        if len(data) < self.size:
            raise ZooError(f"{self.path}: the tar file is shorter than when it was indexed; get it again")
        return decode_image(io.BytesIO(data), self.path, at_least=at_least)

    @property
    def path(self) -> str:
        """The name of the image, as if it were a file in the folder of the shards."""
        return os.path.join(self.root, self.key)

    def open(self) -> BinaryIO:
        """Its bytes as a file. Raises :class:`ZooError` if there are too many, or the shard cannot be opened."""
        self._check_size()
        return io.BufferedReader(_Span(self))

    def read(self, start: int, size: int) -> bytes:
        """``size`` of its bytes from ``start`` on; fewer if the shard ends before."""
        try:
            return self.files.read(os.path.join(self.root, self.shard), self.offset + start, size)
        except OSError as error:
            raise unreadable(self.path, error) from None

    def _check_size(self) -> None:
        if self.size > MAX_BYTES:
            raise ZooError(f"{self.path}: {self.size:,} bytes are over the limit of {MAX_BYTES:,}; shrink it")

    def stamp(self) -> str:
        """A text that changes if the shard may have changed."""
        path = os.path.join(self.root, self.shard)
        try:
            status = os.stat(path)
        except OSError as error:
            raise unreadable(self.path, error) from None
        return f"{os.path.abspath(path)}\0{self.offset}\0{self.size}\0{status.st_mtime_ns}"


class _Span(io.RawIOBase):
    """The bytes of an image in its shard."""

    def __init__(self, image: ShardReader) -> None:
        super().__init__()
        self._image, self._at = image, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = max(0, offset + (0, self._at, self._image.size)[whence])
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        data = self._image.read(self._at, min(len(buffer), max(0, self._image.size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
