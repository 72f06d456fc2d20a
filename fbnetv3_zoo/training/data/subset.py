"""A part of a dataset to search on: fewer classes and held-out training images, stored as a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ...errors import ZooError, check_whole, first_few, printable
from ...utils.paths import LARGEST_TEXT, composed, read_file
from ...utils.serialization import from_json, in_file, to_json
from .dataset import Dataset, Example, Integers, Split, keys_of, labels_of, take
from .random_split import check_seed


@dataclass(frozen=True, slots=True)
class Subset:
    """Classes, and the keys of the training images held out for validation.

    ``data`` is the name of the original dataset. ``seed`` is that of the choice, and of the splits of data that has
    none of its own.
    """

    data: str
    seed: int
    class_names: tuple[str, ...]
    held_out: tuple[str, ...]

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for field, values in (("class_names", self.class_names), ("held_out", self.held_out)):
            if twice := [repr(printable(value)) for value, count in Counter(values).items() if count > 1]:
                raise ZooError(f"Subset.{field} has {first_few(twice)} twice; remove one")
        if len(self.class_names) < 2 or not self.held_out:
            raise ZooError("Subset needs at least 2 class_names and 1 held_out image")

    def to_json(self) -> str:
        """This subset as JSON text, one item per line, for :meth:`from_json`."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Subset:
        """The subset in ``text``. Raises :class:`ZooError`, which says where an error is."""
        return from_json(cls, text, at_most=LARGEST_TEXT)

    def apply(self, data: Dataset) -> Dataset:
        """``data`` with these classes only, relabeled in its order.

        The held-out images are the validation split, the other training images the train split. The validation split
        of ``data`` becomes the test split, which a search never uses. Raises :class:`ZooError`, which names missing
        classes or images.
        """
        known = set(data.class_names)
        if missing := [repr(printable(name)) for name in self.class_names if name not in known]:
            classes = f"class {missing[0]}" if len(missing) == 1 else f"classes {first_few(missing)}"
            raise ZooError(f"{data.name}: has no {classes}, unlike the subset of {self.data}")
        own_names = set(self.class_names)
        included = np.array([name in own_names for name in data.class_names])
        new_labels = np.where(included, np.cumsum(included) - 1, -1)
        candidates = np.flatnonzero(included[labels_of(data["train"])])
        held_out = self._held_out(data, candidates)
        validation = np.flatnonzero(included[labels_of(data["validation"])])
        splits: dict[Split, Sequence[Example]] = {
            "train": take(data["train"], candidates[~held_out], new_labels),
            "validation": take(data["train"], candidates[held_out], new_labels),
            "test": take(data["validation"], validation, new_labels),
        }
        names = tuple(name for name in data.class_names if name in own_names)
        name = f"{data.name}, {len(names)} of {len(data.class_names)} classes"
        return replace(data, name=name, class_names=names, splits=MappingProxyType(splits))

    def _held_out(self, data: Dataset, candidates: Integers) -> Integers:
        """Mask of the training images ``candidates`` that are held out."""
        remaining = {composed(key) for key in self.held_out}
        held_out = np.zeros(len(candidates), dtype=bool)
        for n, key in enumerate(map(composed, keys_of(data["train"], candidates))):
            if key in remaining:
                held_out[n] = True
                remaining.remove(key)
        if remaining:
            missing = [repr(printable(key)) for key in self.held_out if composed(key) in remaining]
            images = f"image {missing[0]}" if len(missing) == 1 else f"images {first_few(missing)}"
            raise ZooError(f"{data.name}: has no training {images}, unlike the subset of {self.data}")
        return held_out


def choose_subset(data: Dataset, *, classes: int = 200, held_out: int = 10_000, seed: int = 0) -> Subset:
    """Choose classes, and training images to hold out, by ``seed``; as equally many per class as possible.

    Every class keeps at least one training image; classes with a single one are not chosen. Raises :class:`ZooError`
    if the data has too few.
    """
    check_whole("classes", classes, at_least=2)
    check_whole("held_out", held_out, at_most=10**9)
    check_seed(seed)
    labels = labels_of(data["train"])
    counts = np.bincount(labels, minlength=len(data.class_names))
    possible = np.flatnonzero(counts > 1)
    if len(possible) < classes:
        raise ZooError(f"{data.name}: has {len(possible)} classes with 2 or more training images, not {classes}")
    rng = np.random.default_rng(seed)
    selected = np.sort(rng.permutation(possible)[:classes])
    shares = _shares(counts[selected] - 1, held_out, rng, data.name)
    rows = [rng.permutation(np.flatnonzero(labels == c))[:share] for c, share in zip(selected, shares, strict=True)]
    names = tuple(data.class_names[c] for c in selected)
    return Subset(data.name, seed, names, tuple(keys_of(data["train"], np.sort(np.concatenate(rows)))))


def load_subset(path: str | Path) -> Subset:
    """The subset in the JSON file ``path``."""
    data = read_file(path, "a subset")
    try:
        return Subset.from_json(data)
    except ZooError as error:
        raise in_file(path, error) from None


def _shares(room: Integers, total: int, rng: np.random.Generator, name: str) -> Integers:
    """``total`` divided as evenly as possible among classes with at most ``room`` each."""
    if total > room.sum():
        raise ZooError(
            f"{name}: {len(room)} classes have {room.sum() + len(room):,} training images; "
            f"at most {room.sum():,} can be held out, not {total:,}"
        )
    shares = np.zeros_like(room)
    while left := total - int(shares.sum()):
        able = np.flatnonzero(shares < room)
        if left < len(able):
            shares[rng.permutation(able)[:left]] += 1
        else:
            shares[able] = np.minimum(room[able], shares[able] + left // len(able))
    return shares
