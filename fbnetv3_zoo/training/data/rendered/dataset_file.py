"""Images with labels and splits in one file, which is read into memory as a whole.

The file is safetensors: ``images`` (images, height, width) of gray or (images, height, width, 3) of RGB, uint8;
``labels`` and ``groups`` (images,), indices into the entries ``class_names`` and ``group_names``; ``sizes`` (3,), the
numbers of images for train, validation and test, which follow one another; ``keys``, the images' names as UTF-8, each
ended by a line break. A group (a font family, a vendor) is in one split only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ....errors import ZooError, check_number, shown
from ....utils.checksummed import ChecksummedFormat
from ....utils.serialization import parse_json
from ..arrays import ArrayImages
from ..dataset import SPLITS, Dataset, Example, Examples, Integers, Names, Split

Pixels = npt.NDArray[np.uint8]

_FILE = ChecksummedFormat(
    "a data set", "fbnetv3_zoo.images 1", "`fbnetv3 data`", "make it again",
    arrays={"images": "u", "labels": "iu", "groups": "iu", "sizes": "iu", "keys": "u"},
    metadata=("name", "class_names", "group_names", "mean", "std", "provenance"),
)  # fmt: skip
LARGEST_IMAGES = 3 << 28
"""Most bytes of all pixels together."""
LARGEST_SIDE = 1024
"""Most pixels of an image's side."""

_MOST_IMAGES = 2_000_000
_MOST_CLASSES, _MOST_GROUPS, _LONGEST_NAME = 10_000, 1_000_000, 500


@dataclass(frozen=True, eq=False)
class DatasetFile:
    """Labeled images in three splits that share no group.

    ``images`` are uint8, (images, height, width) of gray or (images, height, width, 3) of RGB, in the order of the
    splits, of which ``sizes`` are the numbers of images. ``labels`` and ``groups`` (images,) are indices into
    ``class_names`` and ``group_names``. ``keys`` name the images, each differently. ``mean`` and ``std`` are those of
    :class:`Dataset`. ``provenance`` is JSON text, ``digest`` that of the file, if it was read from
    one. Raises :class:`ZooError` for anything that does not fit.
    """

    name: str
    class_names: tuple[str, ...]
    group_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: Pixels
    labels: Integers
    groups: Integers
    sizes: tuple[int, int, int]
    keys: tuple[str, ...]
    provenance: str
    digest: str = ""

    def __post_init__(self) -> None:
        _check_images(self.images)
        count = len(self.images)
        _check_names("data set", (self.name,), at_least=1, at_most=1)
        if sum(self.sizes) != count or min(self.sizes) < 0:
            raise ZooError(f"its splits are of {self.sizes} images, of {count:,} in all")
        _check_names("class", self.class_names, at_least=2, at_most=_MOST_CLASSES)
        _check_names("group", self.group_names, at_least=1, at_most=_MOST_GROUPS)
        _check_indices("labels", self.labels, count, len(self.class_names))
        _check_indices("groups", self.groups, count, len(self.group_names))
        _check_names("image", self.keys, at_least=count, at_most=count)
        channels = 1 if self.images.ndim == 3 else 3
        if len(self.mean) != channels or len(self.std) != channels:
            raise ZooError(f"it has {len(self.mean)} means and {len(self.std)} deviations for {channels} channels")
        for mean, std in zip(self.mean, self.std, strict=True):
            check_number("mean", mean, at_least=0, at_most=1)
            check_number("std", std, above=0, at_most=1)
        self._check_apart()

    def _check_apart(self) -> None:
        """Raise :class:`ZooError` if a group is in two splits."""
        seen: dict[int, Split] = {}
        for split, rows in self._rows().items():
            for group in np.unique(self.groups[rows]).tolist():
                if seen.setdefault(group, split) != split:
                    raise ZooError(f"{self.group_names[group]!r} is in its splits {seen[group]} and {split}")

    def _rows(self) -> dict[Split, Integers]:
        ends = np.cumsum(self.sizes).tolist()
        return {s: np.arange(end - size, end) for s, size, end in zip(SPLITS, self.sizes, ends, strict=True)}

    def counts(self) -> dict[Split, dict[str, int]]:
        """The numbers of images and of groups of each split."""
        rows = self._rows()
        return {split: {"images": len(at), "groups": len(np.unique(self.groups[at]))} for split, at in rows.items()}

    def dataset(self) -> Dataset:
        """The images as a dataset, read from memory."""
        keys, labels, source = Names.of(self.keys), self.labels.astype(np.int32), ArrayImages(self.images)
        splits: dict[Split, Sequence[Example]] = {
            split: Examples(keys, labels, rows, source) for split, rows in self._rows().items()
        }
        return Dataset(
            self.name, self.class_names, self.mean, self.std, 1.0, MappingProxyType(splits), None, self.digest
        )

    def save(self, path: str | Path) -> None:
        """Write everything into one file, atomically; the same contents give the same bytes."""
        keys = "".join(f"{key}\n" for key in self.keys).encode()
        arrays: dict[str, npt.NDArray[Any]] = {
            "images": self.images, "labels": self.labels.astype(np.uint16), "groups": self.groups.astype(np.uint32),
            "sizes": np.array(self.sizes, np.int64), "keys": np.frombuffer(keys, np.uint8),
        }  # fmt: skip
        entries = {entry: json.dumps(getattr(self, entry)) for entry in _ENTRIES}
        _FILE.write(path, arrays, {"name": self.name, "provenance": self.provenance, **entries})

    @classmethod
    def load(cls, path: str | Path) -> DatasetFile:
        """The images that :meth:`save` wrote. Raises :class:`ZooError` if the file is damaged or of another kind."""
        arrays, metadata = _FILE.read(path)
        try:
            _check_images(arrays["images"])
            names, groups, mean, std = (_list(metadata[entry], entry) for entry in _ENTRIES)
            return cls(
                metadata["name"], names, groups, mean, std, arrays["images"], arrays["labels"], arrays["groups"],
                _sizes(arrays["sizes"]), _lines(arrays["keys"], len(arrays["images"])), metadata["provenance"],
                metadata["sha256"],
            )  # fmt: skip
        except ZooError as error:
            raise ZooError(f"{path}: {error}; make it again by `fbnetv3 data`") from None


