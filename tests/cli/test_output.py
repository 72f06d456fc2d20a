"""What commands print, on any terminal, and what the edge makes of trouble that lies outside."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from folders import ROOT
from PIL import Image
from shell import succeed

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.cli import main, output
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.training import find_dataset
from fbnetv3_zoo.utils.paths import make_folder
from fbnetv3_zoo.weights.card import model_card
from fbnetv3_zoo.weights.serialization import load, save

HOSTILE = "red\x1b[31m\nerror: none"
SHOWN = r"red\x1b[31m\nerror: none"


def test_nothing_is_printed_but_by_output() -> None:
    rooms = [ROOT / room for room in ("fbnetv3_zoo", "detection", "export", "search")]
    found = set()
    for path in (path for room in rooms for path in room.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            call = node.func if isinstance(node, ast.Call) else None
            name = call.id if isinstance(call, ast.Name) else call.attr if isinstance(call, ast.Attribute) else ""
            if name in ("print", "echo", "secho"):
                found.add(path.relative_to(ROOT).as_posix())
    # What the processes say that read pickles and try model files out is read by the one that started them, not shown.
    apart = {"fbnetv3_zoo/runtimes/sandbox_process.py", "fbnetv3_zoo/weights/unpickle.py"}
    apart.add("fbnetv3_zoo/__main__.py")  # which tells of Ctrl-C before there is `output`
    assert found == {"fbnetv3_zoo/cli/output.py", *apart}


def test_a_line_stays_one_and_shows_what_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(f"a {HOSTILE}", "", "猫 \udcff")
    output.complain(f"b {HOSTILE}")
    output.say_text("one\ntwo \x9b\n")
    out, err = capsys.readouterr()
    assert out == f"a {SHOWN}\n\n猫 \\udcff\none\ntwo \\x9b\n"
    assert err == f"b {SHOWN}\n"


@pytest.mark.parametrize(
    "name", ["plain", "two words", "it's", "-x", HOSTILE, "caf\udce9", "back\\slash\n", "$HOME;`ls`"]
)
def test_suggested_paths_are_one_word_of_a_shell(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("found")
    for given in (path, name):
        word = output.in_shell(given)
        assert word.isprintable()
        told = subprocess.run(["bash", "-c", f"cat {word}"], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert told.stdout == "found"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_arch: Arch) -> Path:
    """A classifier whose classes have names that no terminal should get raw, and an image with such a name."""
    folder = tmp_path_factory.mktemp("model")
    network = create(tiny_arch, generator=torch.Generator().manual_seed(0))
    network.class_names = (HOSTILE, "猫", "café", *map(str, range(7)))
    save(network, folder / "model.safetensors")
    Image.new("RGB", (40, 40), (200, 30, 30)).save(folder / f"{HOSTILE}.png")
    return folder


def test_names_of_files_and_classes_are_written_out(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["classify", str(model / f"{HOSTILE}.png"), str(model / f"no{HOSTILE}"), "--top", "10",
              "--model", str(model / "model.safetensors")])  # fmt: skip
    out, err = capsys.readouterr()
    assert caught.value.code == 2
    assert out.count(SHOWN) == 2
    assert "\x1b" not in out
    assert len(out.splitlines()) == 11
    assert err == f"error: {model}/no{SHOWN}: no such file\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_terminal_shows_names(model: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as caught:
        main(["classify", str(model / f"{HOSTILE}.png"), "--model", str(model / "model.safetensors"), "--top", "10"])
    assert caught.value.code == 0
    told = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert ("猫" if encoding == "utf-8" else r"\u732b") in told
    assert (r"caf\xe9" if encoding == "ascii" else "café") in told


def test_a_class_folder_that_is_no_utf8(tiny_arch: Arch, tmp_path: Path) -> None:
    """The network trained on it can be saved, loaded and measured, and its card written."""
    for count, name in enumerate((b"caf\xe9", b"tea")):
        (tmp_path / "data" / os.fsdecode(name)).mkdir(parents=True)
        for side in range(6):
            picture = Image.new("RGB", (40, 40 + side), (200, 90 * count, 30 * side))
            picture.save(tmp_path / "data" / os.fsdecode(name) / f"{side}.png")
    data = find_dataset(tmp_path / "data")
    assert data.class_names == ("caf\\udce9", "tea")
    network = create(replace(tiny_arch, num_classes=2))
    network.class_names = ("caf\udce9", "tea")
    save(network, tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").class_names == data.class_names
    assert "caf\\udce9, tea" in model_card(network).encode().decode()
    succeed("validate", tmp_path / "model.safetensors", "--data", tmp_path / "data")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line.replace("fbnetv3", f"{sys.executable} -m fbnetv3_zoo", 1)],
                          capture_output=True, text=True, check=False)  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("command", ["info fbnetv3_a", "export --help"])
def test_full_or_closed_standard_output_is_said_in_one_line(command: str) -> None:
    full, closed = shell(f"fbnetv3 {command} > /dev/full"), shell(f"fbnetv3 {command} >&-")
    line = "error: standard output: cannot be written"
    assert (full.returncode, full.stderr) == (2, f"{line} (No space left on device)\n")
    assert (closed.returncode, closed.stderr) == (2, f"{line} (Bad file descriptor)\n")


@pytest.mark.parametrize("redirected", ["2>/dev/full", "<&- >&- 2>&-"])
def test_nobody_to_tell(redirected: str) -> None:
    assert shell(f"fbnetv3 info nothing {redirected}").returncode == 2


def test_a_file_does_not_take_the_place_of_a_closed_standard_output(tmp_path: Path) -> None:
    done = shell(f"fbnetv3 weights card fbnetv3_e --output {tmp_path}/card.md >&-")
    assert done.returncode == 2
    assert (tmp_path / "card.md").read_text().startswith("---\n")


def test_a_reader_that_has_gone_is_no_error() -> None:
    done = shell("fbnetv3 info fbnetv3_a --json | head -c 1; exit ${PIPESTATUS[0]}")
    assert done.stderr == ""
    assert done.returncode in (0, 1)  # what is written before the reader goes may be all


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "a\nb"), r"a\nb: cannot be read or written (Permission denied)"),
        (OSError(18, "Invalid link", "a", None, "b"), "a and b: cannot be read or written (Invalid link)"),
        (OSError(5, "Input/output error", b"caf\xe9"), r"caf\udce9: cannot be read or written (Input/output error)"),
        (OSError(28, "No space left"), "a file cannot be read or written (No space left)"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), "a text is invalid in its encoding ({...}"),
        (RecursionError("deep"), "an input is nested too deeply to be read"),
        (MemoryError(), "there is not enough memory; {...}"),
    ],
)  # fmt: skip
def test_trouble_outside_is_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("fbnetv3_zoo.weights.registry.list_models", fail)
    with pytest.raises(SystemExit) as caught:
        main(["list"])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {line.split('{...}')[0]}")
    assert told.count("\n") == 1


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbnetv3_zoo.weights.registry.list_models", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["list"])


@pytest.mark.parametrize(
    ("given", "meant"),
    [("--learn-rate 1", "--learning-rate"), ("--num-workers 2", "--workers"), ("--img-size 96", "--resolution"),
     ("--batch 8", "--batch-size"), ("--gpu 0", "--device"), ("--dataset x", "--data"), ("--Epochs 3", "--epochs")],
)  # fmt: skip
def test_the_option_that_was_meant(given: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--output", "x", *given.split()])
    told = capsys.readouterr().err
    assert told == f"error: No such option: {given.split()[0]} (did you mean {meant!r}?) (see `fbnetv3 train --help`)\n"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match=r"file: cannot be created \(File exists\)"):
        make_folder(tmp_path / "file")
