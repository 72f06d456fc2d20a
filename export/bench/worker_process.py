"""The other end of :mod:`fbnetv3_zoo.export.bench.worker`: starting such a process, asking it, ending it."""

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

FILE = Path(__file__).with_name("worker.py")
PATIENCE = 2.0
"""Seconds that a worker has to end by itself."""

How = Literal["plain", "bfloat16", "compiled", "graph", "product"]
"""``graph``: an ONNX file without a description; ``product``: no model, but a matrix product."""


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """What a worker opens: the file at ``path``, for images of ``channels`` x ``side`` x ``side``."""

    path: str
    how: How
    threads: int
    channels: int = 3
    side: int = 224


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a worker says: how many seconds it took, and the most memory it has had so far, in bytes."""

    seconds: float
    memory: int | None = None


class WorkerError(Exception):
    """A worker could not do as it was asked; the message says why. ``dead`` says that it does nothing any more."""

    def __init__(self, reason: str, *, dead: bool) -> None:
        super().__init__(reason)
        self.dead = dead


class BenchWorker:
    """A process that is asked in turn with others. It shares nothing with them, not even the terminal's Ctrl-C."""

    def __init__(self, order: OpenRequest) -> None:
        """Start it. Raises :class:`WorkerError` where it cannot open its file; it has ended then."""
        told = json.dumps({**asdict(order), "modules": sys.path})
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self._process = subprocess.Popen(
            [sys.executable, str(FILE), told], env=_environment(order.threads), text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        self.pid = self._process.pid
        try:
            self.seconds = self._hear().seconds
        except BaseException:
            self.end()
            raise

    def begin(self, batch: int) -> Measurement:
        """Have it warm up with ``batch`` images; how long the first call took. Raises :class:`WorkerError`."""
        return self._ask(batch=batch)

    def turn(self) -> Measurement:
        """Have it compute one batch, and come to rest. Raises :class:`WorkerError`."""
        return self._ask(turn=True)

    def end(self) -> None:
        """End it, at once where it does not end by itself."""
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
        """End it and what it has started, such as a compiler."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()

    def _ask(self, **message: Any) -> Measurement:
        assert self._process.stdin is not None
        with suppress(OSError):  # it has died, and so has nothing to say
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> Measurement:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._last_words(), dead=True)
        told = json.loads(line)
        if "problem" in told:
            raise WorkerError(told["problem"], dead=False)
        return Measurement(**told)

    def _last_words(self) -> str:
        """Why it is no more: the signal that killed it, or how it ended and the last that it printed."""
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return f"its process was killed ({name}{', perhaps for want of memory' if name == 'SIGKILL' else ''})"
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines()]
        said = "".join(filter(str.isprintable, next(filter(None, reversed(lines)), "")))[:200]
        return f"its process ended (exit code {code}{f': {said}' if said else ''})"


def _environment(threads: int) -> dict[str, str]:
    """This process's, with the number of threads; how threads wait is left to the runtimes (see worker.py)."""
    left_out = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**kept, **dict.fromkeys(names, str(threads))}
