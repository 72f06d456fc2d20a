"""A process of :class:`LocalPool`: its main function, and the pool's handle on it."""

from __future__ import annotations

import pickle
import signal
import time
from contextlib import suppress
from multiprocessing import connection, get_context
from typing import Literal

from fbnetv3_zoo.errors import Interrupted
from fbnetv3_zoo.utils.processes import end_group_with_parent, kill_group

from ..evaluation.trial import Evaluator, Failure, Task
from .attempt import Attempt, AttemptLimits, attempt, one_line, overdue
from .gpus import VISIBLE
from .limits import environment, thread_settings

State = Literal["starting", "loading", "idle", "busy"]
Pipe = connection.Connection


def serve(pipe: Pipe, confines: AttemptLimits) -> None:
    """Main function of a worker: receive the evaluator, report whether it could be loaded, then evaluate tasks."""
    end_group_with_parent()
    with suppress(EOFError, OSError, Interrupted):
        pipe.send(None)
        evaluator, problem = _loaded(pipe.recv_bytes())
        pipe.send(problem)
        while evaluator is not None:
            pipe.send(attempt(evaluator, pipe.recv(), confines))


def _loaded(pickled: bytes) -> tuple[Evaluator | None, str]:
    try:
        return pickle.loads(pickled), ""
    except Exception as error:
        return None, one_line(error)


class PoolWorker:
    """A worker process and its task; ``gpus`` is what it sees of them (None: all).

    Every worker has its own pipe and shares nothing, so that its death never affects another.
    """

    def __init__(self, confines: AttemptLimits, gpus: str | None = None) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, confines), name="fbnetv3-zoo worker")
        try:
            with thread_settings(confines.threads), environment(**({} if gpus is None else {VISIBLE: gpus})):
                self._process.start()
        finally:
            theirs.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.state: State = "starting"
        self.gpus = gpus
        self.task: Task | None = None
        self.number = 0
        self._started = 0.0

    def teach(self, evaluator: bytes) -> None:
        """Send the pickled evaluator. Raises EOFError if the worker has died."""
        try:
            self.pipe.send_bytes(evaluator)
        except OSError:
            raise EOFError from None
        self.state = "loading"

    def give(self, task: Task, number: int) -> bool:
        """Start attempt ``number`` at ``task``; False if the worker has died."""
        try:
            self.pipe.send(task)
        except OSError:
            return False
        self.state, self.task, self.number, self._started = "busy", task, number, time.perf_counter()
        return True

    def rest(self) -> None:
        """Mark the worker as idle."""
        self.state, self.task = "idle", None

    @property
    def seconds(self) -> float:
        """How long the task has been running, in seconds."""
        return time.perf_counter() - self._started

    @property
    def silent(self) -> bool:
        """Whether the worker is alive and has sent nothing."""
        return self._process.exitcode is None and not self.pipe.poll()

    @property
    def awaited(self) -> list[Pipe | int]:
        """What to pass to :func:`multiprocessing.connection.wait`."""
        return [self.pipe, self._process.sentinel]

    def hear(self) -> object:
        """The next message. Raises EOFError if the worker died without one."""
        try:
            if self.pipe.poll():
                return self.pipe.recv()
        except OSError:
            pass
        raise EOFError

    def end(self) -> str:
        """Kill the process and its children; the signal or exit code that it ended with."""
        kill_group(self.pid)
        self._process.kill()
        self._process.join()
        self.pipe.close()
        code = self._process.exitcode or 0
        return f"signal {-code}, {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def lost(worker: PoolWorker, ended_by: str) -> Attempt:
    """The attempt of a worker that died."""
    return Attempt((), Failure.LOST, f"the worker process died ({ended_by})", worker.seconds)


def late(worker: PoolWorker, seconds: float) -> Attempt:
    """The attempt of a worker that exceeded ``seconds``."""
    return Attempt((), Failure.TIMEOUT, overdue(seconds), worker.seconds)
