"""Executors in this process and on this machine: equal outcomes, and what befalls candidates and workers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import misbehaving
import pytest
import torch
from folders import HELPERS
from misbehaving import Misbehaving, Training, place, task
from refusals import refusal
from waiting import PATIENCE, gone, until

from fbnetv3_zoo.errors import Interrupted
from fbnetv3_zoo.search.evaluation import Failure, Limits, Outcome, Task
from fbnetv3_zoo.search.executors import Executor, InProcess, LocalPool, RayExecutor, find_executor
from fbnetv3_zoo.search.space import Candidate

KINDS = ["curve", "train", "raise", "raise_once", "leave", "nan", "infinite", "short", "nothing", "curve", "train"]
BOTH = [InProcess(), LocalPool(2)]


def by_number(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return sorted((replace(outcome, seconds=0.0) for outcome in outcomes), key=lambda outcome: outcome.number)


def failures(folder: Path, executor: Executor, kinds: list[str], limits: Limits) -> list[tuple[object, ...]]:
    """Failure, reason and attempts of tasks of these kinds."""
    tasks = [task(number, kind) for number, kind in enumerate(kinds)]
    found = by_number(executor.run(Misbehaving(folder), tasks, limits))
    assert [outcome.number for outcome in found] == list(range(len(kinds)))
    return [(outcome.failure, outcome.reason, outcome.attempts) for outcome in found]


def appears(folder: Path, pattern: str) -> Path:
    return until(lambda: list(folder.glob(pattern)), pattern)[0]


# Outcomes


def test_outcomes_are_the_same(tmp_path: Path) -> None:
    tasks, folders = [task(number, kind) for number, kind in enumerate(KINDS)], [tmp_path / "here", tmp_path / "pool"]
    for folder in folders:
        folder.mkdir()
    here, pool = (by_number(e.run(Misbehaving(f), tasks, Limits())) for e, f in zip(BOTH, folders, strict=True))
    assert here == pool
    assert here[1].curve == tuple(Training()(tasks[1].candidate, 3))
    assert here[1].curve[2] > here[1].curve[0]
    for folder in folders:
        assert [Misbehaving(folder).attempts(n) for n in (3, 5)] == [2, 1]  # not finite: not tried again


@pytest.mark.parametrize(
    ("visible", "workers", "share", "seen"),
    [("0,1", 2, 1, {(0.0,), (1.0,)}), ("4,6", 2, 0.5, {(4.0,)}), ("2,3,5,7", 2, 2, {(2.0, 3.0), (5.0, 7.0)})],
)
def test_workers_of_a_pool_have_gpus_of_their_own(
    visible: str, workers: int, share: float, seen: set[tuple[float, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As what they see of the machine's: a library that asks for GPUs finds no others."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    tasks = [task(number, "gpus", epochs=max(1, int(share))) for number in range(4)]
    outcomes = list(LocalPool(workers, gpus_per_task=share).run(Misbehaving(Path()), tasks, Limits()))
    assert {outcome.curve for outcome in outcomes} == seen
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


def test_shares_of_gpus_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(lambda: LocalPool(2, gpus_per_task=0.4))
    assert said == "LocalPool.gpus_per_task is 0.4; it must be a whole number of GPUs, or 1/2, 1/3, ... of one"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    said = refusal(lambda: list(LocalPool(3, gpus_per_task=1).run(Training(), [task(0, "train")], Limits())))
    assert said == (
        "3 workers with 1 GPUs each need 3 GPUs; 2 are visible here: give fewer workers (--executor pool:N) or a "
        "smaller share (--gpus-per-candidate 0.5)"
    )
    assert find_executor("pool", gpus_per_task=2) == LocalPool(1, gpus_per_task=2)
    assert find_executor("pool:3", gpus_per_task=0.5) == LocalPool(3, gpus_per_task=0.5)
    assert find_executor("ray", cpus_per_task=3, gpus_per_task=0.25) == RayExecutor(cpus_per_task=3, gpus_per_task=0.25)


@pytest.mark.parametrize("executor", BOTH, ids=["here", "pool"])
def test_a_failure_has_one_line_of_reason(executor: Executor, tmp_path: Path) -> None:
    error, shape = Failure.ERROR, Failure.NOT_FINITE
    assert failures(tmp_path, executor, [k for k in KINDS if k not in ("curve", "train")], Limits(retries=2)) == [
        (error, f"ValueError: no such stride {place('raise ValueError')}", 3),
        (None, "", 2),
        (error, f"SystemExit: enough {place('sys.exit')}", 3),
        (shape, "the score after epoch 2 of 3 is nan", 1),
        (shape, "the score after epoch 3 of 3 is -inf", 1),
        (shape, "the curve has 1 scores for 3 epochs", 1),
        (error, "TypeError: the evaluator returned NoneType; it must return one number an epoch", 3),
    ]  # fmt: skip


@pytest.mark.parametrize("executor", BOTH, ids=["here", "pool"])
def test_memory_has_a_limit(executor: Executor, tmp_path: Path) -> None:
    found = failures(tmp_path, executor, ["memory", "memory_of_torch", "curve"], Limits(gigabytes=2, retries=0))
    assert found[0] == (Failure.MEMORY, f"MemoryError {place('bytearray')}; the limit is 2 GB", 1)
    assert found[1][0] is Failure.MEMORY
    assert "can't allocate memory: you tried to allocate 3000000000 bytes" in str(found[1][1])
    assert found[2] == (None, "", 1)
    bytearray(3_000_000_000)  # the limit is gone


def test_no_tasks_no_outcomes() -> None:
    assert [list(executor.run(Training(), [], Limits())) for executor in (*BOTH, RayExecutor())] == [[], [], []]


@pytest.mark.parametrize("executor", [*BOTH, RayExecutor()])
def test_numbers_are_told_apart(executor: Executor) -> None:
    twice = [task(1, "curve"), task(2, "curve"), task(1, "curve")]
    assert refusal(lambda: executor.run(Training(), twice, Limits())) == (
        "two tasks have the number 1; every task needs a number of its own"
    )


# In this process


def test_time_has_a_limit_in_process(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        found = failures(tmp_path, InProcess(), ["hang", "curve", "hang_once"], Limits(seconds=1.5))
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert found == [(Failure.TIMEOUT, "still running after 1.5 s", 2), (None, "", 1), (None, "", 2)]


def test_an_alarm_that_is_swallowed_rings_again() -> None:
    (outcome,) = InProcess().run(misbehaving.ignore_everything, [task(0, "curve")], Limits(seconds=0.3, retries=0))
    assert outcome.failure is None  # it swallowed all of them
    assert 2 <= outcome.seconds < 10  # and none of its three sleeps of ten seconds was slept out


def test_no_time_limit_outside_the_main_thread() -> None:
    said: list[str] = []

    def run() -> None:
        said.append(refusal(lambda: InProcess().run(Training(), [task(0, "train")], Limits(seconds=5))))
        said.extend(o.reason for o in InProcess().run(Training(), [task(0, "train")], Limits()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert said == [
        "in-process, Limits.seconds needs the main thread; use the executor pool:1 or leave it at 0", "",
    ]  # fmt: skip


@pytest.mark.parametrize("ending", [KeyboardInterrupt, Interrupted])
def test_what_ends_a_run_ends_it(ending: type[BaseException]) -> None:
    def evaluator(candidate: Candidate, epochs: int) -> list[float]:
        raise ending

    with pytest.raises(ending):
        list(InProcess().run(evaluator, [task(0, "curve")], Limits()))


def test_threads_are_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before, tasks = torch.get_num_threads(), [task(0, "curve")]
    executors = [InProcess(), InProcess(threads=2), LocalPool(1), LocalPool(1, threads=2)]
    found = [outcome.curve for e in executors for outcome in e.run(misbehaving.threads, tasks, Limits())]
    assert [curve[:2] for curve in found] == [(1, 1), (2, 1), (1, 0), (2, 0)]
    assert [curve[2] for curve in found[2:]] == [1, 2]
    assert torch.get_num_threads() == before
    assert os.environ["OMP_NUM_THREADS"] == "7"


# Processes of this machine


def test_workers_that_die_or_hang_are_replaced(tmp_path: Path) -> None:
    kinds = ["kill", "hang", "kill_once", "curve", "vanish", "hang_once", "curve"]
    assert failures(tmp_path, LocalPool(2), kinds, Limits(seconds=3)) == [
        (Failure.LOST, "the worker process died (signal 9, SIGKILL)", 2),
        (Failure.TIMEOUT, "still running after 3 s", 2),
        (None, "", 2),
        (None, "", 1),
        (Failure.LOST, "the worker process died (exit code 0)", 2),
        (None, "", 2),
        (None, "", 1),
    ]


def children() -> list[int]:
    """Processes that this one has started."""
    found = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(pid) for path in found for pid in path.read_text().split()]


def test_workers_killed_at_any_moment_harm_nothing() -> None:
    """While they start, wait, work and answer; the pool is told of nothing."""
    tasks = [Task(n, Candidate("c", {"number": n, "seconds": 0.02}), 2) for n in range(60)]
    before, moments, over = set(children()), random.Random(0), threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while len(killed) < 30 and not over.wait(moments.uniform(0.05, 0.6)):  # then all may end, however slow
            if workers := sorted(set(children()) - before):
                try:
                    name = Path(f"/proc/{(pid := moments.choice(workers))}/cmdline").read_bytes()
                    if b"spawn_main" in name:
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                except (ProcessLookupError, FileNotFoundError):
                    pass

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = by_number(LocalPool(3).run(misbehaving.wait, tasks, Limits(retries=50)))
    finally:
        over.set()
        killer.join()
    assert [outcome.curve for outcome in found] == [(n, n) for n in range(60)]
    assert killed


def test_closing_ends_workers_and_what_they_started(tmp_path: Path) -> None:
    running = LocalPool(1).run(Misbehaving(tmp_path), [task(0, "curve"), task(1, "child")], Limits())
    assert next(running).number == 0
    _, child, _, worker = appears(tmp_path, "child-*").name.split("-")
    running.close()  # type: ignore[attr-defined]
    until(lambda: gone(int(child)) and gone(int(worker)))


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {helpers!r})
from misbehaving import Misbehaving, task
from fbnetv3_zoo.search.executors import LocalPool
from fbnetv3_zoo.search.evaluation import Limits

def main():
    global running  # there until the interpreter ends
    running = LocalPool(1).run(Misbehaving(Path({folder!r})), [task(0, "curve"), task(1, "child")], Limits())
    print(next(running).number, flush=True)
    {then}

{guard}main()
"""


