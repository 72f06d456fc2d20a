"""Dividing labelled images into splits by a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fbnetv3_zoo.errors import ZooError, check_whole
from fbnetv3_zoo.training.data.dataset import SPLITS, Integers, Split


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
    if len(torn := np.flatnonzero(labels[first] != labels)):
        one, other = image(int(first[torn[0]])), image(int(torn[0]))
        raise ZooError(f"{one} and {other}: one image in two classes; remove one of the two")
    rng = np.random.default_rng(seed)
    parts: dict[Split, list[Integers]] = {split: [] for split in SPLITS}
    order = np.argsort(labels, kind="stable")
    for chosen in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        groups = _groups(chosen, first[chosen])
        if len(groups) < 3:
            name, count = classes[int(labels[chosen[0]])], len(groups)
            raise ZooError(f"{name}: has {count} different images; at least 3 are needed, one a split")
        shuffled = [groups[n] for n in rng.permutation(len(groups))]
        held_out = max(1, -(-len(groups) // 5))
        parts["test"].append(_flat(shuffled[:held_out]))
        parts["validation"].append(_flat(shuffled[held_out : 2 * held_out]))
        parts["train"].append(_flat(shuffled[2 * held_out :]))
    return {split: np.concatenate(part) for split, part in parts.items()}


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
