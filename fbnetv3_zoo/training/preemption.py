"""Preemption: after a SIGTERM, the step is finished and a checkpoint written."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Termination:
    """Records a SIGTERM in its context: ``requested`` once this process has received one, ``agreed`` once all know.

    Outside the main thread, where Python does not allow signal handlers, nothing is recorded. Processes that load
    images ignore the signal (:func:`~.loader.worker_init`).
    """

    def __init__(self) -> None:
        self.requested = False
        self.agreed = False
        self._before: Any = None

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
