"""Limits of an attempt: threads, memory, time. All are restored when the attempt has ended."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType

from fbnetv3_zoo.errors import ZooError

STATUS = Path("/proc/self/status")
AGAIN = 1.0  # seconds until an alarm that was swallowed is repeated


class TimeUp(BaseException):
    """An attempt exceeded its time. Not an Exception, so that ``except Exception`` does not swallow it."""


@contextmanager
def environment(**settings: str) -> Iterator[None]:
    """A context with these environment variables, which new processes inherit."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def thread_settings(threads: int) -> AbstractContextManager[None]:
    """A context in which newly loaded libraries and new processes compute on ``threads`` threads.

    Waiting threads sleep: spinning ones would take the cores from other workers.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return environment(**dict.fromkeys(names, str(threads)), OMP_WAIT_POLICY="PASSIVE")


@contextmanager
def computing_threads(threads: int) -> Iterator[None]:
    """A context in which PyTorch, if it is imported, computes on ``threads`` threads.

    The order of its sums depends on their number: curves are equal bit for bit for equal numbers of threads.
    """
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    with thread_settings(threads):
        if torch:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)


def check_memory_limit(gigabytes: float) -> None:
    """Raise if the system cannot enforce a memory limit; 0 is no limit."""
    if gigabytes and not STATUS.exists():
        raise ZooError("Limits.gigabytes needs Linux; leave it at 0")


@contextmanager
def memory_limit(gigabytes: float) -> Iterator[None]:
    """A context in which this process may allocate ``gigabytes`` (10^9 bytes) more; 0 is no limit.

    Private, writable memory counts (RLIMIT_DATA), not address space, of which PyTorch and CUDA reserve much that they
    never use. Memory of GPUs and of child processes does not count.
    """
    if not gigabytes:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _held() + int(gigabytes * 1e9)
    bounds = [limit, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _held() -> int:
    match = re.search(r"^VmData:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if match is None:
        raise OSError(f"{STATUS} has no VmData")
    return int(match[1]) * 1024


def check_alarm(seconds: float) -> None:
    """Raise if :func:`alarm` would not work in this thread; 0 is no limit."""
    if seconds and not hasattr(signal, "SIGALRM"):
        raise ZooError("in-process, Limits.seconds needs Linux or macOS; use the executor pool:1 or leave it at 0")
    if seconds and threading.current_thread() is not threading.main_thread():
        raise ZooError("in-process, Limits.seconds needs the main thread; use the executor pool:1 or leave it at 0")


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeUp` in the main thread after ``seconds`` and every second from then on; 0 is no limit."""
    if not seconds:
        yield
        return
    armed = True

    def ring(number: int, frame: FrameType | None) -> None:
        if armed:
            raise TimeUp

    handler = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        try:
            yield
        finally:
            armed = False
    finally:  # reached even if it rings on the line above
        armed = False
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
