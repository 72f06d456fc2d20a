"""The Pareto front of a cost and the score, by evolution under a ladder of bounds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import check_whole

from ..space import Bound, Codes, Constraint, CostModel, Space, check_constraint
from .evolution import EvolutionConfig, Score, evolve

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ParetoFront:
    """Pareto-optimal points by ``costs`` (lower is better) and ``scores``, cheapest first.

    ``codes`` has shape (points, dimensions).
    """

    codes: Codes
    costs: Doubles
    scores: Doubles


def pareto(
    score: Score, space: Space, costs: CostModel, *, cost: str = "macs", steps: int = 12, within: Constraint = (),
    seeds: Codes | None = None, evolving: EvolutionConfig = EvolutionConfig(), seed: int = 0,
) -> ParetoFront:  # fmt: skip
    """The Pareto front of ``cost`` and score among the points that meet ``within``.

    It consists of the best points under ``steps`` bounds on ``cost``, spaced geometrically from the least to the
    largest reachable value.
    """
    check_whole("pareto: steps", steps, at_least=2)
    check_constraint((Bound(cost, at_most=1.0),), costs.names)
    ends = [
        evolve(partial(_signed, costs, cost, sign), space, costs, [within], seeds=seeds, evolving=evolving, seed=seed)[
            0
        ]
        for sign in (-1.0, 1.0)
    ]
    least, largest = (float(costs(end.codes[:1])[cost][0]) for end in ends)
    ladder = np.geomspace(max(least, 1e-9), max(largest, 1e-9), steps)
    ladder[[0, -1]] = least, largest
    bounds: list[Constraint] = [(*within, Bound(cost, at_most=float(at_most))) for at_most in ladder]
    known = np.concatenate([ends[0].codes[:1], *([] if seeds is None else [seeds])])
    results = evolve(score, space, costs, bounds, seeds=known, evolving=evolving, seed=seed)
    codes = np.concatenate([evolved.codes[:1] for evolved in results])
    spent, scores = costs(codes)[cost], np.array([evolved.scores[0] for evolved in results])
    front = undominated(spent, scores)
    return ParetoFront(codes[front], spent[front], scores[front])


def _signed(costs: CostModel, cost: str, sign: float, codes: Codes) -> Doubles:
    return sign * costs(codes)[cost]


def undominated(costs: Doubles, scores: Doubles) -> npt.NDArray[np.int64]:
    """Indices of the Pareto-optimal points, cheapest first."""
    order = np.lexsort((-scores, costs))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], scores[order]]))[:-1]
    front: npt.NDArray[np.int64] = order[scores[order] > best]
    return front
