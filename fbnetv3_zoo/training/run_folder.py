"""Isolation of a run: an exclusive folder, and random generators of its own."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from ..errors import ZooError, check_type
from ..utils.paths import FOREIGN, JOURNAL, LOCK, check_folder, exists, is_file, is_ours
from .callbacks import check_callbacks
from .distributed import World
from .execution import Execution

CHECKPOINTS, METRICS, MODEL, REPORT = "checkpoints", "metrics.jsonl", "model.safetensors", "report.html"
"""In the folder of a run: that of its checkpoints, a line for every finished epoch, the result, the page."""

_MARKS = (LOCK, f"{CHECKPOINTS}/epoch-*-step-*.safetensors")  # Windows removes the lock

_PATIENCE = (
    15.0  # a killed run's image processes look for it every five seconds, end, and let go; a busy machine is slow
)


def check_run(folder: object, execution: object, callbacks: object) -> None:
    """Raise :class:`ZooError` unless these arguments of a run are of their types."""
    check_type("folder", folder, str | os.PathLike, "the path of a folder, such as 'runs/first'")
    check_type("execution", execution, Execution, "an Execution, such as Execution(device='cuda')")
    check_callbacks(callbacks)


def own_randomness(world: World) -> AbstractContextManager[None]:
    """A context after which the caller's random generators are as before."""
    return torch.random.fork_rng(devices=[world.device] if world.device.type == "cuda" else [])


def check_foreign(folder: Path, files: Collection[str], *marks: str) -> None:
    """Raise :class:`ZooError` if one of ``files`` is in ``folder`` with none of ``marks``, which our own folders have.

    ``files`` are the names to be written, ``marks`` patterns of names.
    """
    if any(True for mark in marks for _ in folder.glob(mark)):
        return
    if found := [folder / name for name in files if exists(folder / name)]:
        ours = is_file(found[0]) and is_ours(found[0])
        whose = "already exists, and is of another command" if ours else FOREIGN
        raise ZooError(f"{found[0]}: {whose}; give another folder, or move that file")


def holds_runs(folder: Path) -> bool:
    """Whether ``folder`` or a folder in it is that of a training run."""
    return any(True for mark in _MARKS for place in ("", "*/") for _ in folder.glob(place + mark))


def check_no_run(folder: Path) -> None:
    """Raise :class:`ZooError` if ``folder`` is that of a training run."""
    if any(True for _ in folder.glob(_MARKS[1])):
        raise ZooError(f"{folder}: holds a training run; give another folder")


@contextmanager
def claimed(folder: Path, world: World, files: Collection[str] = ()) -> Iterator[None]:
    """A context in which ``folder``, created if missing, is locked against other runs.

    ``files`` are the names that will be written: a folder that has one of them and is not of a run is refused. If the
    block raises before anything is written, the folder is as before.
    """
    if not world.leads:
        yield
        return
    check_folder(folder)
    if exists(folder / JOURNAL):
        raise ZooError(f"{folder}: holds a search; give another folder")
    check_foreign(folder, files, *_MARKS)
    new = not exists(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=_PATIENCE)
        lock.acquire()
    except Timeout:
        raise ZooError(f"{folder}: another run is writing here; give another folder") from None
    except OSError as error:
        raise ZooError(f"{folder}: cannot be created ({error.strerror})") from None
    try:
        yield
    except BaseException:
        if new and [path.name for path in folder.iterdir()] == [LOCK]:
            _discard(folder)
        raise
    finally:
        lock.release()


def _discard(folder: Path) -> None:
    """Remove a folder that has nothing but the lock."""
    with suppress(OSError):  # Windows keeps a file that is open; another run may have begun here
        (folder / LOCK).unlink()
        folder.rmdir()
