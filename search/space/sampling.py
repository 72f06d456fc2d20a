"""Points under constraints: drawing a pool, and detecting quickly that no point can meet them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fbnetv3_zoo.errors import ZooError

from .base import Codes
from .costs import Constraint, CostModel, Costs, Doubles, check_constraint, violation
from .space import Space

ENUMERABLE = 100_000
"""A space of at most this many points is enumerated instead of sampled."""
_DRAWS = 16  # batches of points drawn before the rest is made by repair
_STARTS = 256  # random points from which the search for feasible ones starts
_PHASES = ((256, 30, np.inf), (24, 60, np.inf), (24, 300, 0.02))
"""Number of nearest points, their steps, and the violation of the nearest above which the phase is skipped."""
_SETTLING = 60  # steps of the last attempt, each the best change of one dimension
_STEPS = 60  # repair steps of points that fill up a pool
_FILLINGS, _FILLING_RATE = 12, 0.2  # attempts to fill up a pool, and the mutation rate of the later ones


class NoCosts:
    """The cost model of spaces without free statistics."""

    names: tuple[str, ...] = ()

    def __call__(self, codes: Codes) -> Costs:
        """No costs."""
        return {}


@dataclass(frozen=True)
class Pool:
    """Distinct points, shape (points, dimensions), that meet a constraint, and their costs."""

    codes: Codes
    costs: Costs


def draw_pool(space: Space, costs: CostModel, constraint: Constraint, number: int, rng: np.random.Generator) -> Pool:
    """``number`` distinct points that meet ``constraint``, or all of them in a small space.

    They are drawn from a scrambled Sobol sequence; if fewer than one in sixteen of its points meets the constraint, the
    rest are points repaired by small steps. There may be fewer if feasible points are very rare. Raises
    :class:`ZooError` with the nearest reachable value if there are none.
    """
    check_constraint(constraint, costs.names)
    if space.count() <= ENUMERABLE:
        everything = all_points(space)
        points = everything[outside(costs, constraint, everything) == 0]
        if not len(points):
            raise _unreachable(space, costs, constraint, everything)
        points = points if len(points) <= number else points[np.sort(rng.permutation(len(points))[:number])]
        return Pool(points, costs(points))
    reachable = feasible_points(space, costs, constraint, rng)
    parts = [reachable[:0]]
    for _ in range(_DRAWS):
        drawn = space.sample(number, rng)
        parts.append(drawn[outside(costs, constraint, drawn) == 0])
        if sum(map(len, parts)) >= number or not constraint:
            break
    points = _filled(space, costs, constraint, distinct(np.concatenate([*parts, reachable])), number, rng)[:number]
    return Pool(points, costs(points))


def _filled(
    space: Space, costs: CostModel, constraint: Constraint, points: Codes, number: int, rng: np.random.Generator
) -> Codes:
    """``points`` and more, up to ``number``: repaired new points, then repaired mutations of ``points``."""
    for turn in range(_FILLINGS):
        lacking = number - len(points)
        if lacking <= 0:
            break
        if turn == 0:
            starts = space.sample(lacking, rng)
        else:
            starts = space.mutate(points[rng.integers(0, len(points), lacking)], rng, _FILLING_RATE)
        moved = descend(space, costs, constraint, starts, rng, steps=_STEPS)
        points = distinct(np.concatenate([points, moved[outside(costs, constraint, moved) == 0]]))
    return points


def all_points(space: Space) -> Codes:
    """All points of a small space."""
    return np.array(list(itertools.product(*(range(size) for size in space.sizes))), np.int64)


def distinct(codes: Codes) -> Codes:
    """``codes`` without repetitions, in order of their first occurrence."""
    _, first = np.unique(codes, axis=0, return_index=True)
    return codes[np.sort(first)]


def outside(costs: CostModel, constraint: Constraint, codes: Codes) -> Doubles:
    """How much points violate ``constraint``, shape (points,); 0 if they meet it."""
    return violation(constraint, costs(codes)) if constraint else np.zeros(len(codes))


def feasible_points(
    space: Space, costs: CostModel, constraint: Constraint, rng: np.random.Generator, *, known: Codes | None = None
) -> Codes:
    """Some points that meet ``constraint``, reached from the space's corners, ``known`` and random points.

    Raises with the nearest reachable value if there are none, within about a second unless it is a near miss.
    """
    corners = np.stack([np.zeros_like(space.sizes), space.sizes - 1])
    starts = np.concatenate([corners, space.sample(_STARTS, rng, method="uniform")])
    starts = starts if known is None else np.concatenate([known, starts])
    if not constraint:
        return distinct(starts)
    for survivors, steps, near in _PHASES:
        distance = outside(costs, constraint, starts)
        if distance.min() > near:
            break
        starts = starts[np.argsort(distance, kind="stable")[:survivors]]
        starts = descend(space, costs, constraint, starts, rng, steps=steps, enough=_STARTS // 4)
        good = starts[outside(costs, constraint, starts) == 0]
        if len(good):
            return distinct(good)
    closest = _settled(space, costs, constraint, starts[outside(costs, constraint, starts).argmin()])
    if outside(costs, constraint, closest)[0] > 0:
        raise _unreachable(space, costs, constraint, closest)
    return closest


def changed(space: Space, code: Codes) -> Codes:
    """All points that differ from ``code``, of shape (dimensions,), in one dimension."""
    columns = np.repeat(np.arange(len(space.sizes)), space.sizes - 1)
    codes = np.repeat(code[None], len(columns), axis=0)
    values = np.concatenate([np.delete(np.arange(size), at) for size, at in zip(space.sizes, code, strict=True)])
    codes[np.arange(len(columns)), columns] = values
    return codes


def _settled(space: Space, costs: CostModel, constraint: Constraint, code: Codes) -> Codes:
    """Steepest descent from ``code``: repeats the change of one dimension that reduces the violation most."""
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
    """``codes`` after up to ``steps`` random changes of one to three dimensions, each accepted if it reduces the
    violation of ``constraint``; stops early when all points meet it, or ``enough`` of them.
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
