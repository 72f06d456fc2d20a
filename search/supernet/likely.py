"""Single networks of a supernet: the cheapest, the dearest, the most probable one under a bound, and drawn ones.

Widths tie a layer to the one before; along that chain the best network is found exactly, by dynamic programming.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.search.costs import Bound
from fbnetv3_zoo.search.supernet.expected import CostTables
from fbnetv3_zoo.search.supernet.layers import Codes, LayerSpace, Places

Doubles = npt.NDArray[np.float64]
Code = tuple[int, ...]
_STEPS = 60
_TRIES = 1_000


def best_code(tables: CostTables, log_probabilities: Sequence[Doubles], price: float) -> Code:
    """The point with the largest log-probability - ``price`` x cost; ``log_probabilities``: an array a dimension."""
    found = [_best_at(tables, log_probabilities, price, side) for side in range(len(tables.space.resolutions))]
    return max(found)[1]


def _best_at(tables: CostTables, logs: Sequence[Doubles], price: float, side: int) -> tuple[float, Code]:
    """The best value and point at one resolution: layer by layer, the best way to every output width."""
    space, none = tables.space, np.zeros(1)
    worth = np.zeros(1)  # of the best way to every width so far
    ways: list[list[int]] = [[0] * len(space.dimensions)]
    if len(space.resolutions) > 1:
        worth, ways = worth + logs[0][side], [[side, *ways[0][1:]]]
    for table, where in zip(tables.layers, space.places, strict=True):
        candidate, width, expansion = (none if at is None else logs[at] for at in where)
        scores = candidate[:, None, None, None] + worth[:, None, None] + expansion[:, None] + width
        scores = scores - price * table[..., side]  # (candidates, input widths, expansions, output widths)
        flat = scores.reshape(-1, scores.shape[-1])
        best = flat.argmax(0)
        worth = flat.max(0)
        ways = [_extended(ways, where, scores.shape, int(at), out) for out, at in enumerate(best)]
    worth = worth - price * tables.classifier[:, side]
    last = int(worth.argmax())
    return float(worth[last]), tuple(ways[last])


def _extended(ways: list[list[int]], where: Places, shape: tuple[int, ...], at: int, out: int) -> list[int]:
    candidate, before, expansion = (int(n) for n in np.unravel_index(at, shape[:3]))
    way = list(ways[before])
    for place, chosen in zip(where, (candidate, out, expansion), strict=True):
        if place is not None:
            way[place] = chosen
    return way


def extremes(tables: CostTables) -> tuple[tuple[float, Code], tuple[float, Code]]:
    """Cost and point of the cheapest and of the dearest network."""
    flat = [np.zeros(len(d)) for d in tables.space.dimensions]
    codes = best_code(tables, flat, 1.0), best_code(tables, flat, -1.0)
    low, high = ((float(tables.of_codes(_row(code))[0]), code) for code in codes)
    return low, high


def check_target(tables: CostTables, target: Bound) -> None:
    """Raise where no network of the space meets ``target``, with what is nearest to it."""
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
    """The most probable point (with a target: of those that meet its upper bound, as far as one price finds it).

    The price of cost rises until the best point of probability and cost together is cheap enough: the Lagrangian
    relaxation of the bound, whose points are the most probable ones of their cost.
    """
    logs = [np.log(np.maximum(p, 1e-30)) for p in probabilities]
    free = best_code(tables, logs, 0.0)
    if target is None or _cost(tables, free) <= target.at_most:
        return free
    (least, cheapest), _ = extremes(tables)
    if least > target.at_most:
        check_target(tables, target)
    low, high, found = 0.0, 1.0 / max(target.at_most, 1e-12), cheapest
    for _ in range(_STEPS):  # until the price is high enough
        if _cost(tables, code := best_code(tables, logs, high)) <= target.at_most:
            found = code
            break
        high *= 4
    for _ in range(_STEPS):
        middle = (low + high) / 2
        code = best_code(tables, logs, middle)
        if _cost(tables, code) <= target.at_most:
            high, found = middle, code
        else:
            low = middle
    return found


def draw(
    tables: CostTables, probabilities: Sequence[Doubles], count: int, rng: np.random.Generator, *,
    target: Bound | None = None,
) -> Codes:  # fmt: skip
    """Up to ``count`` different points drawn from the distribution, of those that meet ``target``.

    Fewer where 1,000 draws for each wanted one did not give more.
    """
    found: dict[Code, None] = {}
    for _ in range(_TRIES if count else 0):
        codes = np.stack([rng.choice(len(p), size=count, p=p / p.sum()) for p in probabilities], axis=1)
        costs = tables.of_codes(codes)
        good = np.ones(len(codes), bool) if target is None else (costs <= target.at_most) & (costs >= target.at_least)
        found |= dict.fromkeys(map(tuple, codes[good].tolist()))
        if len(found) >= count:
            break
    return np.array(list(found)[:count], np.int64).reshape(-1, len(tables.space.dimensions))


def uniform(space: LayerSpace) -> list[Doubles]:
    """Every value of every dimension as likely."""
    return [np.full(len(d), 1 / len(d)) for d in space.dimensions]


def _row(code: Code) -> Codes:
    return np.array([code], np.int64)


def _cost(tables: CostTables, code: Code) -> float:
    return float(tables.of_codes(_row(code))[0])
