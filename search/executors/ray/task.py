"""What runs on Ray's workers: one task, and the clock that counts its attempts. Does not import Ray on import."""

from __future__ import annotations

import os
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
    """A task for Ray, with its limits and the ``most`` attempts at it."""

    task: Task
    confines: AttemptLimits
    most: int


@dataclass(frozen=True, slots=True)
class PickledEvaluator:
    """A pickled evaluator, and the caller's module search path, which a worker appends to its own."""

    evaluator: bytes
    path: tuple[str, ...]

    @classmethod
    def here(cls, evaluator: bytes) -> PickledEvaluator:
        """``evaluator``, with the path of this process."""
        return cls(evaluator, tuple(os.path.abspath(folder) for folder in sys.path))


class Unloadable(Exception):  # noqa: N818
    """The evaluator cannot be unpickled; the message says why."""


class Clock:
    """An actor notified of the start of every attempt, so that time limits do not include time in the queue."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}
        self._since: dict[int, float] = {}

    def start(self, number: int) -> int:
        """Record that an attempt at task ``number`` begins; its number, from 1."""
        self._since[number] = time.monotonic()
        self._begun[number] = self._begun.get(number, 0) + 1
        return self._begun[number]

    def stop(self, number: int) -> tuple[int, float]:
        """Record that task ``number`` is not running; the number of attempts begun, and seconds since the latest."""
        since = self._since.pop(number, None)
        return self._begun.get(number, 0), 0.0 if since is None else time.monotonic() - since

    def overdue(self, seconds: float) -> list[int]:
        """The tasks whose latest attempt began more than ``seconds`` ago and has not ended, or died."""
        now = time.monotonic()
        return [number for number, since in self._since.items() if now - since > seconds]


def evaluate(order: RayTask, evaluator: list[Any], clock: Any) -> tuple[int, Attempt]:
    """One attempt at a task: its number, from 1, and how it ended.

    ``evaluator`` contains the reference to the pickled evaluator: Ray does not resolve references in a list, so that a
    worker fetches it once and not with every task.
    """
    import ray

    number, loaded = order.task.number, _loaded(evaluator[0])
    begun = ray.get(clock.start.remote(number))
    try:
        if begun > order.most:  # Ray does not count attempts ended by lack of memory or a lost machine
            return order.most, Attempt((), Failure.LOST, f"the worker process died {begun - 1} times", 0.0)
        return begun, attempt(loaded, order.task, order.confines)
    finally:
        ray.get(clock.stop.remote(number))  # waits, because a run that has all results ends the clock


def fingerprint(evaluator: list[Any]) -> str:
    """What identifies the data of the evaluator as this machine has it."""
    read: str = _loaded(evaluator[0]).fingerprint()  # type: ignore[attr-defined]
    return read


@lru_cache(maxsize=1)
def _loaded(reference: Any) -> Evaluator:
    """The evaluator of this run, unpickled once in each worker."""
    import ray

    try:
        packed = ray.get(reference)
        sys.path.extend(folder for folder in packed.path if folder not in sys.path)
        evaluator: Evaluator = pickle.loads(packed.evaluator)
    except Exception as error:
        raise Unloadable(one_line(error)) from None
    return evaluator
