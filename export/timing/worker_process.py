"""Starts, queries and ends the processes of :mod:`fbnetv3_zoo.export.timing.worker`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fbnetv3_zoo.utils.processes import kill_group

FILE = Path(__file__).with_name("worker.py")
PATIENCE = 2.0
"""Seconds for a worker to exit by itself."""

How = Literal["plain", "bfloat16", "compiled", "graph", "product"]
"""``graph``: an ONNX file without a description; ``product``: a matrix product instead of a model."""


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """The file for a worker to open, and the shape of its images, ``channels`` x ``side`` x ``side``."""

    path: str
    how: How
    threads: int
    channels: int = 3
    side: int = 224


@dataclass(frozen=True, slots=True)
class Measurement:
    """A worker's answer: the time in seconds, and its peak memory so far in bytes."""

    seconds: float
    memory: int | None = None


class WorkerError(Exception):
    """A request to a worker failed, for the reason in the message; ``dead`` if the process has ended."""

    def __init__(self, reason: str, *, dead: bool) -> None:
        super().__init__(reason)
        self.dead = dead


class BenchWorker:
    """A process that takes turns with others. It shares nothing with them, not even the terminal's Ctrl-C."""

    def __init__(self, request: OpenRequest) -> None:
        """Start it. Raises :class:`WorkerError` if it cannot open its file; the process has then ended."""
        argument = json.dumps({**asdict(request), "modules": sys.path})
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self._process = subprocess.Popen(
            [sys.executable, str(FILE), argument], env=_environment(request.threads), text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        self.pid = self._process.pid
        try:
            self.seconds = self._receive().seconds
        except BaseException:
            self.end()
            raise

    def begin(self, batch: int) -> Measurement:
        """Warm up with ``batch`` images; returns the time of the first call. Raises :class:`WorkerError`."""
        return self._request(batch=batch)

    def turn(self) -> Measurement:
        """Time one batch, and wait until the threads are idle. Raises :class:`WorkerError`."""
        return self._request(turn=True)

    def end(self) -> None:
        """End the process; kill it if it does not exit by itself."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        self._errors.close()

    def _kill(self) -> None:
        """Kill the process and its children, such as a compiler."""
        kill_group(self.pid)
        self._process.kill()

    def _request(self, **message: Any) -> Measurement:
        assert self._process.stdin is not None
        with suppress(OSError):  # the process has died, which _receive reports
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        return self._receive()

    def _receive(self) -> Measurement:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._cause_of_death(), dead=True)
        answer = json.loads(line)
        if "problem" in answer:
            raise WorkerError(answer["problem"], dead=False)
        return Measurement(**answer)

    def _cause_of_death(self) -> str:
        """Why the process ended: the signal that killed it, or its exit code and the last line it printed."""
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return f"its process was killed ({name}{', perhaps out of memory' if name == 'SIGKILL' else ''})"
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines()]
        message = "".join(filter(str.isprintable, next(filter(None, reversed(lines)), "")))[:200]
        return f"its process ended (exit code {code}{f': {message}' if message else ''})"


def _environment(threads: int) -> dict[str, str]:
    """This process's environment with the number of threads; runtimes decide how threads wait (see worker.py)."""
    waiting = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    inherited = {name: value for name, value in os.environ.items() if name not in waiting}
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**inherited, **dict.fromkeys(names, str(threads))}
