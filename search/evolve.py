"""Stage 3, predictor-based evolutionary search: an adaptive genetic algorithm under constraints (section 3.3).

Crossover and mutation probabilities adapt to fitness (M. Srinivas and L. M. Patnaik, "Adaptive probabilities of
crossover and mutation in genetic algorithms", 1994): the best are preserved, the rest explore.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import check_number, check_whole
from fbnetv3_zoo.search.costs import Constraint, CostModel, check_constraint
from fbnetv3_zoo.search.pool import distinct, feasible_points, outside
from fbnetv3_zoo.search.space import Codes, Space

Doubles = npt.NDArray[np.float64]
Score = Callable[[Codes], Doubles]
"""Scores of points, shape (points,): higher is better. What a predictor says, for one."""


@dataclass(frozen=True, slots=True)
class Evolving:
    """How stage 3 proceeds.

    ``population`` points, of which the best survive every generation; at most ``evaluations`` points are scored for a
    constraint. When the best score has not risen for ``patience`` generations, all points that differ from the best in
    one dimension, and the most promising that differ in two, are tried; where that does not help, it ends. ``crossover``
    and ``mutation`` are the largest probabilities of the adaptive rule (its k1 = k3 and k2 = k4); since the best survive
    anyway, they cross at half the probability instead of not at all.
    """

    population: int = 64
    evaluations: int = 8000
    patience: int = 5
    crossover: float = 1.0
    mutation: float = 0.5

    def __post_init__(self) -> None:
        check_whole("Evolving.population", self.population, at_least=4)
        check_whole("Evolving.evaluations", self.evaluations, at_least=self.population)
        check_whole("Evolving.patience", self.patience)
        for field in ("crossover", "mutation"):
            check_number(f"Evolving.{field}", getattr(self, field), above=0, at_most=1)


@dataclass(frozen=True)
class Evolved:
    """What evolution under one constraint found: ``codes`` (points, dimensions) with ``scores``, best first.

    ``progress`` has (points scored so far, best score) after every generation.
    """

    constraint: Constraint
    codes: Codes
    scores: Doubles
    progress: tuple[tuple[int, float], ...]


def evolve(
    score: Score, space: Space, costs: CostModel, constraints: Sequence[Constraint], *, seeds: Codes,
    evolving: Evolving = Evolving(), seed: int = 0,
) -> list[Evolved]:  # fmt: skip
    """The best points under each of ``constraints``, beginning with those of ``seeds`` that meet it.

    Later constraints begin with what the earlier ones found as well. Every point returned meets its constraint: children
    that do not are moved towards their parent until they do. Raises :class:`ZooError` with the nearest reachable
    value for a constraint that nothing meets, before any is searched.
    """
    rng = np.random.default_rng([seed, 3])
    starts = []
    for constraint in constraints:
        check_constraint(constraint, costs.names)
        starts.append(feasible_points(space, costs, constraint, rng))
    found: list[Evolved] = []
    for constraint, start in zip(constraints, starts, strict=True):
        known = np.concatenate([seeds.reshape(-1, len(space.dimensions)), *(evolved.codes for evolved in found)])
        fitting = known[outside(costs, constraint, known) == 0]
        run = _Evolution(score, space, costs, constraint, evolving, rng)
        found.append(run.run(distinct(np.concatenate([fitting, start]))))
    return found


class _Evolution:
    def __init__(
        self, score: Score, space: Space, costs: CostModel, constraint: Constraint, how: Evolving,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.score, self.space, self.costs, self.constraint = score, space, costs, constraint
        self.how, self.rng = how, rng
        self.free = np.flatnonzero(space.sizes > 1)
        self.known: dict[bytes, float] = {}

    def run(self, start: Codes) -> Evolved:
        """Generations until nothing rises any more, with an exchange around the best whenever they stagnate."""
        size = self.how.population
        codes, scores = self._survivors(start[: 4 * size], start[:0], np.zeros(0))
        progress = [(len(self.known), float(scores[0]))]
        waited = 0
        while len(self.known) < self.how.evaluations:
            best, before = scores[0], len(self.known)
            stagnant = waited >= self.how.patience
            new = self._exchanged(codes[0], scores[0]) if stagnant else self._children(codes, scores)
            codes, scores = self._survivors(new, codes, scores)
            progress.append((len(self.known), float(scores[0])))
            if stagnant and scores[0] <= best:
                break
            waited = 0 if scores[0] > best else waited + 1
        return Evolved(self.constraint, codes, scores, tuple(progress))

    def _survivors(self, new: Codes, codes: Codes, scores: Doubles) -> tuple[Codes, Doubles]:
        """The best of ``codes`` and of what is new in ``new``."""
        fresh, fresh_scores = self._scored(new)
        return _fittest(np.concatenate([codes, fresh]), np.concatenate([scores, fresh_scores]), self.how.population)

    def _scored(self, codes: Codes) -> tuple[Codes, Doubles]:
        """The points of ``codes`` that have no score yet, as many as may still get one, and their scores."""
        fresh = [code for code in distinct(codes) if code.tobytes() not in self.known]
        picked = np.array(fresh[: self.how.evaluations - len(self.known)], np.int64).reshape(-1, codes.shape[1])
        if not len(picked):
            return picked, np.zeros(0)
        scores = self.score(picked)
        self.known |= {code.tobytes(): float(value) for code, value in zip(picked, scores, strict=True)}
        return picked, scores

    def _children(self, codes: Codes, scores: Doubles) -> Codes:
        """Crossed and mutated points: the fitter the parents, the less is changed."""
        number, rng = self.how.population, self.rng
        mother, father = _tournament(scores, number, rng), _tournament(scores, number, rng)
        ease = np.minimum(1, (scores[0] - scores) / max(scores[0] - scores.mean(), 1e-12))
        crossing = rng.random(number) < self.how.crossover * np.maximum(0.5, np.minimum(ease[mother], ease[father]))
        other = crossing[:, None] & (rng.random((number, codes.shape[1])) < 0.5)
        children = np.where(other, codes[father], codes[mother])
        changes = 1 + 6 * self.how.mutation * ease[mother] * rng.random(number)
        return self._inside(self.space.mutate(children, rng, changes / max(1, len(self.free))), codes[mother])

    def _inside(self, children: Codes, parents: Codes) -> Codes:
        """``children``; those outside the constraint take on ever more of their parent until they are inside."""
        wrong = np.flatnonzero(outside(self.costs, self.constraint, children) > 0)
        if not len(wrong):
            return children
        rank = self.rng.random((len(wrong), children.shape[1]))
        mixed = np.stack([np.where(rank < share, parents[wrong], children[wrong]) for share in _SHARES], axis=1)
        good = outside(self.costs, self.constraint, mixed.reshape(-1, children.shape[1])) == 0
        good = good.reshape(len(wrong), len(_SHARES))
        kept = children.copy()
        kept[wrong] = np.where(good.any(1)[:, None], mixed[np.arange(len(wrong)), good.argmax(1)], parents[wrong])
        return kept

    def _exchanged(self, code: Codes, score: float) -> Codes:
        """Points that differ from ``code`` in one or two dimensions, those with the best prospects.

        All changes of one dimension are scored; the gains of two together are taken as their sum.
        """
        single = np.concatenate([_changed(code, column, int(self.space.sizes[column])) for column in self.free])
        self._scored(single)
        gain = np.array([self.known.get(one.tobytes(), -np.inf) - score for one in single])
        order = np.argsort(-gain, kind="stable")[:100]
        first, second = np.triu_indices(len(order), 1)
        ranked = np.argsort(-(gain[order[first]] + gain[order[second]]), kind="stable")
        pairs = np.stack([order[first[ranked]], order[second[ranked]]], 1)
        made = np.where(single[pairs[:, 0]] != code, single[pairs[:, 0]], single[pairs[:, 1]])
        candidates = np.concatenate([single, made])
        return candidates[outside(self.costs, self.constraint, candidates) == 0][: 4 * self.how.population]


_SHARES = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)


def _changed(code: Codes, column: int, size: int) -> Codes:
    """``code`` with every other value of one dimension."""
    changed = np.repeat(code[None], size - 1, axis=0)
    changed[:, column] = [value for value in range(size) if value != code[column]]
    return changed


def _tournament(scores: Doubles, number: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Indices of the better of two points drawn at random, so many times."""
    drawn = rng.integers(0, len(scores), (2, number))
    return np.where(scores[drawn[0]] >= scores[drawn[1]], drawn[0], drawn[1])


def _fittest(codes: Codes, scores: Doubles, number: int) -> tuple[Codes, Doubles]:
    order = np.argsort(-scores, kind="stable")[:number]
    return codes[order], scores[order]
