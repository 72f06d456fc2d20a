"""Isolation of a run: an exclusive folder, and random generators of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from ..errors import ZooError
from ..utils.paths import check_folder
from .distributed import World

LOCK = ".fbnetv3-zoo.lock"
"""The file by which a run locks its folder."""

_PATIENCE = (
    15.0  # a killed run's image processes look for it every five seconds, end, and let go; a busy machine is slow
)


def own_randomness(world: World) -> AbstractContextManager[None]:
    """A context after which the caller's random generators are as before."""
    return torch.random.fork_rng(devices=[world.device] if world.device.type == "cuda" else [])


@contextmanager
def claimed(folder: Path, world: World) -> Iterator[None]:
    """A context in which ``folder``, created if missing, is locked against other runs."""
    if not world.leads:
        yield
        return
    check_folder(folder)
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
    finally:
        lock.release()
