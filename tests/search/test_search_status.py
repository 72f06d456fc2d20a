"""The status of a search: candidates that run, the time and device hours that are left, utilization."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from shell import succeed

from fbnetv3_zoo.search import SPACES, SearchResult, TrainingEvaluator, run_search
from fbnetv3_zoo.search.evaluation import Evaluator, Failure, FunctionEvaluator, Limits, Outcome, Task, Trial
from fbnetv3_zoo.search.evaluation.running import (
    RUNNING,
    ProgressFile,
    RunningCandidate,
    path_of,
    progress_file,
    read_running,
    running_folder,
)
from fbnetv3_zoo.search.evaluation.training import _Training
from fbnetv3_zoo.search.executors import Capacity, InProcess, LocalPool
from fbnetv3_zoo.search.executors.scheduling import makespan
from fbnetv3_zoo.search.journal import Journal
from fbnetv3_zoo.search.plan import SearchPlan
from fbnetv3_zoo.search.predictors import MLP
from fbnetv3_zoo.search.space import Candidate, NetworkCosts, parse_constraint
from fbnetv3_zoo.search.stages import EvolutionConfig, IterativeConfig
from fbnetv3_zoo.search.status import SearchStatus
from fbnetv3_zoo.utils.paths import JOURNAL
from fbnetv3_zoo.utils.serialization import to_json

TINY = SPACES["tiny"]
PLAN = SearchPlan(
    "small", TINY, IterativeConfig(6, rounds=2, batch=4, predictor=MLP(members=2, steps=10)), pool=50, finalists=2,
    constraints=(parse_constraint("macs<=1M"),), evolving=EvolutionConfig(population=8, evaluations=40),
)  # fmt: skip
CODES = [tuple(code) for code in TINY.sample(8, np.random.default_rng(0)).tolist()]


def journal(folder: Path, *, ended: Sequence[float] = (), capacity: Capacity | None = None) -> None:
    """The journal of a first round of four candidates, of which the first ones took so many seconds."""
    with Journal.write(folder) as written:
        for key, value in (("origin", {}), ("plan", PLAN.to_json()), ("pool", 50)):
            written.note(key, value)
        if capacity:
            written.note("capacity", asdict(capacity))
        written.ask([Trial(n, 1, CODES[n], 6) for n in range(4)])
        for number, seconds in enumerate(ended):
            written.tell(Outcome(number, (0.5,) * 6, seconds=seconds))


def runs(folder: Path, name: str, curve: Sequence[float], *, began: float, told: float) -> None:
    (folder / RUNNING).mkdir(exist_ok=True)
    running = RunningCandidate(6, tuple(curve), began, told)
    path_of(folder / RUNNING, name).write_text(to_json(running))


def status(folder: Path) -> SearchStatus:
    return SearchStatus.of(SearchResult.read(folder))


def test_what_runs_and_what_is_left(tmp_path: Path) -> None:
    """Epochs of 10 s: three more of the one that runs, six of the one that waits, four more and two finalists."""
    journal(tmp_path, ended=[60, 60], capacity=Capacity(2, 2, 4, "GPU"))
    now = time.time()
    runs(tmp_path, "small-0002", [0.1, 0.2, 0.3], began=now - 31, told=now - 1)
    runs(tmp_path, "small-0000", [0.1], began=now, told=now)  # has ended
    runs(tmp_path, "another-0003", [0.1], began=now, told=now)
    path_of(tmp_path / RUNNING, "small-0003").write_text('{"format": "half a f')
    found = status(tmp_path)
    assert {name: one.curve for name, one in found.running.items()} == {"small-0002": (0.1, 0.2, 0.3)}
    assert found.planned == 10
    assert found.seconds_left == 60 + 120 + 60
    assert found.device == "GPU"
    assert found.device_hours == pytest.approx(2 * (60 + 60 + 30) / 3600)
    assert found.device_hours_left == pytest.approx(2 * (30 + 60 + 240 + 120) / 3600)
    shown = succeed("search", "status", tmp_path).splitlines()
    assert shown[0] == "small: round 1 of 2; 2 of 4 candidates finished"
    assert shown[2].startswith("  small-0002  epoch 3 of 6  score 0.3000  last heard of ")
    assert shown[3:6] == [
        "up to 10 candidates in all", "about 4 min 00 s left while it runs", "GPU hours: 0.08, about 0.25 left",
    ]  # fmt: skip
    told = json.loads(succeed("search", "status", tmp_path, "--json"))
    assert (told["planned"], told["seconds_left"], told["device"]) == (10, 240, "GPU")
    assert told["running"]["small-0002"]["curve"] == [0.1, 0.2, 0.3]


def test_before_the_first_candidate_nothing_is_estimated(tmp_path: Path) -> None:
    journal(tmp_path)
    found = status(tmp_path)
    assert found == SearchStatus({}, 10, None, None, None, None, None)
    assert succeed("search", "status", tmp_path).splitlines()[1:] == ["up to 10 candidates in all"]


def test_utilization_is_of_the_time_in_which_candidates_ran(tmp_path: Path) -> None:
    """Two at a time of 100 s and 50 s, an interruption, one of 50 s, on two GPUs: 200 of 300 GPU seconds."""
    journal(tmp_path, ended=[100, 50, 50], capacity=Capacity(2, 1, 2, "GPU"))
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as connection, connection:
        for number, at in enumerate(("10:00:00", "09:59:10", "17:30:00")):
            connection.execute("UPDATE outcome SET at = ? WHERE number = ?", (f"2026-01-01 {at}", number))
    found = status(tmp_path)
    assert found.utilization == pytest.approx(2 / 3)
    assert "utilization 67%" in succeed("search", "status", tmp_path)


def test_tasks_go_to_the_place_that_is_free_first() -> None:
    assert makespan([5, 4, 3, 3, 3], 2) == 10
    assert makespan([3, 3, 3, 4, 5], 2) == 11
    assert makespan([], 3) == 0


@dataclass(frozen=True)
class Ordered:
    """Notes the order in which candidates are handed out; several run at a time, as it says."""

    handed_out: list[int]

    def look(self, evaluator: Evaluator, limits: Limits) -> Capacity:
        return Capacity(2, 1, 2, "core")

    def run(self, evaluator: Evaluator, tasks: Sequence[Task], limits: Limits) -> Iterator[Outcome]:
        self.handed_out.extend(task.number for task in tasks)
        return InProcess().run(evaluator, tasks, limits)


def test_the_longest_candidates_begin_first(tmp_path: Path) -> None:
    """By their MACs; the search is the same in any order."""
    executor = Ordered([])
    evaluator = FunctionEvaluator(lambda values: float(len(str(values))))
    found = run_search(PLAN, evaluator, tmp_path / "one", executor=executor, report=False)
    macs = NetworkCosts(TINY)(np.array([trial.code for trial in found.trials]))["macs"]
    first = executor.handed_out[:4]
    assert sorted(first) == [0, 1, 2, 3]
    assert first != [0, 1, 2, 3]
    assert macs[first].tolist() == sorted(macs[first], reverse=True)
    assert run_search(PLAN, evaluator, tmp_path / "other", report=False).winners == found.winners


@dataclass
class Looking:
    """Looks at the status of its search while it runs; its third candidate fails."""

    search: Path
    folder: Path | None = None

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        with progress_file(self.folder, candidate.name, epochs) as file:
            curve: list[float] = []
            for epoch in range(epochs):
                curve.append(0.1 * epoch)
                file.tell(curve)
            found = status(self.search)
            assert found.running[candidate.name].curve == tuple(curve)
            assert found.device == "core"
            if candidate.name.endswith("2"):
                raise ValueError("out of order")
            return curve

    def reporting_to(self, folder: Path) -> Evaluator:
        return replace(self, folder=folder)


@pytest.mark.parametrize("executor", [InProcess(), LocalPool(1)], ids=["in-process", "pool"])
def test_a_search_shows_what_runs_and_clears_up(executor: InProcess | LocalPool, tmp_path: Path) -> None:
    """What a killed search has left is removed when it goes on; files of others stay."""
    small = replace(PLAN, rounds=replace(PLAN.rounds, rounds=1), finalists=0)
    folder = tmp_path / "search"
    journal(folder)
    runs(folder, "small-0003", [0.5], began=0, told=0)
    (folder / RUNNING / "mine.json").write_text("{}")
    with Journal.write(folder) as written:
        written.note("plan", small.to_json())
    found = run_search(small, Looking(folder), folder, executor=executor, resume=True, report=False)
    reasons = [outcome.reason for outcome in found.outcomes.values() if outcome.failure is Failure.ERROR]
    assert [reason.split(" (")[0] for reason in reasons] == ["ValueError: out of order"]
    assert [path.name for path in (folder / RUNNING).iterdir()] == ["mine.json"]
    assert (found.capacity, status(folder).running) == (Capacity(1, 1, 1, "core"), {})


def test_a_trained_candidate_reports_its_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = TINY.values(np.zeros(len(TINY.dimensions), np.int64))
    candidate = TINY.candidate(TINY.code(values), "smallest")
    seen, measure = [], _Training.measure_epoch

    def measured(training: _Training) -> object:
        seen.append(read_running(tmp_path / RUNNING, ["smallest"])["smallest"])
        return measure(training)

    monkeypatch.setattr(_Training, "measure_epoch", measured)
    reporting = TrainingEvaluator("digits").reporting_to(tmp_path / RUNNING)
    with running_folder(tmp_path / RUNNING):
        curve = reporting(candidate, 2)
        assert [(one.epochs, one.curve) for one in seen] == [(2, ()), (2, tuple(curve[:1]))]
        assert not list((tmp_path / RUNNING).iterdir())
    assert not (tmp_path / RUNNING).exists()


def test_a_machine_without_the_folder_writes_nothing(tmp_path: Path) -> None:
    ProgressFile(tmp_path / "none", "small-0000", 6).tell([0.1])
    assert not list(tmp_path.iterdir())
    (tmp_path / "small-0000.json").mkdir()
    ProgressFile(tmp_path, "small-0000", 6).tell([0.1])  # cannot be written, which is no reason to fail
