"""What lies where in a tar file of samples, told from its headers alone."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.training.data.files import unreadable

EXTENSIONS = ("jpeg", "jpg", "png", "ppm", "webp")
MOST_CLASSES = 100_000
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstandard
_LONGEST_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One image in a tar file: its name there, its class number, and the bytes it takes up."""

    name: str
    label: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Member:
    sample: str
    extension: str
    offset: int
    size: int


class _Headers(io.FileIO):
    """A file of which only little is read at a time: a header that claims to be long must not fill the memory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _LONGEST_READ:
            raise ZooError("has a header of absurd length")
        return super().read(size) or b""


def samples_in(path: Path, classes: int | None) -> Iterator[Sample]:
    """The samples of the tar file ``path``: files in a row that share their name up to its first dot.

    ``classes`` is how many there are, None where nobody said. Raises :class:`ZooError` that names the file and the
    sample for whatever is not as it should be.
    """
    try:
        with _Headers(path) as file:
            yield from _samples(file, classes)
    except ZooError as error:
        raise ZooError(f"{path}: {error}") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except Exception as error:  # tarfile raises many kinds for a damaged header
        raise ZooError(f"{path}: cannot be read as a tar file ({error}); get it again") from None


def _samples(file: _Headers, classes: int | None) -> Iterator[Sample]:
    seen = set()
    for name, members in itertools.groupby(_members(file), key=lambda member: member.sample):
        if name in seen:
            raise ZooError(f"has two samples {name!r}; give each a name of its own")
        seen.add(name)
        yield _sample(file, name, list(members), classes)


def _members(file: _Headers) -> Iterator[_Member]:
    """The files in a tar file, hidden ones left out."""
    if file.read(6).startswith(_COMPRESSED):
        raise ZooError("is compressed; unpack it to a plain tar file, whose images can be read where they lie")
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep them all
            if found := _member(member, size):
                yield found
        _check_end(file, archive.offset, size)


def _member(member: tarfile.TarInfo, size: int) -> _Member | None:
    folder, _, base = member.name.rpartition("/")
    if member.isdir() or base.startswith("."):
        return None
    if not member.isreg() or member.issparse():
        raise ZooError(f"{member.name!r} is a link or no ordinary file; pack the files themselves")
    if member.offset_data + member.size > size:
        raise ZooError(f"ends within {member.name!r}; get it again")
    stem, _, extension = base.partition(".")
    return _Member(f"{folder}/{stem}" if folder else stem, extension.lower(), member.offset_data, member.size)


def _check_end(file: _Headers, offset: int, size: int) -> None:
    """Raise unless a tar file that has been read up to ``offset`` ends there: in blocks of zeros, and nothing more."""
    file.seek(offset)
    end = file.read(min(size - offset, _LONGEST_READ))
    if len(end) < tarfile.BLOCKSIZE:
        raise ZooError("lacks its end; get it again")
    if offset + len(end) < size or end.strip(b"\0"):
        raise ZooError(f"has more after its end at byte {offset:,}; it is damaged, or several in one: get it again")


def _sample(file: _Headers, name: str, members: Sequence[_Member], classes: int | None) -> Sample:
    by_extension = {member.extension: member for member in members}
    if len(by_extension) < len(members):
        raise ZooError(f"has two samples {name!r}; give each a name of its own")
    images = [by_extension[extension] for extension in EXTENSIONS if extension in by_extension]
    if len(images) != 1:
        found = f"{len(images)} images" if images else "no image"
        raise ZooError(f"sample {name!r} has {found}; it needs one of {', '.join(EXTENSIONS)}")
    if "cls" in by_extension:
        label = _from_text(_contents(file, by_extension["cls"]))
    elif "json" in by_extension:
        label = _from_json(_contents(file, by_extension["json"]))
    else:
        raise ZooError(f"sample {name!r} has no label; it needs a cls or json file")
    if label is None:
        raise ZooError(f"sample {name!r} has a label that is no whole number; write one from 0 on")
    if label >= (MOST_CLASSES if classes is None else classes):
        known = f"go up to {MOST_CLASSES - 1}" if classes is None else f"are 0 to {classes - 1} by classes.txt"
        raise ZooError(f"sample {name!r} has label {label}; labels {known}")
    return Sample(f"{name}.{images[0].extension}", label, images[0].offset, images[0].size)


def _contents(file: _Headers, member: _Member) -> bytes:
    """The start of a file in the tar file, which is all of any label."""
    return os.pread(file.fileno(), min(member.size, _LONGEST_READ), member.offset)


def _from_text(text: bytes) -> int | None:
    found = re.fullmatch(rb"\s*(\d{1,9})\s*", text)
    return int(found[1]) if found else None


def _from_json(text: bytes) -> int | None:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    label = value.get("label") if isinstance(value, dict) else None
    return label if type(label) is int and 0 <= label < 10**9 else None
