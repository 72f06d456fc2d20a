"""Dividing labelled images into splits by a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ...errors import SHOWN, ZooError, check_whole, first_few
from .dataset import SPLITS, Integers, Split


def split_by_seed(
    labels: Integers, seed: int, *, image: Callable[[int], object], classes: Sequence[object],
    first: Integers | None = None,
) -> dict[Split, Integers]:  # fmt: skip
    """Indices for each split, class by class: a fifth each for test and validation, the rest for training.

    ``first`` says of each image which is the first one of equal contents (None: no two are equal); those stay together.
    Errors name what ``image`` calls an index, and ``classes``.
    """
    check_seed(seed)
    first = np.arange(len(labels)) if first is None else first
    _check_torn(np.flatnonzero(labels[first] != labels), first, image)
    groups = list(_by_class(labels, first))
    if lonely := [(classes[label], len(found)) for label, found in groups if len(found) < 3]:
        raise ZooError(_lonely(lonely))
    rng = np.random.default_rng(seed)
    parts: dict[Split, list[Integers]] = {split: [] for split in SPLITS}
    for _, found in groups:
        shuffled = [found[n] for n in rng.permutation(len(found))]
        held_out = max(1, -(-len(found) // 5))
        parts["test"].append(_flat(shuffled[:held_out]))
        parts["validation"].append(_flat(shuffled[held_out : 2 * held_out]))
        parts["train"].append(_flat(shuffled[2 * held_out :]))
    return {split: np.concatenate(part) for split, part in parts.items()}


def hold_out_by_seed(labels: Integers, seed: int, *, first: Integers) -> tuple[Integers, Integers]:
    """Indices to train on and, a fifth of every class, to validate on; a class of one image is only trained on.

    ``first`` as for :func:`split_by_seed`, but copies in another class stay there.
    """
    check_seed(seed)
    rng = np.random.default_rng(seed)
    own = np.where(labels[first] == labels, first, np.arange(len(labels)))
    train, validation = [], []
    for _, found in _by_class(labels, own):
        shuffled = [found[n] for n in rng.permutation(len(found))]
        held_out = min(-(-len(found) // 5), len(found) - 1)
        validation.append(_flat(shuffled[:held_out]))
        train.append(_flat(shuffled[held_out:]))
    return np.concatenate(train), np.concatenate(validation)


def _check_torn(torn: Integers, first: Integers, image: Callable[[int], object]) -> None:
    """Raise unless no image of one class is equal to one of another, as those numbered ``torn`` are."""
    if len(torn):
        first_pair, *others = [f"{image(int(first[n]))} and {image(int(n))}" for n in torn[:SHOWN]]
        more = f" and {len(torn) - SHOWN:,} more" if len(torn) > SHOWN else ""
        rest = f", and so are {len(torn) - 1:,} other pairs ({'; '.join(others)}{more})" if others else ""
        raise ZooError(f"{first_pair}: one image in two classes{rest}; remove one of the two")


def _lonely(found: Sequence[tuple[object, int]]) -> str:
    """What is said of classes with fewer different images than there are splits."""
    needed = "at least 3 are needed, one a split"
    if len(found) == 1:
        return f"{found[0][0]}: has {found[0][1]} different images; {needed}"
    told = first_few([f"{name} ({count})" for name, count in found])
    return f"{len(found):,} classes have fewer than 3 different images; {needed}: {told}"


def _by_class(labels: Integers, first: Integers) -> Iterator[tuple[int, list[list[int]]]]:
    """Every class that has images, with the groups of its images that are equal."""
    order = np.argsort(labels, kind="stable")
    for chosen in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        yield int(labels[chosen[0]]), _groups(chosen, first[chosen])


def check_seed(seed: object) -> None:
    """Raise unless ``seed`` is a whole number of 32 bits."""
    check_whole("seed", seed, at_least=0, at_most=2**32 - 1)


def _groups(chosen: Integers, first: Integers) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for n, leader in zip(chosen.tolist(), first.tolist(), strict=True):
        found.setdefault(leader, []).append(n)
    return list(found.values())


def _flat(groups: Iterable[list[int]]) -> Integers:
    return np.array([n for group in groups for n in group], dtype=np.int64)
