"""Reads the headers of tar files with limits, so that damaged or malicious files cannot do harm.

Supports V7, ustar, GNU (long names, binary sizes) and PAX (``path`` and ``size``). Python's own reader is not used: a
negative size in a PAX header makes it loop forever (CVE-2025-8194), and it keeps all headers in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from ...errors import ZooError, printable

BLOCK = 512
_REGULAR, _WITHOUT_CONTENTS = (b"0", b"\0", b"7"), (b"1", b"2", b"3", b"4", b"5", b"6")
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK, _FOLDER = b"x", b"g", b"L", b"K", b"5"
MOST_EXTRA = 1 << 16
"""Maximum size of a PAX header or long name in bytes; those of usual programs have some hundred."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a tar file: its name, offset and size in bytes. ``plain``: neither link, device nor sparse."""

    name: str
    offset: int
    size: int
    plain: bool


def entries_of(file: BinaryIO) -> Iterator[Entry]:
    """The files in a tar file, without folders.

    Raises :class:`ZooError`, without the file's name, if the tar file is damaged or incomplete.
    """
    end = file.seek(0, os.SEEK_END)
    if not end:
        raise ZooError("cannot be read as a tar file (empty file); get it again")
    at, extra = 0, dict[str, bytes]()
    while (block := _block(file, at, end)).strip(b"\0"):
        kind, size = block[156:157], _number(block[124:136])
        if size is None or not _is_header(block):
            raise _more(at) if at else ZooError("cannot be read as a tar file (bad checksum); get it again")
        start = at + BLOCK
        if kind in (_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK):
            extra |= _extra(kind, _contents(file, start, size, end))
        else:
            size = 0 if kind in _WITHOUT_CONTENTS else _size_in(extra, size)
            name = _name(block, extra)
            if start + size > end:
                raise ZooError(f"ends within {printable(name)!r}; get it again")
            if kind != _FOLDER and not name.endswith("/"):
                yield Entry(name, start, size, kind in _REGULAR and not extra.keys() & {"sparse", "link"})
            extra = {}
        at = start + -(-size // BLOCK) * BLOCK
    _check_end(file, at, end)


def _block(file: BinaryIO, at: int, end: int) -> bytes:
    if at + BLOCK > end:
        raise ZooError("is cut off; get it again")
    file.seek(at)
    return file.read(BLOCK)


def _is_header(block: bytes) -> bool:
    """Whether the checksum is right; some programs sum signed bytes."""
    checksum = _number(block[148:156])
    counted = block[:148] + b" " * 8 + block[156:]
    total = sum(counted)
    return checksum == total or checksum == total - 256 * sum(byte > 127 for byte in counted)


def _number(text: bytes) -> int | None:
    """A number in a header, octal or, for large ones of GNU, binary; None if it is invalid or negative."""
    if text[0] == 0x80:
        return int.from_bytes(text[1:], "big")
    digits = text.partition(b"\0")[0].strip(b" ")
    return int(digits or b"0", 8) if all(48 <= digit <= 55 for digit in digits) else None


def _contents(file: BinaryIO, start: int, size: int, end: int) -> bytes:
    if size > MOST_EXTRA:
        raise ZooError(f"has an extended header of {size:,} bytes; it is damaged, get it again")
    if start + size > end:
        raise ZooError("is cut off; get it again")
    file.seek(start)
    return file.read(size)


def _extra(kind: bytes, data: bytes) -> Mapping[str, bytes]:
    """The properties of the next file in an extended header: ``path`` and ``size``; ``sparse`` if it has holes."""
    if kind == _LONG_NAME:
        return {"path": data.rstrip(b"\0")}
    if kind == _LONG_LINK:
        return {"link": b""}
    properties = {}
    for key, value in _records(data):
        if key.startswith(b"GNU.sparse"):
            properties["sparse"] = b""
        elif key in (b"path", b"size"):
            properties[key.decode()] = value
    if kind == _PAX_GLOBAL and properties:
        raise ZooError("has a global PAX header with a path or size for all its files; it is damaged, get it again")
    return properties


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a PAX header: lines ``LENGTH KEY=VALUE``, where the length is that of the whole line."""
    at = 0
    while at < len(data) and data[at]:
        digits, space, _ = data[at : at + 8].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        key, equals, value = data[at + len(digits) + 1 : at + length].partition(b"=")
        if not equals or at + length > len(data) or not value.endswith(b"\n"):
            raise ZooError("has a damaged PAX header; get it again")
        yield key, value[:-1]
        at += length


def _size_in(extra: Mapping[str, bytes], size: int) -> int:
    digits = extra.get("size")
    if digits is None:
        return size
    if not digits.isdigit() or len(digits) > 19:
        raise ZooError("has a PAX header with an invalid size; it is damaged, get it again")
    return int(digits)


def _name(block: bytes, extra: Mapping[str, bytes]) -> str:
    if "path" in extra:
        name = extra["path"]
    else:
        name = block[:100].partition(b"\0")[0]
        prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
        name = prefix + b"/" + name if prefix else name
    return os.fsdecode(name)


def _check_end(file: BinaryIO, at: int, end: int) -> None:
    """Raise :class:`ZooError` unless there are only zeros after ``at``."""
    file.seek(at)
    rest = file.read(min(end - at, _LONGEST_END))
    if at + len(rest) < end or rest.strip(b"\0"):
        raise _more(at)


def _more(at: int) -> ZooError:
    return ZooError(f"has data after its end at byte {at:,}; it is damaged or several tar files in one, get it again")


_LONGEST_END = 1 << 20
