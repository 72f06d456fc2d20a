"""Child processes: ending with their parent, resource limits, the last line of their output."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing import connection, parent_process
from pathlib import Path

from ..errors import in_short


def end_with(parent: int) -> None:
    """End this process, with exit code 1, when ``parent``, which started it, has ended."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def limit(*, memory: int, seconds: int, file_size: int | None = None) -> None:
    """Limit the resources of this process permanently, if the system supports it.

    Args:
        memory: bytes of address space, in addition to those in use.
        seconds: processor time, in addition to that already used.
        file_size: most bytes of any file that is written.
    """
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    bounds = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + memory,
        resource.RLIMIT_CPU: int(time.process_time()) + seconds,
        resource.RLIMIT_CORE: 0,
        **({} if file_size is None else {resource.RLIMIT_FSIZE: file_size}),
    }
    for kind, bound in bounds.items():
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (bound, bound) if hard == resource.RLIM_INFINITY else (min(bound, hard),) * 2)


def last_line(output: str) -> str:
    """The last line that a process printed, to be quoted in an error; empty if it printed nothing."""
    return in_short((output.strip().splitlines() or [""])[-1])


def end_group_with_parent() -> None:
    """Have this process, which multiprocessing has spawned, and all that it starts killed when its parent ends.

    It leads a process group of its own from now on, so that Ctrl-C reaches the parent alone.
    """
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)
