"""The choices that determine a block of a space's networks: what a latency table for the space has to hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .arch_space import Networks
from .base import Codes
from .dimension import Dimension

_FIRST = ("kernel_first", "expansion_first", "channels")
_REST = ("kernel_rest", "expansion_rest", "channels")


def block_choices(networks: Networks) -> Iterator[set[str]]:
    """The dimensions that determine the first block of a row, and then those of its other blocks; row by row.

    A block is determined by the resolution, the channels of the row before, and the choices of its own row.
    """
    before: list[str] = []
    for names in networks.names:
        for choices in (_FIRST, _REST):
            own = [names[short] for short in choices if short in names]
            yield {"resolution", *own, *(before if choices is _FIRST else [])}
        before = [names["channels"]]


def combinations(dimensions: Sequence[Dimension], chosen: set[str]) -> Codes:
    """Points with every combination of the ``chosen`` dimensions, and one value of all others."""
    numbers = [np.arange(len(d)) if d.name in chosen else _deepest(d) for d in dimensions]
    varied = [n for n, options in enumerate(numbers) if len(options) > 1]
    grid = np.meshgrid(*(numbers[n] for n in varied), indexing="ij")
    codes = np.repeat([[options[0] for options in numbers]], grid[0].size if varied else 1, axis=0)
    for n, values in zip(varied, grid, strict=True):
        codes[:, n] = values.ravel()
    return codes


def _deepest(dimension: Dimension) -> Codes:
    """Of a depth the code of the largest value, so that a row has blocks after its first; else the first code."""
    return np.array([dimension.numbers.argmax() if dimension.name.endswith(".depth") else 0])
