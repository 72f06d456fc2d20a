"""Writes a model in every format, compares each file with PyTorch, times them in turn, and writes a page."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3_zoo.errors import ZooError, check_whole, in_short
from fbnetv3_zoo.models.network import Network, network_of
from fbnetv3_zoo.models.size import size_of
from fbnetv3_zoo.utils.paths import to_path
from fbnetv3_zoo.utils.serialization import to_json

from ..bench.artifacts import BenchModel
from ..bench.hardware import machine_here
from ..bench.measure import OnTurn, benchmark_files
from ..bench.results import Benchmark, Row, Subject
from ..bench.routes import BenchmarkConfig, Form, Route
from ..parity import parity
from ..quantization.calibration import IMAGES, check_images, read_calibration
from ..whole_folder import files_in
from .formats import FORMATS, ExportTask, Format
from .page import write_page
from .results import (
    CARD,
    FOLDER,
    PAGE,
    ExportedFile,
    FileTiming,
    FormatsReport,
    UnavailableFormat,
    check_written,
)

if TYPE_CHECKING:
    from PIL import Image

COMPARED = 50
"""The most images of a folder to compare on."""
_SHARE, _ENOUGH = 5, 40
"""Every fifth image of a folder is held out to compare on, if it has at least so many."""


@dataclass(frozen=True, slots=True)
class TimingOptions:
    """How files are timed: on each number of threads, in so many rounds."""

    threads: tuple[int, ...] = (1,)
    rounds: int = 20

    def __post_init__(self) -> None:
        check_whole("TimingOptions.rounds", self.rounds, at_least=3)
        for number in self.threads:
            check_whole("TimingOptions.threads", number, at_most=1024)


def _ignore(*_: object) -> None:
    """The default callback."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Called while it goes on: ``on_format`` before a format is written, ``on_turn`` after every timed call."""

    on_format: Callable[[Format], None] = field(default=_ignore)
    on_turn: OnTurn = field(default=_ignore)


def export_all(
    network: Network, folder: str | Path, images: str | Path | Sequence[Image.Image], *,
    test: Sequence[Image.Image] | None = None, formats: Sequence[Format] = FORMATS, random: bool = False,
    timing: TimingOptions | None = TimingOptions(), runtime: Path | None = None, progress: Progress = Progress(),
) -> FormatsReport:  # fmt: skip
    """Write ``network`` to ``folder`` in every format whose packages are installed, by the exporters of each.

    Each file is compared with PyTorch on images, and timed in turn with the others. A format that cannot be written is
    listed with the reason, and the others are still written. ``report.html`` and ``report.json`` say all that. The
    folder appears as a whole; an older one of this function is replaced, anything else refused.

    Args:
        network: the network.
        folder: folder to write.
        images: images for int8's calibration, or a folder of them; at least 8.
        test: images to compare on (default: every fifth image of a folder with 40 or more, at most 50, which is then
            not used for calibration; otherwise the calibration images).
        formats: the formats; the first must be ``onnx``.
        random: whether the weights are random, so that int8 need not agree with float.
        timing: how files are timed; None: not at all.
        runtime: an unpacked onnxruntime-web package for the web page, or its ``.tgz`` (default: the cache, else npm).
        progress: what is called meanwhile.

    Raises :class:`ZooError` if the images or the folder cannot be used, or if no format can be written.
    """
    network, folder = network_of(network, "network"), to_path("folder", folder, "the path of a folder")
    FOLDER.check_free(folder)
    check_images("images", images)
    calibration, compared = _images(images, test)
    task = ExportTask(copy.deepcopy(network).cpu().eval(), calibration, compared, random, runtime)
    with FOLDER.replacing(folder) as new:
        written, unavailable = [], []
        for one in formats:
            progress.on_format(one)
            before = set(files_in(new))
            try:
                written.append(_written(task, one, new, before))
            except Exception as error:  # exporters raise many kinds; the others are still written
                _remove(new, set(files_in(new)) - before)
                unavailable.append(UnavailableFormat(one.name, one.device, _reason(error, new)))
        report = check_written(FormatsReport(
            network=network.arch.name, resolution=network.preprocess.resolution, random=random,
            calibrated_on=len(calibration), compared_on=len(compared), held_out=compared is not calibration,
            machine=machine_here(), rounds=timing.rounds if timing else 0, exports=tuple(written),
            unavailable=tuple(unavailable),
        ))  # fmt: skip
        if timing is not None:
            report = _timed(report, task.network, new, timing, progress.on_turn)
        report = replace(report, files=tuple(sorted([*files_in(new), CARD, PAGE])))
        (new / CARD).write_text(to_json(report, defaults=True), encoding="utf-8")
        write_page(report, new / PAGE)
    return report


