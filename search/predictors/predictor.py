"""Predictors of a candidate's score: the paper's multi-layer perceptron, an ensemble of it, boosted trees.

A predictor's kind is a value, from which :func:`fit` makes a predictor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import ZooError, check_flag, check_number, check_whole

from ..space import Choice, Codes, Costs, Dimension, Part, Space
from .mlp import BATCH, Encoder, PerceptronEnsemble, TrainingPhase, fingerprint, pretrain_network, train_network

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

PRETRAINING_RATE = 3e-3
_CHUNK = 2048  # points predicted at once, to fit the processor's cache
_STEPS = 7  # additional columns of a number


class Pretraining(Enum):
    """How a pretrained encoder is used when fitting scores."""

    NONE = "none"
    FROZEN_FIRST = "frozen-first"  # the paper: half of the steps with the encoder frozen, half with everything
    FINE_TUNE = "fine-tune"  # everything from the start


@dataclass(frozen=True, slots=True)
class MLP:
    """The paper's predictor: an encoder of the architecture, then a head on its embedding and the recipe.

    ``members`` networks of different initial weights are fitted; more than one give an uncertainty. ``hidden`` and
    ``embedding`` are widths. A refit takes ``steps`` steps of Adam at ``learning_rate``, falling to 0, with decoupled
    ``weight_decay``; Huber loss with threshold 1 on standardized scores (section 3.2). ``encoder_rate`` times as large
    is the rate of a pretrained encoder that is fine-tuned; of everything, in the second half of the steps, where the
    encoder is frozen first.

    Three switches are off in the paper: ``thresholds`` gives a number columns of thresholds beside its min-max one;
    ``transform`` learns standardized scores and their quantiles, not the scores themselves; and if ``epochs`` is above
    0, each half of a refit (all of it, without a frozen half) is so many passes over the scores, instead of ``steps``.
    """

    members: int = 5
    hidden: int = 32
    embedding: int = 16
    steps: int = 300
    learning_rate: float = 0.03
    weight_decay: float = 0.1
    encoder_rate: float = 0.1
    pretraining: Pretraining = Pretraining.FINE_TUNE
    thresholds: bool = True
    transform: bool = True
    epochs: int = 0

    def __post_init__(self) -> None:
        for field in ("members", "hidden", "embedding", "steps"):
            check_whole(f"MLP.{field}", getattr(self, field))
        check_whole("MLP.epochs", self.epochs, at_least=0)
        for field in ("thresholds", "transform"):
            check_flag(f"MLP.{field}", getattr(self, field))
        check_number("MLP.learning_rate", self.learning_rate, above=0)
        check_number("MLP.weight_decay", self.weight_decay, at_least=0)
        check_number("MLP.encoder_rate", self.encoder_rate, above=0, at_most=1)


@dataclass(frozen=True, slots=True)
class Trees:
    """Gradient-boosted regression trees (scikit-learn), as a baseline; ``members`` differ in their random draws."""

    members: int = 5
    trees: int = 200
    depth: int = 4
    learning_rate: float = 0.08

    def __post_init__(self) -> None:
        for field in ("members", "trees", "depth"):
            check_whole(f"Trees.{field}", getattr(self, field))
        check_number("Trees.learning_rate", self.learning_rate, above=0)


PredictorKind: TypeAlias = MLP | Trees


@dataclass(frozen=True, slots=True)
class PredictedScores:
    """Predicted scores of points: ``members`` has shape (members, points)."""

    members: Doubles

    @property
    def mean(self) -> Doubles:
        """Mean over the members, shape (points,)."""
        mean: Doubles = self.members.mean(0)
        return mean

    @property
    def spread(self) -> Doubles:
        """Standard deviation over the members, shape (points,); 0 for a single member."""
        spread: Doubles = self.members.std(0)
        return spread


class Predictor(Protocol):
    """Predicts the scores of points."""

    def predict(self, codes: Codes) -> PredictedScores:
        """The scores of ``codes``, shape (points, dimensions), in the unit of the scores fitted on."""


def fit(
    kind: PredictorKind, space: Space, codes: Codes, scores: Doubles, *, encoder: Encoder | None = None, seed: int = 0
) -> Predictor:
    """A predictor fitted on ``scores`` of ``codes``. ``encoder``, from stage 1, is used by an :class:`MLP` only.

    The same arguments give the same predictor on one machine, for any number of threads.
    """
    scores = np.asarray(scores, np.float64)
    if len(codes) < 2:
        raise ZooError(f"a predictor needs at least 2 scored points, not {len(codes)}")
    if scores.shape != (len(codes),):
        raise ZooError(f"scores have shape {scores.shape}; give one for each of the {len(codes)} points")
    if not np.isfinite(scores).all():
        raise ZooError("scores to fit a predictor on must be finite")
    if isinstance(kind, Trees):
        return _FittedTrees(kind, space, codes, scores, seed)
    return _FittedMLP(kind, space, codes, scores, encoder, seed)


def pretrain_encoder(
    space: Space, codes: Codes, statistics: Costs, *, kind: MLP = MLP(), steps: int = 1500, seed: int = 0
) -> Encoder:
    """Stage 1: encoders for ``kind``, trained to predict the ``statistics`` (by name, shape (points,)) of ``codes``.

    A fifth of the points is held out to measure the fit.
    """
    x = features(space, codes, part="architecture", thresholds=kind.thresholds)
    if not x.shape[1] or not statistics:
        raise ZooError(f"space {space.name}: stage 1 needs architectures to choose from and statistics of them")
    if len(codes) < 10:
        raise ZooError(f"stage 1 needs at least 10 points, not {len(codes)}")
    raw, rng = np.stack([statistics[name] for name in statistics], 1), np.random.default_rng(seed)
    order = rng.permutation(len(x))
    held, used = order[: len(x) // 5], order[len(x) // 5 :]
    targets = [TargetTransform(column) for column in raw[used].T]
    learned = np.stack([target.standard(column) for target, column in zip(targets, raw[used].T, strict=True)], 1)
    network = PerceptronEnsemble(
        members=kind.members, architecture=x.shape[1], recipe=0, hidden=kind.hidden, embedding=kind.embedding, rng=rng,
        outputs=len(targets),
    )  # fmt: skip
    pretrain_network(network, x[used], learned.astype(np.float32), TrainingPhase(steps, PRETRAINING_RATE), rng)
    outputs = network.predict_statistics(x[held])
    predicted = np.stack([target.scores(output) for target, output in zip(targets, outputs.T, strict=True)], 1)
    figures = _quality(predicted, raw[held])
    return Encoder(network.encoder_layers, space.name, fingerprint(space), tuple(statistics), *figures)


def _quality(predicted: Doubles, actual: Doubles) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """R2 and Kendall's tau by column; 0 for constant statistics."""
    from scipy.stats import kendalltau

    residual, total = ((predicted - actual) ** 2).sum(0), ((actual - actual.mean(0)) ** 2).sum(0)
    r2 = np.where(total > 0, 1 - residual / np.where(total > 0, total, 1), 0.0)
    tau = [kendalltau(*columns).statistic for columns in zip(predicted.T, actual.T, strict=True)]
    return tuple(map(float, r2)), tuple(0.0 if math.isnan(value) else float(value) for value in tau)


