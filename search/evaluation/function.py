"""Scoring a candidate by a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fbnetv3_zoo.errors import ZooError, told

from ..space import Candidate, Value


@dataclass(frozen=True)
class FunctionEvaluator:
    """Scores a candidate by ``function`` of its values by dimension; every epoch of the curve has that score."""

    function: Callable[[Mapping[str, Value]], float]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ZooError(f"FunctionEvaluator.function is {told(self.function)}; it must be a function of the values")

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        """The score, so many times."""
        return [float(self.function(candidate.values))] * epochs
