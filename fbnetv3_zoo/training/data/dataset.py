"""Datasets: examples in three splits, with images read on demand."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias, overload, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import printable
from ...images import LeastSize
from ...preprocess import Preprocess
from ...utils.paths import composed
from ...utils.tables import in_notebook, table

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Integers: TypeAlias = npt.NDArray[np.integer]
_AT_ONCE = 1 << 16
_BETWEEN = "; "
_PART = re.compile(r"(\d{1,12}) ([a-z ]{1,30}) [0-9a-f]{64}")


class Reader(Protocol):
    """Reads one image; ``at_least`` allows a smaller one, see :func:`~fbnetv3_zoo.images.reading.decode_image`.

    If it cannot be read, raises :class:`~fbnetv3_zoo.errors.ZooError`, which names the image.
    """

    def __call__(self, at_least: LeastSize | None = None) -> Image.Image:
        """The image, upright, in its own mode."""
        ...


@dataclass(frozen=True, slots=True)
class Example:
    """An image, read on demand, with its class index; ``key`` identifies it in its dataset."""

    read: Reader
    label: int
    key: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples by split, with the class names and the preprocessing for a network.

    ``mean`` and ``std`` (of values in [0, 1]) have one entry per channel; ``resize_ratio`` is the ratio of the shorter
    side to the crop in evaluation. ``root`` is the folder of the dataset, None if it has none; ``digest`` the SHA-256
    of its contents if that is known, otherwise empty.
    """

    name: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_ratio: float
    splits: Mapping[Split, Sequence[Example]]
    root: str | None = None
    digest: str = ""

    def __getitem__(self, split: Split) -> Sequence[Example]:
        return self.splits[split]

    def counts(self, split: Split) -> Integers:
        """The number of images of each class in ``split``, shape (classes,)."""
        return np.bincount(labels_of(self.splits[split]), minlength=len(self.class_names))

    def __str__(self) -> str:
        """Number of images of each class in each split; of many classes, the first ones."""
        counts = [self.counts(split) for split in SPLITS]
        rows = list(zip(self.class_names, *(count.tolist() for count in counts), strict=True))
        omitted = [("...",) + 3 * ("",)] if len(rows) > 20 else []
        total = ("all", *(int(count.sum()) for count in counts))
        classes = table([("class", *SPLITS), *(rows[:15] if omitted else rows), *omitted, total])
        return f"{printable(self.name)}: {len(self.class_names):,} classes\n{classes}"

    def _repr_html_(self) -> str:
        return in_notebook(str(self))

    def preprocess(self, side: int) -> Preprocess:
        """The preprocessing for a network trained on this data with inputs of ``side`` x ``side`` pixels."""
        return Preprocess(round(side * self.resize_ratio), side, mean=self.mean, std=self.std)

    @property
    def fingerprint(self) -> str:
        """Identifies the data, independent of the path of its folder.

        It has counts and digests of the class names, of the labels and keys of every split in order, and of the
        contents if that is known. A run is only resumed on data with the same fingerprint.
        """
        names = hashlib.sha256(repr(self.class_names).encode(errors="surrogateescape")).hexdigest()
        parts = [f"{len(self.class_names)} classes {names}"]
        parts += [f"{len(self.splits[split])} {split} images {_digest(self.splits[split])}" for split in SPLITS]
        parts += [f"{sum(map(len, self.splits.values()))} stored images {self.digest}"] if self.digest else []
        return _BETWEEN.join(parts)


def data_difference(then: str, now: str, *, places: tuple[str, str] = ("then", "now")) -> str:
    """Difference of two fingerprints, such as "train images: 12 then, 13 now"; empty if one is not a fingerprint.

    ``places`` are what the two are called.
    """
    parts = [[_PART.fullmatch(part) for part in text.split(_BETWEEN)] for text in (then, now)]
    differences = []
    for one, other in zip(*parts, strict=False):
        if one and other and one[0] != other[0]:
            counts = f"{one[1]} {places[0]}, {other[1] if other[1] != one[1] else 'as many others'} {places[1]}"
            differences.append(f"{other[2]}: {counts}")
    return ", ".join(differences)


