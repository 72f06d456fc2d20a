"""The package without the system calls that Windows does not have: it works, or says in one line what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from folders import ROOT
from pictures import picture, samples, tar

import fbnetv3_zoo
from fbnetv3_zoo.arch import Arch

ENVIRONMENT = {
    **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "helpers" / "without_posix"), str(ROOT)])
}  # fmt: skip
IMPORT_ALL = """
import importlib, sys
from pathlib import Path
for room in ("", "search", "detection", "export"):
    home = Path(sys.argv[1], room or "fbnetv3_zoo")
    for path in sorted(home.rglob("*.py")):
        parts = [part for part in (room, *path.relative_to(home).with_suffix("").parts) if part not in ("", "__init__")]
        if not {"configs", "detectron2", "__main__"} & {*parts}:
            importlib.import_module(".".join(["fbnetv3_zoo", *parts]))
import os
assert hasattr(os, "fork"), "only the package goes without"
try:
    importlib.import_module("fbnetv3_zoo.utils.processes").os.fork
except AttributeError:
    print("all imported")
"""
TINY = ("--plan", "tiny", "--data", "digits", "--rounds", "1", "--batch", "2", "--epochs", "1")


def python(*arguments: object) -> tuple[int, str, str]:
    """Exit code, output and last line of errors of an interpreter."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=600)
    return done.returncode, done.stdout.strip(), (done.stderr.strip().splitlines() or [""])[-1]


def zoo(*arguments: object) -> tuple[int, str, str]:
    """The same, of a command."""
    return python("-m", "fbnetv3_zoo", *arguments)


def test_every_module_can_be_imported() -> None:
    assert python("-c", IMPORT_ALL, ROOT) == (0, "all imported", "")


@pytest.mark.parametrize("file", ["net.safetensors", "net.onnx"])
def test_images_are_classified(file: str, model_files: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    status, told, _ = zoo("classify", tmp_path / "a.png", "--model", model_files / file)
    assert status == 0
    assert "a.png" in told


def test_a_pickled_checkpoint_is_read(smallest_arch: Arch, tmp_path: Path) -> None:
    (tmp_path / "arch.json").write_text(smallest_arch.to_json())
    torch.save(fbnetv3_zoo.create(smallest_arch).state_dict(), tmp_path / "state.pth")
    wanted = "--model", tmp_path / "arch.json", "--output", tmp_path / "model.safetensors"
    assert zoo("weights", "convert", tmp_path / "state.pth", *wanted)[0] == 0
    assert zoo("info", tmp_path / "model.safetensors")[0] == 0


def test_limits_that_the_system_lacks_are_refused(tmp_path: Path) -> None:
    run = "search", "run", *TINY, "--executor", "in-process", "--output", tmp_path / "search"
    status, _, error = zoo(*run, "--timeout-minutes", "1")
    assert (status, error) == (
        2, "error: in-process, Limits.seconds needs Linux or macOS; use the executor pool:1 or leave it at 0"
    )  # fmt: skip


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_a_network_is_trained_from_tar_files(workers: int, smallest_arch: Arch, tmp_path: Path) -> None:
    for number in range(2):
        tar(tmp_path / "photos" / f"{number}.tar", samples(30 * number, 30))
    (tmp_path / "arch.json").write_text(smallest_arch.to_json())
    options = "--epochs", "1", "--batch-size", "8", "--workers", workers, "--output", tmp_path / "run"
    status, _, error = zoo("train", tmp_path / "photos", "--model", tmp_path / "arch.json", *options)
    assert (status, Path(tmp_path, "run", "model.safetensors").exists()) == (0, True), error


@pytest.mark.long
@pytest.mark.parametrize("executor", ["in-process", "pool:1"])
def test_a_search_ends(executor: str, tmp_path: Path) -> None:
    status, told, error = zoo("search", "run", *TINY, "--executor", executor, "--output", tmp_path / "search")
    assert status == 0, error
    assert "macs" in told
