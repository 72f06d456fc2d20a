"""What a search asks of an executor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from ..evaluation.trial import Evaluator, Limits, Outcome, Task


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an executor computes on: ``at_once`` tasks at a time, each with ``each`` of ``total`` devices."""

    FORMAT: ClassVar[str] = "capacity"

    at_once: int
    each: float
    total: float
    device: Literal["core", "GPU"]

    @classmethod
    def of(cls, at_once: int, cpus: float, gpus: float, total_gpus: float = 0) -> Capacity:
        """That of tasks with ``cpus`` cores and ``gpus`` GPUs each; GPUs count if there are any."""
        if gpus:
            return cls(at_once, gpus, max(total_gpus, 1.0), "GPU")
        return cls(at_once, cpus, at_once * cpus, "core")


class Executor(Protocol):
    """Evaluates tasks. All executors give the same curves for the same tasks."""

    def look(self, evaluator: Evaluator, limits: Limits) -> Capacity:
        """Look at what the tasks will be computed on. Raises :class:`ZooError` if they cannot be."""

    def run(self, evaluator: Evaluator, tasks: Sequence[Task], limits: Limits) -> Iterator[Outcome]:
        """One outcome a task, each as soon as it is available, in any order. A task never raises.

        Closing the iterator ends running tasks.
        """
