"""How far a search is: what runs, and an estimate of the time and the cost that are left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .evaluation.running import RUNNING, RunningCandidate, read_running
from .evaluation.trial import Trial
from .executors import Capacity
from .executors.scheduling import makespan
from .journal import Journal
from .result import SearchResult


@dataclass(frozen=True, slots=True)
class SearchStatus:
    """The candidates that run, by name, and where the search stands.

    Of ``planned`` candidates, some may turn out not to be needed: the pool is used up, or finalists are the same.
    ``seconds_left`` and ``device_hours_left`` assume that epochs take as long as those so far (None: there are none
    yet). Device hours are the time of candidates multiplied by their GPUs, or cores on a CPU; attempts that were
    repeated are not counted. ``utilization`` is the share of all devices that candidates had while any was running.
    They are None for a search that an earlier version started.
    """

    running: Mapping[str, RunningCandidate]
    planned: int
    seconds_left: float | None
    device: str | None
    device_hours: float | None
    device_hours_left: float | None
    utilization: float | None

    @classmethod
    def of(cls, record: SearchResult) -> SearchStatus:
        """The status of ``record``, as its folder has it now."""
        names = {record.plan.candidate_name(t.number): t for t in record.trials if t.number not in record.outcomes}
        running = {} if record.done else read_running(record.folder / RUNNING, list(names))
        asked = [[*_left(names, running)], *_to_come(record)]
        rate, capacity = _seconds_an_epoch(record, running.values()), record.capacity
        left = None if rate is None else [[rate * epochs for epochs in one] for one in asked]
        spent = sum(o.seconds for o in record.outcomes.values()) + sum(one.told - one.began for one in running.values())
        each = capacity.each if capacity else 0.0
        return cls(
            running=running,
            planned=len(record.trials) + sum(map(len, asked[1:])),
            seconds_left=None if left is None or not capacity else sum(makespan(one, capacity.at_once) for one in left),
            device=capacity.device if capacity else None,
            device_hours=spent * each / 3600 if capacity else None,
            device_hours_left=None if left is None or not capacity else sum(map(sum, left)) * each / 3600,
            utilization=_utilization(record, capacity, running.values()) if capacity else None,
        )


def _left(names: Mapping[str, Trial], running: Mapping[str, RunningCandidate]) -> Iterable[int]:
    """The epochs left of each candidate without an outcome; those that run first."""
    for name in sorted(names, key=lambda name: name not in running):
        yield max(0, names[name].epochs - (len(running[name].curve) if name in running else 0))


def _to_come(record: SearchResult) -> list[list[int]]:
    """The epochs of the candidates of each round that was not asked for yet, and of the finalists."""
    plan, last = record.plan, max((trial.round for trial in record.trials), default=0)
    if record.done or last > plan.rounds.rounds:
        return []
    room = (record.pool or plan.pool) - len(record.trials)
    rounds = []
    for _ in range(last, 0 if record.evolved is not None else plan.rounds.rounds):
        rounds.append([record.stop_epoch] * max(0, min(plan.rounds.batch, room)))
        room -= plan.rounds.batch
    return [*rounds, [plan.rounds.epochs] * (plan.finalists * len(plan.constraints))]


def _seconds_an_epoch(record: SearchResult, running: Iterable[RunningCandidate]) -> float | None:
    """The mean duration of an epoch so far; None if there was none."""
    done = [(o.seconds, len(o.curve)) for o in record.outcomes.values() if o.failure is None]
    done += [(one.told - one.began, len(one.curve)) for one in running if one.curve]
    epochs = sum(number for _, number in done)
    return sum(seconds for seconds, _ in done) / epochs if epochs else None


def _utilization(record: SearchResult, capacity: Capacity, running: Iterable[RunningCandidate]) -> float | None:
    """The share of devices in use, of the time in which any was."""
    with Journal.read(record.folder) as journal:
        ends = journal.times()
    spans = [(ends[o.number] - o.seconds, ends[o.number]) for o in record.outcomes.values() if o.number in ends]
    spans += [(one.began, max(one.began, one.told)) for one in running]
    covered = _covered(spans)
    if covered < 1:  # outcomes are dated to the second
        return None
    return min(1.0, sum(end - begin for begin, end in spans) * capacity.each / (covered * capacity.total))


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """The length of the union of ``spans``."""
    covered, reached = 0.0, 0.0
    for begin, end in sorted(spans):
        covered += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return covered


def seconds_since(running: RunningCandidate) -> float:
    """How long ago ``running`` told something."""
    return max(0.0, time.time() - running.told)
