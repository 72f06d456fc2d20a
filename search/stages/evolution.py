"""Stage 3, predictor-based evolutionary search: an adaptive genetic algorithm under constraints (section 3.3).

Crossover and mutation probabilities adapt to fitness (M. Srinivas and L. M. Patnaik, "Adaptive probabilities of
crossover and mutation in genetic algorithms", 1994): the best are preserved, the rest explore.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import ZooError, check_flag, check_number, check_whole

from ..space import (
    Codes,
    Constraint,
    CostModel,
    Space,
    all_points,
    changed,
    check_constraint,
    descend,
    distinct,
    feasible_points,
    outside,
    violation,
)

Doubles = npt.NDArray[np.float64]
Score = Callable[[Codes], Doubles]
"""Scores of points, shape (points,), higher is better; for example a predictor's."""

_OFFSPRING = 16  # children created for each one picked by the linear fit
_FITTED = 400  # best points that the linear fit uses
_MOVES = 150  # repair steps of points that violate a constraint
_SHARES = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)  # of the parent in a child repaired by it


@dataclass(frozen=True, slots=True)
class EvolutionConfig:
    """How stage 3 proceeds.

    The best ``population`` points survive every generation; at most ``evaluations`` points are scored for a constraint.
    Half of a generation is picked from many children by a linear fit to the best points scored so far; the other half
    are random children. When the best score has not improved for ``patience`` generations, all points that differ from
    the best in one dimension, and the most promising that differ in two, are tried. If that does not help, it restarts
    from other points with the remaining evaluations, and ends when a restart finds nothing better. ``crossover`` and
    ``mutation`` are the largest probabilities of the adaptive rule (its k1 = k3 and k2 = k4); since the best survive
    anyway, they cross at half the probability instead of not at all.

    The paper has less, and each difference is a switch: ``linear_fit``, ``local_search`` around a best point that stays
    the same, ``restarts``, and ``scaled_rates``, the adaptive rule as above. Without the last, each dimension is
    mutated with the published probability, and the best are not crossed.
    """

    FORMAT: ClassVar[str] = "evolving"

    population: int = 64
    evaluations: int = 8000
    patience: int = 8
    crossover: float = 1.0
    mutation: float = 0.5
    linear_fit: bool = True
    local_search: bool = True
    restarts: bool = True
    scaled_rates: bool = True

    def __post_init__(self) -> None:
        check_whole("EvolutionConfig.population", self.population, at_least=4)
        check_whole("EvolutionConfig.evaluations", self.evaluations, at_least=self.population)
        check_whole("EvolutionConfig.patience", self.patience)
        check_number("EvolutionConfig.crossover", self.crossover, at_least=0, at_most=1)
        check_number("EvolutionConfig.mutation", self.mutation, above=0, at_most=1)
        for field in ("linear_fit", "local_search", "restarts", "scaled_rates"):
            check_flag(f"EvolutionConfig.{field}", getattr(self, field))


@dataclass(frozen=True)
class Evolved:
    """The result of evolution under one constraint: ``codes`` (points, dimensions) with ``scores``, best first.

    ``progress`` has (points scored so far, best score) after every generation.
    """

    constraint: Constraint
    codes: Codes
    scores: Doubles
    progress: tuple[tuple[int, float], ...]


