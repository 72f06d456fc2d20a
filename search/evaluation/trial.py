"""What a search asks for and what it is told: trials, tasks, outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from fbnetv3_zoo.errors import check_number, check_whole

from ..space import Candidate


class Evaluator(Protocol):
    """Scores candidates. It is sent to other processes by pickle, and the same candidate gets the same curve."""

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        """The learning curve: a score after each of ``epochs`` epochs, higher is better (accuracy in [0, 1], say).

        Whatever it raises is recorded as the reason why the candidate has no score.
        """


@dataclass(frozen=True, slots=True)
class Trial:
    """A point that a search wants scored: its ``number`` from 0, its round from 1, its code, so many epochs."""

    number: int
    round: int
    code: tuple[int, ...]
    epochs: int


@dataclass(frozen=True, slots=True)
class Task:
    """A trial on its way to an evaluator. Its number tells it from all others."""

    number: int
    candidate: Candidate
    epochs: int


class Failure(Enum):
    """Why a task has no curve."""

    ERROR = "error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    LOST = "lost"  # the process or machine that had it is gone
    NOT_FINITE = "not finite"  # the curve has a NaN or an infinity, or not one score an epoch


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended: with a curve, or with a failure and ``reason``, one line that says what happened.

    ``attempts`` counts the tries it took, ``seconds`` is the time of the last of them.
    """

    number: int
    curve: tuple[float, ...]
    failure: Failure | None = None
    reason: str = ""
    attempts: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one task may take: seconds and gigabytes (0: no limit), and how often it is tried again after a failure.

    A curve that is not finite is not tried again: it would be the same.
    """

    seconds: float = 0.0
    gigabytes: float = 0.0
    retries: int = 1

    def __post_init__(self) -> None:
        check_number("Limits.seconds", self.seconds, at_least=0)
        check_number("Limits.gigabytes", self.gigabytes, at_least=0)
        check_whole("Limits.retries", self.retries, at_least=0)


class Executor(Protocol):
    """Has tasks evaluated, somewhere. For the same tasks, every executor gives the same curves."""

    def run(self, evaluator: Evaluator, tasks: Sequence[Task], limits: Limits) -> Iterator[Outcome]:
        """One outcome a task, each as soon as it is there, in whatever order. A task never raises.

        Closing the iterator ends what still runs.
        """
