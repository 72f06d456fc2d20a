"""Predictors of a candidate's score: the paper's multi-layer perceptron, an ensemble of it, boosted trees.

A predictor's kind is a value; :func:`fit` makes it into something that predicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import ZooError, check_number, check_whole
from fbnetv3_zoo.search.perceptron import Encoder, Perceptrons, fit_perceptrons
from fbnetv3_zoo.search.space import Codes, Space

Doubles = npt.NDArray[np.float64]


class Pretraining(Enum):
    """How a pretrained encoder is used when accuracies are learned."""

    NONE = "none"
    FROZEN_FIRST = "frozen-first"  # the paper: half of the epochs with the encoder frozen, half with everything
    FINE_TUNE = "fine-tune"  # everything from the start


@dataclass(frozen=True, slots=True)
class MLP:
    """The paper's predictor: an encoder of the architecture, then a head on its embedding and the recipe.

    ``members`` networks of different initial weights are fitted; more than one give an uncertainty. ``hidden`` and
    ``embedding`` are widths. ``epochs`` are those of a refit, ``learning_rate`` Adam's (a tenth of it in the second half, as the
    paper lowers it); Huber loss with threshold 1 on standardised scores (section 3.2).
    """

    members: int = 5
    hidden: int = 128
    embedding: int = 64
    epochs: int = 100
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    pretraining: Pretraining = Pretraining.FINE_TUNE

    def __post_init__(self) -> None:
        for field in ("members", "hidden", "embedding", "epochs"):
            check_whole(f"MLP.{field}", getattr(self, field))
        check_number("MLP.learning_rate", self.learning_rate, above=0)
        check_number("MLP.weight_decay", self.weight_decay, at_least=0)


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
class Prediction:
    """Predicted scores of points: ``members`` has shape (members, points)."""

    members: Doubles

    @property
    def mean(self) -> Doubles:
        """Mean over the members, shape (points,)."""
        return self.members.mean(0)

    @property
    def spread(self) -> Doubles:
        """Standard deviation over the members, shape (points,): 0 where there is one."""
        return self.members.std(0)


class Predictor(Protocol):
    """Predicts the scores of points."""

    def predict(self, codes: Codes) -> Prediction:
        """The scores of ``codes``, shape (points, dimensions), in the unit of those it was fitted on."""


def fit(
    kind: PredictorKind, space: Space, codes: Codes, scores: Doubles, *, encoder: Encoder | None = None, seed: int = 0
) -> Predictor:
    """A predictor fitted on ``scores`` of ``codes``. ``encoder`` comes from stage 1 and serves an :class:`MLP` alone."""
    if len(codes) < 2:
        raise ZooError(f"a predictor needs at least 2 scored points, not {len(codes)}")
    if not np.isfinite(scores).all():
        raise ZooError("scores to fit a predictor on must be finite")
    if isinstance(kind, Trees):
        return _FittedTrees(kind, space, codes, scores, seed)
    return _FittedMLP(kind, space, codes, scores, encoder, seed)


class _FittedMLP:
    def __init__(
        self, kind: MLP, space: Space, codes: Codes, scores: Doubles, encoder: Encoder | None, seed: int
    ) -> None:
        self.space, self.centre = space, float(np.mean(scores))
        self.scale = float(np.std(scores)) or 1.0
        usable = encoder if kind.pretraining is not Pretraining.NONE else None
        self.nets: Perceptrons = fit_perceptrons(
            space.encode(codes), (scores - self.centre) / self.scale,
            architecture_columns=space.width("architecture"), members=kind.members, hidden=kind.hidden,
            embedding=kind.embedding, epochs=kind.epochs, learning_rate=kind.learning_rate,
            weight_decay=kind.weight_decay, encoder=usable,
            frozen_first=kind.pretraining is Pretraining.FROZEN_FIRST, seed=seed,
        )  # fmt: skip

    def predict(self, codes: Codes) -> Prediction:
        return Prediction(self.nets.predict(self.space.encode(codes)) * self.scale + self.centre)


class _FittedTrees:
    def __init__(self, kind: Trees, space: Space, codes: Codes, scores: Doubles, seed: int) -> None:
        from sklearn.ensemble import GradientBoostingRegressor

        self.space, encoded = space, space.encode(codes)
        self.members = [
            GradientBoostingRegressor(
                loss="huber", n_estimators=kind.trees, max_depth=kind.depth, learning_rate=kind.learning_rate,
                subsample=0.7, max_features=0.5, random_state=seed * 1000 + member,
            ).fit(encoded, scores)
            for member in range(kind.members)
        ]  # fmt: skip

    def predict(self, codes: Codes) -> Prediction:
        encoded = self.space.encode(codes)
        return Prediction(np.stack([member.predict(encoded) for member in self.members]))