def evolve(
    score: Score, space: Space, costs: CostModel, constraints: Sequence[Constraint], *, seeds: Codes | None = None,
    evolving: EvolutionConfig = EvolutionConfig(), seed: int = 0,
) -> list[Evolved]:  # fmt: skip
    """The best points under each of ``constraints``, starting from ``seeds``, the best of stage 2.

    Seeds that violate a constraint are repaired, and so are results under earlier constraints; finally, results are
    shared among all constraints that they meet. Every point returned meets its constraint. A space of at most
    ``evolving.evaluations`` points is scored completely. Raises :class:`ZooError` with the nearest reachable value for
    a constraint that no point meets, before any is searched.
    """
    rng = np.random.default_rng([seed, 3])
    known = np.zeros((0, len(space.dimensions)), np.int64) if seeds is None or not len(seeds) else space.check(seeds)
    starts = []
    for constraint in constraints:
        check_constraint(constraint, costs.names)
        starts.append(feasible_points(space, costs, constraint, rng, known=known))
    results: list[Evolved] = []
    for constraint, start in zip(constraints, starts, strict=True):
        before = np.concatenate([known, *(evolved.codes[: evolving.population // 4] for evolved in results)])
        moved = descend(space, costs, constraint, before, rng, steps=_MOVES)
        fitting = moved[outside(costs, constraint, moved) == 0]
        run = _Evolution(score, space, costs, constraint, evolving, rng)
        results.append(run.run(distinct(fitting), distinct(start)))
    return [_shared(one, results, costs, evolving.population) for one in results]


def _shared(own: Evolved, others: Sequence[Evolved], costs: CostModel, population: int) -> Evolved:
    """``own`` with the results under other constraints that meet its own, too."""
    codes, scores = np.concatenate([one.codes for one in others]), np.concatenate([one.scores for one in others])
    codes, first = np.unique(codes, axis=0, return_index=True)
    fits = outside(costs, own.constraint, codes) == 0
    codes, scores = _fittest(codes[fits], scores[first][fits], population)
    progress = own.progress if scores[0] <= own.scores[0] else (*own.progress, (own.progress[-1][0], float(scores[0])))
    return Evolved(own.constraint, codes, scores, progress)


class _Evolution:
    def __init__(
        self, score: Score, space: Space, costs: CostModel, constraint: Constraint, how: EvolutionConfig,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.score, self.space, self.costs, self.constraint = score, space, costs, constraint
        self.how, self.rng = how, rng
        self.free = np.flatnonzero(space.sizes > 1)
        self.left = how.evaluations
        self.known: dict[bytes, float] = {}  # scores since the last restart
        self.progress: list[tuple[int, float]] = []

    def run(self, seeds: Codes, start: Codes) -> Evolved:
        """Evolve from ``seeds`` and ``start``, then restart from other points until that brings no improvement."""
        if self.space.count() <= self.how.evaluations:
            codes, scores = self._begin(all_points(self.space))
            return self._evolved(codes, scores)
        codes, scores = self._settled(np.concatenate([seeds, start[: 2 * self.how.population]]))
        while self.left and self.how.restarts:
            best = scores[0]
            try:
                others = feasible_points(self.space, self.costs, self.constraint, self.rng)
            except ZooError:  # so few points meet the constraint that none is found again
                break
            new, new_scores = self._settled(others[self.rng.permutation(len(others))[: 2 * self.how.population]])
            codes, first = np.unique(np.concatenate([codes, new]), axis=0, return_index=True)
            codes, scores = _fittest(codes, np.concatenate([scores, new_scores])[first], self.how.population)
            if scores[0] <= best:
                break
        return self._evolved(codes, scores)

    def _evolved(self, codes: Codes, scores: Doubles) -> Evolved:
        return Evolved(self.constraint, codes, scores, tuple(self.progress))

    def _begin(self, points: Codes) -> tuple[Codes, Doubles]:
        self.known = {}
        return self._survivors(self._met(points), points[:0], np.zeros(0))

    def _settled(self, points: Codes) -> tuple[Codes, Doubles]:
        """Generations from ``points`` until the score stops rising; on stagnation, a local search around the best."""
        codes, scores = self._begin(points)
        waited = 0
        while self.left:
            best, stagnant = scores[0], waited >= self.how.patience
            if stagnant and not self.how.local_search:
                break
            if stagnant:
                codes, scores = self._survivors(self._met(changed(self.space, codes[0])), codes, scores)
            new = self._exchanged(codes, scores) if stagnant else self._generation(codes, scores)
            codes, scores = self._survivors(new, codes, scores)
            if stagnant and scores[0] <= best:
                break
            waited = 0 if scores[0] > best else waited + 1
        return codes, scores

    def _met(self, codes: Codes) -> Codes:
        met: Codes = codes[outside(self.costs, self.constraint, codes) == 0]
        return met

    def _survivors(self, new: Codes, codes: Codes, scores: Doubles) -> tuple[Codes, Doubles]:
        """The best of ``codes`` and of the unscored points of ``new``."""
        fresh, fresh_scores = self._scored(new)
        codes, scores = np.concatenate([codes, fresh]), np.concatenate([scores, fresh_scores])
        codes, scores = _fittest(codes, scores, self.how.population)
        highest = max(float(scores[0]), self.progress[-1][1]) if self.progress else float(scores[0])
        self.progress.append((self.how.evaluations - self.left, highest))
        return codes, scores

    def _scored(self, codes: Codes) -> tuple[Codes, Doubles]:
        """The unscored points of ``codes``, up to the remaining evaluations, and their scores."""
        picked = self._fresh(codes)[: self.left]
        if not len(picked):
            return picked, np.zeros(0)
        scores = np.asarray(self.score(picked), np.float64)
        if scores.shape != (len(picked),) or not np.isfinite(scores).all():
            raise ZooError(f"score() gave {scores.shape} for {len(picked)} points; it must give one finite number each")
        self.left -= len(picked)
        self.known |= {code.tobytes(): float(value) for code, value in zip(picked, scores, strict=True)}
        return picked, scores

    def _fresh(self, codes: Codes) -> Codes:
        """The distinct points of ``codes`` that have no score yet."""
        codes = distinct(codes)
        fresh: Codes = codes[np.array([code.tobytes() not in self.known for code in codes], bool)]
        return fresh

    def _generation(self, codes: Codes, scores: Doubles) -> Codes:
        """A generation to be scored: half the most promising of many children, half random children, repaired.

        Without the linear fit, all are random.
        """
        if not self.how.linear_fit:
            return self._repaired(*self._children(codes, scores, self.how.population))
        half = self.how.population // 2
        many, _ = self._children(codes, scores, 2 * _OFFSPRING * half)
        fresh = self._fresh(self._met(many))
        best = fresh[np.argsort(-self._promise(fresh), kind="stable")[:half]]
        children, parents = self._children(codes, scores, self.how.population - half)
        return np.concatenate([best, self._repaired(children, parents)])

    def _children(self, codes: Codes, scores: Doubles, number: int) -> tuple[Codes, Codes]:
        """Crossed and mutated points, and the mother of each: the fitter the parents, the fewer changes."""
        rng = self.rng
        mother, father = _tournament(scores, number, rng), _tournament(scores, number, rng)
        ease = np.minimum(1, (scores[0] - scores) / max(scores[0] - scores.mean(), 1e-12))
        least = 0.5 if self.how.scaled_rates else 0.0
        crossing = rng.random(number) < self.how.crossover * np.maximum(least, np.minimum(ease[mother], ease[father]))
        other = crossing[:, None] & (rng.random((number, codes.shape[1])) < 0.5)
        children = np.where(other, codes[father], codes[mother])
        if self.how.scaled_rates:
            rates = (1 + 6 * self.how.mutation * ease[mother] * rng.random(number)) / max(1, len(self.free))
        else:
            rates = self.how.mutation * ease[mother]
        return self.space.mutate(children, rng, rates), codes[mother]

    def _repaired(self, children: Codes, parents: Codes) -> Codes:
        """``children``; those that violate the constraint take on more and more of their parents until they meet it."""
        wrong = np.flatnonzero(outside(self.costs, self.constraint, children) > 0)
        if not len(wrong):
            return children
        rank = self.rng.random((len(wrong), children.shape[1]))
        mixed = np.stack([np.where(rank < share, parents[wrong], children[wrong]) for share in _SHARES], axis=1)
        good = outside(self.costs, self.constraint, mixed.reshape(-1, children.shape[1])) == 0
        first = good.reshape(len(wrong), len(_SHARES)).argmax(1)  # the parent itself meets it
        repaired: Codes = children.copy()
        repaired[wrong] = mixed[np.arange(len(wrong)), first]
        return repaired

    def _promise(self, codes: Codes) -> Doubles:
        """Predicted scores of ``codes`` by ridge regression on the best points scored so far, without intercept."""
        scores = np.fromiter(self.known.values(), np.float64, len(self.known))
        best = np.argsort(-scores, kind="stable")[:_FITTED]
        points = np.frombuffer(b"".join(self.known), np.int64).reshape(len(scores), -1)[best]
        encoded = self.space.encode(points).astype(np.float64)
        centered = encoded - encoded.mean(0)
        gram = centered.T @ centered + np.eye(centered.shape[1])
        slopes = np.linalg.solve(gram, centered.T @ (scores[best] - scores[best].mean()))
        promise: Doubles = self.space.encode(codes).astype(np.float64) @ slopes
        return promise

    def _exchanged(self, codes: Codes, scores: Doubles) -> Codes:
        """The most promising points that differ from the best in one or two dimensions.

        All changes of one dimension are scored; gains and costs of two are estimated as their sums.
        """
        single = np.concatenate([codes[:1], changed(self.space, codes[0])])
        self._scored(single)
        gain = np.array([self.known.get(one.tobytes(), -np.inf) for one in single]) - scores[0]
        first, second = np.triu_indices(len(single), 1)
        values = self.costs(single)
        together = {name: value[first] + value[second] - value[0] for name, value in values.items()}
        fits = violation(self.constraint, together) == 0 if self.constraint else np.ones(len(first), bool)
        sums = np.where(fits, gain[first] + gain[second], -np.inf)
        ranked = np.argsort(-sums, kind="stable")[: 16 * self.how.population]
        first, second = first[ranked], second[ranked]
        pairs = np.where(single[first] != codes[0], single[first], single[second])
        return self._met(self._fresh(pairs))[: 4 * self.how.population]


def _tournament(scores: Doubles, number: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Indices of the better of two random points, ``number`` times."""
    drawn = rng.integers(0, len(scores), (2, number))
    winners: npt.NDArray[np.int64] = np.where(scores[drawn[0]] >= scores[drawn[1]], drawn[0], drawn[1])
    return winners


def _fittest(codes: Codes, scores: Doubles, number: int) -> tuple[Codes, Doubles]:
    order = np.argsort(-scores, kind="stable")[:number]
    return codes[order], scores[order]
