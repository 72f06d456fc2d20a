"""Tasks one after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fbnetv3_zoo.errors import check_whole

from ..evaluation.trial import Evaluator, Limits, Outcome, Task
from .attempt import AttemptLimits, TaskQueue, attempt, check_tasks
from .executor import Capacity
from .gpus import check_share
from .limits import check_alarm, check_memory_limit


@dataclass(frozen=True)
class InProcess:
    """Evaluates tasks one after the other in this process, on ``threads`` threads of PyTorch.

    A time limit works in the main thread, through SIGALRM: it ends Python code, but not a call that never returns from
    compiled code, and a module whose import it interrupts cannot be imported again. A candidate that crashes ends the
    process. :class:`LocalPool` survives all three. ``gpus_per_task`` are counted as the cost of a task.
    """

    threads: int = 1
    gpus_per_task: float = 0

    def __post_init__(self) -> None:
        check_whole("InProcess.threads", self.threads)
        check_share("InProcess.gpus_per_task", self.gpus_per_task)

    def look(self, evaluator: Evaluator, limits: Limits) -> Capacity:
        """One task at a time, on a core or the GPUs it is said to have."""
        self.run(evaluator, (), limits)
        return Capacity.of(1, 1, self.gpus_per_task, self.gpus_per_task)

    def run(self, evaluator: Evaluator, tasks: Sequence[Task], limits: Limits) -> Iterator[Outcome]:
        """One outcome a task, in order, except that retries come last."""
        check_alarm(limits.seconds)
        check_memory_limit(limits.gigabytes)
        confines = AttemptLimits(limits.gigabytes, self.threads, limits.seconds)
        return _outcomes(evaluator, TaskQueue(check_tasks(tasks), limits), confines)


def _outcomes(evaluator: Evaluator, waiting: TaskQueue, confines: AttemptLimits) -> Iterator[Outcome]:
    while waiting:
        task, number = waiting.take()
        if outcome := waiting.settle(task, number, attempt(evaluator, task, confines)):
            yield outcome
