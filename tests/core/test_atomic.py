"""Files are written whole or not at all: killed processes and full disks leave the old file as it was."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from disks import file_limit
from waiting import PATIENCE

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.utils.atomic_write import replacing
from fbnetv3_zoo.weights.serialization import load, save

KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.utils.atomic_write import replacing
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.arch import Activation, Conv
from fbnetv3_zoo.weights.serialization import load, save

torch.set_num_threads(1)
path, least = Path(sys.argv[1]), int(sys.argv[2])
other = path.with_name("letters.txt")
arch = Arch("big", 8, ((Conv(3, 512, 1, Activation.RELU), Conv(3, 512, 1, Activation.RELU)),), num_classes=1)  # 9.5 MB
models = []
for value in (1.0, 2.0):
    models.append(FBNet(arch))
    for tensor in models[-1].state_dict().values():
        tensor.fill_(value)
random.seed(0)
parent = os.getpid()
for kills in range(1, 301):
    child = os.fork()
    if child == 0:
        while os.getppid() == parent:
            for model, letter in zip(models, (b"a", b"b")):
                save(model, path)
                with replacing(other) as temporary:  # safetensors may be atomic by itself; this is not
                    temporary.write_bytes(letter * 9_000_000)
    while not other.exists():
        time.sleep(0.01)
    time.sleep(random.uniform(0.0, 0.1 + kills / 200))  # a busy machine takes longer to begin
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    values = {value.item() for tensor in load(path).state_dict().values() for value in tensor.unique()}
    assert values in ({1.0}, {2.0}), values
    content = other.read_bytes()
    assert content in (b"a" * 9_000_000, b"b" * 9_000_000), len(content)
    temporary = [entry for entry in path.parent.iterdir() if entry not in (path, other)]
    assert all(entry.name.startswith(".") for entry in temporary), temporary
    if kills >= least and temporary:  # at least one was in the middle of writing
        break
print(kills, len(temporary))
"""


@pytest.mark.parametrize("least", [3, pytest.param(20, marks=pytest.mark.long)])
def test_a_process_killed_while_saving_leaves_whole_files(least: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "net.safetensors"), str(least)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    kills, unfinished = map(int, done.stdout.split())
    assert kills >= least
    assert unfinished >= 1  # at least one process was in the middle of writing


@pytest.fixture
def old_and_new(tiny_arch: Arch, tmp_path: Path) -> tuple[Path, Path]:
    """The files of two networks with other weights."""
    paths = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    for seed, path in enumerate(paths):
        save(FBNet(tiny_arch, generator=torch.Generator().manual_seed(seed)), path)
    return paths


@contextmanager
def _full_disk(folder: Path, content: bytes) -> Iterator[Path]:
    """A file of ``content`` on a disk without room for a second; where none can be mounted, no file may grow."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={len(content) * 3 // 2}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    (folder / "net.safetensors").write_bytes(content)
    try:
        with nullcontext() if mounted else file_limit(8192):
            yield folder / "net.safetensors"
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def test_a_file_that_may_not_grow_leaves_the_old_one(old_and_new: tuple[Path, Path]) -> None:
    old, new = old_and_new
    with file_limit(8192):
        _assert_refused(new, old)
    assert sorted(old.parent.iterdir()) == sorted(old_and_new)


def test_a_full_disk_leaves_the_old_file(old_and_new: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = old_and_new
    with _full_disk(tmp_path / "disk", old.read_bytes()) as target:
        _assert_refused(new, target)
        assert list(target.parent.iterdir()) == [target]


def _assert_refused(source: Path, target: Path) -> None:
    before, model = target.read_bytes(), load(source)
    with pytest.raises(ZooError) as caught:
        save(model, target)
    texts = [f"{target}: cannot be written ({reason})" for reason in ("File too large", "No space left on device")]
    assert str(caught.value) in texts
    assert target.read_bytes() == before


def test_an_error_on_the_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(str(1 / temporary.write_text("")))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_is_there_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.is_relative_to(path.parent)  # on one file system, so that the move is atomic
        assert temporary.name == path.name
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(ZooError) as caught, replacing(tmp_path) as temporary:
        temporary.touch()
    assert str(caught.value) == f"{tmp_path}: cannot be written (Is a directory)"
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "net.txt"
    with pytest.raises(ZooError) as caught, replacing(path):
        raise AssertionError
    assert str(caught.value) in (
        f"{path}: cannot be written (File exists)",
        f"{path}: cannot be written (Not a directory)",
    )
