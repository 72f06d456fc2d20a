"""``python fuzz_headers.py COUNT``: safetensors files with damaged headers, read under limits of memory and time.

It prints how many were read and how many refused; anything else than a :class:`ZooError` of one line ends it.
"""

from __future__ import annotations

import json
import random
import re
import resource
import struct
import sys
from pathlib import Path
from typing import Any

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.weights.serialization import parse

NUMBERS = (
    0,
    -1,
    1,
    7,
    8,
    1 << 31,
    1 << 32,
    (1 << 53) + 1,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
    1 << 64,
    10**400,
    0.5,
)
ODD = (None, True, "", "F32", [], {}, [0], [[0]], {"a": "b"}, *NUMBERS)
DTYPES = ("F32", "F64", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "F4", "C64", "E8M0", "f32", "", "\ud7ff")
BODY = bytes(range(64))


def header() -> dict[str, Any]:
    """A sound header over ``BODY``."""
    return {
        "__metadata__": {"format": "fbnetv3_zoo", "arch": "{}"},
        "a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
        "b": {"dtype": "I64", "shape": [], "data_offsets": [32, 40]},
        "c": {"dtype": "F16", "shape": [3, 4, 1], "data_offsets": [40, 64]},
    }


def file_of(text: bytes, *, length: int | None = None, body: bytes = BODY) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def structured(draw: random.Random) -> bytes:
    """A header that is JSON, of which a few values are others."""
    data = header()
    for _ in range(draw.randint(1, 3)):
        entry = data.get(draw.choice("abc"))
        change = draw.randrange(10)
        if change == 9 and "c" in data:
            data[draw.choice(("\n\x1b[2J", "\u202e", "e", ""))] = data.pop("c")
        elif change == 0:
            data[draw.choice(("a", "d", "__metadata__", "", "\n\x1b[2J", "a" * 500))] = draw.choice(ODD)
        elif change == 1:
            data["__metadata__"] = {draw.choice("xy"): draw.choice(ODD)}
        elif not isinstance(entry, dict):
            continue
        elif change == 2:
            entry["dtype"] = draw.choice(DTYPES)
        elif change == 3:
            entry["shape"] = [draw.choice(NUMBERS) for _ in range(draw.choice((0, 1, 2, 3, 70)))]
        elif change == 4:
            entry["data_offsets"] = [
                draw.choice((*NUMBERS, 32, 40, 64)) for _ in range(draw.choice((0, 1, 2, 2, 2, 3)))
            ]
        elif change == 5:
            entry[draw.choice(("dtype", "shape", "data_offsets", "more"))] = draw.choice(ODD)
        elif change == 6:
            entry.pop(draw.choice(list(entry)), None) if entry else None
        elif change == 7:
            size = draw.choice((0, 1, 1 << 40, 1 << 62, 1 << 63))
            data["d"] = {"dtype": "F32", "shape": [0, size], "data_offsets": [64, 64]}
        else:
            entry["shape"] = [1] * draw.choice((65, 1000, 5000)) + [2, 4]
    return file_of(json.dumps(data).encode())


def textual(draw: random.Random) -> bytes:
    """A header with other bytes, doubled parts, deep nesting or endless numbers."""
    text = json.dumps(header()).encode()
    place = draw.randrange(len(text))
    change = draw.randrange(6)
    if change == 0:
        text = text[:place] + bytes(draw.randrange(256) for _ in range(draw.randint(1, 4))) + text[place + 1 :]
    elif change == 1:
        text = text[:place] + text[place + draw.randint(1, 20) :]
    elif change == 2:
        part = text[place : place + draw.randint(1, 80)]
        text = text[:place] + part * draw.choice((2, 3, 200)) + text[place:]
    elif change == 3:
        depth = draw.choice((100, 128, 1000, 100_000))
        text = text[:-1] + b',"d":' + draw.choice((b"[", b'{"e":')) * depth + b"0" + b"]" * depth + b"}"
    elif change == 4:
        number = draw.choice((b"1" * 5000, b"0." + b"1" * 5000, b"1e999", b"-0", b"1e-999", b"9" * 300))
        text = text[:-1] + b',"d":{"dtype":"F32","shape":[0],"data_offsets":[64,64],"more":' + number + b"}}"
    else:
        text = text[:-1] + b"," + text[1:]
    return file_of(text)


def framed(draw: random.Random) -> bytes:
    """A sound header in a file of another length, or with another length before it."""
    text = json.dumps(header()).encode()
    length = draw.choice((*NUMBERS[2:11], len(text) - 1, len(text) + 1, len(text) + 64, 100_000_000, 100_000_001))
    change = draw.randrange(4)
    if change == 0:
        return file_of(text, length=int(length) & ((1 << 64) - 1))
    if change == 1:
        return file_of(text)[: draw.randrange(len(text) + 72)]
    if change == 2:
        return file_of(text, body=bytes(draw.randrange(200)))
    return file_of(draw.choice((b" ", b"\n", b"\xef\xbb\xbf", b"\x00", b"")) + text + b" " * draw.randrange(9))


def main(count: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (256 << 20),) * 2)
    draw, read, refused = random.Random(2020), 0, 0
    for number in range(count):
        data = (structured, textual, framed)[number % 3](draw)
        try:
            file = parse(data, "file")
        except ZooError as error:
            refused += 1
            text = str(error)
            assert text.startswith("file: cannot be read as safetensors ("), text
            assert text.isprintable(), text
            assert len(text) < 420, text
        else:
            read += 1
            assert all(isinstance(value, str) for value in file.metadata.values())
            assert sum(tensor.nbytes for tensor in file.tensors.values()) <= len(data)
            assert all(name.isprintable() for name in file.tensors)
    # not getrusage(): its figure begins with that of the process that started this one
    peak = int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
    print(json.dumps({"read": read, "refused": refused, "kilobytes": peak}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
