"""Points under constraints: drawing a pool, and saying at once when no point can meet them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.search.costs import Constraint, CostModel, Costs, Doubles, check_constraint, violation
from fbnetv3_zoo.search.space import Codes, Space

ENUMERABLE = 100_000
"""A space of up to so many points is taken whole instead of being sampled."""
_DRAWS = 16  # times as many points are drawn as wanted, before the rest is made by repair
_STARTS, _STEPS = 256, 300  # of the descent that tells whether a constraint can be met


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
    rest are its points moved by small steps until they do. Raises :class:`ZooError` with the nearest reachable value
    where no point can be found.
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
    kept = distinct(np.concatenate(found))
    if len(kept) < number:
        moved = descend(space, costs, constraint, space.sample(number - len(kept), rng), rng, steps=_STEPS)
        kept = distinct(np.concatenate([kept, moved[outside(costs, constraint, moved) == 0], reachable]))
    kept = kept[:number]
    return Pool(kept, costs(kept))


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


def feasible_points(space: Space, costs: CostModel, constraint: Constraint, rng: np.random.Generator) -> Codes:
    """Some points that meet ``constraint``. Raises with the nearest reachable value where there is none."""
    corners = np.stack([np.zeros_like(space.sizes), space.sizes - 1])
    starts = np.concatenate([corners, space.sample(_STARTS, rng, method="uniform")])
    if not constraint:
        return starts
    moved = descend(space, costs, constraint, starts, rng, steps=_STEPS, enough=_STARTS // 8)
    good = moved[outside(costs, constraint, moved) == 0]
    if not len(good):
        raise _unreachable(space, costs, constraint, moved)
    return distinct(good)


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
