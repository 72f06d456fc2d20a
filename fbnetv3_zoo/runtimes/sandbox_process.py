"""The process that tries a model file out: ``python -m fbnetv3_zoo.runtimes.sandbox_process SUFFIX PARENT WORK``.

Runtimes do not validate their input: a file can crash the process or exhaust the memory. This process reads the parts
of the file from standard input, opens them with the runtime for SUFFIX and runs one image, with limited memory and
processor time, WORK times that of a classifier. Its exit code is 0; 3, with a line on standard error, if the runtime
refuses the file. It ends when the process PARENT does. :mod:`fbnetv3_zoo.runtimes.sandbox` starts it.
"""

from __future__ import annotations

import importlib
import os
import struct
import sys

from ..utils.processes import end_with, limit

REFUSED, MISSING = 3, 4
MODULES = {
    ".onnx": "ort", ".ort": "ort", ".xml": "openvino_ir", ".pte": "executorch_pte", ".param": "ncnn_param",
    ".tflite": "litert_tflite", ".mlpackage": "coreml",
}  # fmt: skip
_MEMORY, _SECONDS = 1 << 30, 4  # plus an amount that grows with the file


def main(suffix: str, parent: int, work: int) -> int:
    """Try the file out and return the exit code."""
    end_with(parent)
    runtime = importlib.import_module(f"fbnetv3_zoo.runtimes.{MODULES[suffix]}")
    try:
        runtime.prepare()
    except ImportError:
        return MISSING
    parts = _parts()
    size = sum(map(len, parts))
    limit(memory=work * _MEMORY + 6 * size, seconds=work * _SECONDS + size // 10_000_000)
    try:
        runtime.try_out(parts)
    except Exception as error:  # the runtimes' own exceptions share no base
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        message = lines[-1] if suffix == ".xml" else lines[0]  # OpenVINO names the place in its sources first
        print(ascii(message[:400]) if not message.isprintable() else message[:400], file=sys.stderr, flush=True)
        os._exit(REFUSED)  # some runtimes crash during shutdown
    os._exit(0)


def _parts() -> list[bytes]:
    """The parts on standard input, each preceded by its length."""
    parts = []
    while head := sys.stdin.buffer.read(8):
        parts.append(sys.stdin.buffer.read(struct.unpack("<Q", head)[0]))
    return parts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
