"""Divides labeled images into splits by a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ...errors import SHOWN, ZooError, check_number, check_whole, first_few
from .dataset import SPLITS, Integers, Split

_FIFTH = 0.2


def split_by_seed(
    labels: Integers, seed: int, *, image: Callable[[int], object], classes: Sequence[object],
    first: Integers | None = None, val_split: float | None = None,
) -> dict[Split, Integers]:  # fmt: skip
    """Indices of each split: in each class, a fifth for test, ``val_split`` (None: a fifth) for validation, the rest
    for training.

    ``first`` has for each image the index of the first one with equal contents (None: all differ); equal images stay
    together. ``image`` (called with an index) and ``classes`` give the names for errors.
    """
    check_seed(seed)
    first = np.arange(len(labels)) if first is None else first
    _check_torn(np.flatnonzero(labels[first] != labels), first, image)
    groups = list(_by_class(labels, first))
    if too_small := [(classes[label], len(images)) for label, images in groups if len(images) < 3]:
        raise ZooError(_too_small(too_small))
    rng = np.random.default_rng(seed)
    parts: dict[Split, list[Integers]] = {split: [] for split in SPLITS}
    for _, images in groups:
        shuffled = [images[n] for n in rng.permutation(len(images))]
        tested = _share(len(images), _FIFTH)
        end = min(tested + max(1, _share(len(images), val_split)), len(images) - 1)
        parts["test"].append(_flat(shuffled[:tested]))
        parts["validation"].append(_flat(shuffled[tested:end]))
        parts["train"].append(_flat(shuffled[end:]))
    return {split: np.concatenate(part) for split, part in parts.items()}


def hold_out_by_seed(
    labels: Integers, seed: int, *, first: Integers, val_split: float | None = None
) -> tuple[Integers, Integers]:
    """Indices for training and validation, with the share ``val_split`` (None: a fifth) of each class for validation.

    Single images are for training. ``first`` is as in :func:`split_by_seed`, but equal images in different classes are
    allowed.
    """
    check_seed(seed)
    rng = np.random.default_rng(seed)
    own = np.where(labels[first] == labels, first, np.arange(len(labels)))
    train, validation = [], []
    for _, images in _by_class(labels, own):
        shuffled = [images[n] for n in rng.permutation(len(images))]
        held_out = min(_share(len(images), val_split), len(images) - 1)
        validation.append(_flat(shuffled[:held_out]))
        train.append(_flat(shuffled[held_out:]))
    return np.concatenate(train), np.concatenate(validation)


def _share(images: int, share: float | None) -> int:
    """The share (None: a fifth) of a number of images, rounded up."""
    return math.ceil(images * (_FIFTH if share is None else share) - 1e-9)


def check_val_split(val_split: object) -> None:
    """Raise :class:`ZooError` unless ``val_split`` is None or a share below one."""
    if val_split is not None:
        check_number("val_split", val_split, above=0, below=1)


def _check_torn(torn: Integers, first: Integers, image: Callable[[int], object]) -> None:
    """Raise :class:`ZooError` if any images ``torn`` are equal to one of another class."""
    if len(torn):
        first_pair, *others = [f"{image(int(first[n]))} and {image(int(n))}" for n in torn[:SHOWN]]
        more = f" and {len(torn) - SHOWN:,} more" if len(torn) > SHOWN else ""
        rest = f", and so are {len(torn) - 1:,} other pairs ({'; '.join(others)}{more})" if others else ""
        raise ZooError(f"{first_pair}: the same image in two classes{rest}; remove one of the two")


def _too_small(classes: Sequence[tuple[object, int]]) -> str:
    """The message about classes with fewer different images than there are splits."""
    needed = "at least 3 are needed, one per split"
    if len(classes) == 1:
        images = "one image" if classes[0][1] == 1 else f"{classes[0][1]} different images"
        return f"{classes[0][0]}: has {images}; {needed}: add some, or leave the class out"
    counts = first_few([f"{name} ({count})" for name, count in classes])
    return f"{len(classes):,} classes have fewer than 3 different images; {needed} (add some): {counts}"


def _by_class(labels: Integers, first: Integers) -> Iterator[tuple[int, list[list[int]]]]:
    """Every class that has images, with its images in groups of equal ones."""
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        yield int(labels[members[0]]), _groups(members, first[members])


def check_seed(seed: object) -> None:
    """Raise :class:`ZooError` unless ``seed`` is an unsigned 32-bit integer."""
    check_whole("seed", seed, at_least=0, at_most=2**32 - 1)


def _groups(members: Integers, first: Integers) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for n, leader in zip(members.tolist(), first.tolist(), strict=True):
        groups.setdefault(leader, []).append(n)
    return list(groups.values())


def _flat(groups: Iterable[list[int]]) -> Integers:
    return np.array([n for group in groups for n in group], dtype=np.int64)
