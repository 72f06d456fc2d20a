"""What lies where in a tar file of samples, told from its headers alone."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from ...errors import ZooError, first_few, printable
from ...utils import serialization as plain
from .listing import IMAGE_SUFFIXES, is_debris, unreadable
from .tar_headers import entries_of

EXTENSIONS = tuple(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
MOST_CLASSES = 100_000
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstandard
_LONGEST_LABEL = 1 << 20


@dataclass(frozen=True, slots=True)
class ShardSample:
    """One image in a tar file: its name there, its class number (-1: none), and the bytes it takes up."""

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


class SampleFaults:
    """What is wrong with samples of tar files below ``root``: kept until all are looked at, then told at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: dict[str, list[tuple[str, str, str]]] = {}

    def add(self, tar: str, sample: str, one: str, many: str) -> None:
        """Note a sample: ``one`` says what is wrong where it is the only one, ``many`` where others are like it."""
        self._found.setdefault(many, []).append((tar, sample, one))

    def count(self, many: str) -> int:
        """How many samples are wrong in this way; of all ways, if there is another, it is 0."""
        return len(self._found[many]) if list(self._found) == [many] else 0

    def check(self) -> None:
        """Raise :class:`ZooError` where there are any: the first five of each kind, and the number."""
        if not self._found:
            return
        tars = sorted({tar for found in self._found.values() for tar, _, _ in found})
        place = self._root / tars[0] if len(tars) == 1 else self._root
        told = []
        for many, found in self._found.items():
            names = [repr(printable(name if len(tars) == 1 else f"{tar}/{name}")) for tar, name, _ in found]
            told.append(found[0][2] if len(found) == 1 else f"{len(found):,} {many}: {first_few(names)}")
        raise ZooError(f"{place}: {'; '.join(told)}")


UNLABELLED = "samples have no label; each needs a cls or json file"


def samples_in(root: Path, tar: str, classes: int | None, faults: SampleFaults) -> Iterator[ShardSample]:
    """The samples of the tar file ``tar`` below ``root``: files in a row that share their name up to its first dot.

    ``classes`` is how many there are, None where nobody said. What is wrong with samples goes to ``faults``; a tar file
    that is damaged raises :class:`ZooError`.
    """
    try:
        with FileIO(root / tar) as file:
            yield from _samples(file, tar, classes, faults)
    except ZooError as error:
        raise ZooError(f"{root / tar}: {error}") from None
    except OSError as error:
        raise unreadable(root / tar, error) from None


def _samples(file: FileIO, tar: str, classes: int | None, faults: SampleFaults) -> Iterator[ShardSample]:
    seen = set()
    for name, members in itertools.groupby(_members(file, tar, faults), key=lambda member: member.sample):
        found = list(members)
        by_extension = {member.extension: member for member in found}
        if name in seen or len(by_extension) < len(found):
            one = f"has two samples {printable(name)!r}; give each a name of its own"
            faults.add(tar, name, one, "samples come twice; give each a name of its own")
            continue
        seen.add(name)
        images = [extension for extension in EXTENSIONS if extension in by_extension]
        if len(images) != 1:
            told = f"{len(images)} images" if images else "no image"
            one = f"sample {printable(name)!r} has {told}; it needs one, such as a jpg, png or webp file"
            faults.add(
                tar, name, one, "samples have no image or several; each needs one, such as a jpg, png or webp file"
            )
            continue
        image, label = by_extension[images[0]], _label(file, by_extension)
        if wrong := _wrong_label(label, classes):
            faults.add(tar, name, f"sample {printable(name)!r} has {wrong[0]}", wrong[1])
        yield ShardSample(f"{name}.{images[0]}", -1 if label is None else label, image.offset, image.size)


def _members(file: FileIO, tar: str, faults: SampleFaults) -> Iterator[_Member]:
    """The files in a tar file, without what is hidden or systems leave behind."""
    if file.read(6).startswith(_COMPRESSED):
        raise ZooError("is compressed; unpack it to a plain tar file, whose images can be read where they lie")
    for entry in entries_of(file):
        parts = [part for part in entry.name.split("/") if part not in ("", ".")]
        if not parts or any(map(is_debris, parts)):
            continue
        name = "/".join(parts)
        if not entry.plain:
            one = f"{printable(name)!r} is a link or no ordinary file; pack the files themselves"
            faults.add(tar, name, one, "files are links or no ordinary files; pack the files themselves")
            continue
        stem, _, extension = parts[-1].partition(".")
        yield _Member("/".join([*parts[:-1], stem]), extension.lower(), entry.offset, entry.size)


def _label(file: FileIO, by_extension: dict[str, _Member]) -> int | None:
    """The class number of a sample: -1 where it has none, None where it is no whole number."""
    if "cls" in by_extension:
        return _from_text(_contents(file, by_extension["cls"]))
    if "json" in by_extension:
        return _from_json(_contents(file, by_extension["json"]))
    return -1


def _wrong_label(label: int | None, classes: int | None) -> tuple[str, str] | None:
    """What is wrong with a label: said of one sample, and of many."""
    if label is None:
        told = "no whole number; write one from 0 on"
        return f"a label that is {told}", f"samples have labels that are {told}"
    if label < 0:
        return "no label; it needs a cls or json file", UNLABELLED
    if label < (MOST_CLASSES if classes is None else classes):
        return None
    known = (
        f"labels go up to {MOST_CLASSES - 1}" if classes is None else f"labels are 0 to {classes - 1} by classes.txt"
    )
    return f"label {label}; {known}", f"samples have labels that are too large; {known}"


def _contents(file: FileIO, member: _Member) -> bytes:
    """The start of a file in the tar file, which is all of any label."""
    return os.pread(file.fileno(), min(member.size, _LONGEST_LABEL), member.offset)


def _from_text(text: bytes) -> int | None:
    found = re.fullmatch(rb"(?:\xef\xbb\xbf)?\s*(\d{1,9})\s*", text)
    return int(found[1]) if found else None


def _from_json(text: bytes) -> int | None:
    try:
        value = plain.parse_json(text, "the label")
    except ZooError:
        return None
    label = value.get("label") if isinstance(value, dict) else None
    return label if type(label) is int and 0 <= label < 10**9 else None
