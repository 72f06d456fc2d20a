"""What is decided by a seed and a name alone, so that adding a name changes nothing for the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ..dataset import Split

_TRAINED, _VALIDATED = 0.6, 0.8


def draw(seed: int, name: str) -> float:
    """A number in [0, 1) for ``name``."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def split_names(names: Iterable[str], seed: int) -> dict[str, Split]:
    """The split of every one of three or more names: 60 % train, 20 % each validation and test.

    Each split has at least one: of few names, those that were drawn closest to an empty split are moved to it.
    """
    drawn = sorted((draw(seed, name), name) for name in set(names))
    splits: dict[str, Split] = {
        name: "train" if at < _TRAINED else "validation" if at < _VALIDATED else "test" for at, name in drawn
    }
    first, *_, last = order = [name for _, name in drawn]
    splits |= {first: "train", last: "test"}
    if "validation" not in splits.values():
        trained = [name for name in order[1:-1] if splits[name] == "train"]
        splits[trained[-1] if trained else order[1]] = "validation"
    return splits