def features(space: Space, codes: Codes, *, part: Part | None = None, thresholds: bool = True) -> Floats:
    """The inputs of a perceptron for ``codes``, shape (points, columns), the architecture's columns first.

    Choices are one-hot. A number is one column from -1 to 1, and with ``thresholds`` up to seven of 0 or 1 for evenly
    spaced thresholds that it reaches, which help to learn from few samples that a score may rise and fall.
    """
    tables = [
        (column, _columns(dimension, thresholds))
        for column, dimension in enumerate(space.dimensions)
        if part in (None, dimension.part)
    ]
    columns = np.empty((len(codes), sum(table.shape[1] for _, table in tables)), np.float32)
    start = 0
    for column, table in tables:
        end = start + table.shape[1]
        columns[:, start:end] = table[codes[:, column]]
        start = end
    return columns


@lru_cache(maxsize=512)
def _columns(dimension: Dimension, thresholds: bool) -> Floats:
    """The columns of every value of ``dimension``, shape (values, columns)."""
    count = len(dimension)
    if count == 1:
        return np.zeros((1, 0), np.float32)
    if isinstance(dimension.options, Choice):
        return np.eye(count, dtype=np.float32)
    indices, steps = np.arange(count)[:, None], min(count - 1, _STEPS) if thresholds and count > 2 else 0
    reached = indices >= np.ceil(np.arange(1, steps + 1) * count / (steps + 1))
    return np.concatenate((indices * (2 / (count - 1)) - 1, reached), 1, dtype=np.float32)


