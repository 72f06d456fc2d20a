"""What a dataset is: examples in three splits, each image read when it is asked for."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...images import LeastSize
from ...preprocess import Preprocess

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Integers: TypeAlias = npt.NDArray[np.integer]
_AT_ONCE = 1 << 16
_BETWEEN = "; "
_PART = re.compile(r"(\d{1,12}) ([a-z ]{1,30}) [0-9a-f]{64}")


def composed(name: str) -> str:
    r"""``name`` with its accents composed (NFC): some systems store ``é`` as two signs.

    Bytes that are no UTF-8 are written out (``\udce9``): no model file could hold the name else.
    """
    whole = name.encode("utf-8", "backslashreplace").decode()
    return whole if whole.isascii() else unicodedata.normalize("NFC", whole)


class Reader(Protocol):
    """Reads one image; with ``at_least`` it may come smaller, as :func:`~fbnetv3_zoo.images.reading.decode_image` says.

    Whatever keeps an image from being read is a :class:`~fbnetv3_zoo.errors.ZooError` that names it.
    """

    def __call__(self, at_least: LeastSize | None = None) -> Image.Image:
        """The image, upright, in its own mode."""
        ...


@dataclass(frozen=True, slots=True)
class Example:
    """One image, read when asked for, with its class number; ``key`` tells it from all others of its dataset."""

    read: Reader
    label: int
    key: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples by split, with what a network needs to know of them.

    ``mean`` and ``std`` (of values in [0, 1]) have one entry a channel; ``resize_ratio`` is how much larger than the
    crop the shorter side is made for evaluation. ``root`` is the folder it lies in, None where it lies in none.
    """

    name: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_ratio: float
    splits: Mapping[Split, Sequence[Example]]
    root: str | None = None

    def __getitem__(self, split: Split) -> Sequence[Example]:
        return self.splits[split]

    def preprocess(self, side: int) -> Preprocess:
        """From an image of this data to the input, ``side`` pixels a side, of a network that is trained on it."""
        return Preprocess(round(side * self.resize_ratio), side, mean=self.mean, std=self.std)

    @property
    def fingerprint(self) -> str:
        """What tells this data from other data, wherever it lies and whatever its folder is called.

        A run is only continued on the data it began with: counts and digests of the classes' names, and of the labels
        and keys of every split in order.
        """
        names = hashlib.sha256(repr(self.class_names).encode(errors="surrogateescape")).hexdigest()
        told = [f"{len(self.class_names)} classes {names}"]
        told += [f"{len(self.splits[split])} {split} images {_digest(self.splits[split])}" for split in SPLITS]
        return _BETWEEN.join(told)


def data_difference(then: str, now: str) -> str:
    """What differs between two fingerprints: "train images: 12 then, 13 now"; nothing where one is no fingerprint."""
    parts = [[_PART.fullmatch(part) for part in text.split(_BETWEEN)] for text in (then, now)]
    told = []
    for one, other in zip(*parts, strict=False):
        if one and other and one[0] != other[0]:
            counts = f"{one[1]} then, {other[1] if other[1] != one[1] else 'as many others'} now"
            told.append(f"{other[2]}: {counts}")
    return ", ".join(told)


@dataclass(frozen=True, slots=True, eq=False)
class Names(Sequence[str]):
    """Many names in one run of bytes; name ``n`` ends before ``ends[n]``."""

    text: bytes
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """These names, none of which is kept as a text of its own."""
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
        """The names of these numbers."""
        starts = np.where(rows > 0, self.ends[rows - 1], 0).tolist()
        return [os.fsdecode(self.text[a:b]) for a, b in zip(starts, self.ends[rows].tolist(), strict=True)]


class ImageSource(Protocol):
    """Where the images of :class:`Examples` come from."""

    def reader(self, row: int, key: str) -> Reader:
        """What reads image ``row``, which is known as ``key``."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Examples(Sequence[Example]):
    """Examples made when asked for, from arrays: a million take less memory than their names.

    ``keys`` and ``labels`` tell of all images of ``origin``; ``rows`` says which of them these are, in order. A slice
    shares them.
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

    def at(self, chosen: Integers) -> Examples:
        """The examples of these indices, in their order."""
        return replace(self, rows=self.rows[chosen])

    def _example(self, row: int) -> Example:
        key = self.keys[row]
        return Example(self.origin.reader(row, key), int(self.labels[row]), key)


@dataclass(frozen=True, slots=True, eq=False)
class _Joined(Sequence[Example]):
    """Several sequences one after the other."""

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
    """The examples of all ``parts``."""
    return parts[0] if len(parts) == 1 else _Joined(tuple(parts))


def _digest(examples: Sequence[Example]) -> str:
    """Digest of the labels and keys of ``examples`` in order; how a system stores accents makes no difference."""
    digest = hashlib.sha256()
    labels = labels_of(examples).astype("<i8")
    for start in range(0, len(labels), _AT_ONCE):
        part = labels[start : start + _AT_ONCE]
        keys = [composed(key) for key in keys_of(examples, np.arange(start, start + len(part)))]
        digest.update(part.tobytes() + np.array([len(key) for key in keys], "<i8").tobytes())
        digest.update("".join(keys).encode(errors="surrogateescape"))
    return digest.hexdigest()


def labels_of(examples: Sequence[Example]) -> Integers:
    """The class number of every example."""
    if isinstance(examples, Examples):
        return examples.labels[examples.rows]
    return np.fromiter((example.label for example in examples), np.int64, len(examples))


def keys_of(examples: Sequence[Example], chosen: Integers) -> list[str]:
    """The keys of the examples with these indices."""
    if isinstance(examples, Examples):
        return examples.keys.take(examples.rows[chosen])
    return [examples[int(n)].key for n in chosen]


def take(examples: Sequence[Example], chosen: Integers, new_labels: Integers) -> Sequence[Example]:
    """The examples of these indices, in their order; class number ``n`` becomes ``new_labels[n]``."""
    if isinstance(examples, Examples):
        return replace(examples.at(chosen), labels=new_labels[examples.labels])
    picked = (examples[int(n)] for n in chosen)
    return tuple(replace(example, label=int(new_labels[example.label])) for example in picked)
