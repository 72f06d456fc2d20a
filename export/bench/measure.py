"""The measurement: each model on each route in a process of its own, all in turn, so that drift affects all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.utils.atomic_write import scratch
from fbnetv3_zoo.utils.paths import is_folder

from ..timing.turns import rotated
from ..timing.worker_process import BenchWorker, OpenRequest, WorkerError
from .artifacts import BenchModel, ModelOptions, find_candidate
from .hardware import machine_here, peak_of
from .operators import operators_of
from .results import Benchmark, LoadCost, Operators, Peak, Row, UnavailableRoute, check_measured, figures_of, noise
from .routes import BenchmarkConfig, Route
from .timm_baselines import find_rival


@dataclass(frozen=True, slots=True)
class BenchProgress:
    """Progress of a benchmark: ``number`` of ``of`` rounds at one batch size; ``pid`` is the process timed last.

    While files are written and models loaded, ``batch`` and ``number`` are 0.
    """

    model: str
    route: Route
    threads: int = 0
    batch: int = 0
    number: int = 0
    of: int = 0
    pid: int = 0


OnTurn = Callable[[BenchProgress], None]


def _ignore(turn: BenchProgress) -> None:
    """The default callback."""


def benchmark(
    models: Sequence[str], plan: BenchmarkConfig, options: ModelOptions | None = None, *, against: Sequence[str] = (),
    on_turn: OnTurn = _ignore,
) -> Benchmark:  # fmt: skip
    """Measure ``models`` by ``plan``.

    Thread counts are measured one after the other. For each, all processes run at the same time and compute one batch
    in turn, round by round, with a different one first in each round. The call is timed inside the process. A process
    that dies and a route that is unavailable here are reported, and the measurement continues. On KeyboardInterrupt,
    what has been measured so far is returned.

    Args:
        models: published names, JSON files of networks, or model files.
        plan: routes, batches, threads, rounds.
        options: weights and resolution of published names, calibration images for int8 (default: random weights, each
            model's own resolution, crops of two photographs).
        against: names of timm networks to compare with, on ONNX Runtime.
        on_turn: called after every turn.

    Raises :class:`ZooError` if a model is unavailable or nothing can be measured.
    """
    _check_once([*models, *against])
    options = replace(options or ModelOptions(), largest=max(plan.batches))
    if options.images is not None and not is_folder(options.images):
        raise ZooError(f"{options.images}: no such folder; give a folder of images")
    with scratch() as folder:
        candidates = [find_candidate(model, _subfolder(folder, n), options) for n, model in enumerate(models)]
        rivals = [find_rival(name) for name in against]
        if rivals and Route.ONNXRUNTIME not in plan.routes:
            raise ZooError("--against: timm networks are measured on onnxruntime; add it to --routes")
        for n, rival in enumerate(rivals, len(candidates)):
            candidates.append(BenchModel(rival.subject, 3, _subfolder(folder, n), rival=rival))
        bench = _Bench(candidates, plan, on_turn)
        try:
            bench.run()
        except KeyboardInterrupt:
            bench.interrupted = True
        return check_measured(bench.result())


def benchmark_files(model: BenchModel, plan: BenchmarkConfig, *, on_turn: OnTurn = _ignore) -> Benchmark:
    """Measure the files that ``model`` has, as :func:`benchmark` does; raises KeyboardInterrupt, too."""
    bench = _Bench([model], plan, on_turn)
    bench.run()
    return bench.result()


def _check_once(names: Sequence[str]) -> None:
    if twice := [name for n, name in enumerate(names) if name in names[:n]]:
        raise ZooError(f"{twice[0]}: is given twice; name each model once")


def _subfolder(folder: Path, number: int) -> Path:
    path = folder / str(number)
    path.mkdir()
    return path


@dataclass
class _Series:
    """The measured times of one row."""

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
    """A worker with its model and route."""

    candidate: BenchModel
    route: Route
    worker: BenchWorker


class _Bench:
    """A measurement in progress, whose result so far is available at any moment."""

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
                self._measure_operators(candidate, route)

    def result(self) -> Benchmark:
        """What has been measured so far."""
        rows = tuple(self._row(series) for series in self._series)
        return Benchmark(
            machine_here(), self._plan.baseline, self._plan.rounds,
            subjects=tuple(candidate.subject for candidate in self._candidates), rows=rows, peaks=tuple(self._peaks),
            loaded=tuple(self._loaded), absent=tuple(self._absent), operators=tuple(self._operators),
            warnings=noise(rows, self._plan.baseline), interrupted=self.interrupted,
        )  # fmt: skip

    def _prepare(self) -> list[tuple[BenchModel, Route]]:
        """Write the files, and return what can be measured here."""
        possible = []
        for candidate in self._candidates:
            for route in candidate.routes(self._plan.routes):
                self._on_turn(BenchProgress(candidate.subject.name, route))
                try:
                    candidate.request(route, 1)
                except Exception as error:  # exporters raise many kinds; the others are still measured
                    self._absent.append(UnavailableRoute(candidate.subject.name, route, candidate.reason(error)))
                else:
                    possible.append((candidate, route))
        return possible

    def _started(
        self, possible: Sequence[tuple[BenchModel, Route]], threads: int, stack: ExitStack
    ) -> Iterator[_Runner]:
        """The workers, started one by one, so that each has the machine to itself while loading."""
        for candidate, route in possible:
            name = candidate.subject.name
            self._on_turn(BenchProgress(name, route, threads))
            try:
                worker = BenchWorker(candidate.request(route, threads))
            except WorkerError as failed:
                if not any((absent.model, absent.route) == (name, route) for absent in self._absent):
                    self._absent.append(UnavailableRoute(name, route, candidate.reason(failed)))
                continue
            stack.callback(worker.end)
            self._loaded.append(LoadCost(name, route, threads, worker.seconds, candidate.size(route.form)))
            yield _Runner(candidate, route, worker)

    def _measure(self, runners: list[_Runner], threads: int, batch: int) -> None:
        """Run all rounds at one batch size. Dead workers are removed from ``runners``; others that fail skip it."""
        active: list[tuple[_Runner, _Series]] = []
        for runner in tuple(runners):
            series = _Series(runner.candidate, runner.route, threads, batch)
            self._series.append(series)
            self._on_turn(self._turn(runner, series, 0))
            if self._timed(runner, series, runners, first=True):
                active.append((runner, series))
        for number in range(self._plan.rounds):
            for runner, series in rotated(active, number):
                if not self._timed(runner, series, runners):
                    active = [pair for pair in active if pair[0] is not runner]
                self._on_turn(self._turn(runner, series, number + 1))

    def _timed(self, runner: _Runner, series: _Series, runners: list[_Runner], *, first: bool = False) -> bool:
        """Time one call of ``runner`` and add it to ``series``; returns whether it succeeded."""
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
        key = (series.candidate, self._plan.baseline, series.threads, series.batch)
        baselines = [one for one in self._series if (one.candidate, one.route, one.threads, one.batch) == key]
        peaks = {peak.threads: peak.gflops for peak in self._peaks} if series.route.single else {}
        figures = figures_of(
            series.times_ms, batch=series.batch, baseline_ms=baselines[0].times_ms if baselines else (),
            macs=series.candidate.subject.macs, gflops=peaks.get(series.threads),
        )  # fmt: skip
        return Row(
            series.candidate.subject.name, series.route, series.threads, series.batch, tuple(series.times_ms), figures,
            series.first_ms, series.memory, series.problem,
        )  # fmt: skip

    def _measure_operators(self, candidate: BenchModel, route: Route) -> None:
        if not route.profiles_operators:
            return
        threads, batch = self._plan.threads[0], self._plan.batches[0]
        self._on_turn(BenchProgress(candidate.subject.name, route, threads))
        request: OpenRequest = candidate.request(route, threads)
        try:
            kinds = operators_of(request, batch)
        except ZooError as error:
            self._absent.append(
                UnavailableRoute(candidate.subject.name, route, f"operators: {candidate.reason(error)}")
            )
            return
        self._operators.append(Operators(candidate.subject.name, route, threads, batch, kinds))


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 6)
