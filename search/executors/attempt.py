"""One attempt at a task, shared by all executors, so that all give the same outcomes."""

from __future__ import annotations

import errno
import math
import time
import traceback
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fbnetv3_zoo.errors import Interrupted, LostProcess, ZooError

from ..evaluation.trial import Evaluator, Failure, Limits, Outcome, Task
from .limits import TimeUp, alarm, computing_threads, memory_limit

LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt ended: with a curve, or with a failure and its reason, and its duration in seconds."""

    curve: tuple[float, ...]
    failure: Failure | None
    reason: str
    seconds: float

    @property
    def final(self) -> bool:
        """Whether another attempt would end the same way."""
        return self.failure in (None, Failure.NOT_FINITE)

    def outcome(self, task: Task, attempts: int) -> Outcome:
        """The outcome of ``task`` if this was the last of ``attempts`` attempts."""
        return Outcome(task.number, self.curve, self.failure, self.reason, attempts, self.seconds)


@dataclass(frozen=True, slots=True)
class AttemptLimits:
    """Limits of an attempt: gigabytes (0: no limit), threads of PyTorch, seconds (0: no limit of its own)."""

    gigabytes: float = 0.0
    threads: int = 1
    seconds: float = 0.0


class InvalidCurve(Exception):  # noqa: N818 - a finding about a curve
    """A curve that is not finite or does not have one score an epoch; the message says where."""


def attempt(evaluator: Evaluator, task: Task, confines: AttemptLimits) -> Attempt:
    """Evaluate ``task`` in this process. Raises only KeyboardInterrupt and :class:`Interrupted`."""
    started = time.perf_counter()
    try:
        with ExitStack() as stack:
            stack.enter_context(computing_threads(confines.threads))
            stack.enter_context(memory_limit(confines.gigabytes))
            stack.enter_context(alarm(confines.seconds))
            curve = checked(evaluator(task.candidate, task.epochs), task.epochs)
        return Attempt(curve, None, "", time.perf_counter() - started)
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:  # even SystemExit: a candidate must not end the search
        failure, reason = explained(error, confines)
        return Attempt((), failure, reason, time.perf_counter() - started)


def checked(curve: Iterable[object], epochs: int) -> tuple[float, ...]:
    """``curve`` as floats, one an epoch. Raises :class:`InvalidCurve` for a wrong number, NaN and infinity."""
    if isinstance(curve, str) or not isinstance(curve, Iterable):
        raise TypeError(f"the evaluator returned {type(curve).__name__}; it must return one number an epoch")
    scores = tuple(float(score) for score in curve)  # type: ignore[arg-type]
    if len(scores) != epochs:
        raise InvalidCurve(f"the curve has {len(scores)} scores for {epochs} epochs")
    for epoch, score in enumerate(scores, 1):
        if not math.isfinite(score):
            raise InvalidCurve(f"the score after epoch {epoch} of {epochs} is {score}")
    return scores


def explained(error: BaseException, confines: AttemptLimits) -> tuple[Failure, str]:
    """The failure and its reason in one line, for an attempt that raised ``error``."""
    if isinstance(error, InvalidCurve):
        return Failure.NOT_FINITE, str(error)
    if isinstance(error, LostProcess):
        return Failure.LOST, str(error)
    if isinstance(error, TimeUp):
        return Failure.TIMEOUT, overdue(confines.seconds)
    if is_memory(error):
        bound = f"; the limit is {confines.gigabytes:g} GB" if confines.gigabytes else ""
        return Failure.MEMORY, one_line(error) + bound
    return Failure.ERROR, one_line(error)


def overdue(seconds: float) -> str:
    """The reason of an attempt that exceeded ``seconds``."""
    return f"still running after {seconds:g} s"


def is_memory(error: BaseException) -> bool:
    """Whether ``error`` reports that memory ran out; PyTorch raises a RuntimeError."""
    messages = ("can't allocate memory", "not enough memory", "out of memory")
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and any(message in str(error) for message in messages))
    )


def one_line(error: BaseException) -> str:
    """``ValueError: message (file.py, line 3)``: the first line of the message and its origin, if not here."""
    frames = traceback.extract_tb(error.__traceback__)
    elsewhere = frames and frames[-1].filename != __file__
    location = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if elsewhere else ""
    return printable(f"{type(error).__name__}: {_message(error)}".removesuffix(": ")) + location


def _message(error: BaseException) -> str:
    try:
        return next((line for line in str(error).splitlines() if line.strip()), "")
    except Exception:  # its own __str__ fails
        return ""


def printable(text: str) -> str:
    """``text`` as one line of printable characters, truncated if very long."""
    line = "".join(c if c.isprintable() else " " for c in text).strip()
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."


class TaskQueue:
    """The tasks waiting for an attempt, with the number of the attempt."""

    def __init__(self, tasks: Sequence[Task], limits: Limits) -> None:
        self._queue = deque((task, 1) for task in tasks)
        self._limits = limits

    def __len__(self) -> int:
        return len(self._queue)

    def take(self) -> tuple[Task, int]:
        """The next task, and the number of its attempt, from 1."""
        return self._queue.popleft()

    def put_back(self, task: Task, number: int) -> None:
        """Return ``task`` to the front of the queue: its attempt did not begin."""
        self._queue.appendleft((task, number))

    def settle(self, task: Task, number: int, ended: Attempt) -> Outcome | None:
        """The outcome after attempt ``number``, or None if ``task`` will be retried."""
        if not ended.final and number <= self._limits.retries:
            self._queue.append((task, number + 1))
            return None
        return ended.outcome(task, number)


def check_tasks(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """``tasks`` as a tuple. Raises :class:`ZooError` if two have the same number."""
    numbers = [task.number for task in tasks]
    if twice := sorted({number for number in numbers if numbers.count(number) > 1}):
        raise ZooError(f"two tasks have the number {twice[0]}; every task needs a number of its own")
    return tuple(tasks)
