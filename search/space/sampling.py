"""Points under constraints: drawing a pool, and saying at once when no point can meet them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fbnetv3_zoo.errors import ZooError

from .base import Codes
from .costs import Constraint, CostModel, Costs, Doubles, check_constraint, violation
from .space import Space

ENUMERABLE = 100_000
"""A space of up to so many points is taken whole instead of being sampled."""
_DRAWS = 16  # times as many points are drawn as wanted, before the rest is made by repair
_STARTS = 256  # random points from which one that meets a constraint is looked for
_PHASES = ((256, 30, np.inf), (24, 60, np.inf), (24, 300, 0.02))
"""The nearest so many points go so many steps, if the nearest is no farther than this."""
_SETTLING = 60  # steps of the last attempt, each the best of all changes of one dimension
_STEPS = 60  # of points that fill up a pool
_FILLINGS, _FILLING_RATE = 12, 0.2  # how often a pool is filled up, and how much of a point is changed for it


class NoCosts:
    """For spaces without free statistics."""

    names: tuple[str, ...] = ()

    def __call__(self, codes: Codes) -> Costs:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Pool:
    """Distinct points, shape (points, dimensions), that meet a constraint, and their costs."""

    codes: Codes
    costs: Costs


def draw_pool(space: Space, costs: CostModel, constraint: Constraint, number: int, rng: np.random.Generator) -> Pool:
    """``number`` distinct points that meet ``constraint``, or all there are in a small space.

    They come from a scrambled Sobol sequence; where fewer than one in sixteen of its points meets the constraint, the
    rest are points moved by small steps until they do. Where hardly any can be found, there may be fewer. Raises
    :class:`ZooError` with the nearest reachable value where none is found.
    """
    check_constraint(constraint, costs.names)
    if space.count() <= ENUMERABLE:
        everything = all_points(space)
        kept = everything[outside(costs, constraint, everything) == 0]
        if not len(kept):
            raise _unreachable(space, costs, constraint, everything)
        kept = kept if len(kept) <= number else kept[np.sort(rng.permutation(len(kept))[:number])]
        return Pool(kept, costs(kept))
    reachable = feasible_points(space, costs, constraint, rng)
    found = [reachable[:0]]
    for _ in range(_DRAWS):
        drawn = space.sample(number, rng)
        found.append(drawn[outside(costs, constraint, drawn) == 0])
        if sum(map(len, found)) >= number or not constraint:
            break
    kept = _filled(space, costs, constraint, distinct(np.concatenate([*found, reachable])), number, rng)[:number]
    return Pool(kept, costs(kept))


def _filled(
    space: Space, costs: CostModel, constraint: Constraint, kept: Codes, number: int, rng: np.random.Generator
) -> Codes:
    """``kept`` and more points, up to ``number``: new ones, and changed ones of ``kept``, moved until they meet it."""
    for turn in range(_FILLINGS):
        lacking = number - len(kept)
        if lacking <= 0:
            break
        if turn == 0:
            starts = space.sample(lacking, rng)
        else:
            starts = space.mutate(kept[rng.integers(0, len(kept), lacking)], rng, _FILLING_RATE)
        moved = descend(space, costs, constraint, starts, rng, steps=_STEPS)
        kept = distinct(np.concatenate([kept, moved[outside(costs, constraint, moved) == 0]]))
    return kept


def all_points(space: Space) -> Codes:
    """Every point of a small space."""
    return np.array(list(itertools.product(*(range(size) for size in space.sizes))), np.int64)


def distinct(codes: Codes) -> Codes:
    """``codes`` without repetitions, each where it first stood."""
    _, first = np.unique(codes, axis=0, return_index=True)
    return codes[np.sort(first)]


def outside(costs: CostModel, constraint: Constraint, codes: Codes) -> Doubles:
    """How far points are from meeting ``constraint``, 0 where they do; shape (points,)."""
    return violation(constraint, costs(codes)) if constraint else np.zeros(len(codes))


def feasible_points(
    space: Space, costs: CostModel, constraint: Constraint, rng: np.random.Generator, *, known: Codes | None = None
) -> Codes:
    """Some points that meet ``constraint``, found from the space's corners, from ``known`` and from random points.

    Raises with the nearest reachable value where there is none: within about a second, unless it is a near miss.
    """
    corners = np.stack([np.zeros_like(space.sizes), space.sizes - 1])
    starts = np.concatenate([corners, space.sample(_STARTS, rng, method="uniform")])
    starts = starts if known is None else np.concatenate([known, starts])
    if not constraint:
        return distinct(starts)
    for kept, steps, near in _PHASES:
        distance = outside(costs, constraint, starts)
        if distance.min() > near:
            break
        starts = starts[np.argsort(distance, kind="stable")[:kept]]
        starts = descend(space, costs, constraint, starts, rng, steps=steps, enough=_STARTS // 4)
        good = starts[outside(costs, constraint, starts) == 0]
        if len(good):
            return distinct(good)
    closest = _settled(space, costs, constraint, starts[outside(costs, constraint, starts).argmin()])
    if outside(costs, constraint, closest)[0] > 0:
        raise _unreachable(space, costs, constraint, closest)
    return closest


def changed(space: Space, code: Codes) -> Codes:
    """All points that differ from ``code``, shape (dimensions,), in one dimension."""
    columns = np.repeat(np.arange(len(space.sizes)), space.sizes - 1)
    made = np.repeat(code[None], len(columns), axis=0)
    values = np.concatenate([np.delete(np.arange(size), at) for size, at in zip(space.sizes, code, strict=True)])
    made[np.arange(len(columns)), columns] = values
    return made


def _settled(space: Space, costs: CostModel, constraint: Constraint, code: Codes) -> Codes:
    """The point that is reached from ``code`` by the change of one dimension that helps most, again and again."""
    best = code[None]
    for _ in range(_SETTLING):
        around = np.concatenate([best, changed(space, best[0])])
        closest = outside(costs, constraint, around).argmin()
        if closest == 0:
            break
        best = around[[closest]]
    return best


def descend(
    space: Space, costs: CostModel, constraint: Constraint, codes: Codes, rng: np.random.Generator, *, steps: int,
    enough: int = 0,
) -> Codes:  # fmt: skip
    """``codes`` after up to ``steps`` changes of one to three dimensions each, kept where they come nearer to meeting
    ``constraint``; ends early when all do, or ``enough`` of them.
    """
    codes = codes.copy()
    distance = outside(costs, constraint, codes)
    rates = np.array([1, 2, 3]) / max(1, int((space.sizes > 1).sum()))
    for _ in range(steps):
        wrong = np.flatnonzero(distance > 0)
        if not len(wrong) or (enough and len(codes) - len(wrong) >= enough):
            break
        tried = space.mutate(codes[wrong], rng, rng.choice(rates, size=len(wrong)))
        nearer = outside(costs, constraint, tried)
        better = nearer < distance[wrong]
        codes[wrong[better]], distance[wrong[better]] = tried[better], nearer[better]
    return codes


def _unreachable(space: Space, costs: CostModel, constraint: Constraint, tried: Codes) -> ZooError:
    nearest = tried[[outside(costs, constraint, tried).argmin()]]
    values = costs(nearest)
    reached = ", ".join(f"{bound.cost} {values[bound.cost][0]:,.10g}" for bound in constraint)
    return ZooError(
        f"no point of space {space.name} meets {','.join(map(str, constraint))}; the nearest reachable has {reached}"
    )
