"""Outputs of every command: a place where nothing can be written is refused before any work, and so are files of others
that nobody asked to replace.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from commands import commands, needed_value
from disks import without_privileges
from folders import ROOT
from shell import run, succeed

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.cli import app
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.weights.serialization import load, save

REMEDY = "give another path as --output, or remove that file first"


def calls() -> Iterator[Any]:
    """Each command that takes an output, with something for whatever else it needs that is refused by any work."""
    for names, command in commands(typer.main.get_command(app)):
        for output in (one for one in command.params if one.name == "output"):
            words = ["--output", "{path}"]
            for one in (one for one in command.params if one.required and one is not output):
                words += [needed_value(one)] if one.param_type_name == "argument" else [one.opts[0], needed_value(one)]
            yield pytest.param([*names, *words], id=" ".join(names))


def refused(words: list[str], path: Path) -> str:
    ended = run(*(word.replace("{path}", str(path)).replace("{folder}", str(path.parent)) for word in words))
    assert ended.code == 2
    line = ended.err.removesuffix("\n")
    assert line.startswith(f"error: {path}: cannot be "), line
    return line.partition(": cannot be ")[2]


@pytest.fixture
def closed() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:  # pytest's folders are closed to others
        Path(place).chmod(0o755)
        folder = Path(place, "closed")
        folder.mkdir(0o555)
        yield folder


@pytest.mark.parametrize("words", list(calls()))
def test_where_nothing_can_be_written(words: list[str], closed: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    why = f"({file} is a file, not a folder)"
    below = (f"written {why}", f"created {why}")
    assert refused(words, file / "out") in below
    assert refused(words, file / "deep" / "out") in below
    assert file.read_text() == "mine"
    with without_privileges():
        for path in (closed / "out", closed / "deep" / "out"):
            assert refused(words, path) in ("written (Permission denied)", "created (Permission denied)")
    assert os.listdir(closed) == []
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("words", list(calls()))
def test_an_empty_output_is_not_the_current_folder(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(*(word.format(path="", folder=tmp_path) for word in words))
    assert ended.code == 2
    assert ended.err.startswith("error: the value after --output is empty; give one, or leave it out")
    assert os.listdir(tmp_path) == []


def test_every_command_that_writes_is_killed_by_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    assert importlib.import_module("kill_commands").uncovered() == []


@pytest.fixture
def model(smallest_arch: Arch, tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    save(FBNet(smallest_arch, generator=torch.Generator().manual_seed(0)), path)
    return path


def _left_alone(path: Path, *words: object) -> str:
    path.write_bytes(b"mine")
    ended = run(*words)
    assert (ended.code, path.read_bytes()) == (2, b"mine")
    path.unlink()
    assert ended.err.startswith(f"error: {path}: already exists, ")
    return ended.err


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("onnx", ".onnx"),
        ("mobile", ".ort"),
        ("openvino", ".xml"),
        ("executorch", ".pte"),
        ("ncnn", ".ncnn.param"),
        ("litert", ".tflite"),
    ],
)
def test_files_of_others_beside_a_model(kind: str, ending: str, model: Path) -> None:
    said = _left_alone(model.with_suffix(ending), "export", kind, model)
    assert said.endswith(f"and was not written by this program; {REMEDY}\n")


def test_second_files_of_others(model: Path, tmp_path: Path) -> None:
    for kind, first, second in (
        ("openvino", "n.xml", "n.bin"), ("mobile", "n.ort", "n.required_operators.config"),
        ("ncnn", "n.ncnn.param", "n.ncnn.bin"),
    ):  # fmt: skip
        said = _left_alone(tmp_path / second, "export", kind, model, "--output", tmp_path / first)
        assert said.endswith(f"and would be overwritten with {tmp_path / first}; give another --output\n")
        _left_alone(model.with_name(f"m{second[1:]}"), "export", kind, model)


def test_own_files_beside_a_model(model: Path) -> None:
    for kind, ending in (("onnx", ".onnx"), ("onnx", ".onnx"), ("mobile", ".ort"), ("openvino", ".xml")):
        succeed("export", kind, model)
        assert b"fbnetv3_zoo" in model.with_suffix(ending).read_bytes(), "by which the next one knows it"
    _left_alone(model.with_suffix(".onnx"), "export", "onnx", model, "--output", model.with_suffix(".onnx"))
    model.with_suffix(".onnx").touch()
    succeed("export", "onnx", model, "--output", model.with_suffix(".onnx"))


@pytest.mark.parametrize("words", list(calls()))
def test_a_file_of_others_is_never_replaced(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    ended = run(*(word.format(path=tmp_path / "file", folder=tmp_path) for word in words))
    assert ended.code == 2
    told = ended.err.removeprefix(f"error: {tmp_path}/file: ")
    assert told in (f"already exists, and was not written by this program; {REMEDY}\n",
                    "is a file; give the path of a folder\n")  # fmt: skip
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("train", "digits", "--model", "fbnetv3_nano", "--epochs", 1), "model.safetensors"),
        (("search", "dnas", "--plan", "tiny", "--data", "digits"), "found.json"),
        (("search", "run", "--plan", "letters", "--table", "nars-letters"), "report.html"),
        (("search", "run", "--plan", "letters", "--table", "nars-letters"), "letters-parameters-60k.arch.json"),
        (("benchmark", "fbnetv3_a"), "latency.png"),
    ],
)
def test_files_of_others_in_an_output_folder(words: tuple[object, ...], name: str, tmp_path: Path) -> None:
    bound = ("--constraint", "parameters<=60k") if name.startswith("letters") else ()
    _left_alone(tmp_path / name, *words, *bound, "--output", tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "module", "ending", "package", "name"),
    [
        ("openvino", "openvino_ir", ".xml", "openvino", "OpenVINO"),
        ("litert", "litert_tflite", ".tflite", "ai_edge_litert", "LiteRT"),
        ("coreml", "coreml", ".mlpackage", "coremltools", "coremltools"),
        ("ncnn", "ncnn_param", ".ncnn.param", "pnnx", "ncnn"),
    ],
)
def test_what_is_not_installed_is_said_before_the_work(
    kind: str, module: str, ending: str, package: str, name: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worked(*_: object, **__: object) -> None:
        raise AssertionError("the model is exported already")

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(f"fbnetv3_zoo.export.backends.{module}.source_graph", worked)
    ended = run("export", kind, model)
    told = f'needs {name}, which is not installed; pip install "fbnetv3-zoo[{kind}]"'
    assert (ended.code, ended.err) == (2, f"error: {model.with_suffix(ending)}: {told}\n")


def test_a_file_of_another_kind_is_not_replaced(model: Path, tmp_path: Path) -> None:
    before = model.read_bytes()
    for words in (
        ("data", "letters", "--fonts", tmp_path),
        ("data", "emoji", "--drawings", f"a={tmp_path}", "--held-out", "a"),
        ("search", "pretrain", "--plan", "tiny", "--pool", 64),
        ("search", "report", tmp_path), ("search", "lut", "--space", "tiny"),
        ("subset", "digits", "--classes", 4, "--held-out", 40), ("weights", "card", model), ("export", "onnx", model),
    ):  # fmt: skip
        ended = run(*words, "--output", model)
        assert ended.err == f"error: {model}: already exists, and is a model; {REMEDY}\n"
    assert model.read_bytes() == before


def test_texts_of_another_kind_are_not_replaced(model: Path, tmp_path: Path) -> None:
    arch, subset, card = tmp_path / "arch.json", tmp_path / "subset.json", tmp_path / "card.md"
    arch.write_text(load(model).arch.to_json())
    choose = "subset", "digits", "--classes", 4, "--held-out", 40, "--output"
    for words in ((*choose, subset), ("weights", "card", model, "--output", card)) * 2:
        succeed(*words)
    for words, place, kind in (
        ((*choose, arch), arch, "a network"),
        ((*choose, card), card, "a model card"),
        (("weights", "card", model, "--output", subset), subset, "a subset of data"),
        (("export", "onnx", model, "--output", subset), subset, "a subset of data"),
    ):
        before = place.read_bytes()
        assert run(*words).err == f"error: {place}: already exists, and is {kind}; {REMEDY}\n"
        assert place.read_bytes() == before


def test_names_of_the_programs_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, name in (
        (("subset", "digits", "--classes", 4, "--held-out", 40), "subset.json"),
        (("search", "pretrain", "--plan", "tiny", "--pool", 64), "encoder.safetensors"),
        (("export", "onnx", "fbnetv3_a"), "fbnetv3_a.onnx"),
    ):
        Path(name).write_bytes(b"mine")
        said = run(*words).err
        assert said.startswith(f"error: {name}: already exists, and was not written by this program; ")
        assert Path(name).read_bytes() == b"mine"
    Path("subset.json").unlink()
    for _ in range(2):
        succeed("subset", "digits", "--classes", 4, "--held-out", 40)


def test_an_int8_file_of_others(model: Path) -> None:
    succeed("export", "onnx", model)
    _left_alone(model.with_name("m-int8.onnx"), "export", "int8", model.with_suffix(".onnx"), "--data", "digits")


def test_converting_beside_a_file(model: Path, tiny_arch: Arch, tmp_path: Path) -> None:
    (tmp_path / "arch.json").write_text(tiny_arch.to_json())
    state = FBNet(tiny_arch, generator=torch.Generator().manual_seed(1)).state_dict()
    torch.save(state, tmp_path / "m.pth")
    torch.save(state, tmp_path / "n.pth")
    trained = model.read_bytes()
    ended = run("weights", "convert", tmp_path / "m.pth", "--model", tmp_path / "arch.json")
    assert ended.err == (
        f"error: {model}: already exists with other contents; give it as --output to overwrite it, or another path\n"
    )
    assert model.read_bytes() == trained
    for _ in range(2):
        succeed("weights", "convert", tmp_path / "n.pth", "--model", tmp_path / "arch.json")
    succeed("weights", "convert", tmp_path / "m.pth", "--model", tmp_path / "arch.json", "--output", model)
    assert model.read_bytes() == (tmp_path / "n.safetensors").read_bytes()
