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
from .executor import Capacity
from .gpus import check_share, divided, room
from .limits import check_memory_limit
from .pool_worker import PoolWorker, late, lost

FAILED_STARTS = 40  # workers in a row that are killed before they are ready, until the run is given up
EXIT_WEIGHT = 10  # a worker that exits by itself counts as this many
PAUSE = 1.0  # seconds after which workers are checked even without a message


@dataclass(frozen=True)
class LocalPool:
    """Evaluates tasks in ``workers`` processes of this machine, each on ``threads`` threads of PyTorch.

    Each sees ``gpus_per_task`` GPUs of its own, or shares one with others (1/2, 1/3, ...); with 0, it sees them all.
    ``cpus_per_task`` are counted as the cost of a task on the CPU, and not enforced.
    A worker whose task exceeds its time limit is killed, with its child processes, and replaced; so is one that died.
    Workers import the caller's main module: a script's own code belongs under ``if __name__ == "__main__":``. They end
    with this process, even if it is killed.
    """

    workers: int
    threads: int = 1
    gpus_per_task: float = 0
    cpus_per_task: int = 1

    def __post_init__(self) -> None:
        check_whole("LocalPool.workers", self.workers)
        check_whole("LocalPool.threads", self.threads)
        check_share("LocalPool.gpus_per_task", self.gpus_per_task)
        check_whole("LocalPool.cpus_per_task", self.cpus_per_task)

    def look(self, evaluator: Evaluator, limits: Limits) -> Capacity:
        """A task for each worker. Raises if ``evaluator`` cannot be pickled or there are too few GPUs."""
        self.run(evaluator, (), limits)
        gpus = self.gpus_per_task
        return Capacity.of(self.workers, self.cpus_per_task, gpus, room(1) if gpus else 0)

    def run(self, evaluator: Evaluator, tasks: Sequence[Task], limits: Limits) -> Iterator[Outcome]:
        """One outcome a task, as they end. Raises if ``evaluator`` cannot be pickled.

        Tasks are handed out only while the caller waits for an outcome; until then, idle workers wait.
        """
        check_memory_limit(limits.gigabytes)
        checked = check_tasks(tasks)
        return _outcomes(_Workers(self, _pickled(evaluator), TaskQueue(checked, limits), limits))


def _pickled(evaluator: Evaluator) -> bytes:
    try:
        return pickle.dumps(evaluator, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        reason = one_line(error.with_traceback(None))
        raise ZooError(
            f"the evaluator cannot be pickled ({reason}); other processes take a function of a module or an "
            "instance of a module's class, or use the executor in-process"
        ) from None


def _outcomes(workers: _Workers) -> Iterator[Outcome]:
    atexit.register(workers.end)  # in case the iterator is never closed
    try:
        yield from workers.outcomes()
    finally:
        workers.end()
        atexit.unregister(workers.end)


class _Workers:
    """The workers of one run."""

    def __init__(self, pool: LocalPool, evaluator: bytes, waiting: TaskQueue, limits: Limits) -> None:
        self._size, self._evaluator, self._waiting = pool.workers, evaluator, waiting
        self._seconds = limits.seconds
        self._confines = AttemptLimits(limits.gigabytes, pool.threads)
        self._gpus = divided(pool.workers, pool.gpus_per_task) if pool.gpus_per_task else []
        self._workers: list[PoolWorker] = []
        self._failed_starts = 0

    def outcomes(self) -> Iterator[Outcome]:
        while self._waiting or any(worker.task for worker in self._workers):
            self._hire()
            self._hand_out()
            self._wait()
            for worker in tuple(self._workers):
                outcome = self._turn(worker)
                self._hand_out()  # before the caller processes the outcome
                if outcome:
                    yield outcome

    def end(self) -> None:
        """End all workers at once."""
        while self._workers:
            self._workers.pop().end()

    def _hire(self) -> None:
        needed = len(self._waiting) + sum(worker.task is not None for worker in self._workers)
        while len(self._workers) < min(self._size, needed):
            try:
                self._workers.append(PoolWorker(self._confines, self._free_gpus()))
            except OSError as error:
                if self._workers:
                    return  # fewer will do
                raise ZooError(f"no worker process can be started ({error.strerror})") from None

    def _free_gpus(self) -> str | None:
        """The GPUs of a new worker: those that the fewest others see."""
        seen = [worker.gpus for worker in self._workers]
        return min(self._gpus, key=lambda gpus: seen.count(gpus) / self._gpus.count(gpus), default=None)

    def _hand_out(self) -> None:
        for worker in tuple(self._workers):
            if worker.state == "idle" and self._waiting:
                task, number = self._waiting.take()
                if not worker.give(task, number):
                    self._waiting.put_back(task, number)
                    self._bury(worker)

    def _wait(self) -> None:
        """Wait until a worker sends a message, dies or exceeds its time.

        Processes that a candidate started can keep a dead worker's pipes open: hence the pause.
        """
        left = [self._seconds - worker.seconds for worker in self._workers if self._seconds and worker.task]
        connection.wait([item for w in self._workers for item in w.awaited], max(0.0, min([PAUSE, *left])))

    def _turn(self, worker: PoolWorker) -> Outcome | None:
        """Check one worker; the outcome of its task, if it has one."""
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
        self._failed_starts = 0
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
            self._failed_starts += 1 if ended_by.startswith("signal") else EXIT_WEIGHT
        if self._failed_starts >= FAILED_STARTS:
            raise ZooError(
                f"worker processes end while they start ({ended_by}); a script's own code belongs under "
                'if __name__ == "__main__":, and stderr may say more'
            )
        return None
