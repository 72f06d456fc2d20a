"""Stage 2, constrained iterative optimization: choose a batch, train it, refit the predictor (section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import ZooError, check_number, check_whole

from ..evaluation.trial import Outcome, Trial
from ..predictors import MLP, Predictor, PredictorKind
from ..predictors.mlp import Encoder
from ..space import Codes, Space
from .acquisition import AcquisitionConfig, choose
from .state import SearchState

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class IterativeConfig:
    """How stage 2 proceeds: ``rounds`` of ``batch`` candidates each (the paper's T and m), trained ``epochs`` epochs.

    After the first round, training stops at the first epoch whose scores have at least this rank ``correlation``
    (Spearman) with the last epoch's; 1 never stops early.
    """

    FORMAT: ClassVar[str] = "rounds"

    epochs: int
    rounds: int = 5
    batch: int = 48
    correlation: float = 0.92
    predictor: PredictorKind = MLP()
    choosing: AcquisitionConfig = AcquisitionConfig()

    def __post_init__(self) -> None:
        for field in ("epochs", "rounds"):
            check_whole(f"IterativeConfig.{field}", getattr(self, field))
        check_whole("IterativeConfig.batch", self.batch, at_least=2)
        check_number("IterativeConfig.correlation", self.correlation, at_least=0, at_most=1)


class IterativeSearch:
    """Stage 2 as ask and tell: :meth:`ask` for the trials of a round, evaluate them, :meth:`tell` all outcomes.

    The trials depend on the arguments and the outcomes alone, not on the order in which outcomes arrive.
    """

    def __init__(
        self, space: Space, pool: Codes, rounds: IterativeConfig, *, encoder: Encoder | None = None, seed: int = 0
    ) -> None:
        if len(pool) < 2:
            raise ZooError(f"the pool has {len(pool)} points; stage 2 needs at least 2")
        self.space, self.pool, self.rounds = space, pool, rounds
        self.encoder, self.seed = encoder, seed
        self.trials: list[Trial] = []
        self.outcomes: dict[int, Outcome] = {}
        self.stop_epoch = rounds.epochs
        self.correlations: tuple[float, ...] = ()
        self._fitted: tuple[int, Predictor | None] | None = None

    def ask(self) -> list[Trial]:
        """The trials of the next round; none when all rounds are done or the pool is exhausted."""
        if self.round == self.rounds.rounds:
            return []
        rng = np.random.default_rng([self.seed, 2, self.round])
        taken = {trial.code for trial in self.trials}
        left = self.pool[[tuple(code) not in taken for code in self.pool.tolist()]] if taken else self.pool
        predictor = self.predictor()
        if predictor is None:
            picked = left[rng.permutation(len(left))[: self.rounds.batch]]
        else:
            picked = choose(predictor, left, self.rounds.batch, self.rounds.choosing, rng)
        first, round_ = len(self.trials), self.round + 1
        return self.take_up(
            [Trial(first + n, round_, tuple(code), self.stop_epoch) for n, code in enumerate(picked.tolist())]
        )

    def take_up(self, trials: Sequence[Trial]) -> list[Trial]:
        """Continue with ``trials`` from a journal as the next round, instead of asking."""
        if len(self.outcomes) < len(self.trials):
            raise ZooError(f"round {self.round}: {len(self.trials) - len(self.outcomes)} outcomes are missing")
        self.trials += trials
        return list(trials)

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Add the outcomes of all trials that were asked for."""
        self.outcomes |= {outcome.number: outcome for outcome in outcomes}
        if missing := [trial.number for trial in self.trials if trial.number not in self.outcomes]:
            raise ZooError(f"round {self.round}: no outcome of trial {missing[0]}")
        if self.round == 1:
            self._choose_epoch()

    @property
    def state(self) -> SearchState:
        """Trials and outcomes so far."""
        return SearchState(
            self.space, self.rounds.predictor, self.seed, self.stop_epoch, tuple(self.trials), self.outcomes
        )

    @property
    def round(self) -> int:
        """The last round asked for; 0 before the first."""
        return self.state.round

    def predictor(self) -> Predictor | None:
        """The predictor fitted on all outcomes so far; None if fewer than two can be used."""
        if self._fitted is None or self._fitted[0] != len(self.outcomes):
            self._fitted = len(self.outcomes), self.state.fit(self.encoder)
        return self._fitted[1]

    def _choose_epoch(self) -> None:
        outcomes = [self.outcomes[trial.number] for trial in self.trials]  # in an order independent of their arrival
        curves = [outcome.curve for outcome in outcomes if outcome.failure is None]
        self.correlations = rank_correlations(np.array(curves)) if len(curves) > 2 else ()
        enough = self.rounds.correlation if self.rounds.correlation < 1 else math.inf
        reached = [e for e, value in enumerate(self.correlations, start=1) if value >= enough]
        self.stop_epoch = reached[0] if reached else self.rounds.epochs


def rank_correlations(curves: Doubles) -> tuple[float, ...]:
    """Spearman's rank correlation of the scores after every epoch with the last; curves (points, epochs)."""
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(column) for column in curves.T])
    centered = ranks - ranks.mean(1, keepdims=True)
    norms = np.sqrt((centered**2).sum(1))
    shared = centered @ centered[-1]
    return tuple(
        float(value) for value in np.where(norms * norms[-1] > 0, shared / np.maximum(norms * norms[-1], 1e-12), 0.0)
    )
