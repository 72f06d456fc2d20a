"""What the trials of a search say of its predictor, and what the predictor says of the space: figures for a report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..evaluation.tabular import RecordedCosts
from ..evaluation.trial import Failure
from ..predictors import Predictor, fit
from ..predictors.mlp import Encoder
from ..result import SearchResult
from ..space import Codes, CostModel, Part, Space, Value, draw_pool

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOLDS = 5
REPEATS = 6
SIZES = (10, 20, 40, 80, 160)
BASE = 192  # points around which one dimension is changed
VALUES = 9  # of a dimension, at most, that are looked at
_GRID = 48  # architectures and recipes that are put together in all ways


@dataclass(frozen=True, eq=False)
class ScoredPoints:
    """The points of stage 2 with their scores at the chosen epoch and their rounds, in order of trial.

    A curve that was not finite counts as the worst score, as it does for the search.
    """

    codes: Codes
    scores: Doubles
    rounds: Ints

    @classmethod
    def of(cls, record: SearchResult) -> ScoredPoints:
        """Those of ``record``."""
        codes, scores = record.scored()
        usable = (None, Failure.NOT_FINITE)
        rounds = [
            trial.round
            for trial in record.trials
            if trial.round <= record.plan.rounds.rounds
            and trial.number in record.outcomes
            and record.outcomes[trial.number].failure in usable
        ]
        return cls(codes, scores, np.array(rounds[: len(codes)], np.int64))


@dataclass(frozen=True, eq=False)
class Predictions:
    """Scores predicted by predictors that had not seen them, and what was measured; arrays of shape (points,).

    ``guessed`` is the mean of the scores that each predictor was fitted on: what is predicted by no knowledge at all.
    ``rounds`` are those of the points.
    """

    predicted: Doubles
    measured: Doubles
    guessed: Doubles
    rounds: Ints

    def __len__(self) -> int:
        return len(self.measured)

    @cached_property
    def kendall(self) -> float:
        """Kendall's tau-b of predicted and measured; 0 where one of them is all the same."""
        from scipy.stats import kendalltau

        tau = float(kendalltau(self.predicted, self.measured).statistic) if len(self) > 1 else 0.0
        return 0.0 if math.isnan(tau) else tau

    @property
    def mse(self) -> float:
        """Mean squared error."""
        return float(((self.predicted - self.measured) ** 2).mean())

    @property
    def guessing_mse(self) -> float:
        """Mean squared error of the mean."""
        return float(((self.guessed - self.measured) ** 2).mean())

    def of_round(self, number: int) -> Predictions:
        """Those of one round."""
        inside = self.rounds == number
        return Predictions(self.predicted[inside], self.measured[inside], self.guessed[inside], self.rounds[inside])


def ahead(record: SearchResult, scored: ScoredPoints, encoder: Encoder | None) -> Predictions:
    """Every round from the second on, as the predictor that chose it saw it: fitted on the rounds before."""
    parts: list[tuple[Doubles, ...]] = []
    for number in sorted(set(scored.rounds.tolist()) - {1}):
        before = record.state(rounds=number - 1)
        inside = scored.rounds == number
        if (predictor := before.fit(encoder)) is not None:
            measured = scored.scores[inside]
            mean = np.full(len(measured), before.scored()[1].mean())
            parts.append((predictor.predict(scored.codes[inside]).mean, measured, mean, scored.rounds[inside]))
    return Predictions(*(np.concatenate(column) for column in zip(*parts, strict=True))) if parts else _no_predictions()


def _no_predictions() -> Predictions:
    return Predictions(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))


def cross_validated(record: SearchResult, scored: ScoredPoints, encoder: Encoder | None) -> Predictions:
    """All points, each predicted by a predictor fitted on four of five parts that do not hold it."""
    count = len(scored.codes)
    if count < 2 * FOLDS:
        return _no_predictions()
    part = np.random.default_rng([record.plan.seed, 4]).permutation(count) % FOLDS
    predicted, guessed = np.zeros(count), np.zeros(count)
    for fold in range(FOLDS):
        out = part == fold
        predictor = fit(
            record.plan.rounds.predictor, record.plan.space, scored.codes[~out], scored.scores[~out],
            encoder=encoder, seed=record.plan.seed + fold,
        )  # fmt: skip
        predicted[out] = predictor.predict(scored.codes[out]).mean
        guessed[out] = scored.scores[~out].mean()
    return Predictions(predicted, scored.scores, guessed, scored.rounds)


@dataclass(frozen=True, eq=False)
class Efficiency:
    """Error and rank correlation on held-out points by number of points fitted on (``sizes``).

    ``mse`` and ``kendall`` have shape (sizes, :data:`REPEATS`). ``tested`` points are held out of ``total``.
    """

    pretrained: bool
    sizes: tuple[int, ...]
    mse: Doubles
    kendall: Doubles
    tested: int
    total: int


