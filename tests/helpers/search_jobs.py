"""A search in a process of its own that can be killed at any moment, and the account of what it did before.

What it evaluates and is told goes to a log beside its folder, line by line. As a script, with a job in JSON: one life
of that search, which resumes where the last one ended.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock
from safetensors.numpy import load_file

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.search.evaluation import Outcome, Trial
from fbnetv3_zoo.search.executors import InProcess, LocalPool
from fbnetv3_zoo.search.journal import Journal
from fbnetv3_zoo.search.plan import SearchPlan
from fbnetv3_zoo.search.predictors import MLP, Pretraining
from fbnetv3_zoo.search.run import SearchCallback, run_search
from fbnetv3_zoo.search.space import TINY, Candidate, parse_constraint
from fbnetv3_zoo.search.stages import EvolutionConfig, IterativeConfig
from fbnetv3_zoo.utils.paths import JOURNAL

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True)
class Job:
    """A search in ``folder``: seconds a candidate takes, worker processes (0: none), and how much there is to do."""

    folder: str
    seconds: float = 0.02
    workers: int = 0
    rounds: int = 3
    batch: int = 6
    pretraining: bool = False
    seed: int = 0

    @property
    def log(self) -> Path:
        return Path(f"{self.folder}.log")

    @property
    def plan(self) -> SearchPlan:
        pretraining = Pretraining.FINE_TUNE if self.pretraining else Pretraining.NONE
        predictor = MLP(members=2, steps=20, pretraining=pretraining)
        return SearchPlan(
            "killed", TINY, IterativeConfig(epochs=4, rounds=self.rounds, batch=self.batch, predictor=predictor),
            pool=100,
            constraints=(parse_constraint("macs<=1M"), parse_constraint("macs<=600k")), finalists=3,
            evolving=EvolutionConfig(population=8, evaluations=100), seed=self.seed,
        )  # fmt: skip


def write_line(log: Path, word: str, number: int = 0) -> None:
    """One line, whole or not at all: the word, the trial's number, this process."""
    with log.open("ab", buffering=0) as file:
        file.write(f"{word} {number} {os.getpid()}\n".encode())


def read_lines(log: Path) -> list[tuple[str, int]]:
    found = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [(word, int(number)) for word, number, _ in found]


@dataclass(frozen=True)
class Noting:
    """Takes its time and scores by a formula; one candidate in ten raises, one in ten is no number."""

    log: Path
    seconds: float

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        number = int(candidate.name.rpartition("-")[2])
        write_line(self.log, "begin", number)
        time.sleep(self.seconds)
        noise = hashlib.sha256(repr(sorted(candidate.values.items())).encode()).digest()
        if noise[0] < 25:
            raise ValueError(f"no network of {noise[1]} layers")
        values = [
            math.sin(len(str(value)) + float(value) * 3) for value in candidate.values.values() if value != str(value)
        ]
        score = math.nan if noise[0] > 230 else sum(values) / len(values)
        return [score * (1 - 0.5**epoch) + noise[epoch] / 5000 for epoch in range(1, epochs + 1)]


@dataclass(frozen=True)
class Teller(SearchCallback):
    log: Path

    def on_stage(self, line: str) -> None:
        write_line(self.log, line.split(":")[0].replace(" ", "-"))

    def on_outcome(self, trial: Trial, outcome: Outcome) -> None:
        write_line(self.log, "told", trial.number)


def live(job: Job) -> None:
    """One life of the search: from where the last one ended to the end, if nobody kills it before."""
    write_line(job.log, "start")
    executor = LocalPool(job.workers) if job.workers else InProcess()
    evaluator = Noting(job.log, job.seconds)
    run_search(
        job.plan, evaluator, job.folder, executor=executor, resume=True, callbacks=[Teller(job.log)], report=False
    )
    write_line(job.log, "end")


@contextmanager
def started(job: Job) -> Iterator[subprocess.Popen[bytes]]:
    """A process in which the search has just begun or been taken up; in a session of its own."""
    lives = [word for word, _ in read_lines(job.log)].count("start")
    command = [sys.executable, __file__, json.dumps(job.__dict__)]
    with subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True) as process:
        try:
            while [word for word, _ in read_lines(job.log)].count("start") == lives:
                assert process.poll() is None, "the search ended before it began"
                time.sleep(0.002)
            yield process
        finally:
            process.kill()


