"""What killed writers leave is cleared by the next one in the same place and by nothing else; pairs stay whole."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import disks
import killed
import pytest
from killed import leave_half_a_file
from waiting import PATIENCE

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.utils.atomic_write import replacing, replacing_folder, replacing_together, scratch, settled
from fbnetv3_zoo.utils.temporary_folder import SIGNATURE

DECOYS = (
    ".thesis.20251231.tex",
    ".x.deadbeef.json",
    ".foo.abcdefgh.download",
    ".page.deadbeef.partial",
    ".fbnetv3-zoo-12345678/notes.txt",
    ".fbnetv3-zoo-1234567812345678/lock",
    ".fbnetv3-zoo-notes.txt",
    "lock",
)


def _decoys(folder: Path) -> list[Path]:
    paths = [folder / name for name in DECOYS]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(SIGNATURE if path.name == "lock" else b"mine")
    return paths


def _kills(folder: Path, what: str, old: str) -> list[dict[str, Any]]:
    command = [sys.executable, killed.__file__, str(folder), what, old]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("old", ["old", "none"])
@pytest.mark.parametrize(("what", "least"), [("one", 8), ("pair", 12), ("page", 12), ("all", 16)])
def test_killed_before_every_change(what: str, least: int, old: str, tmp_path: Path) -> None:
    found = _kills(tmp_path / "folder", what, old)
    assert len(found) > least
    assert not found[-1]["killed"]
    before = "old" if old == "old" else ""
    for told in found:
        after = told["afterwards"]
        assert told["names"] == sorted({"next.txt", "other.txt", "page", *told["at once"], *after} & {*told["names"]})
        assert not [name for name in told["names"] if name.startswith(".")], "nothing is left by the next writer"
        assert after["other.txt"] == "mine"
        pair = [after.get(name, "") for name in ("one.txt", "two.txt")]
        page = [after.get(f"page/{name}", "") for name in ("one.txt", "two.txt")]
        assert pair in ([["new", before], [before, before]] if what == "one" else [["new"] * 2, [before] * 2])
        assert page in [["new"] * 2, [before] * 2]
        if what == "pair":
            assert told["settled"] in [["new"] * 2, [before] * 2], "whoever opens a pair finds it whole"
            assert told["settled"] == pair
        assert what != "all" or pair == page, "files and folders are moved together"
    assert {"one": "one.txt", "pair": "two.txt", "page": "page/two.txt", "all": "page/two.txt"}[what] in found[-1][
        "afterwards"
    ]


def test_some_kills_tear_a_pair_that_is_then_mended(tmp_path: Path) -> None:
    found = _kills(tmp_path / "folder", "pair", "old")
    torn = [told for told in found if {told["at once"]["one.txt"], told["at once"]["two.txt"]} == {"old", "new"}]
    assert torn
    assert all(told["settled"] == ["new", "new"] for told in torn)


def test_foreign_files_stay(tmp_path: Path) -> None:
    decoys = _decoys(tmp_path)
    kept = {path: path.read_bytes() for path in decoys}
    with replacing(tmp_path / "a.txt") as path:
        path.write_text("new")
    with replacing_together(tmp_path / "a.txt", tmp_path / "b.txt"):
        pass
    with replacing_folder(tmp_path / "page"):
        pass
    assert {path: path.read_bytes() for path in decoys} == kept


def test_only_what_bears_all_three_signs_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "signed").mkdir()
    locked, signed = leave_half_a_file(tmp_path / "locked"), leave_half_a_file(tmp_path / "signed")
    named = signed.with_name(".fbnetv3-zoo-1234567812345678")
    signed.rename(named)
    with (locked / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for folder in (tmp_path / "locked", tmp_path / "signed"):
            with replacing(folder / "a.txt"):
                pass
        assert (locked / "new" / "half").read_text() == "ha"
    assert (named / "new" / "half").read_text() == "ha"
    (locked / "lock").write_text("mine")
    with replacing(tmp_path / "locked" / "a.txt"):
        pass
    assert locked.exists()
    (locked / "lock").write_bytes(SIGNATURE)
    with replacing(tmp_path / "locked" / "a.txt"):
        pass
    assert os.listdir(tmp_path / "locked") == ["a.txt"]


def test_a_living_writer_of_the_same_process_is_left_alone(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.txt") as one, replacing(tmp_path / "a.txt") as two:
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "a.txt").read_text() == "one"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The number of the change before which a writer of a pair is killed between its moves."""
    found = _kills(tmp_path_factory.mktemp("torn") / "folder", "pair", "old")
    return next(n for n, told in enumerate(found, 1) if told["at once"]["one.txt"] != told["at once"]["two.txt"])


def _tear(folder: Path, before: int) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("one.txt", "two.txt"):
        (folder / name).write_text("old")
    script = "import sys, killed, pathlib as p; killed.kill_before(int(sys.argv[1])); killed._pair(p.Path(sys.argv[2]))"
    search = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", f"import fbnetv3_zoo.utils.atomic_write; {script}", str(before), str(folder)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": search}, check=False)
    assert (folder / "one.txt").read_text() != (folder / "two.txt").read_text()


def _read(folder: Path) -> list[str]:
    return [path.read_text() for path in settled(folder / "one.txt", folder / "two.txt")]


def test_a_torn_pair_is_whole_where_nothing_may_be_written(torn: int) -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's folders are closed to others
        Path(place).chmod(0o755)
        folder = Path(place, "folder")
        _tear(folder, torn)
        (mark,) = folder.glob(".fbnetv3-zoo-*")
        closed = (folder, mark, mark / "new", mark / "old")
        for path in closed:
            path.chmod(0o555)
        with disks.without_privileges():
            assert _read(folder) == ["new", "new"]
            assert (folder / "two.txt").read_text() == "old"
        for path in closed:
            path.chmod(0o755)
        assert _read(folder) == ["new", "new"]
        assert sorted(os.listdir(folder)) == ["one.txt", "two.txt"]


