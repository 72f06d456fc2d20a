"""Throughput of candidates that sleep, by executor: of the ideal, tasks x seconds / workers.

The start of the workers counts, which takes long where other programs keep the cores busy; the same without it, from
the first task on, stands beside. Workers sleep, so that there may be more of them than cores. As a peer:
concurrent.futures, which has neither limits nor retries. Prints a Markdown table; needs the extra ``ray``.

    python benchmarks/search_executors.py --tasks 1000 --workers 8 --seconds 1
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

from fbnetv3_zoo.search.evaluation import Limits, Task
from fbnetv3_zoo.search.executors import Executor, LocalPool, RayExecutor
from fbnetv3_zoo.search.space import Candidate

LABELS = {
    "pool": "LocalPool",
    "ray": "RayExecutor, a cluster of its own",
    "futures": "concurrent.futures, spawned",
}


@dataclass(frozen=True)
class Sleep:
    """Sleeps, whatever the candidate."""

    seconds: float

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        time.sleep(self.seconds)
        return [0.5] * epochs


def ours(executor: Executor, evaluator: Sleep, tasks: Sequence[Task]) -> Iterator[object]:
    for outcome in executor.run(evaluator, tasks, Limits(seconds=60 + evaluator.seconds)):
        assert (outcome.failure, outcome.attempts) == (None, 1), outcome
        yield outcome


def standard(workers: int, evaluator: Sleep, tasks: Sequence[Task]) -> Iterator[object]:
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(evaluator, task.candidate, task.epochs) for task in tasks]):
            yield future.result()


def timed(run: Callable[[], Iterator[object]]) -> tuple[float, float, int]:
    """Seconds to the first outcome and to the end, and the number of outcomes."""
    started, first, number = time.perf_counter(), 0.0, 0
    for _ in run():
        number += 1
        first = first or time.perf_counter() - started
    return first, time.perf_counter() - started, number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", choices=("pool", "ray", "futures"), help="one executor alone")
    told = parser.parse_args()
    tasks = [Task(n, Candidate(f"c{n}", {"number": n}), 5) for n in range(told.tasks)]
    evaluator, ideal = Sleep(told.seconds), told.tasks * told.seconds / told.workers
    cases: dict[str, Callable[[], Iterator[object]]] = {
        "pool": lambda: ours(LocalPool(told.workers), evaluator, tasks),
        "ray": lambda: ours(RayExecutor(workers=told.workers), evaluator, tasks),
        "futures": lambda: standard(told.workers, evaluator, tasks),
    }
    print(f"{told.tasks} candidates of {told.seconds:g} s, {told.workers} workers, {os.cpu_count()} cores, ", end="")
    print(f"load {os.getloadavg()[0]:.1f} at the start; ideal {ideal:.1f} s\n")
    print("| executor | first outcome, s | all, s | of the ideal | from the first task on |\n|---|---:|---:|---:|---:|")
    for name in [told.only] if told.only else cases:
        first, total, number = timed(cases[name])
        assert number == told.tasks
        print(
            f"| {LABELS[name]} | {first:.1f} | {total:.1f} | {ideal / total:.3f} "
            f"| {ideal / (total - first + told.seconds):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
