"""All blocks that the networks of a space can have: what a latency table for the space has to hold."""

from __future__ import annotations

import numpy as np

from fbnetv3_zoo.arch.latency import BlockKey, distinct_blocks
from fbnetv3_zoo.errors import ZooError

from .costs import tabulate_codes
from .dimension import Dimension
from .space import Codes, Space

_FIRST = ("kernel_first", "expansion_first", "channels")
_REST = ("kernel_rest", "expansion_rest", "channels")


def space_blocks(space: Space) -> tuple[BlockKey, ...]:
    """Every block of every network of ``space`` at every resolution, each once, sorted; the classifiers too.

    A block is determined by the resolution, the channels of the row before, and the choices of its own row.
    """
    if space.networks is None:
        raise ZooError(f"space {space.name}: searches no networks, so it has no blocks to measure")
    found: set[BlockKey] = set()
    before: list[str] = []
    for names in space.networks.names:
        for choices in (_FIRST, _REST):
            own = [names[short] for short in choices if short in names]
            codes = _all_of(space, {"resolution", *own, *(before if choices is _FIRST else [])})
            found |= set(distinct_blocks(tabulate_codes(space, codes)))
        before = [names["channels"]]
    return tuple(sorted(found))


def _all_of(space: Space, chosen: set[str]) -> Codes:
    """Points with every combination of the ``chosen`` dimensions, and one value of all others."""
    numbers = [np.arange(len(d)) if d.name in chosen else _deepest(d) for d in space.dimensions]
    varied = [n for n, options in enumerate(numbers) if len(options) > 1]
    grid = np.meshgrid(*(numbers[n] for n in varied), indexing="ij")
    codes = np.repeat([[options[0] for options in numbers]], grid[0].size if varied else 1, axis=0)
    for n, values in zip(varied, grid, strict=True):
        codes[:, n] = values.ravel()
    return codes


def _deepest(dimension: Dimension) -> Codes:
    """Of a depth the code of the largest value, so that a row has blocks after its first; else the first code."""
    return np.array([dimension.numbers.argmax() if dimension.name.endswith(".depth") else 0])
