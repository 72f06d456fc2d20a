"""Scoring a candidate by a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..space import Candidate, Value


@dataclass(frozen=True)
class FunctionEvaluator:
    """Scores a candidate by ``function`` of its values by dimension; every epoch of the curve has that score."""

    function: Callable[[Mapping[str, Value]], float]

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        """The score, so many times."""
        return [float(self.function(candidate.values))] * epochs
