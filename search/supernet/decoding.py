"""Decoding of a supernet: the cheapest, the dearest, the most probable network under a bound, and random ones.

Widths link a layer to the one before; the best network along that chain is computed exactly, by dynamic programming.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import ZooError

from ..space import Bound, Codes
from .expected_cost import CostTables
from .space import LayerSpace

Doubles = npt.NDArray[np.float64]
Code = tuple[int, ...]
_STEPS = 60
_TRIES = 1_000
_NATS = 1e-9
"""Tolerance for rounding errors of a log-probability, and relative to its value, of a cost."""


class _Way(NamedTuple):
    """A network of a chain: its log-probability and cost, and (candidate, expansion, width) of every layer."""

    worth: float
    cost: float
    steps: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Chain:
    """The networks of one resolution as paths through the layers.

    ``worths``: log-probabilities, an array for each layer, of shape (candidates, expansions, output widths); ``costs``:
    the same with a first axis of input widths; ``last``: costs of the classifier, shape (output widths,). ``worth`` and
    ``cost`` are constants of every network.
    """

    side: int
    worth: float
    cost: float
    worths: tuple[Doubles, ...]
    costs: tuple[Doubles, ...]
    last: Doubles

    def rest(self, price: float, weight: float = 1.0) -> list[Doubles]:
        """The largest ``weight`` x worth - ``price`` x cost of the remaining layers, by layers done and width."""
        best = [-price * self.last]
        for worth, cost in zip(reversed(self.worths), reversed(self.costs), strict=True):
            best.append((weight * worth - price * cost + best[-1]).max(axis=(1, 2, 3)))
        return best[::-1]

    def best(self, price: float) -> _Way:
        """The path with the largest worth - ``price`` x cost."""
        worth, cost, width, steps = self.worth, self.cost, 0, []
        for worths, costs, rest in zip(self.worths, self.costs, self.rest(price)[1:], strict=True):
            values = worths - price * costs[width] + rest
            steps.append(np.unravel_index(int(values.argmax()), values.shape))
            worth, cost, width = worth + worths[steps[-1]], cost + costs[width][steps[-1]], int(steps[-1][2])
        return _Way(float(worth), float(cost + self.last[width]), np.array(steps, np.int64))

    def best_within(self, bound: float, price: float, floor: float) -> _Way | None:
        """The path of the largest worth with a cost of at most ``bound``; None if no worth exceeds ``floor``.

        All paths are followed layer by layer, except those dominated by another one (to the same width, no dearer and
        worth as much), those that cannot become cheap enough, and those that cannot exceed ``floor`` even in the
        relaxation of the bound: worth - ``price`` x (cost - ``bound``).
        """
        rest, least = self.rest(price), self.rest(1.0, 0.0)
        worth, cost, width = np.array([self.worth]), np.array([self.cost]), np.zeros(1, np.int64)
        steps = np.zeros((1, 0, 3), np.int64)
        for number, (worths, costs) in enumerate(zip(self.worths, self.costs, strict=True), start=1):
            all_worths, all_costs = worth[:, None, None, None] + worths, cost[:, None, None, None] + costs[width]
            hopeful = all_worths - price * (all_costs - bound) + rest[number] > floor + _NATS
            hopeful &= all_costs - least[number] <= bound + _NATS * abs(bound)
            at = np.nonzero(hopeful)
            kept = _ahead(all_worths[at], all_costs[at], at[3])
            before, *chosen = (places[kept] for places in at)
            worth, cost, width = all_worths[at][kept], all_costs[at][kept], chosen[-1]
            steps = np.concatenate([steps[before], np.stack(chosen, axis=-1)[:, None]], axis=1)
        cost = cost + self.last[width]
        good = np.flatnonzero((cost <= bound) & (worth > floor))
        if not len(good):
            return None
        best = good[worth[good].argmax()]
        return _Way(float(worth[best]), float(cost[best]), steps[best])


def _ahead(worth: Doubles, cost: Doubles, width: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The indices of paths that are worth more than all others of their width that are no dearer."""
    order = np.lexsort((-worth, cost, width))
    kept = []
    for group in np.split(order, np.flatnonzero(np.diff(width[order])) + 1):
        record = np.maximum.accumulate(worth[group])
        kept.append(group[np.diff(record, prepend=-np.inf) > 0])
    return np.concatenate(kept)


def _chains(tables: CostTables, logs: Sequence[Doubles], sign: float = 1.0) -> list[_Chain]:
    """The chain of every resolution, with costs multiplied by ``sign``."""
    space, none, worths = tables.space, np.zeros(1), []
    for where in space.places:
        candidate, width, expansion = (none if at is None else logs[at] for at in where)
        worths.append(candidate[:, None, None] + expansion[:, None] + width)
    sides = logs[0] if len(space.resolutions) > 1 else none
    return [
        _Chain(
            side, float(worth), sign * tables.constant, tuple(worths),
            tuple(sign * table[..., side].swapaxes(0, 1) for table in tables.layers), sign * tables.classifier[:, side],
        )
        for side, worth in enumerate(sides)
    ]  # fmt: skip


