"""``fbnetv3 export all``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import ZooError, counted
from ...utils.tables import size_text, table
from ..common import (
    Json,
    NetworkSource,
    Pretrained,
    Seed,
    holds_weights,
    open_network,
    output_folder,
    print_json,
    warn_of_random_weights,
)
from ..option_groups import grouped
from ..output import console, say, say_text

if TYPE_CHECKING:
    from PIL import Image

    from fbnetv3_zoo.export.formats import FormatsReport, TimingOptions
    from fbnetv3_zoo.export.formats.run import Progress

COMPARED = 500
"""The most test images of a dataset to compare on."""


@dataclass(frozen=True, slots=True)
class TimeOptions:
    """How files are timed."""

    timing: Annotated[bool, typer.Option(help="Time the files here, in turn; run nothing else meanwhile.")] = True
    threads: Annotated[str, typer.Option(help="Comma-separated numbers of threads to time with.")] = "1"
    rounds: Annotated[int, typer.Option(help="Number of timed calls of each file.")] = 20

    def options(self) -> TimingOptions | None:
        """These options as the value that an export takes."""
        from fbnetv3_zoo.export.bench.routes import find_numbers
        from fbnetv3_zoo.export.formats import TimingOptions

        threads = find_numbers("--threads", self.threads)
        return TimingOptions(threads, self.rounds) if self.timing else None


@grouped
def export_all(
    model: NetworkSource,
    *,
    pretrained: Pretrained = False,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder with at least 8 images like those the model will be used on: for int8's calibration "
                     "and for the comparisons."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Instead of --images: 'digits' or a folder as for `fbnetv3 train`; its training split is for "
                     "calibration, its test split for the comparisons."),
    ] = None,
    output: Annotated[
        Path, output_folder("Folder to write; an older one of this command is replaced.", "--output", replaced=True)
    ],
    formats: Annotated[str, typer.Option(help="Comma-separated formats; all: every one that can be written.")] = "all",
    timed: TimeOptions,
    runtime: Annotated[
        Path | None,
        typer.Option(help="For the web page: an unpacked onnxruntime-web package, or its .tgz (default: the cache, "
                     "else npm)."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Export a model in every format, each compared with PyTorch on your images and timed, with one page about all.

    What cannot be written, because its extra is not installed or the network has no such form, is listed with the
    reason.

    Example: fbnetv3 export all demo/model.safetensors --images PHOTOS --output exports
    """
    from fbnetv3_zoo.export.formats import export_all as write_all
    from fbnetv3_zoo.export.formats.formats import find_formats
    from fbnetv3_zoo.export.formats.results import FOLDER

    from ...utils.serialization import to_plain

    if (images is None) == (data is None):
        raise ZooError("give calibration images, either --images FOLDER or --data SOURCE")
    chosen, timing = find_formats(formats), timed.options()
    FOLDER.check_free(output)
    network = open_network(model, pretrained=pretrained)
    shown, test = (images, None) if data is None else _of_dataset(data, seed)
    assert shown is not None
    with _progress() as progress:
        report = write_all(
            network, output, shown, test=test, formats=chosen, random=not (pretrained or holds_weights(model)),
            timing=timing, runtime=runtime, progress=progress,
        )  # fmt: skip
    if as_json:
        print_json({**to_plain(report, defaults=True), "folder": output})
        return
    _show(report, output)
    warn_of_random_weights(model, network, pretrained=pretrained)


def _of_dataset(data: str, seed: int) -> tuple[Sequence[Image.Image], Sequence[Image.Image]]:
    """Images to calibrate with, and to compare on."""
    from fbnetv3_zoo.export.quantization.calibration import StoredImages, sample_images, thinned

    from ...training import find_dataset

    found = find_dataset(data, seed=seed)
    return sample_images(found["train"]), StoredImages.of(thinned(found["test"], COMPARED))


@contextmanager
def _progress() -> Iterator[Progress]:
    """A progress line on the terminal."""
    from rich.progress import Progress as Lines
    from rich.progress import TextColumn, TimeElapsedColumn

    from fbnetv3_zoo.export.bench.measure import BenchProgress
    from fbnetv3_zoo.export.formats.formats import Format
    from fbnetv3_zoo.export.formats.run import Progress

    screen = console()
    columns = (TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Lines(*columns, console=screen, disable=not screen.is_terminal, transient=True) as lines:
        task = lines.add_task("", total=None)

        def on_format(one: Format) -> None:
            lines.update(task, description=f"writing {one.file}")

        def on_turn(turn: BenchProgress) -> None:
            lines.update(task, description=f"timing, threads {turn.threads}, round {turn.number} of {turn.of}")

        yield Progress(on_format, on_turn)


def _show(report: FormatsReport, folder: Path) -> None:
    from fbnetv3_zoo.export.formats.results import PAGE

    for line in report.slow_int8:
        say(line)
    say_text(table([_head(report.threads), *_rows(report)]))
    for absent in report.unavailable:
        say(f"{absent.format} was not written: {absent.reason}")
    for warning in report.warnings:
        say(f"warning: {warning}")
    kind = "" if report.held_out else ", with which int8 was calibrated"
    say(f"compared with PyTorch on {counted(report.compared_on, 'image')}{kind}")
    say(f"all about it: {folder / PAGE}")


def _head(threads: Sequence[int]) -> list[str]:
    times = [title for number in threads for title in (f"ms, {counted(number, 'thread')}", "ratio", "")]
    return ["file", "size", "difference", "same class", *times]


def _rows(report: FormatsReport) -> Iterator[list[Any]]:
    from fbnetv3_zoo.export.formats.page import same_text

    for one in report.exports:
        cells = [one.file, size_text(one.size), f"{one.difference:.1e}", same_text(one)]
        for number in report.threads:
            timing = one.timing(number)
            if timing is None:
                cells += ["-", "-", ""]
            else:
                low, high = timing.ratio_quartiles
                cells += [f"{timing.milliseconds:.2f}", f"{timing.ratio:.2f}", f"({low:.2f} to {high:.2f})"]
        yield cells
