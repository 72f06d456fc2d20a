"""Recognizes images that a network was trained on, by digests of some of them in its file."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np

from ...errors import ZooError
from ...utils.paths import composed
from .dataset import Example, keys_of

SAMPLE = 32
"""Number of training images whose digests are kept."""

_AT_ONCE = 1 << 16
_DIGITS = 16  # of a digest in hexadecimal


def sample_of(examples: Sequence[Example]) -> tuple[str, ...]:
    """Digests of the names and pixels of at most :data:`SAMPLE` of the ``examples``, chosen by their names.

    Images that cannot be read are left out.
    """
    chosen = heapq.nsmallest(SAMPLE, _names(examples))
    digests = (_pixels(examples[n]) for _, n in chosen)
    return tuple(name + pixels for (name, _), pixels in zip(chosen, digests, strict=True) if pixels)


def seen_among(sample: Sequence[str], examples: Sequence[Example]) -> int:
    """Number of images of a ``sample`` that are among ``examples``: with the same name in the data, and pixels."""
    if not sample:
        return 0
    wanted, names = set(sample), {one[:_DIGITS] for one in sample}
    return len({name + _pixels(examples[n]) for name, n in _names(examples) if name in names} & wanted)


def _names(examples: Sequence[Example]) -> Iterator[tuple[str, int]]:
    """The digest of each key, and its position."""
    for start in range(0, len(examples), _AT_ONCE):
        stop = min(start + _AT_ONCE, len(examples))
        for n, key in enumerate(keys_of(examples, np.arange(start, stop)), start):
            yield _digest(composed(key).encode(errors="surrogateescape")), n


def _pixels(example: Example) -> str:
    """The digest of the pixels; "" if the image cannot be read."""
    try:
        image = example.read()
    except ZooError:
        return ""
    return _digest(f"{image.mode} {image.size} ".encode() + image.tobytes())


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=_DIGITS // 2).hexdigest()
