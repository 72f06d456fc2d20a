"""Candidates on Ray: a cluster of its own, the caller's, one by its address; two workers on this machine."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import misbehaving
import pytest
import ray
from folders import HELPERS
from misbehaving import Misbehaving, Training, place, task
from refusals import refusal
from waiting import PATIENCE, gone, until

from fbnetv3_zoo.search.evaluation import Failure, Limits, Outcome, Task
from fbnetv3_zoo.search.executors import InProcess, RayExecutor
from fbnetv3_zoo.search.executors.ray import cluster as ray_cluster
from fbnetv3_zoo.search.space import Candidate


def by_number(outcomes: Iterator[Outcome]) -> list[Outcome]:
    return sorted((replace(outcome, seconds=0.0) for outcome in outcomes), key=lambda outcome: outcome.number)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Ray as a caller would have initialized it, with room for two tasks; its address."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def test_a_cluster_of_its_own(tmp_path: Path) -> None:
    """Same outcomes as in this process, and Ray, signals and environment as before."""
    kinds = ["curve", "train", "raise", "raise_once", "leave", "nan", "infinite", "short", "nothing", "train", "curve"]
    tasks, folders = [task(number, kind) for number, kind in enumerate(kinds)], [tmp_path / "here", tmp_path / "ray"]
    for folder in folders:
        folder.mkdir()
    Training()(tasks[0].candidate, 1)  # what PyTorch writes into the environment is there before
    before, environment = signal.getsignal(signal.SIGTERM), dict(os.environ)
    here, there = (
        by_number(executor.run(Misbehaving(folder), tasks, Limits()))
        for executor, folder in zip([InProcess(), RayExecutor(workers=2)], folders, strict=True)
    )
    assert here == there
    assert here[2].reason == f"ValueError: no such stride {place('raise ValueError')}"
    assert here[9].curve == tuple(Training()(tasks[9].candidate, 3))
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is before
    assert dict(os.environ) == environment


def test_a_cluster_of_its_own_keeps_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens on the loopback interface, without the process that asks clouds where it is; Ray is as before."""
    private = ray._private
    started = private.services.start_api_server
    with ray_cluster.connected(ray, "", 1, 1, 0, 1):
        assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
        assert "dashboard" not in private.worker._global_node.all_processes
    assert private.services.start_api_server is started
    assert private.ray_constants.ENABLE_RAY_CLUSTER
    monkeypatch.setenv(ray_cluster.LOOPBACK, "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    with ray_cluster._telling_nobody(ray):
        assert private.services.start_api_server is started
        assert private.ray_constants.ENABLE_RAY_CLUSTER


LOST = (Failure.LOST, "the worker process died (WorkerCrashedError)", 2)
ENDINGS = {  # failure, reason, attempts
    "kill_once": (None, "", 2),
    "curve": (None, "", 1),
    "memory": (Failure.MEMORY, f"MemoryError {place('bytearray')}; the limit is 2 GB", 2),
    "hang_once": (None, "", 2),
    "kill": LOST,
    "vanish": LOST,
    "hang": (Failure.TIMEOUT, "still running after 3 s", 2),
}


@pytest.mark.parametrize("count", [4, pytest.param(len(ENDINGS), marks=pytest.mark.long)])
def test_workers_that_die_or_hang(count: int, tmp_path: Path, cluster: str) -> None:
    """Ray starts again what a dead worker had; and the caller's Ray is left alone."""
    kinds = [*ENDINGS][:count]
    tasks = [task(number, kind) for number, kind in enumerate(kinds)]
    limits = Limits(seconds=3, gigabytes=2)
    found = by_number(RayExecutor(workers=2).run(Misbehaving(tmp_path), tasks, limits))
    endings = [(outcome.failure, outcome.reason, outcome.attempts) for outcome in found]
    assert dict(zip(kinds, endings, strict=True)) == {kind: ENDINGS[kind] for kind in kinds}
    assert found[1].curve == tuple(Misbehaving(tmp_path)(tasks[1].candidate, 3))
    assert ray.is_initialized()


@pytest.mark.long
def test_a_limit_does_not_count_the_queue(cluster: str) -> None:
    """Sixty tasks of 0.2 s on two processors: the last of them ends after more than 5 s, and is not late."""
    tasks = [Task(n, Candidate("c", {"number": n, "seconds": 0.2}), 1) for n in range(60)]
    found = by_number(RayExecutor().run(misbehaving.wait, tasks, Limits(seconds=5, retries=0)))
    assert [(outcome.curve, outcome.attempts) for outcome in found] == [((n,), 1) for n in range(60)]


def test_closing_cancels_what_runs(tmp_path: Path, cluster: str) -> None:
    running = RayExecutor().run(Misbehaving(tmp_path), [task(0, "curve"), task(1, "child")], Limits())
    assert next(running).number == 0
    found = until(lambda: list(tmp_path.glob("child-*")))
    running.close()  # type: ignore[attr-defined]
    until(lambda: gone(int(found[0].name.split("-")[-1])))


def test_evaluators_that_cannot_be_sent(cluster: str) -> None:
    tasks = [task(0, "curve")]
    lock = threading.Lock()
    said = refusal(lambda: RayExecutor().run(lambda candidate, epochs: [float(lock.locked())], tasks, Limits()))
    assert said == (
        "the evaluator cannot be pickled (TypeError: cannot pickle '_thread.lock' object); "
        "other machines take a function "
        "of a module or an instance of a module's class, or use the executor in-process"
    )
    assert refusal(lambda: list(RayExecutor().run(misbehaving.Unloadable(), tasks, Limits()))) == (
        "the evaluator cannot be loaded in a worker process: "
        f"ImportError: No module named 'elsewhere' {place('raise ImportError')}"
    )


def test_a_task_too_large_for_every_machine_waits_and_says_so(cluster: str, caplog: pytest.LogCaptureFixture) -> None:
    running = RayExecutor(gpus_per_task=1).run(Training(), [task(0, "train")], Limits(seconds=0.1))

    def end() -> None:
        until(lambda: caplog.messages, "a message")
        time.sleep(1)  # it is said once
        signal.raise_signal(signal.SIGINT)

    ctrl_c = threading.Thread(target=end)
    ctrl_c.start()
    with pytest.raises(KeyboardInterrupt):
        next(running)
    ctrl_c.join()
    assert caplog.messages == [
        "a task asks for 1 CPUs and 1 GPUs, more than any machine of the Ray cluster has; it waits for one"
    ]


SCRIPT = """
import sys
sys.path.insert(0, {helpers!r})
import misbehaving
from fbnetv3_zoo.search.executors import find_executor
from fbnetv3_zoo.search.evaluation import Limits
try:
    tasks = [misbehaving.task(5, "curve")]
    found = list(find_executor(sys.argv[1]).run(misbehaving.Misbehaving(None), tasks, Limits()))
    print(*found[0].curve)
except ValueError as error:
    print(error)
"""


def _in_another_program(name: str) -> str:
    script = SCRIPT.format(helpers=str(HELPERS))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, name], capture_output=True, text=True, timeout=PATIENCE
    )
    return done.stdout.strip() or done.stderr


def test_an_existing_cluster_by_its_address(cluster: str) -> None:
    curve = Misbehaving(Path())(task(5, "curve").candidate, 3)
    assert _in_another_program(f"ray:{cluster}") == " ".join(str(float(score)) for score in curve)
    assert ray.get(ray.remote(lambda: 5).remote()) == 5  # the cluster is still there


def test_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert refusal(lambda: RayExecutor().run(Training(), [], Limits())) == (
        'the executor ray needs Ray: pip install "fbnetv3-zoo[ray]"'
    )
