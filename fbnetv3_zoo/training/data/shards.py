"""Shards: tar files of samples, as WebDataset keeps them, with every image within reach at once."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.images import MAX_BYTES, LeastSize, decode_image
from fbnetv3_zoo.training.data.dataset import SPLITS, Dataset, Example, Examples, Integers, Names, Split
from fbnetv3_zoo.training.data.files import folders_in, unreadable
from fbnetv3_zoo.training.data.folder import photos, split_places
from fbnetv3_zoo.training.data.splitting import split_by_seed
from fbnetv3_zoo.training.data.tars import samples_in

_TAR = re.compile(r"[^.].*\.(tar(\.\w+)?|tgz)", re.IGNORECASE)  # compressed ones are found, too, and refused by name
_SPLIT_WORDS: dict[str, Split] = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_MOST_OPEN = 200


def has_shards(root: Path) -> bool:
    """Whether ``root`` holds shards: tar files and no folders, itself or in its train folder."""
    return bool(_tars(root / "train" if (root / "train").is_dir() else root))


def shards(path: str | Path, *, seed: int = 0) -> Dataset:
    """A folder of tar files, each sample an image (jpg, jpeg, png, ppm, webp) and its class number (cls, or json).

    Either in the folders ``path/{train,validation,test}`` (``val`` may stand for ``validation``); or in ``path``, where
    all names have a part ``train``, ``val``, ``validation`` or ``test`` between ``-``, ``_`` and ``.``; or, where none
    has, split at random by ``seed`` as :func:`~fbnetv3_zoo.training.data.folder` does. ``path/classes.txt`` has the
    names of the classes, one a line; without it they are called by their numbers.
    """
    root = Path(path)
    names = _class_names(root / "classes.txt")
    places = _places(root)
    found = {split: _index(root, tars, None if names is None else len(names)) for split, tars in places.items()}
    if names is None:
        names = [str(n) for n in range(1 + max(int(part.labels.max()) for part in found.values()))]
    if len(names) < 2:
        raise ZooError(f"{root}: needs at least 2 classes, has {len(names)}")
    splits: dict[Split, Sequence[Example]] = dict.fromkeys(SPLITS, ())
    if None in found:
        whole = found[None]
        classes = [f"{root}: class {name!r}" for name in names]
        parts = split_by_seed(whole.labels, seed, image=lambda n: root / whole.keys[n], classes=classes)
        splits.update({split: whole.at(chosen) for split, chosen in parts.items()})
    else:
        splits.update({split: part for split, part in found.items() if split is not None})
    return photos(root, names, splits)


def _places(root: Path) -> dict[Split | None, list[str]]:
    """The tar files of every split, relative to ``root``; of None where the seed is to split them."""
    if (root / "train").is_dir():
        return {split: [f"{name}/{tar}" for tar in _tars(root / name)] for split, name in split_places(root).items()}
    places: dict[Split | None, list[str]] = {}
    for name in _tars(root):
        places.setdefault(_split_of(name), []).append(name)
    if None in places and len(places) > 1:
        raise ZooError(f"{root / places[None][0]}: names no split, as others here do; put train, val or test into it")
    if None not in places and not {"train", "validation"} <= places.keys():
        missing = "train" if "train" not in places else "validation (or val)"
        raise ZooError(f"{root}: has no tar file with {missing} in its name, as the others have their split")
    return places


def _split_of(name: str) -> Split | None:
    words = re.split(r"[-_.]", name.lower())
    return next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), None)


def _tars(place: Path) -> list[str]:
    """Names of the tar files in a folder that has no folders in it, sorted."""
    if folders_in(place):
        return []
    return sorted(name for name in os.listdir(place) if _TAR.fullmatch(name))


def _class_names(path: Path) -> list[str] | None:
    try:
        names = [line.strip() for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"{path}: cannot be read ({getattr(error, 'strerror', 'is no UTF-8 text')})") from None
    if "" in names or len(set(names)) < max(2, len(names)):
        raise ZooError(f"{path}: must have at least 2 names, one a line, none empty and none twice")
    return names


def _index(root: Path, tars: Sequence[str], classes: int | None) -> Examples:
    """All images of the shards ``tars``, in order."""
    if not tars:
        raise ZooError(f"{root}: has a split without a tar file")
    numbers: list[Integers] = []

    def keys() -> Iterator[str]:
        for n, tar in enumerate(tars):
            samples = list(samples_in(root / tar, classes))
            rows = [(n, sample.label, sample.offset, sample.size) for sample in samples]
            numbers.append(np.array(rows, dtype=np.int64).reshape(-1, 4))
            yield from (f"{tar}/{sample.name}" for sample in samples)

    found = Names.of(keys())
    if not len(found):
        raise ZooError(f"{root / tars[0]}: has no samples, nor has any other tar file of its split")
    shard, label, offset, size = np.concatenate(numbers).T
    origin = Shards(str(root), tuple(tars), shard.astype(np.int32), offset.copy(), size.copy(), OpenFiles())
    return Examples(found, label.astype(np.int32), np.arange(len(found)), origin)


class OpenFiles:
    """Files that stay open for reading, in each process its own."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def __reduce__(self) -> tuple[type[OpenFiles], tuple[()]]:
        return OpenFiles, ()  # what is open here is not open in another process

    def __del__(self) -> None:
        for file in self._open.values():
            os.close(file)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Bytes of a file; fewer than ``size`` where it ends. Raises OSError."""
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
    """Where images lie: number of the shard among ``names`` (tar files below ``root``), offset and size in bytes."""

    root: str
    names: tuple[str, ...]
    shard: Integers
    offset: Integers
    size: Integers
    files: OpenFiles

    def reader(self, row: int, key: str) -> ShardReader:
        """What reads image ``row``."""
        shard = self.names[int(self.shard[row])]
        return ShardReader(self.files, self.root, shard, key, int(self.offset[row]), int(self.size[row]))


@dataclass(frozen=True, slots=True)
class ShardReader:
    """The image that takes up ``size`` bytes of a shard, known as ``key``."""

    files: OpenFiles
    root: str
    shard: str
    key: str
    offset: int
    size: int

    def __call__(self, at_least: LeastSize | None = None) -> Image.Image:
        """The image; :class:`ZooError` for whatever keeps it from being read."""
        name = os.path.join(self.root, self.key)
        if self.size > MAX_BYTES:
            raise ZooError(f"{name}: {self.size:,} bytes are over the limit of {MAX_BYTES:,}; shrink it")
        try:
            data = self.files.read(os.path.join(self.root, self.shard), self.offset, self.size)
        except OSError as error:
            raise unreadable(name, error) from None
        if len(data) < self.size:
            raise ZooError(f"{name}: the tar file has become shorter than when it was listed; get it again")
        return decode_image(io.BytesIO(data), name, at_least=at_least)