def _best(chains: Sequence[_Chain], price: float) -> tuple[_Way, _Chain]:
    """The best path at ``price``, and its chain."""
    ways = [(chain.best(price), chain) for chain in chains]
    return max(ways, key=lambda found: found[0].worth - price * found[0].cost)


def _code(space: LayerSpace, way: _Way, chain: _Chain) -> Code:
    code = [chain.side] * len(space.dimensions)  # the first is the resolution where there are several
    for where, (candidate, expansion, width) in zip(space.places, way.steps.tolist(), strict=True):
        for place, chosen in zip(where, (candidate, width, expansion), strict=True):
            if place is not None:
                code[place] = chosen
    return tuple(code)


def best_code(tables: CostTables, log_probabilities: Sequence[Doubles], price: float) -> Code:
    """The point with the largest log-probability - ``price`` x cost; ``log_probabilities``: one array a dimension."""
    return _code(tables.space, *_best(_chains(tables, log_probabilities), price))


def extremes(tables: CostTables) -> tuple[tuple[float, Code], tuple[float, Code]]:
    """Cost and point of the cheapest and of the dearest network."""
    flat = [np.zeros(len(d)) for d in tables.space.dimensions]
    codes = best_code(tables, flat, 1.0), best_code(tables, flat, -1.0)
    low, high = ((float(tables.of_codes(_row(code))[0]), code) for code in codes)
    return low, high


def check_target(tables: CostTables, target: Bound) -> None:
    """Raise if no network of the space meets ``target``, naming the nearest reachable cost."""
    (low, _), (high, _) = extremes(tables)
    if low > target.at_most:
        raise ZooError(
            f"target {target}: the cheapest network of space {tables.space.name} has {low:,.10g} {target.cost}; "
            "raise the target, or widen the space"
        )
    if target.at_least > high:
        raise ZooError(
            f"target {target}: the dearest network of space {tables.space.name} has {high:,.10g} {target.cost}; "
            "lower the target, or widen the space"
        )


def likeliest(tables: CostTables, probabilities: Sequence[Doubles], target: Bound | None) -> Code:
    """The most probable point; with a target, among those that meet the bound violated by the most probable one.

    If ``target`` has two bounds that are close together, the result may violate the other one. Raises
    :class:`ZooError` if all networks lie beyond one of them.
    """
    logs = [np.log(np.maximum(p, 1e-30)) for p in probabilities]
    free = best_code(tables, logs, 0.0)
    if target is None or target.contains(cost := _cost(tables, free)):
        return free
    check_target(tables, target)
    sign, bound = (1.0, target.at_most) if cost > target.at_most else (-1.0, -target.at_least)
    chains = _chains(tables, logs, sign)
    price, (found, of) = _relaxed(chains, bound)
    for chain in chains:
        if (way := chain.best_within(bound, price, found.worth)) is not None:
            found, of = way, chain
    return _code(tables.space, found, of)


def _relaxed(chains: Sequence[_Chain], bound: float) -> tuple[float, tuple[_Way, _Chain]]:
    """The least price at which the best path meets ``bound`` (Lagrangian relaxation), and that path."""
    low, high = 0.0, 1.0 / max(abs(bound), 1e-12)
    for _ in range(_STEPS):
        if (found := _best(chains, high))[0].cost <= bound:
            break
        high *= 4
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if (way := _best(chains, middle))[0].cost <= bound:
            high, found = middle, way
        else:
            low = middle
    return high, found


def draw(
    tables: CostTables, probabilities: Sequence[Doubles], count: int, rng: np.random.Generator, *,
    target: Bound | None = None,
) -> Codes:  # fmt: skip
    """Up to ``count`` different points drawn from the distribution, among those that meet ``target``.

    There are fewer if 1,000 draws for each did not give more.
    """
    points: dict[Code, None] = {}
    for _ in range(_TRIES if count else 0):
        codes = np.stack([rng.choice(len(p), size=count, p=p / p.sum()) for p in probabilities], axis=1)
        costs = tables.of_codes(codes)
        good = np.ones(len(codes), bool) if target is None else (costs <= target.at_most) & (costs >= target.at_least)
        points |= dict.fromkeys(map(tuple, codes[good].tolist()))
        if len(points) >= count:
            break
    return np.array(list(points)[:count], np.int64).reshape(-1, len(tables.space.dimensions))


def uniform(space: LayerSpace) -> list[Doubles]:
    """Uniform probabilities for every dimension."""
    return [np.full(len(d), 1 / len(d)) for d in space.dimensions]


def _row(code: Code) -> Codes:
    return np.array([code], np.int64)


def _cost(tables: CostTables, code: Code) -> float:
    return float(tables.of_codes(_row(code))[0])