_ENTRIES = ("class_names", "group_names", "mean", "std")


def statistics(images: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the values in [0, 1], one per channel, to four digits."""
    flat = images.reshape(-1, 1 if images.ndim == 3 else images.shape[-1])
    counts = [np.bincount(channel, minlength=256) for channel in flat.T]
    levels = np.arange(256) / 255
    means = [float(count @ levels) / len(flat) for count in counts]
    stds = [math.sqrt(float(n @ (levels - mean) ** 2) / len(flat)) for n, mean in zip(counts, means, strict=True)]
    return tuple(round(mean, 4) for mean in means), tuple(round(max(std, 1e-4), 4) for std in stds)


def _check_images(images: Pixels) -> None:
    good = images.dtype == np.uint8 and (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3))
    if not good or not len(images) or not all(1 <= side <= LARGEST_SIDE for side in images.shape[1:3]):
        raise ZooError(f"its images are of shape {images.shape} and type {images.dtype}")
    if len(images) > _MOST_IMAGES or images.size > LARGEST_IMAGES:
        raise ZooError(f"it has {len(images):,} images of {images.size:,} bytes, more than a file may have")


def _check_indices(name: str, values: Integers, count: int, below: int) -> None:
    if values.shape != (count,):
        raise ZooError(f"its {name} are of shape {values.shape}, not ({count},)")
    if int(values.min()) < 0 or int(values.max()) >= below:
        raise ZooError(f"its {name} are from {values.min()} to {values.max()}, not from 0 to {below - 1}")


def _check_names(what: str, names: Sequence[str], *, at_least: int, at_most: int) -> None:
    if not at_least <= len(names) <= at_most:
        raise ZooError(f"it has {len(names):,} {what} names, not {at_least:,} to {at_most:,}")
    for name in names:
        if not name or len(name) > _LONGEST_NAME or not name.isprintable():
            raise ZooError(f"it has the {what} name {shown(name)}")
    if len(set(names)) < len(names):
        raise ZooError(f"it has {'an' if what == 'image' else 'a'} {what} name twice")


def _list(text: str, entry: str) -> Any:
    value = parse_json(text, entry)
    kind = str if entry.endswith("names") else float
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        raise ZooError(f"its {entry} are no list of {'names' if kind is str else 'numbers'}")
    return tuple(value)


def _sizes(sizes: npt.NDArray[Any]) -> tuple[int, int, int]:
    if sizes.shape != (3,):
        raise ZooError(f"its sizes of splits are of shape {sizes.shape}, not (3,)")
    train, validation, test = map(int, sizes)
    return train, validation, test


def _lines(text: npt.NDArray[Any], count: int) -> tuple[str, ...]:
    if text.dtype != np.uint8 or text.ndim != 1:
        raise ZooError(f"its keys are of shape {text.shape} and type {text.dtype}")
    if np.count_nonzero(text == ord("\n")) != count:
        raise ZooError(f"it has {np.count_nonzero(text == 10):,} keys for {count:,} images")
    try:
        lines = bytes(text).decode().split("\n")
    except UnicodeDecodeError:
        raise ZooError("its keys are not UTF-8") from None
    return tuple(lines[:-1])
