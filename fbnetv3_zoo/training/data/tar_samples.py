"""The samples in a tar file and their offsets, from its headers alone."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from ...errors import ZooError, first_few, printable
from ...images import IMAGE_SUFFIXES
from ...images.listing import is_debris, unreadable
from ...utils import serialization as plain
from .tar_headers import entries_of

EXTENSIONS = tuple(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
MOST_CLASSES = 100_000
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstandard
_LONGEST_LABEL = 1 << 20


@dataclass(frozen=True, slots=True)
class ShardSample:
    """An image in a tar file: its name there, its class index (-1: none), offset and size in bytes."""

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
    """Collects faults of samples in tar files of ``root``, to report all of them in one error."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._faults: dict[str, list[tuple[str, str, str]]] = {}

    def add(self, tar: str, sample: str, one: str, many: str) -> None:
        """Add a sample: ``one`` is the message if it is the only one of its kind, ``many`` if there are several."""
        self._faults.setdefault(many, []).append((tar, sample, one))

    def count(self, many: str) -> int:
        """The number of faults of this kind if there is no other kind, otherwise 0."""
        return len(self._faults[many]) if list(self._faults) == [many] else 0

    def check(self) -> None:
        """Raise :class:`ZooError` if there are faults, with the number and the first five of each kind."""
        if not self._faults:
            return
        tars = sorted({tar for faults in self._faults.values() for tar, _, _ in faults})
        path = self._root / tars[0] if len(tars) == 1 else self._root
        messages = []
        for many, faults in self._faults.items():
            names = [repr(printable(name if len(tars) == 1 else f"{tar}/{name}")) for tar, name, _ in faults]
            messages.append(faults[0][2] if len(faults) == 1 else f"{len(faults):,} {many}: {first_few(names)}")
        raise ZooError(f"{path}: {'; '.join(messages)}")


UNLABELED = "samples have no label; each needs a cls or json file"


def samples_in(root: Path, tar: str, classes: int | None, faults: SampleFaults) -> Iterator[ShardSample]:
    """The samples of the tar file ``tar`` in ``root``: consecutive files with the same name up to the first dot.

    ``classes`` is the number of classes, None if unknown. Faults of samples are added to ``faults``; raises
    :class:`ZooError` if the tar file is damaged.
    """
    try:
        with FileIO(root / tar) as file:
            yield from _samples(file, tar, classes, faults)
    except ZooError as error:
        raise ZooError(f"{root / tar}: {error}") from None
    except OSError as error:
        raise unreadable(root / tar, error) from None


def _samples(file: FileIO, tar: str, classes: int | None, faults: SampleFaults) -> Iterator[ShardSample]:
    names = set()
    for name, group in itertools.groupby(_members(file, tar, faults), key=lambda member: member.sample):
        members = list(group)
        by_extension = {member.extension: member for member in members}
        if name in names or len(by_extension) < len(members):
            one = f"has two samples {printable(name)!r}; give them different names"
            faults.add(tar, name, one, "samples occur twice; give them different names")
            continue
        names.add(name)
        images = [extension for extension in EXTENSIONS if extension in by_extension]
        if len(images) != 1:
            number = f"{len(images)} images" if images else "no image"
            one = f"sample {printable(name)!r} has {number}; it needs one, such as a jpg, png or webp file"
            faults.add(
                tar, name, one, "samples have no image or several; each needs one, such as a jpg, png or webp file"
            )
            continue
        image, label = by_extension[images[0]], _label(file, by_extension)
        if wrong := _wrong_label(label, classes):
            faults.add(tar, name, f"sample {printable(name)!r} has {wrong[0]}", wrong[1])
        yield ShardSample(f"{name}.{images[0]}", -1 if label is None else label, image.offset, image.size)


def _members(file: FileIO, tar: str, faults: SampleFaults) -> Iterator[_Member]:
    """The files in a tar file, without hidden ones and those left behind by the system."""
    if file.read(6).startswith(_COMPRESSED):
        raise ZooError("is compressed; decompress it to a plain tar file, which allows random access")
    for entry in entries_of(file):
        parts = [part for part in entry.name.split("/") if part not in ("", ".")]
        if not parts or any(map(is_debris, parts)):
            continue
        name = "/".join(parts)
        if not entry.plain:
            one = f"{printable(name)!r} is a link or not a regular file; pack the files themselves"
            faults.add(tar, name, one, "files are links or not regular files; pack the files themselves")
            continue
        stem, _, extension = parts[-1].partition(".")
        yield _Member("/".join([*parts[:-1], stem]), extension.lower(), entry.offset, entry.size)


def _label(file: FileIO, by_extension: dict[str, _Member]) -> int | None:
    """The class index of a sample: -1 if it has none, None if it is not a whole number."""
    if "cls" in by_extension:
        return _from_text(_contents(file, by_extension["cls"]))
    if "json" in by_extension:
        return _from_json(_contents(file, by_extension["json"]))
    return -1


def _wrong_label(label: int | None, classes: int | None) -> tuple[str, str] | None:
    """The fault of a label, worded for one sample and for many; None if it is right."""
    if label is None:
        fault = "not a whole number; write one from 0 on"
        return f"a label that is {fault}", f"samples have labels that are {fault}"
    if label < 0:
        return "no label; it needs a cls or json file", UNLABELED
    if label < (MOST_CLASSES if classes is None else classes):
        return None
    known = (
        f"labels go up to {MOST_CLASSES - 1}" if classes is None else f"labels are 0 to {classes - 1} by classes.txt"
    )
    return f"label {label}; {known}", f"samples have labels that are too large; {known}"


def _contents(file: FileIO, member: _Member) -> bytes:
    """The beginning of a file in the tar file, long enough for any label."""
    file.seek(member.offset)
    return file.read(min(member.size, _LONGEST_LABEL))


def _from_text(text: bytes) -> int | None:
    match = re.fullmatch(rb"(?:\xef\xbb\xbf)?\s*(\d{1,9})\s*", text)
    return int(match[1]) if match else None


def _from_json(text: bytes) -> int | None:
    try:
        value = plain.parse_json(text, "the label")
    except ZooError:
        return None
    label = value.get("label") if isinstance(value, dict) else None
    return label if type(label) is int and 0 <= label < 10**9 else None
