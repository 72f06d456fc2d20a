"""What writing a model in every format gave, as values: the files, and the formats that could not be written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fbnetv3_zoo.errors import ZooError, counted

from ..bench.results import Machine
from ..whole_folder import FolderKind

CARD, PAGE = "report.json", "report.html"
FOLDER = FolderKind(CARD, "fbnetv3_zoo.export", 1, "export", "fbnetv3 export all", "--output")
"""Folders of ``fbnetv3 export all``."""


@dataclass(frozen=True, slots=True)
class FileTiming:
    """Time of one image on so many threads, in milliseconds: median and quartiles.

    ``ratio`` is the median over the rounds of this file's time over that of ``model.onnx`` in the same round.
    """

    threads: int
    milliseconds: float
    quartiles: tuple[float, float]
    ratio: float
    ratio_quartiles: tuple[float, float]

    @property
    def slower(self) -> bool:
        """Whether it takes more time than the float file, beyond noise."""
        return self.ratio_quartiles[0] > 1


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file, or a folder, in one format.

    Attributes:
        format: name of the format.
        file: path in the folder.
        device: what it is for.
        size: bytes of all its files.
        images: number of images on which it was compared with PyTorch.
        difference: the largest difference of a logit, relative to the largest logit.
        same_class: number of images with the same top class.
        int8: whether it computes in int8.
        note: what else is to be known of it ("": nothing).
        untimed: why it has no times ("": it has, or none were measured).
        times: one for each number of threads.
    """

    format: str
    file: str
    device: str
    size: int
    images: int
    difference: float
    same_class: int
    int8: bool = False
    note: str = ""
    untimed: str = ""
    times: tuple[FileTiming, ...] = ()

    def timing(self, threads: int) -> FileTiming | None:
        """Its time on so many threads, if that was measured."""
        return next((timing for timing in self.times if timing.threads == threads), None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Where an int8 file is slower than float, one line for each number of threads."""
        return tuple(
            f"{self.file} is slower than float here on {counted(one.threads, 'thread')}: {one.ratio:.2f} of the time "
            f"of model.onnx ({one.ratio_quartiles[0]:.2f} to {one.ratio_quartiles[1]:.2f})"
            for one in self.times
            if self.int8 and one.slower
        )


@dataclass(frozen=True, slots=True)
class UnavailableFormat:
    """A format that could not be written here, and why."""

    format: str
    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class FormatsReport:
    """A folder with a model in several formats.

    Attributes:
        network: name of the network.
        resolution: side of the images in pixels.
        random: whether the weights are random.
        calibrated_on: number of images with which int8 was calibrated.
        compared_on: number of images on which the files were compared with PyTorch.
        held_out: whether these are others than those of the calibration.
        machine: where it was measured.
        rounds: number of timed calls of each file (0: none).
        exports: what was written.
        unavailable: what could not be written.
        warnings: what makes the times doubtful.
        files: all files of the folder.
    """

    FORMAT: ClassVar[str] = "export"

    network: str
    resolution: int
    random: bool
    calibrated_on: int
    compared_on: int
    held_out: bool
    machine: Machine
    rounds: int
    exports: tuple[ExportedFile, ...]
    unavailable: tuple[UnavailableFormat, ...] = ()
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def threads(self) -> tuple[int, ...]:
        """The numbers of threads on which files were timed, in order."""
        return tuple(sorted({timing.threads for one in self.exports for timing in one.times}))

    @property
    def slow_int8(self) -> tuple[str, ...]:
        """A line for each int8 file that is slower than float."""
        return tuple(line for one in self.exports for line in one.warnings)


def check_written(report: FormatsReport) -> FormatsReport:
    """``report``; raises :class:`ZooError` if no format could be written."""
    if report.exports:
        return report
    reasons = "; ".join(f"{one.format}: {one.reason}" for one in report.unavailable)
    raise ZooError(f"no format could be written ({reasons})")