def test_what_a_user_put_into_a_torn_pair_stays(torn: int, tmp_path: Path) -> None:
    _tear(tmp_path, torn)
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("mine")
    assert _read(tmp_path) == ["mine", "mine"]
    with replacing(tmp_path / "next.txt"):
        pass
    assert _read(tmp_path) == ["mine", "mine"]
    assert sorted(os.listdir(tmp_path)) == ["next.txt", "one.txt", "two.txt"]


def test_a_pair_of_which_one_cannot_be_moved_stays_old(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("old")
    with pytest.raises(ZooError) as caught, replacing_together(one, two):
        two.mkdir()  # by somebody else, meanwhile
    assert str(caught.value) == f"{one}: cannot be written (Is a directory)"
    assert one.read_text() == "old"
    assert not list(two.iterdir())
    assert sorted(os.listdir(tmp_path)) == ["one.txt", "two.txt"]


def test_the_one_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    (tmp_path / "two.txt").mkdir()
    with pytest.raises(ZooError) as caught, replacing_together(tmp_path / "one.txt", tmp_path / "two.txt"):
        raise AssertionError
    assert str(caught.value) == f"{tmp_path / 'two.txt'}: cannot be written (Is a directory)"
    assert os.listdir(tmp_path) == ["two.txt"]


def test_a_pair_on_a_full_disk_stays_old(tmp_path: Path) -> None:
    with disks.small_disk(tmp_path / "disk", 1 << 20):
        one, two = tmp_path / "disk" / "one.bin", tmp_path / "disk" / "two.bin"
        one.write_bytes(b"o" * 300_000)
        two.write_bytes(b"o" * 300_000)
        with pytest.raises(ZooError, match="cannot be written"):
            _write_both(one, two)
        assert {path.read_bytes() for path in (one, two)} == {b"o" * 300_000}
        assert sorted(os.listdir(tmp_path / "disk")) == ["one.bin", "two.bin"]


def _write_both(one: Path, two: Path) -> None:
    with replacing_together(one, two) as (first, second):
        first.write_bytes(b"n" * 300_000)
        second.write_bytes(b"n" * 1_300_000)


def test_names_as_long_as_the_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".txt")
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    undecodable = tmp_path / os.fsdecode(b"\xff.txt")
    with replacing_together(path, undecodable):
        pass
    assert undecodable.exists()


def test_devices_are_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ZooError) as caught, replacing(pipe):
        raise AssertionError
    assert str(caught.value) == f"{pipe}: cannot be written (Is a device or pipe)"
    assert pipe.is_fifo()


def _in_tmpdir(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(folder))


def test_scratch_clears_what_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _in_tmpdir(tmp_path, monkeypatch)
    decoys = _decoys(tmp_path)
    leave_half_a_file(tmp_path)
    assert len(list(tmp_path.glob(".fbnetv3-zoo-*"))) == 4
    with scratch() as folder:
        assert folder.stat().st_mode & 0o77 == 0 or folder.parent.stat().st_mode & 0o77 == 0
        assert folder.is_relative_to(tmp_path)
    assert len(list(tmp_path.glob(".fbnetv3-zoo-*"))) == 3
    assert all(path.exists() for path in decoys)


@pytest.mark.parametrize("how", ["write", "replacing", "process", "in words"])
def test_no_room_for_temporary_files_is_one_line(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    with disks.small_disk(disk, 1 << 18):
        _in_tmpdir(disk, monkeypatch)
        with pytest.raises(ZooError) as caught, scratch() as folder:
            _fill(folder, how)
        assert not list(disk.iterdir())
    text = f"{disk}: cannot take temporary files (No space left on device); make room, or set TMPDIR to another folder"
    assert str(caught.value) in (text, text.replace("No space left on device", "File too large"))


def _fill(folder: Path, how: str) -> None:
    large = b"x" * (1 << 19)
    if how == "write":
        (folder / "large").write_bytes(large)
    elif how == "replacing":
        try:
            with replacing(folder / "large") as path:
                path.write_bytes(large)
        except ZooError as error:
            raise ZooError(f"my network: {error}") from None
    elif how == "process":
        script = f"import pathlib; pathlib.Path({str(folder / 'large')!r}).write_bytes(bytes({len(large)}))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        raise ZooError(f"my tool failed ({done.stderr.splitlines()[-1]})")
    else:
        with (folder / "large").open("wb", buffering=0) as file:
            file.write(large)
            raise RuntimeError("the runtime's own words")


def test_a_full_disk_elsewhere_is_not_blamed_on_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _in_tmpdir(tmp_path, monkeypatch)
    with disks.small_disk(tmp_path / "disk", 1 << 18):
        path = tmp_path / "disk" / "out"
        with pytest.raises(ZooError, match="cannot be written") as caught, scratch(), replacing(path) as temporary:
            temporary.write_bytes(b"x" * (1 << 19))
    assert str(caught.value).startswith(f"{path}: cannot be written (")


def test_no_folder_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _in_tmpdir(tmp_path / "missing", monkeypatch)
    with pytest.raises(ZooError) as caught, scratch():
        raise AssertionError
    reason = "No such file or directory"
    line = f"{tmp_path / 'missing'}: cannot take temporary files ({reason}); make room, or set TMPDIR to another folder"
    assert str(caught.value) == line
