"""Waiting for what must happen, however slow the machine: for the event, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 600.0
"""Seconds until a test gives up on something that will not happen any more: a net under a test, not a measure."""


def until(happened: Callable[[], T | None], what: str = "it") -> T:
    """What ``happened`` gives, once that is true."""
    ends = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < ends, f"{what} did not happen in {PATIENCE:.0f} s"
        time.sleep(0.02)
    return found


def gone(pid: int) -> bool:
    """Whether no process has this id; one that has ended, and whose parent has not noted it, is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
