"""``fbnetv3 benchmark``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import counted, printable
from ..utils.paths import check_ours, make_folder
from ..utils.tables import table
from .common import Json, Pretrained, Resolution, output_folder, print_json, written
from .option_groups import grouped
from .output import INTERRUPTED, console, say, say_text

if TYPE_CHECKING:
    from fbnetv3_zoo.export.bench import BenchmarkConfig
    from fbnetv3_zoo.export.bench.measure import BenchProgress, OnTurn
    from fbnetv3_zoo.export.bench.results import Benchmark, Machine, Operators, Row

TOP = 8
"""Number of operator kinds to print."""


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What is measured of each model."""

    routes: Annotated[str, typer.Option(help="Comma-separated routes; all: every available one.")] = "all"
    baseline: Annotated[str | None, typer.Option(help="Route that ratios refer to (default: onnxruntime).")] = None
    batches: Annotated[str, typer.Option(help="Comma-separated batch sizes.")] = "1,8"
    threads: Annotated[
        str | None, typer.Option(help="Comma-separated numbers of threads (default: 1 and the number of cores).")
    ] = None
    rounds: Annotated[int, typer.Option(help="Number of timed calls of each.")] = 20
    profile: Annotated[
        bool, typer.Option("--profile", help="Also measure times by kind of operator (ONNX Runtime, OpenVINO).")
    ] = False

    def config(self) -> BenchmarkConfig:
        """These options as the value that a benchmark takes."""
        from fbnetv3_zoo.export.bench import BenchmarkConfig, Route
        from fbnetv3_zoo.export.bench import routes as parse

        routes = parse.find_routes(self.routes)
        default = Route.ONNXRUNTIME if Route.ONNXRUNTIME in routes else routes[0]
        return BenchmarkConfig(
            routes=routes,
            baseline=default if self.baseline is None else parse.find_route(self.baseline),
            batches=parse.find_numbers("--batches", self.batches),
            threads=parse.find_numbers("--threads", self.threads) if self.threads else _default_threads(),
            rounds=self.rounds,
            operators=self.profile,
        )


def _default_threads() -> tuple[int, ...]:
    from ..utils.hardware import cores

    return tuple(sorted({1, cores()}))


@grouped
def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="Published names (with random weights), arch JSON files, or model files."
        ),
    ],
    *,
    pretrained: Pretrained = False,
    measured: MeasureOptions,
    resolution: Resolution = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images to calibrate int8 with (default: crops of two photographs).")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Comma-separated timm networks to compare with, on ONNX Runtime.")
    ] = None,
    output: Annotated[Path | None, output_folder("Folder for benchmark.json and charts.")] = None,
    as_json: Json = False,
) -> None:
    """Benchmark models on the runtimes of this machine, in turn, each in a process of its own.

    Times are for one batch, without reading images. Run nothing else meanwhile; Ctrl-C ends with the results so far.

    Example: fbnetv3 benchmark fbnetv3_a fbnetv3_c --routes onnxruntime,openvino --output bench
    """
    from fbnetv3_zoo.export.bench import FILES, ModelOptions, write_benchmark
    from fbnetv3_zoo.export.bench import benchmark as measure

    from ..utils.serialization import to_plain

    config = measured.config()
    if output is not None:
        make_folder(output)
        check_ours(*(output / name for name in FILES))
    rivals = [name.strip() for name in against.split(",")] if against else []
    with _progress() as on_turn:
        result = measure(models, config, ModelOptions(pretrained, resolution, images), against=rivals, on_turn=on_turn)
    files = [] if output is None else [*write_benchmark(result, output)]
    if as_json:
        print_json({**to_plain(result), "files": files})
    else:
        _show(result)
        for path in files:
            say(written(path))
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