class TargetTransform:
    """The target of a perceptron instead of the score: the mean of the standardized score and its normal quantile.

    A few very bad scores then do not mask the differences among good ones. It is extrapolated linearly.
    """

    def __init__(self, scores: Doubles) -> None:
        from scipy.stats import norm, rankdata

        center, scale = scores.mean(), scores.std()
        if scale <= 1e-9 * max(1.0, abs(center)):
            self.known, self.learned = scores.mean() + np.array([-1.0, 1.0]), np.array([-1.0, 1.0])
            return
        quantiles = norm.ppf((rankdata(scores) - 0.5) / len(scores))
        learned = 0.5 * ((scores - center) / scale + quantiles)
        self.known, first = np.unique(scores, return_index=True)
        self.learned = learned[first]
        self._extend()

    def _extend(self) -> None:
        """Add a distant point at either end, on the line through the outermost tenth."""
        tenth = max(1, len(self.known) // 10)
        for end, inner in ((0, tenth), (-1, -1 - tenth)):
            slope = (self.known[end] - self.known[inner]) / (self.learned[end] - self.learned[inner])
            away = -100.0 if end == 0 else 100.0
            index = 0 if end == 0 else len(self.known)
            self.known = np.insert(self.known, index, self.known[end] + away * slope)
            self.learned = np.insert(self.learned, index, self.learned[end] + away)

    def standard(self, scores: Doubles) -> Doubles:
        """The targets for ``scores``."""
        learned: Doubles = np.interp(scores, self.known, self.learned)
        return learned

    def scores(self, learned: Doubles) -> Doubles:
        """The inverse of :meth:`standard`."""
        scores: Doubles = np.interp(learned, self.learned, self.known)
        return scores


class UnchangedTarget:
    """The scores themselves as targets."""

    def standard(self, scores: Doubles) -> Doubles:
        """``scores``."""
        return scores

    def scores(self, learned: Doubles) -> Doubles:
        """``learned``."""
        return learned


class _FittedMLP:
    target: TargetTransform | UnchangedTarget

    def __init__(
        self, kind: MLP, space: Space, codes: Codes, scores: Doubles, encoder: Encoder | None, seed: int
    ) -> None:
        self.space, self.kind = space, kind
        self.target = TargetTransform(scores) if kind.transform else UnchangedTarget()
        x, y = self._features(codes), self.target.standard(scores)
        rng = np.random.default_rng(seed)
        architecture = features(space, codes[:1], part="architecture", thresholds=kind.thresholds).shape[1]
        self.network = PerceptronEnsemble(
            members=kind.members, architecture=architecture, recipe=x.shape[1] - architecture, hidden=kind.hidden,
            embedding=kind.embedding, rng=rng,
        )  # fmt: skip
        pretraining = kind.pretraining if encoder is not None and architecture else Pretraining.NONE
        if encoder is not None and pretraining is not Pretraining.NONE:
            encoder.put_into(self.network, space)
        train_network(self.network, x, y.astype(np.float32), _phases(kind, pretraining, len(x)), rng)

    def predict(self, codes: Codes) -> PredictedScores:
        members = np.empty((self.network.members, len(codes)))
        for start in range(0, len(codes), _CHUNK):
            part = codes[start : start + _CHUNK]
            members[:, start : start + _CHUNK] = self.network.predict(self._features(part))
        return PredictedScores(self.target.scores(members))

    def _features(self, codes: Codes) -> Floats:
        return features(self.space, codes, thresholds=self.kind.thresholds)


def _phases(kind: MLP, pretraining: Pretraining, points: int) -> tuple[TrainingPhase, ...]:
    rate, decay = kind.learning_rate, kind.weight_decay
    passes = kind.epochs * max(1, points // BATCH)
    steps = passes or kind.steps
    if pretraining is Pretraining.FROZEN_FIRST:
        half = passes or steps // 2
        return (
            TrainingPhase(passes or steps - half, rate, decay, encoder_rate=0.0),
            TrainingPhase(half, rate * kind.encoder_rate, decay),
        )
    return (
        TrainingPhase(steps, rate, decay, encoder_rate=1.0 if pretraining is Pretraining.NONE else kind.encoder_rate),
    )


class _FittedTrees:
    def __init__(self, kind: Trees, space: Space, codes: Codes, scores: Doubles, seed: int) -> None:
        from sklearn.ensemble import GradientBoostingRegressor

        self.space, encoded = space, space.encode(codes)
        self.members = [
            GradientBoostingRegressor(
                loss="huber", n_estimators=kind.trees, max_depth=kind.depth, learning_rate=kind.learning_rate,
                subsample=0.7, max_features=0.5, random_state=(seed * 1000 + member) % 2**32,
            ).fit(encoded, scores)
            for member in range(kind.members)
        ]  # fmt: skip

    def predict(self, codes: Codes) -> PredictedScores:
        encoded = self.space.encode(codes)
        return PredictedScores(np.stack([member.predict(encoded) for member in self.members]))