def script(folder: Path, then: str, guard: str = 'if __name__ == "__main__": ') -> subprocess.Popen[str]:
    path = folder / "script.py"
    path.write_text(SCRIPT.format(helpers=str(HELPERS), folder=str(folder), then=then, guard=guard))
    return subprocess.Popen(
        [sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize(
    ("end", "then", "status"),
    [
        (lambda process: process.kill(), "next(running)", -signal.SIGKILL),
        (lambda process: os.killpg(process.pid, signal.SIGINT), "next(running)", -signal.SIGINT),
        (
            lambda process: None,
            "while not list(Path({!r}).glob('child-*')): time.sleep(0.05)",
            0,
        ),
    ],
    ids=["kill -9", "Ctrl-C", "left half used"],
)
def test_workers_end_with_their_program(
    end: Callable[[subprocess.Popen[str]], None], then: str, status: int, tmp_path: Path
) -> None:
    process = script(tmp_path, then.format(str(tmp_path)))
    _, child, _, worker = appears(tmp_path, "child-*").name.split("-")
    end(process)
    said, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (status, "0\n"), errors
    until(lambda: gone(int(child)) and gone(int(worker)))


def test_a_script_without_a_guard_is_told(tmp_path: Path) -> None:
    process = script(tmp_path, "", guard="")
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert errors.rstrip().endswith(
        "ZooError: worker processes end while they start (exit code 1); a script's own code belongs under "
        'if __name__ == "__main__":, and stderr may say more'
    )


def test_evaluators_that_cannot_be_sent() -> None:
    tasks = [task(0, "curve")]
    said = refusal(lambda: LocalPool(1).run(lambda candidate, epochs: [0.0], tasks, Limits()))
    assert said.startswith("the evaluator cannot be pickled (")
    assert said.endswith(
        "other processes take a function of a module or an instance of a module's class, or use the executor in-process"
    )
    assert refusal(lambda: list(LocalPool(1).run(misbehaving.Unloadable(), tasks, Limits()))) == (
        "the evaluator cannot be loaded in a worker process: "
        f"ImportError: No module named 'elsewhere' {place('raise ImportError')}"
    )


# Names


@pytest.mark.parametrize(
    ("text", "executor"),
    [
        ("in-process", InProcess()),
        ("pool:4", LocalPool(4)),
        ("pool", LocalPool(len(os.sched_getaffinity(0)))),
        ("ray", RayExecutor()),
        ("ray:auto", RayExecutor(address="auto")),
        ("ray:10.0.0.1:6379", RayExecutor(address="10.0.0.1:6379")),
        ("ray://head:10001", RayExecutor(address="ray://head:10001")),
    ],
)
def test_executors_by_name(text: str, executor: Executor) -> None:
    assert find_executor(text) == executor


KNOWN = "choose from in-process, pool, pool:N, ray, ray:ADDRESS, ray://HOST:10001"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("in_process", f"unknown executor 'in_process' (did you mean 'in-process'?); {KNOWN}"),
        ("pool:", f"unknown executor 'pool:' (did you mean 'pool:N'?); {KNOWN}"),
        ("pool:two", f"unknown executor 'pool:two' (did you mean 'pool:N'?); {KNOWN}"),
        ("pool:-1", f"unknown executor 'pool:-1' (did you mean 'pool:N'?); {KNOWN}"),
        ("ray://", f"unknown executor 'ray://' (did you mean 'ray'?); {KNOWN}"),
        ("", f"unknown executor ''; {KNOWN}"),
        ("pool:0", "LocalPool.workers is 0; it must be a whole number of at least 1"),
    ],
)
def test_unknown_executors(text: str, said: str) -> None:
    assert refusal(lambda: find_executor(text)) == said


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: InProcess(threads=0), "InProcess.threads is 0; it must be a whole number of at least 1"),
        (lambda: LocalPool(2, threads=0), "LocalPool.threads is 0; it must be a whole number of at least 1"),
        (lambda: RayExecutor(workers=0), "RayExecutor.workers is 0; it must be a whole number of at least 1"),
        (lambda: RayExecutor(cpus_per_task=0), "RayExecutor.cpus_per_task is 0; it must be a number above 0"),
        (lambda: RayExecutor(gpus_per_task=-1), "RayExecutor.gpus_per_task is -1; it must be a number at least 0"),
        (lambda: RayExecutor(threads=0), "RayExecutor.threads is 0; it must be a whole number of at least 1"),
    ],
)
def test_wrong_numbers(make: Callable[[], object], said: str) -> None:
    assert refusal(make) == said