@contextmanager
def _progress() -> Iterator[OnTurn]:
    """A progress line on the terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None)

        def on_turn(turn: BenchProgress) -> None:
            doing = f"batch {turn.batch}, rounds" if turn.batch else "loading" if turn.threads else "writing files"
            threads = f", threads {turn.threads}" if turn.threads else ""
            about = "" if turn.number else f" {printable(turn.model)} {turn.route.value}"
            progress.update(task, description=f"{doing}{threads}{about}", completed=turn.number, total=turn.of or None)

        yield on_turn


def _show(result: Benchmark) -> None:
    say(*_machine(result.machine))
    for peak in result.peaks:
        say(f"float32 matrix product, threads {peak.threads}: {peak.gflops:.0f} GFLOP/s")
    for subject in result.subjects:
        rows = [row for row in result.rows if row.model == subject.name]
        macs = "" if subject.macs is None else f", {subject.macs / 1e6:.1f} MMACs"
        say("", f"{subject.name}, {subject.resolution} px{macs}")
        if rows:
            say_text(table([_HEADER, *(_cells(result, row) for row in rows)]))
        for row in rows:
            if row.problem:
                say(f"{row.route.value}, threads {row.threads}, batch {row.batch}: {row.problem}")
        for absent in result.absent:
            if absent.model == subject.name:
                say(f"{absent.route.value} is unavailable: {absent.reason}")
        _print_best(result, rows)
    for operators in result.operators:
        _print_operators(operators)
    say(
        "",
        f"ratio to {result.baseline.value}, round by round: median (quartiles); peak: fraction of the matrix product",
    )
    for warning in result.warnings:
        say(f"warning: {warning}")
    if result.interrupted:
        say("interrupted: not everything was measured")


def _machine(machine: Machine) -> tuple[str, str]:
    memory = "" if machine.memory is None else f", {machine.memory / 2**30:.1f} GiB"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    processor = f"{machine.processor}, {counted(machine.cores, 'core')}{memory}; {', '.join(machine.instructions)}"
    return processor, f"{machine.system}; {versions}"


_HEADER = (
    "route", "threads", "batch", "p50 ms", "p90 ms", "min ms", "ratio", "", "images/s", "peak", "RAM MB", "file MB",
    "load s", "first ms",
)  # fmt: skip


def _cells(result: Benchmark, row: Row) -> tuple[str, ...]:
    setting = (row.route.value, str(row.threads), str(row.batch))
    loads = [one for one in result.loaded if (one.model, one.route, one.threads) == (row.model, row.route, row.threads)]
    loaded = (f"{loads[0].file_size / 1e6:.1f}", f"{loads[0].seconds:.2f}") if loads else ("-", "-")
    memory = "-" if row.memory is None else f"{row.memory / 1e6:.0f}"
    first = "-" if row.first_ms is None else f"{row.first_ms:.0f}"
    if row.figures is None:
        return (*setting, *("-",) * 7, memory, *loaded, first)
    f = row.figures
    quartiles = "" if f.ratio_quartiles is None else "({:.2f} to {:.2f})".format(*f.ratio_quartiles)
    return (
        *setting, f"{f.p50_ms:.2f}", f"{f.p90_ms:.2f}", f"{f.minimum_ms:.2f}",
        "-" if f.ratio is None else f"{f.ratio:.2f}", quartiles, f"{f.images_per_second:.1f}",
        "-" if f.peak_share is None else f"{f.peak_share:.0%}", memory, *loaded, first,
    )  # fmt: skip


def _print_best(result: Benchmark, rows: Sequence[Row]) -> None:
    from fbnetv3_zoo.export.bench.results import throughput

    best = max((row for row in rows if row.figures), key=throughput, default=None)
    if best is not None and len(rows) > 1:
        say(
            f"highest throughput: {throughput(best):.1f} images/s ({best.route.value}, threads {best.threads}, "
            f"batch {best.batch})"
        )


def _print_operators(operators: Operators) -> None:
    whole = sum(one.milliseconds for one in operators.kinds)
    setting = f"{operators.route.value}, threads {operators.threads}, batch {operators.batch}"
    say("", f"{operators.model}, {setting}: {whole:.2f} ms by operator")
    rows = [
        (one.kind, one.how, f"{one.count:.0f}", f"{one.milliseconds:.3f}", f"{one.milliseconds / whole:.0%}")
        for one in operators.kinds[:TOP]
    ]
    say_text(table([("operator", "how", "number", "ms", "part"), *rows]))
