"""Divides labelled images into splits by a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ...errors import SHOWN, ZooError, check_whole, first_few
from .dataset import SPLITS, Integers, Split


def split_by_seed(
    labels: Integers, seed: int, *, image: Callable[[int], object], classes: Sequence[object],
    first: Integers | None = None,
) -> dict[Split, Integers]:  # fmt: skip
    """Indices of each split: in each class, a fifth each for test and validation, the rest for training.

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
        held_out = max(1, -(-len(images) // 5))
        parts["test"].append(_flat(shuffled[:held_out]))
        parts["validation"].append(_flat(shuffled[held_out : 2 * held_out]))
        parts["train"].append(_flat(shuffled[2 * held_out :]))
    return {split: np.concatenate(part) for split, part in parts.items()}


def hold_out_by_seed(labels: Integers, seed: int, *, first: Integers) -> tuple[Integers, Integers]:
    """Indices for training and validation, with a fifth of each class for validation; single images are for training.

    ``first`` is as in :func:`split_by_seed`, but equal images in different classes are allowed.
    """
    check_seed(seed)
    rng = np.random.default_rng(seed)
    own = np.where(labels[first] == labels, first, np.arange(len(labels)))
    train, validation = [], []
    for _, images in _by_class(labels, own):
        shuffled = [images[n] for n in rng.permutation(len(images))]
        held_out = min(-(-len(images) // 5), len(images) - 1)
        validation.append(_flat(shuffled[:held_out]))
        train.append(_flat(shuffled[held_out:]))
    return np.concatenate(train), np.concatenate(validation)


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
        return f"{classes[0][0]}: has {classes[0][1]} different images; {needed}"
    counts = first_few([f"{name} ({count})" for name, count in classes])
    return f"{len(classes):,} classes have fewer than 3 different images; {needed}: {counts}"


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
