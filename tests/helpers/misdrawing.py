"""The process that draws (:mod:`fbnetv3_zoo.training.data.rendered.drawing_process`) with tasks that end it."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from fbnetv3_zoo.training.data.rendered import drawing_process


def crash(given: dict[str, Any], data: bytes) -> Any:
    os.abort()


def hang(given: dict[str, Any], data: bytes) -> Any:
    time.sleep(600)


def fill(given: dict[str, Any], data: bytes) -> Any:
    return [], [bytearray(2 * drawing_process.MEMORY)]


def echo(given: dict[str, Any], data: bytes) -> Any:
    print("what a library says")
    return [data.decode()], []


if __name__ == "__main__":
    drawing_process.TASKS.update(crash=crash, hang=hang, fill=fill, echo=echo)
    drawing_process.main(int(sys.argv[1]))
