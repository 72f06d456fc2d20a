"""Have another process draw, which may crash or hang."""

from __future__ import annotations

import os
import queue
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from ....errors import ZooError, first_few
from . import drawing_process as process
from .drawing_process import Message, receive, send

if TYPE_CHECKING:
    from typing_extensions import Self

_START, _SECONDS = 120.0, 20.0
_MOST_ENDED = 10  # tasks that crash the process or do not end, after which no more are tried


class GivenUpError(ZooError):
    """Too many tasks crashed the process that draws, or did not end."""


class Drawer:
    """A process that draws, for use as a context manager; it is started anew if a task ends it."""

    def __init__(self) -> None:
        self._running: _Running | None = None
        self._ended: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running is not None:
            self._running.end()

    def ask(self, name: str, task: str, data: bytes, **given: Any) -> Message:
        """The answer to a task of :data:`~.drawing_process.TASKS`; errors name ``name``.

        Raises :class:`ZooError` if the process crashes or does not answer in time, and :class:`GivenUpError` if that
        happens for the tenth time.
        """
        self._running = self._running or _Running()
        answer = self._running.ask({"task": task, **given}, data)
        if not isinstance(answer, str):
            return answer
        self._running.end()
        self._running = None
        self._ended.append(name)
        if len(self._ended) == _MOST_ENDED:
            raise GivenUpError(f"{_MOST_ENDED} of them crash or stall the process that draws: {first_few(self._ended)}")
        raise ZooError(answer)


class _Running:
    """One process, and a thread that reads its answers."""

    def __init__(self) -> None:
        paths = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environment = {**os.environ, **threads, "PYTHONPATH": paths}
        command = [sys.executable, "-m", process.__name__, str(os.getpid())]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._answers: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()
        if not isinstance(self._next(_START), tuple):
            self.end()
            raise ZooError("the process that draws cannot be started; is there enough memory?")

    def ask(self, given: dict[str, Any], data: bytes) -> Message | str:
        """The answer; a text if there is none."""
        with suppress(OSError):  # it has ended
            send(cast("BinaryIO", self._process.stdin), given, [data])
        return self._next(_SECONDS) or "crashes the process that draws it"

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        with suppress(OSError), self._process:  # closing a pipe may fail to write what is left for it
            pass

    def _next(self, seconds: float) -> Message | str | None:
        """The next answer; a text if there is none in time, None if the process has ended."""
        try:
            return self._answers.get(timeout=seconds)
        except queue.Empty:
            return f"takes more than {seconds:.0f} s to draw"

    def _listen(self, file: IO[bytes]) -> None:
        with suppress(OSError, ValueError, struct.error):  # half a message, of a process that has crashed
            while message := receive(cast("BinaryIO", file)):
                self._answers.put(message)
        self._answers.put(None)
