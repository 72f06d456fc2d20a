"""Limits around an attempt: threads, memory, time. All are as before when the attempt has ended."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fbnetv3_zoo.errors import ZooError

STATUS = Path("/proc/self/status")
AGAIN = 1.0  # seconds until an alarm that was swallowed rings again


class TimeUp(BaseException):
    """The time of an attempt is over. No Exception: what catches those must not stop it."""


@contextmanager
def thread_settings(threads: int) -> Iterator[None]:
    """Within it, libraries that are loaded and processes that are started compute on so many threads.

    Threads that wait do so asleep: spinning ones take the cores from the other workers.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    wanted = {name: str(threads) for name in names} | {"OMP_WAIT_POLICY": "PASSIVE"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def computing_threads(threads: int) -> Iterator[None]:
    """PyTorch computes on so many threads; it is not imported where it is not needed.

    The order in which it sums depends on them, so curves are equal bit for bit where the threads are equal.
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
    """Raise where the system cannot keep a limit of memory; 0 is none."""
    if gigabytes and not STATUS.exists():
        raise ZooError("Limits.gigabytes needs Linux; leave it at 0")


@contextmanager
def memory_limit(gigabytes: float) -> Iterator[None]:
    """This process may take so many gigabytes (10^9 bytes) more than it has; 0 is no limit.

    It is private, writable memory that counts (RLIMIT_DATA), not address space: PyTorch and CUDA reserve much of that
    and never use it. Memory of a GPU and of child processes does not count.
    """
    if not gigabytes:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _held() + int(gigabytes * 1e9)
    bounds = [wanted, *(bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _held() -> int:
    found = re.search(r"^VmData:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{STATUS} has no VmData")
    return int(found[1]) * 1024


def check_alarm(seconds: float) -> None:
    """Raise where :func:`alarm` cannot ring; 0 is no limit."""
    if seconds and threading.current_thread() is not threading.main_thread():
        raise ZooError("in-process, Limits.seconds needs the main thread; use the executor pool:1 or leave it at 0")


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeUp` in the main thread after so many seconds, and every second from then on; 0 never does."""
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
    finally:  # reached even where it rings on the line above
        armed = False
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
