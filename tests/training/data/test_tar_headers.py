"""Our reader of tar headers: what Python's tarfile writes, read alike; what a hostile file says of itself, checked."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import picture, samples, tar
from refusals import refusal

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.training.data import find_dataset
from fbnetv3_zoo.training.data.tar_headers import Entry, entries_of


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.USTAR_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(kind: bytes = b"x", **values: object) -> bytes:
    """A PAX header with these values."""
    records = b""
    for key, value in values.items():
        body = f" {key}={value}\n".encode()
        length = len(body) + 1
        while len(str(length)) + len(body) > length:
            length += 1
        records += str(length).encode() + body
    return header("././@PaxHeader", len(records), kind) + padded(records)


END = bytes(1024)


def read(data: bytes) -> list[Entry]:
    return list(entries_of(io.BytesIO(data)))


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_read_as_python_reads(kind: int) -> None:
    """Long names, names that are no ASCII, folders, empty files, links."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for name, size in (("a.png", 0), ("folder/é.jpg", 511), ("x/" * 60 + "y.cls", 512), ("./b", 1000)):
            entry = tarfile.TarInfo(name)
            entry.size = size
            archive.addfile(entry, io.BytesIO(bytes(size)))
        if kind != tarfile.USTAR_FORMAT:
            long = tarfile.TarInfo("n" * 1000)
            archive.addfile(long)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "l" * (200 if kind != tarfile.USTAR_FORMAT else 50)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("last"))
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as archive:
        expected = [Entry(m.name, m.offset_data, m.size, m.isreg()) for m in archive if not m.isdir()]
    assert read(file.getvalue()) == expected


def test_large_sizes_are_read_in_every_notation(tmp_path: Path) -> None:
    size = 9 << 30
    large = tarfile.TarInfo("a")
    large.size = size
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        path = tmp_path / str(kind)
        head = large.tobuf(kind)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(len(head) + size + 1024)
        with path.open("rb") as file:
            assert list(entries_of(file)) == [Entry("a", len(head), size, True)]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (pax(size=-1536) + header("a", 4), "has a PAX header with an invalid size; it is damaged, get it again"),
        (pax(size="9" * 30) + header("a", 4), "has a PAX header with an invalid size; it is damaged, get it again"),
        (pax(size="1e3") + header("a", 4), "has a PAX header with an invalid size; it is damaged, get it again"),
        (pax(size=10**18) + header("a", 4), "ends within 'a'; get it again"),
        (pax(b"g", size=4) + header("a", 4), "has a global PAX header with a path or size for all its files; "
         "it is damaged, get it again"),
        (header("x", 60, b"x") + padded(b"9999999 path=a\n"), "has a damaged PAX header; get it again"),
        (header("x", 60, b"x") + padded(b"0 path=a\n"), "has a damaged PAX header; get it again"),
        (header("x", 60, b"x") + padded(b"no record at all"), "has a damaged PAX header; get it again"),
        (header("x", 1 << 30, b"x"), "has an extended header of 1,073,741,824 bytes; it is damaged, get it again"),
        (header("x", 1 << 30, b"L"), "has an extended header of 1,073,741,824 bytes; it is damaged, get it again"),
        (header("x", 5000, b"L"), "is cut off; get it again"),
        (header("\x1b[2J", 5000), "ends within '\\\\x1b[2J'; get it again"),
        (b"\0" * 124, "is cut off; get it again"),
    ],
)  # fmt: skip
def test_what_is_not_believed(data: bytes, what: str) -> None:
    assert refusal(lambda: read(data if len(data) < 512 else data + END)) == what


def _sized(number: bytes) -> bytes:
    """A header whose size is written as these 12 bytes."""
    block = bytearray(header("a", 0))
    block[124:136] = number
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_sizes_that_are_none() -> None:
    first = header("first", 0)
    for number in (b"\xff" * 12, b"-0000000001\0", b"00000000008\0", b"0x000000001\0"):
        assert refusal(lambda number=number: read(first + _sized(number) + END)).startswith(  # type: ignore[misc]
            "has data after its end at byte 512; "
        )
    assert refusal(lambda: read(_sized(b"\x80" + b"\xff" * 11) + END)) == "ends within 'a'; get it again"


@pytest.mark.parametrize("make", [lambda: pax(**{"GNU.sparse.size": 1 << 40}) + header("a.png", 0),
                                  lambda: header("a.png", 0, b"S")])  # fmt: skip
def test_files_with_holes_are_refused(make: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(make() + END)
    assert refusal(lambda: find_dataset(tmp_path)) == (
        f"{tmp_path}/x.tar: 'a.png' is a link or not a regular file; pack the files themselves"
    )


def test_no_mutation_takes_long_or_much() -> None:
    """However the headers are changed there is an answer or an error, and never more entries than blocks."""
    rng = np.random.default_rng(0)
    whole = b"".join(pax(path=f"{n}.png", size=n) + header("x", 0) + padded(bytes(n)) for n in range(1, 9)) + END
    tracemalloc.start()
    for _ in range(500):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 5)):
            changed[at] = rng.integers(256)
        try:
            assert len(read(bytes(changed))) < len(whole) / 512
        except ZooError as error:
            assert len(str(error)) < 2000  # noqa: PT017 - one of the two ends is right
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_what_systems_leave_in_shards_is_passed_over(tmp_path: Path) -> None:
    files = {f"./{name}": data for name, data in samples(0, 12).items()}
    debris = {"__MACOSX/._0000.png": b"x", "./.DS_Store": b"x", "@eaDir/0000.png/THUMB.jpg": b"x", "Thumbs.db": b"x"}
    tar(tmp_path / "x.tar", {**debris, **files, "._last.png": b"x"})
    data = find_dataset(tmp_path, seed=None)
    assert [example.key for example in data["test"]] == [f"x.tar/{n:04d}.png" for n in range(12)]


def test_faults_of_samples_are_told_at_once(tmp_path: Path) -> None:
    files = {f"{n}.png": picture(n) for n in range(7)}
    tar(tmp_path / "a.tar", {**files, "x.cls": b"0"})
    tar(tmp_path / "b.tar", {f"{n}.heic": b"" for n in range(2)})
    names = ", ".join(f"'a.tar/{n}.png'".replace(".png", "") for n in range(5))
    said = refusal(lambda: find_dataset(tmp_path))
    assert said.startswith(f"{tmp_path}: 7 samples have no label; each needs a cls or json file: {names} and 2 more; ")
    assert said.endswith("such as a jpg, png or webp file: 'a.tar/x', 'b.tar/0', 'b.tar/1'")
