"""Preemption: after a SIGTERM, the step is finished and a checkpoint written."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing.util import register_after_fork
from types import FrameType, TracebackType
from typing import Any


class Termination:
    """Records a SIGTERM in its context: ``requested`` once this process has received one, ``agreed`` once all know.

    Processes forked by multiprocessing in the meantime (those that load images) leave the process group, so that a
    SIGTERM to the whole group does not end them before the checkpoint is written. Outside the main thread, where Python
    does not allow signal handlers, nothing is recorded.
    """

    def __init__(self) -> None:
        self.requested = False
        self.agreed = False
        self._before: Any = None

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        register_after_fork(self, _leave_group)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


def _leave_group(_: Termination) -> None:
    os.setpgid(0, 0)
