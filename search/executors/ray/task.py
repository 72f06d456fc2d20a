"""What runs on Ray's side: one task, and the clock that counts its attempts. Works without importing Ray itself."""

from __future__ import annotations

import pickle
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...evaluation.trial import Evaluator, Failure, Task
from ..attempt import Attempt, AttemptLimits, attempt, one_line


@dataclass(frozen=True, slots=True)
class RayTask:
    """What Ray is asked to do: a task, under confines, at most so many attempts."""

    task: Task
    confines: AttemptLimits
    most: int


@dataclass(frozen=True, slots=True)
class PickledEvaluator:
    """A pickled evaluator, and where the caller looks for modules: a worker looks there last."""

    evaluator: bytes
    path: tuple[str, ...]


class Unloadable(Exception):  # noqa: N818
    """The evaluator cannot be unpickled; the message says why."""


class Clock:
    """An actor that is told of the start of every attempt, so that a limit counts from there and not from the queue."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}
        self._since: dict[int, float] = {}

    def start(self, number: int) -> int:
        """Note that an attempt at task ``number`` begins now; which one it is, from 1."""
        self._since[number] = time.monotonic()
        self._begun[number] = self._begun.get(number, 0) + 1
        return self._begun[number]

    def stop(self, number: int) -> tuple[int, float]:
        """Note that nothing runs of task ``number``: how many attempts have begun, how many seconds ago the latest."""
        since = self._since.pop(number, None)
        return self._begun.get(number, 0), 0.0 if since is None else time.monotonic() - since

    def overdue(self, seconds: float) -> list[int]:
        """The tasks that have been running for more than so many seconds, or died as long ago."""
        now = time.monotonic()
        return [number for number, since in self._since.items() if now - since > seconds]


def evaluate(order: RayTask, evaluator: list[Any], clock: Any) -> tuple[int, Attempt]:
    """One attempt at a task: which one it was, from 1, and how it ended.

    ``evaluator`` holds the reference to the pickled evaluator: Ray resolves none inside a list, so that a worker gets
    it once and not with every task.
    """
    import ray

    number, loaded = order.task.number, _loaded(evaluator[0])
    begun = ray.get(clock.start.remote(number))
    try:
        if begun > order.most:  # Ray does not count what memory or a lost machine ended
            return order.most, Attempt((), Failure.LOST, f"the worker process died {begun - 1} times", 0.0)
        return begun, attempt(loaded, order.task, order.confines)
    finally:
        ray.get(clock.stop.remote(number))  # waited for: a run that has all results ends the clock


@lru_cache(maxsize=1)
def _loaded(reference: Any) -> Evaluator:
    """The evaluator of this run, unpickled once a worker."""
    import ray

    try:
        packed = ray.get(reference)
        sys.path.extend(folder for folder in packed.path if folder not in sys.path)
        found: Evaluator = pickle.loads(packed.evaluator)
    except Exception as error:
        raise Unloadable(one_line(error)) from None
    return found
