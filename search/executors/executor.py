"""What a search asks of an executor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from ..evaluation.trial import Evaluator, Limits, Outcome, Task


class Executor(Protocol):
    """Evaluates tasks. All executors give the same curves for the same tasks."""

    def run(self, evaluator: Evaluator, tasks: Sequence[Task], limits: Limits) -> Iterator[Outcome]:
        """One outcome a task, each as soon as it is available, in any order. A task never raises.

        Closing the iterator ends running tasks.
        """
