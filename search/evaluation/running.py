"""What candidates tell while they run: a small file each, in a folder of the search."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.utils.atomic_write import replacing
from fbnetv3_zoo.utils.serialization import read_json, to_json
from fbnetv3_zoo.utils.temporary_folder import clear

from .trial import Evaluator

RUNNING = "running"
"""The name of the folder in that of a search."""


@dataclass(frozen=True, slots=True)
class RunningCandidate:
    """A candidate's scores after each epoch so far, of ``epochs``; ``began`` and ``told`` are seconds since 1970."""

    FORMAT: ClassVar[str] = "running_candidate"

    epochs: int
    curve: tuple[float, ...]
    began: float
    told: float


@runtime_checkable
class Reporting(Protocol):
    """An evaluator whose candidates report their progress."""

    def reporting_to(self, folder: Path) -> Evaluator:
        """The same, with files of :class:`ProgressFile` in ``folder``."""


class ProgressFile:
    """The file of a candidate called ``name`` while it runs; without a ``folder``, nothing is written.

    Only an existing folder is written to: on a machine that does not see the search's, there is none. What cannot be
    written is left out, since no candidate may fail for it.
    """

    def __init__(self, folder: Path | None, name: str, epochs: int) -> None:
        self._path, self._epochs = folder and path_of(folder, name), epochs
        self._began = time.time()

    def tell(self, curve: Sequence[float]) -> None:
        """Write the scores so far."""
        if self._path is not None and self._path.parent.is_dir():
            running = RunningCandidate(self._epochs, tuple(curve), self._began, time.time())
            with suppress(OSError, ValueError), replacing(self._path) as new:
                new.write_text(to_json(running))

    def remove(self) -> None:
        """Remove the file: the candidate does not run any more."""
        if self._path is not None:
            _remove(self._path)


@contextmanager
def progress_file(folder: Path | None, name: str, epochs: int) -> Iterator[ProgressFile]:
    """A context in which the candidate ``name`` runs."""
    file = ProgressFile(folder, name, epochs)
    file.tell(())
    try:
        yield file
    finally:
        file.remove()


def path_of(folder: Path, name: str) -> Path:
    """The file of the candidate ``name``."""
    return folder / f"{name}.json"


def read_running(folder: Path, names: Sequence[str]) -> dict[str, RunningCandidate]:
    """Those of the candidates ``names`` that run, as they told last; files that cannot be read are left out."""
    found = {}
    for name in names:
        with suppress(ZooError):
            found[name] = read_json(RunningCandidate, path_of(folder, name))
    return found


@contextmanager
def running_folder(folder: Path) -> Iterator[None]:
    """A context in which candidates may report to ``folder``; it is removed afterwards, unless it holds other files."""
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
    try:
        yield
    finally:
        clear(folder)
        with suppress(OSError):
            folder.rmdir()


def forget(folder: Path, names: Sequence[str]) -> None:
    """Remove the files of the candidates ``names``: those that were lost did not do it themselves."""
    for name in names:
        _remove(path_of(folder, name))


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
