"""PNG files without their texts and color profiles, which can be large or damaged while the pixels are intact.

Pillow refuses a file with a text or profile of more than 1 MiB, and its limit applies to the whole process.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from ..errors import ZooError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
METADATA = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
"""Types of chunk that do not affect the pixels."""

_LARGE = 1 << 20  # bytes; a larger chunk that is not part of the picture is skipped without being read
_PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"fdAT")
_MOST_CHUNKS = 200_000
_XMP = b"XML:com.adobe.xmp"
_MOST_XMP = 16 << 20
_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


class _Chunk(NamedTuple):
    kind: bytes
    start: int  # of its length, which comes first
    end: int  # behind its checksum


def without_metadata(file: BinaryIO, *, all_of_it: bool = False) -> BinaryIO:
    """The PNG ``file`` from its start without large metadata, or without any; ``file`` itself if it has none.

    The orientation in XMP is kept. Raises :class:`ZooError` for a file of more chunks than a picture needs.
    """
    file.seek(0)
    chunks = list(_chunks(file))
    left_out = [chunk for chunk in chunks if _is_left_out(chunk, all_of_it=all_of_it)]
    if not left_out:
        file.seek(0)
        return file
    orientation = next(filter(None, (_orientation(file, chunk) for chunk in left_out if chunk.kind == b"iTXt")), b"")
    return io.BufferedReader(_Spliced(file, left_out, orientation, chunks[0].end))


def _is_left_out(chunk: _Chunk, *, all_of_it: bool) -> bool:
    if chunk.kind in _PICTURE:
        return False
    return chunk.end - chunk.start > _LARGE or (all_of_it and chunk.kind in METADATA)


def _chunks(file: BinaryIO) -> Iterator[_Chunk]:
    """All complete chunks in order, up to the last one."""
    at = file.seek(len(SIGNATURE))
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return
        end = at + 12 + int.from_bytes(head[:4], "big")
        yield _Chunk(head[4:], at, end)
        if head[4:] == b"IEND":
            return
        at = file.seek(end)
    raise ZooError(f"a PNG file of more than {_MOST_CHUNKS:,} chunks; save it again")


def _orientation(file: BinaryIO, chunk: _Chunk) -> bytes:
    """A small XMP chunk with the orientation given in a large one; empty if it gives none."""
    file.seek(chunk.start + 8)
    data = file.read(min(chunk.end - chunk.start - 12, _MOST_XMP))
    keyword, _, rest = data.partition(b"\0")
    if keyword != _XMP or rest.count(b"\0") < 2:
        return b""
    text = rest[2:].split(b"\0", 2)[-1]  # after two flags, a language and a translated keyword
    if rest[0]:
        text = _inflated(text)
    match = _ORIENTATION.search(text)
    if match is None:
        return b""
    body = b"iTXt" + _XMP + b"\0\0\0\0\0" + b'tiff:Orientation="' + match[1] + b'"'
    return (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def _inflated(data: bytes) -> bytes:
    """The first bytes of the decompressed ``data``."""
    try:
        return zlib.decompressobj().decompress(data, _MOST_XMP)
    except zlib.error:
        return b""


class _Part(NamedTuple):
    """A span of the file from ``start``, or ``text`` instead; ``at`` is its offset in the spliced file."""

    at: int
    end: int
    start: int
    text: bytes = b""


class _Spliced(io.RawIOBase):
    """A file without some of its spans and with ``added`` inserted at ``position``. Read-only."""

    def __init__(self, file: BinaryIO, left_out: list[_Chunk], added: bytes, position: int) -> None:
        super().__init__()
        self._file, self._at = file, 0
        self._parts = [_Part(0, position, 0), _Part(position, position + len(added), 0, added)]
        edges = [
            position,
            *(edge for chunk in left_out for edge in (chunk.start, chunk.end)),
            file.seek(0, io.SEEK_END),
        ]
        for start, end in zip(edges[0::2], edges[1::2], strict=True):
            if start < end:
                self._parts.append(_Part(self._parts[-1].end, self._parts[-1].end + end - start, start))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = max(0, offset + (0, self._at, self._parts[-1].end)[whence])
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        part = next((part for part in self._parts if part.at <= self._at < part.end), None)
        if part is None:
            return 0
        offset, size = self._at - part.at, min(len(buffer), part.end - self._at)
        data = part.text[offset : offset + size] if part.text else self._read(part.start + offset, size)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _read(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        return self._file.read(size)