def efficiency(record: SearchResult, scored: ScoredPoints, encoder: Encoder | None) -> list[Efficiency]:
    """How the predictor learns from random parts of the trials: with pretraining where there is any, then without.

    Every repetition holds a random quarter out (the same for both) and fits on the first points of the rest.
    """
    total = len(scored.codes)
    tested = max(4, total // 4)
    sizes = tuple(size for size in SIZES if size <= total - tested)
    if not sizes:
        return []
    curves = []
    for used in [encoder, None] if encoder is not None else [None]:
        cells = [[_held_out(record, scored, used, size, n, tested) for n in range(REPEATS)] for size in sizes]
        mse = np.array([[one.mse for one in row] for row in cells])
        kendall = np.array([[one.kendall for one in row] for row in cells])
        curves.append(Efficiency(used is not None, sizes, mse, kendall, tested, total))
    return curves


def _held_out(
    record: SearchResult, scored: ScoredPoints, encoder: Encoder | None, size: int, repeat: int, tested: int
) -> Predictions:
    order = np.random.default_rng([record.plan.seed, 5, repeat]).permutation(len(scored.codes))
    held, used = order[:tested], order[tested : tested + size]
    predictor = fit(
        record.plan.rounds.predictor, record.plan.space, scored.codes[used], scored.scores[used],
        encoder=encoder, seed=record.plan.seed + repeat,
    )  # fmt: skip
    guessed = np.full(tested, scored.scores[used].mean())
    return Predictions(predictor.predict(scored.codes[held]).mean, scored.scores[held], guessed, scored.rounds[held])


@dataclass(frozen=True, eq=False)
class Effect:
    """What changing one dimension alone does to the predicted score.

    ``values`` are those looked at; ``score`` is the mean prediction at each of them, all else as it comes, ``low`` and
    ``high`` the members' smallest and largest. ``total`` is the standard deviation of the score when the dimension
    alone changes; ``alone`` that of ``score``: what is the same whatever the rest is. The difference is interplay.
    """

    name: str
    part: Part
    ordered: bool
    values: tuple[Value, ...]
    score: Doubles
    low: Doubles
    high: Doubles
    total: float
    alone: float


def effects(record: SearchResult, predictor: Predictor, costs: CostModel | None) -> list[Effect]:
    """The effect of every dimension that has more than one value, the largest first.

    Around :data:`BASE` random points of the space that meet the plan's bounds, where its costs are known.
    """
    space = record.plan.space
    base = base_points(record, costs, BASE)
    columns = np.flatnonzero(space.sizes > 1).tolist()
    return sorted((_effect(space, column, base, predictor) for column in columns), key=lambda effect: -effect.total)


def base_points(record: SearchResult, costs: CostModel | None, number: int) -> Codes:
    """Random points; of networks whose costs are computed, not looked up in a recording, within the plan's bounds."""
    plan, rng = record.plan, np.random.default_rng([record.plan.seed, 6])
    computed = None if isinstance(costs, RecordedCosts) else costs
    if computed is not None and plan.space.networks is not None and plan.within:
        return draw_pool(plan.space, computed, plan.within, number, rng).codes
    return plan.space.sample(number, rng, method="uniform")


def _effect(space: Space, column: int, base: Codes, predictor: Predictor) -> Effect:
    dimension, size = space.dimensions[column], int(space.sizes[column])
    picked = np.unique(np.linspace(0, size - 1, VALUES).round().astype(np.int64)) if size > VALUES else np.arange(size)
    changed = np.repeat(base[None], len(picked), axis=0)
    changed[:, :, column] = picked[:, None]
    members = predictor.predict(changed.reshape(-1, base.shape[1])).members.reshape(-1, len(picked), len(base))
    mean, by_member = members.mean(0), members.mean(2)
    return Effect(
        dimension.name, dimension.part, dimension.width == 1, tuple(dimension.options.values[int(n)] for n in picked),
        mean.mean(1), by_member.min(0), by_member.max(0), float(np.sqrt(mean.var(0).mean())),
        float(mean.mean(1).std()),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class VarianceShares:
    """Shares of the variance of the predicted score, together 1."""

    architecture: float
    recipe: float
    together: float


def shares(record: SearchResult, predictor: Predictor, costs: CostModel | None) -> VarianceShares | None:
    """What architectures and recipes explain, put together in all ways; None where one of them is not searched."""
    space = record.plan.space
    architecture = np.array([d.part == "architecture" for d in space.dimensions])
    free = space.sizes > 1
    if not (free & architecture).any() or not (free & ~architecture).any():
        return None
    base = base_points(record, costs, _GRID)
    grid = np.where(architecture, base[:, None], base[None])
    score = predictor.predict(grid.reshape(-1, base.shape[1])).mean.reshape(len(base), len(base))
    total = float(score.var())
    if total <= 0:
        return None
    first, second = float(score.mean(1).var()) / total, float(score.mean(0).var()) / total
    return VarianceShares(first, second, 1 - first - second)
