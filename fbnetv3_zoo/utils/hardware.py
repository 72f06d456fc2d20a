"""The processor of this machine, and the cores that this process may use."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cpu_info() -> str:
    """The text of /proc/cpuinfo; empty if there is none."""
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace") if path.exists() else ""


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """The processor's model name, or its architecture if the name is unknown."""
    lines = cpu_info().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, names), platform.processor() or platform.machine())
