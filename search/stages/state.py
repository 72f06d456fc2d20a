"""How far stage 2 has come: its trials and outcomes, from which everything else is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..evaluation.trial import Failure, Outcome, Trial
from ..predictors import Predictor, PredictorKind, fit
from ..predictors.mlp import Encoder
from ..space import Codes, Space

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SearchState:
    """The ``trials`` of stage 2 and their ``outcomes`` by number; both may grow while a search runs.

    Scores are those after epoch ``stop_epoch``. ``kind`` is the predictor that is fitted on them; ``seed`` the plan's.
    """

    space: Space
    kind: PredictorKind
    seed: int
    stop_epoch: int
    trials: Sequence[Trial]
    outcomes: Mapping[int, Outcome]

    @property
    def round(self) -> int:
        """The last round for which there are trials, whether or not they succeeded; 0 before the first."""
        return max((trial.round for trial in self.trials), default=0)

    def scored(self) -> tuple[Codes, Doubles]:
        """Codes (points, dimensions) and scores at ``stop_epoch`` of all scored trials, in order of number.

        A curve that is not finite counts as the worst score so far; candidates with other failures are left out.
        """
        codes, scores = [], []
        for trial in self.trials:
            outcome = self.outcomes.get(trial.number)
            if outcome is None or outcome.failure not in (None, Failure.NOT_FINITE):
                continue
            codes.append(trial.code)
            scores.append(np.nan if outcome.failure else outcome.curve[min(self.stop_epoch, trial.epochs) - 1])
        values = np.array(scores, np.float64)
        if np.isfinite(values).any():
            values = np.where(np.isnan(values), np.nanmin(values), values)
        else:
            codes, values = [], values[:0]
        return np.array(codes, np.int64).reshape(-1, len(self.space.dimensions)), values

    def best(self, number: int) -> Codes:
        """The codes of the best scores, best first."""
        codes, scores = self.scored()
        return codes[np.argsort(-scores, kind="stable")[:number]]

    def fit(self, encoder: Encoder | None) -> Predictor | None:
        """The predictor fitted on all scores, seeded by the round; None if there are fewer than two."""
        codes, scores = self.scored()
        if len(codes) < 2:
            return None
        return fit(self.kind, self.space, codes, scores, encoder=encoder, seed=self.seed + self.round)
