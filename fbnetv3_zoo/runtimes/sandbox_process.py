"""The process that opens a model file before any other does.

It is ``python -m fbnetv3_zoo.runtimes.sandbox_process SUFFIX PARENT``.

Runtimes trust what they are given: a file can end their process, or take all memory there is. This one reads the file's
parts from standard input, opens them as the runtime of SUFFIX does, computes an image, all under limits of memory and
processor time, and ends with exit code 0; with 3 and a line on standard error where the runtime refuses. It ends when
the process PARENT has. :mod:`fbnetv3_zoo.runtimes.sandbox` starts it.
"""

from __future__ import annotations

import importlib
import os
import struct
import sys
import threading
import time
from pathlib import Path

REFUSED, MISSING = 3, 4
MODULES = {".onnx": "ort", ".ort": "ort", ".xml": "openvino_ir", ".pte": "executorch_pte"}
_MEMORY, _SECONDS = 1 << 30, 4  # beside what grows with the file


def main(suffix: str, parent: int) -> int:
    """Try the file out; the exit code."""
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    runtime = importlib.import_module(f"fbnetv3_zoo.runtimes.{MODULES[suffix]}")
    try:
        runtime.prepare()
    except ImportError:
        return MISSING
    parts = _parts()
    _limit(sum(map(len, parts)))
    try:
        runtime.try_out(parts)
    except Exception as error:  # the runtimes' own exceptions share no base
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        told = lines[-1] if suffix == ".xml" else lines[0]  # OpenVINO says first where in its sources it was
        print(ascii(told[:400]) if not told.isprintable() else told[:400], file=sys.stderr, flush=True)
        os._exit(REFUSED)  # some runtimes crash where they are taken down
    os._exit(0)


def _parts() -> list[bytes]:
    """What stands on standard input: parts, each after its length."""
    found = []
    while head := sys.stdin.buffer.read(8):
        found.append(sys.stdin.buffer.read(struct.unpack("<Q", head)[0]))
    return found


def _limit(size: int) -> None:
    """Bound this process's memory and processor time for a file of ``size`` bytes, where the system can."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    memory = pages * resource.getpagesize() + _MEMORY + 6 * size
    seconds = int(time.process_time()) + _SECONDS + size // 10_000_000
    for kind, bound in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