def killed(job: Job, delay: float, *, lines: int = 0) -> bool:
    """Live, killed so many seconds after the log grew by ``lines``; whether it was (False: it had ended, and well)."""
    before = len(read_lines(job.log))
    with started(job) as process:
        while process.poll() is None and len(read_lines(job.log)) <= before + lines:  # one more says that it started
            time.sleep(0.002)
        try:
            assert process.wait(delay) == 0
            return False
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with (
            FileLock(f"{job.folder}/.fbnetv3-zoo.lock", timeout=0)
            if Path(job.folder).exists()
            else TemporaryDirectory()
        ):
            return True  # the lock is free at once


def session(number: int) -> list[int]:
    """The processes of a session, those that have ended aside."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z" and int(fields[3]) == number:
            found.append(int(stat.parent.name))
    return found


def snapshot(job: Job) -> dict[str, Any] | None:
    """What the journal has (None: it is empty), read from a copy: the next life finds what the kill left."""
    with TemporaryDirectory() as copy:
        for name in (JOURNAL, f"{JOURNAL}-wal"):
            if (path := Path(job.folder) / name).exists():
                shutil.copy(path, copy)
        try:
            journal = Journal.read(copy)
        except ZooError as error:
            if "is empty; its search has not begun" in str(error):
                return None
            raise
        with journal:
            outcomes = {number: replace(outcome, seconds=0.0) for number, outcome in journal.outcomes().items()}
            return {"trials": journal.trials(), "outcomes": outcomes, "notes": dict(journal.notes())}


def result(job: Job) -> dict[str, Any]:
    """All that a search leaves, but for times."""
    files: dict[str, Any] = {path.name: path.read_bytes() for path in Path(job.folder).glob("*.json")}
    for path in Path(job.folder).glob("*.safetensors"):  # its header has no fixed order
        files[path.name] = {name: array.tobytes() for name, array in load_file(path).items()}
    return {**(snapshot(job) or {}), "files": files}


class Account:
    """Holds a search to its promises, kill after kill."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.before: dict[str, Any] = {"trials": (), "outcomes": {}, "notes": {}}
        self.kills: list[str] = []

    def check(self) -> None:
        """After a kill: nothing that was there is gone or other, and whatever was told is there."""
        lines = read_lines(self.job.log)
        self.kills.append(next((word for word, _ in reversed(lines) if word.startswith(("stage", "round"))), "start"))
        if not (Path(self.job.folder) / JOURNAL).exists():
            assert not self.before["trials"]
            return
        if (now := snapshot(self.job)) is None:
            assert not self.before["notes"]
            return
        assert now["trials"][: len(self.before["trials"])] == self.before["trials"]
        assert now["outcomes"].items() >= self.before["outcomes"].items()
        assert now["notes"].items() >= self.before["notes"].items()
        assert {number for word, number in lines if word == "told"} <= set(now["outcomes"])
        for number in now["outcomes"].keys() - self.before["outcomes"].keys():
            write_line(self.job.log, "known", number)
        self.before = now

    def finish(self, expected: dict[str, Any]) -> int:
        """At the end: the result is the expected one, and no finished candidate was begun again; repeated ones."""
        found = result(self.job)
        assert found["files"].keys() == expected["files"].keys()
        assert [key for key in expected if found[key] != expected[key]] == []
        finished: set[int] = set()
        begun: list[int] = []
        for word, number in read_lines(self.job.log):
            if word == "begin":
                assert number not in finished, f"trial {number} was evaluated after it had been told"
                begun.append(number)
            elif word in ("told", "known"):
                finished.add(number)
        told = [number for word, number in read_lines(self.job.log) if word == "told"]
        assert len(told) == len(set(told))
        assert set(begun) == set(expected["outcomes"])
        failed = sum(outcome.attempts > 1 for outcome in expected["outcomes"].values())
        return len(begun) - len(set(begun)) - failed


if __name__ == "__main__":
    live(Job(**json.loads(sys.argv[1])))
