"""Tasks in processes of this machine."""

from __future__ import annotations

import atexit
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection

from fbnetv3_zoo.errors import ZooError, check_whole

from ..evaluation.trial import Evaluator, Limits, Outcome, Task
from .attempt import Attempt, AttemptLimits, TaskQueue, check_tasks, one_line
from .limits import check_memory_limit
from .pool_worker import PoolWorker, late, lost

STILLBORN = 40  # so many workers in a row that are killed before they are ready are no accident
EXITED = 10  # and one that ends by itself counts as much as so many
PAUSE = 1.0  # seconds after which workers are looked at though nothing was heard


@dataclass(frozen=True)
class LocalPool:
    """Has tasks evaluated by so many processes of this machine, each on so many threads of PyTorch.

    A worker whose task takes longer than its limit is killed, with all that it has started, and replaced; so is one
    that died. Workers import the caller's main module: a script's own code belongs under
    ``if __name__ == "__main__":``. They end with this process, even where it is killed.
    """

    workers: int
    threads: int = 1

    def __post_init__(self) -> None:
        check_whole("LocalPool.workers", self.workers)
        check_whole("LocalPool.threads", self.threads)

    def run(self, evaluator: Evaluator, tasks: Sequence[Task], limits: Limits) -> Iterator[Outcome]:
        """One outcome a task, as they end. Raises where ``evaluator`` cannot be sent to another process.

        Tasks are handed out while the caller asks for outcomes: a worker whose task has ended waits meanwhile.
        """
        check_memory_limit(limits.gigabytes)
        checked = check_tasks(tasks)
        return _outcomes(_Crew(self, _pickled(evaluator), TaskQueue(checked, limits), limits))


def _pickled(evaluator: Evaluator) -> bytes:
    try:
        return pickle.dumps(evaluator, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        told = one_line(error.with_traceback(None))
        raise ZooError(
            f"the evaluator cannot be pickled ({told}); other processes take a function of a module or an "
            "instance of a module's class, or use the executor in-process"
        ) from None


def _outcomes(crew: _Crew) -> Iterator[Outcome]:
    atexit.register(crew.end)  # where the iterator is left half used
    try:
        yield from crew.outcomes()
    finally:
        crew.end()
        atexit.unregister(crew.end)


class _Crew:
    """The workers of one run."""

    def __init__(self, pool: LocalPool, evaluator: bytes, waiting: TaskQueue, limits: Limits) -> None:
        self._size, self._evaluator, self._waiting = pool.workers, evaluator, waiting
        self._seconds = limits.seconds
        self._confines = AttemptLimits(limits.gigabytes, pool.threads)
        self._workers: list[PoolWorker] = []
        self._stillborn = 0

    def outcomes(self) -> Iterator[Outcome]:
        while self._waiting or any(worker.task for worker in self._workers):
            self._hire()
            self._hand_out()
            self._wait()
            for worker in tuple(self._workers):
                outcome = self._turn(worker)
                self._hand_out()  # before the caller takes its time
                if outcome:
                    yield outcome

    def end(self) -> None:
        """End all workers at once."""
        while self._workers:
            self._workers.pop().end()

    def _hire(self) -> None:
        wanted = len(self._waiting) + sum(worker.task is not None for worker in self._workers)
        while len(self._workers) < min(self._size, wanted):
            try:
                self._workers.append(PoolWorker(self._confines))
            except OSError as error:
                if self._workers:
                    return  # fewer will do
                raise ZooError(f"no worker process can be started ({error.strerror})") from None

    def _hand_out(self) -> None:
        for worker in tuple(self._workers):
            if worker.state == "idle" and self._waiting:
                task, number = self._waiting.take()
                if not worker.give(task, number):
                    self._waiting.put_back(task, number)
                    self._bury(worker)

    def _wait(self) -> None:
        """Until a worker has something to say or has died, or its time is over.

        Processes that a candidate started can hold a dead worker's pipes open: hence the pause.
        """
        left = [self._seconds - worker.seconds for worker in self._workers if self._seconds and worker.task]
        connection.wait([item for w in self._workers for item in w.awaited], max(0.0, min([PAUSE, *left])))

    def _turn(self, worker: PoolWorker) -> Outcome | None:
        """Look at one worker; the outcome of its task, if that is settled."""
        if worker not in self._workers:
            return None
        task, number = worker.task, worker.number
        ended = self._look_at(worker)
        return self._waiting.settle(task, number, ended) if task and ended else None

    def _look_at(self, worker: PoolWorker) -> Attempt | None:
        """How the worker's attempt ended, if it did."""
        try:
            if worker.silent:
                return self._dismiss(worker) if self._overdue(worker) else None
            message = worker.hear()
        except EOFError:
            return self._bury(worker)
        if worker.state == "starting":
            worker.teach(self._evaluator)
        elif worker.state == "loading":
            self._welcome(worker, str(message))
        elif isinstance(message, Attempt):
            worker.rest()
            return message
        return None

    def _overdue(self, worker: PoolWorker) -> bool:
        return worker.task is not None and 0 < self._seconds < worker.seconds

    def _welcome(self, worker: PoolWorker, problem: str) -> None:
        if problem:
            raise ZooError(f"the evaluator cannot be loaded in a worker process: {problem}")
        self._stillborn = 0
        worker.rest()

    def _dismiss(self, worker: PoolWorker) -> Attempt:
        self._workers.remove(worker)
        ended = late(worker, self._seconds)
        worker.end()
        return ended

    def _bury(self, worker: PoolWorker) -> Attempt | None:
        self._workers.remove(worker)
        ended_by = worker.end()
        if worker.task is not None:
            return lost(worker, ended_by)
        if worker.state in ("starting", "loading"):
            self._stillborn += 1 if ended_by.startswith("signal") else EXITED
        if self._stillborn >= STILLBORN:
            raise ZooError(
                f"worker processes end while they start ({ended_by}); a script's own code belongs under "
                'if __name__ == "__main__":, and stderr may say more'
            )
        return None