@dataclass(frozen=True, slots=True, eq=False)
class Names(Sequence[str]):
    """Many names in one bytes object; name ``n`` ends before ``ends[n]``."""

    text: bytes
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """``names``, consumed one by one."""
        text, ends = bytearray(), bytearray()
        for name in names:
            text += os.fsencode(name)
            ends += len(text).to_bytes(8, "little")
        return cls(bytes(text), np.frombuffer(bytes(ends), dtype="<i8"))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, n: int) -> str: ...
    @overload
    def __getitem__(self, n: slice) -> list[str]: ...
    def __getitem__(self, n: int | slice) -> str | list[str]:
        if isinstance(n, slice):
            return self.take(np.arange(*n.indices(len(self))))
        n = range(len(self))[n]
        return os.fsdecode(self.text[self.ends[n - 1] if n else 0 : self.ends[n]])

    def take(self, rows: Integers) -> list[str]:
        """The names at the indices ``rows``."""
        starts = np.where(rows > 0, self.ends[rows - 1], 0).tolist()
        return [os.fsdecode(self.text[a:b]) for a, b in zip(starts, self.ends[rows].tolist(), strict=True)]


class ImageSource(Protocol):
    """The source of the images of :class:`Examples`."""

    def reader(self, row: int, key: str) -> Reader:
        """The reader of image ``row``, whose key is ``key``."""
        ...


@runtime_checkable
class ArraySource(ImageSource, Protocol):
    """A source whose images lie in memory, all of one size."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        ...

    def gather(self, rows: Integers) -> npt.NDArray[np.uint8]:
        """The pixels of the images ``rows``, shape (images, height, width, channels)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Examples(Sequence[Example]):
    """Examples created on demand from arrays: a million take less memory than their names.

    ``keys`` and ``labels`` are those of all images of ``origin``; ``rows`` selects the images of this sequence, in
    order. Slices share the arrays.
    """

    keys: Names
    labels: Integers
    rows: Integers
    origin: ImageSource

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, n: int) -> Example: ...
    @overload
    def __getitem__(self, n: slice) -> Examples: ...
    def __getitem__(self, n: int | slice) -> Example | Examples:
        if isinstance(n, slice):
            return replace(self, rows=self.rows[n])
        return self._example(int(self.rows[n]))

    def __iter__(self) -> Iterator[Example]:
        return map(self._example, map(int, self.rows))

    def at(self, indices: Integers) -> Examples:
        """The examples at these indices, in their order."""
        return replace(self, rows=self.rows[indices])

    def _example(self, row: int) -> Example:
        key = self.keys[row]
        return Example(self.origin.reader(row, key), int(self.labels[row]), key)


@dataclass(frozen=True, slots=True, eq=False)
class _Joined(Sequence[Example]):
    """The concatenation of several sequences."""

    parts: tuple[Sequence[Example], ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @overload
    def __getitem__(self, n: int) -> Example: ...
    @overload
    def __getitem__(self, n: slice) -> list[Example]: ...
    def __getitem__(self, n: int | slice) -> Example | list[Example]:
        if isinstance(n, slice):
            return [self[index] for index in range(*n.indices(len(self)))]
        n = range(len(self))[n]
        for part in self.parts:
            if n < len(part):
                return part[n]
            n -= len(part)
        raise IndexError


def joined(parts: Sequence[Sequence[Example]]) -> Sequence[Example]:
    """The concatenation of ``parts``."""
    return parts[0] if len(parts) == 1 else _Joined(tuple(parts))


def _digest(examples: Sequence[Example]) -> str:
    """Digest of the labels and keys of ``examples`` in order, independent of how the system stores accents."""
    digest = hashlib.sha256()
    labels = labels_of(examples).astype("<i8")
    for start in range(0, len(labels), _AT_ONCE):
        part = labels[start : start + _AT_ONCE]
        keys = [composed(key) for key in keys_of(examples, np.arange(start, start + len(part)))]
        digest.update(part.tobytes() + np.array([len(key) for key in keys], "<i8").tobytes())
        digest.update("".join(keys).encode(errors="surrogateescape"))
    return digest.hexdigest()


def labels_of(examples: Sequence[Example]) -> Integers:
    """The class index of every example."""
    if isinstance(examples, Examples):
        return examples.labels[examples.rows]
    return np.fromiter((example.label for example in examples), np.int64, len(examples))


def keys_of(examples: Sequence[Example], indices: Integers) -> list[str]:
    """The keys of the examples at these indices."""
    if isinstance(examples, Examples):
        return examples.keys.take(examples.rows[indices])
    return [examples[int(n)].key for n in indices]


def take(examples: Sequence[Example], indices: Integers, new_labels: Integers) -> Sequence[Example]:
    """The examples at these indices, in their order; label ``n`` becomes ``new_labels[n]``."""
    if isinstance(examples, Examples):
        return replace(examples.at(indices), labels=new_labels[examples.labels])
    selected = (examples[int(n)] for n in indices)
    return tuple(replace(example, label=int(new_labels[example.label])) for example in selected)
