"""Child processes: ending with their parent, resource limits, the last line of their output."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
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
    """Limit the resources of this process permanently, as far as the system supports it: Windows has no such limits.

    Args:
        memory: bytes of address space, in addition to those in use; on Linux only.
        seconds: processor time, in addition to that already used.
        file_size: most bytes of any file that is written.
    """
    try:
        import resource
    except ImportError:
        return
    bounds = {resource.RLIMIT_CPU: int(time.process_time()) + seconds, resource.RLIMIT_CORE: 0}
    if file_size is not None:
        bounds[resource.RLIMIT_FSIZE] = file_size
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bounds[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory
    for kind, bound in bounds.items():
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (bound, bound) if hard == resource.RLIM_INFINITY else (min(bound, hard),) * 2)


def last_line(output: str) -> str:
    """The last line that a process printed, to be quoted in an error; empty if it printed nothing."""
    return in_short((output.strip().splitlines() or [""])[-1])


def kill_group(leader: int) -> None:
    """Kill the process group of ``leader``, if there is one; on Windows, which has none, that process alone."""
    if not hasattr(os, "killpg"):
        with suppress(OSError):
            os.kill(leader, signal.SIGTERM)  # TerminateProcess
        return
    with suppress(ProcessLookupError, PermissionError):  # no group yet, or an empty one
        os.killpg(leader, signal.SIGKILL)


def end_group_with_parent() -> None:
    """Have this process, which multiprocessing has spawned, and all that it starts killed when its parent ends.

    It leads a process group of its own from now on, so that Ctrl-C reaches the parent alone.
    """
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_await_parent, daemon=True).start()


def _await_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    kill_group(os.getpid())
