"""The process that draws: ``python -m fbnetv3_zoo.training.data.rendered.drawing_process PARENT``.

Fonts and drawings are programs: they can crash the library that draws them, or take forever. This process reads tasks
from standard input and writes what it drew to standard output, with limited memory. It ends when the process PARENT
does. :mod:`fbnetv3_zoo.training.data.rendered.sandbox` starts it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ....errors import ZooError
from ....utils.processes import end_with, limit
from .font_files import count_faces, read_face
from .glyphs import draw_face
from .holding_out import draw
from .vector import draw_vector

MEMORY = 1 << 30
"""Most bytes of memory that a task may take."""

LARGEST_MESSAGE = 1 << 30
Message = tuple[Any, list[bytes]]
"""What can be JSON, and bytes."""


def send(file: BinaryIO, head: Any, parts: Sequence[bytes] = ()) -> None:
    """Write a message."""
    text = json.dumps([head, list(map(len, parts))]).encode()
    file.write(b"".join([struct.pack("<Q", len(text)), text, *parts]))
    file.flush()


def receive(file: BinaryIO) -> Message | None:
    """Read a message; None at the end. Raises :class:`ValueError` for anything else."""
    head = _exactly(file, 8)
    if not head:
        return None
    told, sizes = json.loads(_exactly(file, struct.unpack("<Q", head)[0]))
    return told, [_exactly(file, size) for size in sizes]


def _exactly(file: BinaryIO, count: int) -> bytes:
    if count > LARGEST_MESSAGE:
        raise ValueError("a message is too long")
    data = file.read(count)
    if data and len(data) < count:
        raise ValueError("a message is cut short")
    return data


def draw_font(given: dict[str, Any], data: bytes) -> tuple[list[Any], list[npt.NDArray[np.uint8]]]:
    """For each face of a font file its names, or the reason why it cannot be used; and the pictures of usable ones."""
    told: list[Any] = []
    pictures = []
    for index in range(count_faces(data)):
        try:
            face = read_face(data, index, given["file"])
            seed = [given["seed"], round(draw(0, face.style_key) * (1 << 48))]
            drawn = draw_face(data, index, given["characters"], side=given["side"], seed=seed)
        except ZooError as error:
            told.append(str(error))
            continue
        told.append(dataclasses.asdict(face))
        pictures += [drawn.pixels, drawn.sketches]
    return told, pictures


def draw_body(given: dict[str, Any], data: bytes) -> tuple[list[Any], list[npt.NDArray[np.uint8]]]:
    """The picture of a drawing, or the reason why it cannot be drawn."""
    try:
        return [], [draw_vector(data.decode(), tuple(given["size"]), given["side"])]
    except ZooError as error:
        return [str(error)], []


TASKS: dict[str, Callable[[dict[str, Any], bytes], tuple[list[Any], list[npt.NDArray[np.uint8]]]]] = {
    "font": draw_font,
    "drawing": draw_body,
}


def main(parent: int) -> None:
    """Answer messages until there are no more."""
    end_with(parent)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    limit(memory=MEMORY, seconds=1_000_000)
    send(answers, "ready")
    while message := receive(sys.stdin.buffer):
        given, (data,) = message
        told, pictures = TASKS[given["task"]](given, data)
        send(answers, told, [picture.tobytes() for picture in pictures])


if __name__ == "__main__":
    main(int(sys.argv[1]))