def _images(
    images: str | Path | Sequence[Image.Image], test: Sequence[Image.Image] | None
) -> tuple[Sequence[Image.Image], Sequence[Image.Image]]:
    """The images to calibrate with and those to compare on; the same object if none are held out."""
    if not isinstance(images, (str, Path)):
        return images, test if test else images
    found, _ = read_calibration(images, most=IMAGES + COMPARED)
    for _ in found:  # one that cannot be read is told now
        pass
    if test:
        return found[:IMAGES], test
    if len(found) < _ENOUGH:
        return found, found
    held_out = range(_SHARE - 1, len(found), _SHARE)[:COMPARED]
    rest = [n for n in range(len(found)) if n not in held_out]
    return found.at(rest[:IMAGES]), found.at(held_out)


def _written(task: ExportTask, one: Format, folder: Path, before: AbstractSet[str]) -> ExportedFile:
    """Write a format beside the files ``before``, and compare it."""
    path = folder / one.file
    said = one.write(task, path)
    comparison = said.parity
    if comparison is None:
        (comparison,) = parity(task.network, [path / said.model], images=task.images).files
    size = sum((folder / name).stat().st_size for name in set(files_in(folder)) - before)
    return ExportedFile(
        format=one.name, file=one.file, device=one.device, size=size, images=comparison.images,
        difference=comparison.relative, same_class=comparison.images - len(comparison.disagree), int8=one.int8,
        note=said.note, untimed=one.untimed,
    )  # fmt: skip


def _remove(folder: Path, files: AbstractSet[str]) -> None:
    """Remove ``files``, which were written but could not be compared, and the folders that they leave empty."""
    for name in files:
        (folder / name).unlink(missing_ok=True)
        for parent in Path(name).parents[:-1]:
            with suppress(OSError):
                (folder / parent).rmdir()


def _reason(error: Exception, folder: Path) -> str:
    """The text of ``error``, without the path of a temporary file."""
    text = str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {in_short(error)}"
    text = re.sub(rf"^{re.escape(str(folder))}/[^:]*: ", "", text)
    return text.replace(f"{folder}/", "").removesuffix("; nothing was written")


def _timed(
    report: FormatsReport, network: Network, folder: Path, timing: TimingOptions, on_turn: OnTurn
) -> FormatsReport:
    """``report`` with the times of its files; without, if ``model.onnx`` could not be written."""
    routes = {one.route: folder / one.file for one in _formats_of(report) if one.route is not None}
    if Route.ONNXRUNTIME not in routes:
        return replace(report, rounds=0, warnings=("no times were measured: model.onnx, their reference, is missing",))
    plan = BenchmarkConfig(routes=tuple(routes), batches=(1,), threads=timing.threads, rounds=timing.rounds, peak=False)
    files: dict[Form, Path] = {route.form: path for route, path in routes.items()}
    side = network.preprocess.resolution
    subject = Subject(network.arch.name, side, size_of(network.arch, resolution=side).macs)
    model = BenchModel(subject, network.arch.in_channels, folder, network, files=files)
    measured = benchmark_files(model, plan, on_turn=on_turn)
    exports = tuple(_with_times(one, measured) for one in report.exports)
    return replace(report, exports=exports, warnings=measured.warnings)


def _formats_of(report: FormatsReport) -> Iterator[Format]:
    names = {one.format for one in report.exports}
    return (one for one in FORMATS if one.name in names)


def _with_times(one: ExportedFile, measured: Benchmark) -> ExportedFile:
    route = next(other.route for other in FORMATS if other.name == one.format)
    rows = [row for row in measured.rows if row.route is route]
    times = tuple(timing for row in rows if (timing := _timing(row)) is not None)
    reasons = [absent.reason for absent in measured.absent if absent.route is route]
    reasons += [row.problem for row in rows if row.problem]
    return replace(one, times=times, untimed=one.untimed or "; ".join(dict.fromkeys(reasons)))


def _timing(row: Row) -> FileTiming | None:
    figures = row.figures
    if figures is None or figures.ratio is None or figures.ratio_quartiles is None:
        return None
    return FileTiming(row.threads, figures.p50_ms, figures.quartiles_ms, figures.ratio, figures.ratio_quartiles)
