"""What the processes of a group do. They import it, hence a module of its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.training.distributed import World


def introduce(world: World) -> list[tuple[int, int]]:
    """Rank and size of all."""
    return world.gather((world.rank, world.size))


def fail(world: World) -> None:
    """The second raises, while the others wait for it."""
    if world.rank == 1:
        raise ZooError("no such stride")
    world.gather(None)


def die(world: World) -> None:
    """The second is killed, while the others wait for it."""
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.gather(None)


def wait(folder: Path, world: World) -> None:
    """Each leaves its number in ``folder``, and waits."""
    (folder / str(os.getpid())).touch()
    time.sleep(1000)
