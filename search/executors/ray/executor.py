"""Tasks on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fbnetv3_zoo.errors import ZooError, check_number, check_whole
from fbnetv3_zoo.utils.hardware import cores

from ...evaluation.trial import Evaluator, Failure, Limits, Outcome, Task
from ..attempt import Attempt, AttemptLimits, check_tasks, is_memory, one_line, overdue
from ..executor import Capacity
from ..gpus import room
from ..limits import check_memory_limit
from .cluster import connected, fitting_nodes, imported, is_temporary, room_of
from .nodes import check_nodes
from .task import Clock, PickledEvaluator, RayTask, Unloadable, evaluate

PAUSE = 1.0  # most seconds between two checks of the clock


@dataclass(frozen=True)
class RayExecutor:
    """Evaluates tasks with Ray, spread over the machines of a cluster, with CPUs and GPUs reserved for each.

    ``address`` is that of a cluster (``HOST:PORT``, ``auto``, ``ray://HOST:10001``), whose machines need this package
    and the evaluator's; by default RAY_ADDRESS, or else a temporary cluster on this machine. If the caller has
    initialized Ray, that is used and left running. ``workers`` tasks run at a time: by default as many as the cluster
    has room for. Each uses ``threads`` threads of PyTorch.

    Ray itself restarts a task whose worker or machine died, and reports it on stdout. A task that failed is submitted
    again. One that exceeds its time limit, counted from its latest start, is cancelled by force.
    """

    address: str = ""
    workers: int | None = None
    cpus_per_task: float = 1
    gpus_per_task: float = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_whole("RayExecutor.workers", self.workers)
        check_number("RayExecutor.cpus_per_task", self.cpus_per_task, above=0)
        check_number("RayExecutor.gpus_per_task", self.gpus_per_task, at_least=0)
        check_whole("RayExecutor.threads", self.threads)

    def look(self, evaluator: Evaluator, limits: Limits) -> Capacity:
        """The tasks for which the nodes have room at a time.

        Raises :class:`ZooError` if a node has another version of this package, Python or PyTorch than this machine, or
        other data, where the evaluator has a method ``fingerprint`` that identifies it.
        """
        self.run(evaluator, (), limits)
        ray, cpus, gpus = imported(), self.cpus_per_task, self.gpus_per_task
        if is_temporary(ray, self.address):
            here = int(min([cores() / cpus, *([room(gpus)] if gpus else [])]))
            return Capacity.of(max(1, self.workers or here), cpus, gpus, room(1) if gpus else 0)
        with connected(ray, self.address, self.workers, cpus, gpus, limits.retries):
            nodes = fitting_nodes(ray, cpus, gpus)
            check_nodes(ray, nodes, evaluator, PickledEvaluator.here(_pickled(ray, evaluator)))
            at_once = max(1, sum(room_of(node, cpus, gpus) for node in nodes))
            total = sum(node["Resources"].get("GPU", 0) for node in nodes)
        return Capacity.of(min(at_once, self.workers or at_once), cpus, gpus, total)

    def run(self, evaluator: Evaluator, tasks: Sequence[Task], limits: Limits) -> Iterator[Outcome]:
        """One outcome a task, as they end. Raises if Ray is not installed or ``evaluator`` cannot be pickled."""
        ray = imported()
        check_memory_limit(limits.gigabytes)
        checked = check_tasks(tasks)
        return _outcomes(ray, self, _pickled(ray, evaluator), checked, limits)


def _pickled(ray: Any, evaluator: Evaluator) -> bytes:
    try:
        data: bytes = ray.cloudpickle.dumps(evaluator)
    except Exception as error:
        reason = one_line(error.with_traceback(None))
        raise ZooError(
            f"the evaluator cannot be pickled ({reason}); other machines take a function of a module or an "
            "instance of a module's class, or use the executor in-process"
        ) from None
    return data


def _outcomes(
    ray: Any, settings: RayExecutor, evaluator: bytes, tasks: Sequence[Task], limits: Limits
) -> Iterator[Outcome]:
    if not tasks:
        return
    size = (settings.workers, settings.cpus_per_task, settings.gpus_per_task)
    with connected(ray, settings.address, *size, limits.retries):
        job = _Job(ray, settings, evaluator, limits)
        try:
            yield from job.outcomes(tasks)
        finally:
            job.end()


class _Job:
    """The tasks of one run that were submitted to Ray, by the references to their results."""

    def __init__(self, ray: Any, settings: RayExecutor, evaluator: bytes, limits: Limits) -> None:
        self._ray, self._limits, self._room = ray, limits, settings.workers
        self._clock = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Clock).remote()
        self._remote = ray.remote(
            num_cpus=settings.cpus_per_task, num_gpus=settings.gpus_per_task, scheduling_strategy="SPREAD"
        )(evaluate)
        self._evaluator = ray.put(PickledEvaluator.here(evaluator))
        self._confines = AttemptLimits(limits.gigabytes, settings.threads)
        self._tasks: dict[Any, Task] = {}
        self._late: set[int] = set()

    def outcomes(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        left = list(reversed(tasks))
        while left or self._tasks:
            while left and (self._room is None or len(self._tasks) < self._room):
                self._submit(left.pop(), 0)
            for reference in self._ended():
                task = self._tasks.pop(reference)
                if outcome := self._outcome(reference, task):
                    yield outcome

    def end(self) -> None:
        """Cancel running tasks by force."""
        for reference in self._tasks:
            with suppress(Exception):  # a failure must not prevent the others from being cancelled
                self._ray.cancel(reference, force=True)
        with suppress(Exception):
            self._ray.kill(self._clock)

    def _submit(self, task: Task, begun: int) -> None:
        """Submit ``task`` to Ray; ``begun`` attempts have begun before."""
        order = RayTask(task, self._confines, self._limits.retries + 1)
        remote = self._remote.options(max_retries=self._limits.retries - begun, name=task.candidate.name)
        self._tasks[remote.remote(order, [self._evaluator], self._clock)] = task

    def _ended(self) -> list[Any]:
        """References to tasks that have ended, none after a pause; also cancels tasks that exceed their limit."""
        seconds = self._limits.seconds
        timeout = min(PAUSE, seconds / 4) if seconds else None
        ready, waiting = self._ray.wait(list(self._tasks), num_returns=1, timeout=timeout)
        if waiting and seconds:
            late = set(self._ray.get(self._clock.overdue.remote(seconds))) - self._late
            for reference in (r for r in waiting if self._tasks[r].number in late):
                self._late.add(self._tasks[reference].number)
                self._ray.cancel(reference, force=True)
        references: list[Any] = ready
        return references

    def _outcome(self, reference: Any, task: Task) -> Outcome | None:
        """The outcome of ``task``; None if it was submitted again."""
        late = task.number in self._late
        self._late.discard(task.number)
        try:
            begun, ended = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            begun, ended = self._raised(task, error.cause)
        except self._ray.exceptions.RayError as error:
            begun, ended = self._gone(task, error, late)
        if not ended.final and begun <= self._limits.retries:
            self._submit(task, begun)
            return None
        outcome: Outcome = ended.outcome(task, begun)
        return outcome

    def _raised(self, task: Task, cause: BaseException) -> tuple[int, Attempt]:
        """The number of attempts begun, and how the latest ended, for a task that raised."""
        if isinstance(cause, Unloadable):
            raise ZooError(f"the evaluator cannot be loaded in a worker process: {cause}") from None
        begun, seconds = self._ray.get(self._clock.stop.remote(task.number))
        return begun, Attempt((), Failure.ERROR, one_line(cause), seconds)

    def _gone(self, task: Task, error: Exception, late: bool) -> tuple[int, Attempt]:
        """The same for a task whose worker is gone. Unless it was late, Ray has made all attempts.

        If Ray restarted the task after a death, a late one may have been cancelled just before or after its new start:
        then that attempt does not count.
        """
        begun, seconds = self._ray.get(self._clock.stop.remote(task.number))
        if late:
            begun -= begun > self._limits.retries and seconds <= self._limits.seconds
            return begun, Attempt((), Failure.TIMEOUT, overdue(self._limits.seconds), seconds)
        most = self._limits.retries + 1
        if is_memory(error):
            return most, Attempt((), Failure.MEMORY, one_line(error.with_traceback(None)), seconds)
        return most, Attempt((), Failure.LOST, f"the worker process died ({type(error).__name__})", seconds)
