"""A run by itself: no other one in its folder, no touch of its caller's random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from ..errors import ZooError
from .distributed import World

LOCK = ".fbnetv3-zoo.lock"
"""The file by which a run claims its folder."""

_PATIENCE = (
    15.0  # a killed run's image processes look for it every five seconds, end, and let go; a busy machine is slow
)


def own_randomness(world: World) -> AbstractContextManager[None]:
    """The caller's random generators are as before when this ends."""
    return torch.random.fork_rng(devices=[world.device] if world.device.type == "cuda" else [])


@contextmanager
def claimed(folder: Path, world: World) -> Iterator[None]:
    """The folder, made where it is missing, with no other run writing into it."""
    if not world.leads:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=_PATIENCE)
        lock.acquire()
    except Timeout:
        raise ZooError(f"{folder}: another run is writing here; give another folder") from None
    except OSError as error:
        raise ZooError(f"{folder}: cannot be made a folder ({error.strerror})") from None
    try:
        yield
    finally:
        lock.release()
