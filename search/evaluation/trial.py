"""Trials, tasks and outcomes: the interface between a search and the evaluation of its candidates."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from fbnetv3_zoo.errors import ZooError, check_number, check_whole, told

from ..space import Candidate


class Evaluator(Protocol):
    """Scores candidates. It must be picklable, and give the same curve for the same candidate."""

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        """The learning curve: a score after each of ``epochs`` epochs, higher is better (such as accuracy in [0, 1]).

        An exception is recorded as the reason why the candidate has no score.
        """


def check_evaluator(evaluator: object) -> None:
    """Raise :class:`ZooError` unless ``evaluator`` can be called as an :class:`Evaluator`."""
    try:
        inspect.signature(evaluator).bind("candidate", "epochs")  # type: ignore[arg-type]
    except TypeError:
        raise ZooError(f"evaluator is {told(evaluator)}; it must be a function of a candidate and epochs") from None
    except ValueError:  # built in: nothing is known
        pass


@dataclass(frozen=True, slots=True)
class Trial:
    """A point to be scored: ``number`` counts from 0, ``round`` from 1; it is trained for ``epochs`` epochs."""

    number: int
    round: int
    code: tuple[int, ...]
    epochs: int


@dataclass(frozen=True, slots=True)
class Task:
    """A trial as given to an evaluator. Its number is unique."""

    number: int
    candidate: Candidate
    epochs: int


class Failure(Enum):
    """Why a task has no curve."""

    ERROR = "error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    LOST = "lost"  # its process or machine died
    NOT_FINITE = "not finite"  # the curve has a NaN or an infinity, or not one score an epoch


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended: with a curve, or with a failure and its ``reason`` in one line.

    ``attempts`` is the number of attempts, ``seconds`` the duration of the last one.
    """

    number: int
    curve: tuple[float, ...]
    failure: Failure | None = None
    reason: str = ""
    attempts: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a task: seconds and gigabytes (0: no limit), and the number of retries after a failure.

    A task whose curve is not finite is not retried: the curve would be the same.
    """

    seconds: float = 0.0
    gigabytes: float = 0.0
    retries: int = 1

    def __post_init__(self) -> None:
        check_number("Limits.seconds", self.seconds, at_least=0)
        check_number("Limits.gigabytes", self.gigabytes, at_least=0)
        check_whole("Limits.retries", self.retries, at_least=0)
