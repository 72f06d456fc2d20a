"""The measurement: every model on every route in a process of its own, all in turn, so that drift hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.utils.atomic_write import scratch
from fbnetv3_zoo.utils.paths import is_folder

from .artifacts import BenchModel, ModelOptions, find_candidate
from .backends import BenchmarkConfig, Route
from .hardware import machine_here, peak_of
from .operators import operators_of
from .results import Benchmark, LoadCost, Operators, Peak, Row, UnavailableRoute, check_measured, figures_of, noise
from .timm_baselines import find_rival
from .worker_process import BenchWorker, OpenRequest, WorkerError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BenchProgress:
    """What is done at a moment: ``number`` of ``of`` rounds at one batch; ``pid`` is the process whose turn it was.

    While files are made and models loaded, ``batch`` and ``number`` are 0.
    """

    model: str
    route: Route
    threads: int = 0
    batch: int = 0
    number: int = 0
    of: int = 0
    pid: int = 0


OnTurn = Callable[[BenchProgress], None]


def _nobody(turn: BenchProgress) -> None:
    """Who is told where nobody asks."""


def benchmark(
    models: Sequence[str], plan: BenchmarkConfig, wanted: ModelOptions | None = None, *, against: Sequence[str] = (),
    on_turn: OnTurn = _nobody,
) -> Benchmark:  # fmt: skip
    """Measure ``models`` by ``plan``.

    The thread counts follow one another; for each, all processes live at the same time, and are asked for one batch
    in turn, round by round, each round beginning with another one. Time counts inside the process, around the call.
    A process that dies, and a route that is not possible here, are told of and end nothing. KeyboardInterrupt ends
    the measurement; what was measured is returned.

    Args:
        models: published names, JSON files of networks, or model files.
        plan: routes, batches, threads, rounds.
        wanted: weights and resolution of names, images to calibrate int8 with (default: random weights, each model's
            own resolution, parts of two photographs).
        against: names of timm's networks to measure beside, on ONNX Runtime.
        on_turn: is told of every turn.

    Raises :class:`ZooError` for models that cannot be had, and where nothing can be measured.
    """
    _check_once([*models, *against])
    wanted = replace(wanted or ModelOptions(), largest=max(plan.batches))
    if wanted.images is not None and not is_folder(wanted.images):
        raise ZooError(f"{wanted.images}: no such folder; give a folder of images")
    with scratch() as folder:
        candidates = [find_candidate(model, _subfolder(folder, n), wanted) for n, model in enumerate(models)]
        rivals = [find_rival(name) for name in against]
        if rivals and Route.ONNXRUNTIME not in plan.routes:
            raise ZooError("--against: networks of others are measured on onnxruntime; add it to --routes")
        for n, rival in enumerate(rivals, len(candidates)):
            candidates.append(BenchModel(rival.subject, 3, _subfolder(folder, n), rival=rival))
        bench = _Bench(candidates, plan, on_turn)
        try:
            bench.run()
        except KeyboardInterrupt:
            bench.interrupted = True
        return check_measured(bench.found())


def _check_once(names: Sequence[str]) -> None:
    if twice := [name for n, name in enumerate(names) if name in names[:n]]:
        raise ZooError(f"{twice[0]}: is named twice; name every model once")


def _subfolder(folder: Path, number: int) -> Path:
    path = folder / str(number)
    path.mkdir()
    return path


def rotated(items: Sequence[T], number: int) -> list[T]:
    """``items`` in the order of round ``number``: A B C, B C A, C A B, A B C ..."""
    start = number % len(items) if items else 0
    return [*items[start:], *items[:start]]


@dataclass
class _Series:
    """The times of one row while they are measured."""

    candidate: BenchModel
    route: Route
    threads: int
    batch: int
    times_ms: list[float] = field(default_factory=list)
    first_ms: float | None = None
    memory: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class _Runner:
    """A worker and what it runs."""

    candidate: BenchModel
    route: Route
    worker: BenchWorker


class _Bench:
    """A measurement on its way, so that what there is can be told at any moment."""

    def __init__(self, candidates: Sequence[BenchModel], plan: BenchmarkConfig, on_turn: OnTurn) -> None:
        self._candidates, self._plan, self._on_turn = candidates, plan, on_turn
        self._series: list[_Series] = []
        self._loaded: list[LoadCost] = []
        self._absent: list[UnavailableRoute] = []
        self._peaks: list[Peak] = []
        self._operators: list[Operators] = []
        self.interrupted = False

    def run(self) -> None:
        possible = self._prepare()
        for threads in self._plan.threads:
            if possible and self._plan.peak and (peak := peak_of(threads)):
                self._peaks.append(peak)
            with ExitStack() as stack:
                runners = list(self._started(possible, threads, stack))
                for batch in self._plan.batches:
                    self._measure(runners, threads, batch)
        if self._plan.operators:
            for candidate, route in possible:
                self._tell_operators(candidate, route)

    def found(self) -> Benchmark:
        """What has been measured until now."""
        rows = tuple(self._row(series) for series in self._series)
        return Benchmark(
            machine_here(), self._plan.baseline, self._plan.rounds,
            subjects=tuple(candidate.subject for candidate in self._candidates), rows=rows, peaks=tuple(self._peaks),
            loaded=tuple(self._loaded), absent=tuple(self._absent), operators=tuple(self._operators),
            warnings=noise(rows, self._plan.baseline), interrupted=self.interrupted,
        )  # fmt: skip

    def _prepare(self) -> list[tuple[BenchModel, Route]]:
        """What can be measured here; its files are written."""
        possible = []
        for candidate in self._candidates:
            for route in candidate.routes(self._plan.routes):
                self._on_turn(BenchProgress(candidate.subject.name, route))
                try:
                    candidate.order(route, 1)
                except Exception as error:  # exporters have many kinds, and one that fails ends nothing
                    self._absent.append(UnavailableRoute(candidate.subject.name, route, candidate.reason(error)))
                else:
                    possible.append((candidate, route))
        return possible

    def _started(
        self, possible: Sequence[tuple[BenchModel, Route]], threads: int, stack: ExitStack
    ) -> Iterator[_Runner]:
        """The workers, started one after another, so that each has the machine while it loads."""
        for candidate, route in possible:
            name = candidate.subject.name
            self._on_turn(BenchProgress(name, route, threads))
            try:
                worker = BenchWorker(candidate.order(route, threads))
            except WorkerError as failed:
                if not any((absent.model, absent.route) == (name, route) for absent in self._absent):
                    self._absent.append(UnavailableRoute(name, route, candidate.reason(failed)))
                continue
            stack.callback(worker.end)
            self._loaded.append(LoadCost(name, route, threads, worker.seconds, candidate.size(route.form)))
            yield _Runner(candidate, route, worker)

    def _measure(self, runners: list[_Runner], threads: int, batch: int) -> None:
        """All rounds at one batch. Who dies is taken from ``runners``; who fails otherwise sits this batch out."""
        active: list[tuple[_Runner, _Series]] = []
        for runner in tuple(runners):
            series = _Series(runner.candidate, runner.route, threads, batch)
            self._series.append(series)
            self._on_turn(self._turn(runner, series, 0))
            if self._asked(runner, series, runners, first=True):
                active.append((runner, series))
        for number in range(self._plan.rounds):
            for runner, series in rotated(active, number):
                if not self._asked(runner, series, runners):
                    active = [pair for pair in active if pair[0] is not runner]
                self._on_turn(self._turn(runner, series, number + 1))

    def _asked(self, runner: _Runner, series: _Series, runners: list[_Runner], *, first: bool = False) -> bool:
        """Whether ``runner`` did as it was asked; what it answered is in ``series``."""
        try:
            answer = runner.worker.begin(series.batch) if first else runner.worker.turn()
        except WorkerError as failed:
            series.problem = runner.candidate.reason(failed)
            if failed.dead:
                runners.remove(runner)
            return False
        series.memory = answer.memory
        if first:
            series.first_ms = _milliseconds(answer.seconds)
        else:
            series.times_ms.append(_milliseconds(answer.seconds))
        return True

    def _turn(self, runner: _Runner, series: _Series, number: int) -> BenchProgress:
        name, worker = runner.candidate.subject.name, runner.worker
        return BenchProgress(name, runner.route, series.threads, series.batch, number, self._plan.rounds, worker.pid)

    def _row(self, series: _Series) -> Row:
        place = (series.candidate, self._plan.baseline, series.threads, series.batch)
        alike = [other for other in self._series if (other.candidate, other.route, other.threads, other.batch) == place]
        peaks = {peak.threads: peak.gflops for peak in self._peaks} if series.route.single else {}
        figures = figures_of(
            series.times_ms, batch=series.batch, baseline_ms=alike[0].times_ms if alike else (),
            macs=series.candidate.subject.macs, gflops=peaks.get(series.threads),
        )  # fmt: skip
        return Row(
            series.candidate.subject.name, series.route, series.threads, series.batch, tuple(series.times_ms), figures,
            series.first_ms, series.memory, series.problem,
        )  # fmt: skip

    def _tell_operators(self, candidate: BenchModel, route: Route) -> None:
        if not route.tells_operators:
            return
        threads, batch = self._plan.threads[0], self._plan.batches[0]
        self._on_turn(BenchProgress(candidate.subject.name, route, threads))
        order: OpenRequest = candidate.order(route, threads)
        try:
            kinds = operators_of(order, batch)
        except ZooError as error:
            self._absent.append(
                UnavailableRoute(candidate.subject.name, route, f"operators: {candidate.reason(error)}")
            )
            return
        self._operators.append(Operators(candidate.subject.name, route, threads, batch, kinds))


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 6)
