"""What a message suggests works, and what a file tells of itself need not be told again."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import fitted
from PIL import Image
from safetensors.torch import save_file
from shell import run, succeed

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.cli.common import program
from fbnetv3_zoo.detection.models.serialization import DetectorSpec, save_detector
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.export.bench.plots import short_names
from fbnetv3_zoo.export.sample_images import photographs
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.training import find_dataset
from fbnetv3_zoo.training.checkpoint import FORMAT as CHECKPOINT
from fbnetv3_zoo.weights.serialization import load, save
from fbnetv3_zoo.zoo import ARCHS


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, tiny_arch: Arch) -> Path:
    """A folder, the name of which a shell would take apart, with a digit classifier and files that are none."""
    folder = tmp_path_factory.mktemp("it's here")
    network = fitted(tiny_arch)
    network.class_names = find_dataset("digits").class_names
    save(network.eval(), folder / "model.safetensors")
    save(FBNet(tiny_arch, generator=torch.Generator().manual_seed(0)), folder / "fresh.safetensors")
    save_file({"x": torch.zeros(1)}, folder / "step.safetensors", {"format": CHECKPOINT, "version": "2"})
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(folder / "image.png")
    return folder


@pytest.fixture(scope="module")
def detector(here: Path) -> Path:
    spec = DetectorSpec(("cat",), arch=ARCHS["fbnet_c"])
    save_detector(spec.build(), spec, here / "boxes.safetensors")
    return here / "boxes.safetensors"


def test_a_model_file_tells_its_network(here: Path) -> None:
    file = here / "model.safetensors"
    assert succeed("info", file).startswith("tiny, 32 x 32 pixels\n")
    assert succeed("info", file, "--resolution", "64").startswith("tiny, 64 x 64 pixels\n")


@pytest.mark.parametrize("option", ["--model", "--weights"])
def test_training_goes_on_from_a_model_file(option: str, here: Path, tmp_path: Path) -> None:
    brief = ("--epochs", "1", "--learning-rate", "1e-9", "--output", tmp_path / "run")
    assert run("train", option, here / "fresh.safetensors", *brief).code == 0
    begun, ended = load(here / "fresh.safetensors"), load(tmp_path / "run" / "model.safetensors")
    assert ended.arch.stages == begun.arch.stages
    pairs = list(zip(begun.parameters(), ended.parameters(), strict=True))[1:]  # digits are gray: the stem is adapted
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in pairs)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("train --output {x} --model {m} --width 2", "{m}: its weights only fit its own network; leave out --small"),
        ("train --output {x} --model {m} --pretrained", "{m}: is a file with its own weights; leave out --pretrained"),
        ("classify {i} --model {m} --pretrained", "{m}: is a file with its own weights; leave out --pretrained"),
        ("export onnx {m} --pretrained", "{m}: is a file with its own weights; leave out --pretrained"),
        ("classify {i} --model {s}", "{s}: is a checkpoint of a run, not a model; take model.safetensors of the run"),
        ("validate {s}", "{s}: is a checkpoint of a run, not a model; take model.safetensors of the run's folder"),
        ("export onnx x.onnx", "x.onnx: is a file for a runtime; this command takes a .safetensors file or a name; "),
        ("info x.xml", "x.xml: is a file for a runtime; this command takes a .safetensors or arch JSON file, or a na"),
        ("train --output {x} --device mps", "device 'mps' cannot be used (this build of PyTorch does not support it)"),
        ("info y.pth", "y.pth: no such file\n"),
        ("export onnx y.tflite", "y.tflite: no such file\n"),
        ("export web x.pt --out {x}", "x.pt: is a PyTorch checkpoint; convert it by `fbnetv3 "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_helps(
    arguments: str, told: str, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x.onnx", "x.xml", "x.pt"):
        Path(name).write_bytes(b"something")
    if "mps" in arguments and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    names = {
        "m": here / "model.safetensors",
        "s": here / "step.safetensors",
        "i": here / "image.png",
        "x": tmp_path / "x",
    }
    ended = run(*(word.format(**names) for word in arguments.split()))
    assert ended.code == 2
    assert ended.err.startswith(f"error: {told.format(**names)}")


@pytest.mark.parametrize(
    "command",
    ["classify {i} --model {d}", "validate {d}", "export onnx {d}", "export web {d} --out {x}",
     "train --output {x} --teacher {d}"],
)  # fmt: skip
def test_a_detector_is_called_one(command: str, here: Path, detector: Path, tmp_path: Path) -> None:
    names = {"d": detector, "i": here / "image.png", "x": tmp_path / "x"}
    ended = run(*(word.format(**names) for word in command.split()))
    assert ended.code == 2
    assert ended.err.startswith(f"error: {detector}: is a detector, not a classifier; ")
    for told in ("predict", "validate", "export"):
        assert f"detect {told}`" in ended.err
        assert run("detect", told, "--help").code == 0


def test_the_command_for_a_networks_file_given_to_int8_works(here: Path) -> None:
    ended = run("export", "int8", here / "model.safetensors", "--images", here)
    suggested = re.fullmatch(r"error: .*: is not an ONNX file; export it by `fbnetv3 (.*)` first\n", ended.err)
    assert suggested is not None
    succeed(*shlex.split(suggested[1]))
    assert (here / "model.onnx").exists()


def test_a_file_that_prepares_images_itself_is_taken(here: Path, tmp_path: Path) -> None:
    network, images = load(here / "model.safetensors"), photographs(3)
    path = export_onnx(network, tmp_path / "whole.onnx", preprocessing=True).path
    prepared = network.preprocess(images)
    with torch.inference_mode():
        expected = network(prepared).numpy()
    assert np.allclose(Classifier.open(path).logits(prepared.numpy()), expected, atol=1e-3 * abs(expected).max())
    found, plain = (succeed("validate", file, "--json") for file in (path, here / "model.safetensors"))
    assert re.findall(r'"accuracy": .*', found) == re.findall(r'"accuracy": .*', plain)
    assert succeed("classify", here / "image.png", "--model", path) == succeed(
        "classify", here / "image.png", "--model", here / "model.safetensors"
    )
    for command in (("export", "web", path, "--out", tmp_path / "page"), ("export", "openvino", path)):
        assert f"{path}: cannot be read as ONNX (it takes something else" in run(*command).err


def test_the_program_is_called_as_the_shell_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("sys.argv", ["/usr/lib/python/fbnetv3_zoo/__main__.py"])
    monkeypatch.setattr("sys.executable", "/my python/bin/python")
    assert program() == "'/my python/bin/python' -m fbnetv3_zoo"
    monkeypatch.setattr("sys.argv", ["/my venv/bin/fbnetv3"])
    assert program() == "'/my venv/bin/fbnetv3'"


def test_charts_tell_models_of_one_file_name_apart() -> None:
    assert short_names(["a/model.onnx", "b/model.onnx"]) == ["a/model.onnx", "b/model.onnx"]
    assert short_names(["/x/a/model.onnx", "/x/b/model.onnx", "fbnetv3_a"]) == [
        "a/model.onnx",
        "b/model.onnx",
        "fbnetv3_a",
    ]
    assert short_names(["/x/a.onnx", "/y/b.onnx"]) == ["a.onnx", "b.onnx"]
    assert short_names(["/x/m.onnx", "m.onnx"]) == ["x/m.onnx", "m.onnx"]


PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><head><title>model.pth at main</title></head></html>"


@pytest.mark.parametrize(
    "command",
    [
        "classify {image} --model {file}",
        "weights convert {file} --model fbnetv3_a --output new.safetensors",
        "info {file}",
    ],
)
@pytest.mark.parametrize("name", ["page.pth", "page.safetensors"])
def test_a_web_page_saved_for_weights_is_called_one(command: str, name: str, here: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PAGE)
    ended = run(*(word.format(file=tmp_path / name, image=here / "image.png") for word in command.split()))
    assert ended.code == 2
    assert f"{name}: is a web page, not weights; get the file itself" in ended.err


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ("--epochs 0", "--epochs is 0; "), ("--workers=-1", "--workers is -1; "),
        ("--learning-rate -1", "--learning-rate is -1"), ("--keep-checkpoints 0", "--keep-checkpoints is 0; "),
        ("--batch-size 1", "batch_size is 1; "),
    ],
)  # fmt: skip
def test_wrong_values_are_said_by_the_options_name(options: str, start: str, tmp_path: Path) -> None:
    ended = run("train", *options.split(), "--output", tmp_path / "run")
    assert ended.code == 2
    assert ended.err.startswith(f"error: {start}")


def test_a_cache_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    for command in ("verify", "prune"):
        ended = run("weights", command, "--cache", tmp_path / "typo")
        assert (ended.code, ended.err) == (2, f"error: --cache {tmp_path / 'typo'}: no such folder\n")
    (tmp_path / "empty").mkdir()
    assert succeed("weights", "verify", "--cache", tmp_path / "empty") == "the cache is empty\n"


def test_the_version_is_that_of_the_package() -> None:
    assert succeed("--version") == f"fbnetv3-zoo {version('fbnetv3-zoo')}\n"


@pytest.mark.parametrize(("classes", "shown"), [(10, False), (11, True)])
def test_few_classes_have_no_top_5(classes: int, shown: bool, here: Path, tmp_path: Path) -> None:
    images = [example.read() for example in find_dataset("digits")["test"][: 2 * classes]]
    names = tuple(f"{n:02}" for n in range(classes))
    for n, image in enumerate(images):
        folder = tmp_path / "data" / names[n % classes]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{n}.png")
    network = load(here / "model.safetensors")
    network.reset_classifier(classes)
    network.class_names = names
    save(network, tmp_path / "net.safetensors")
    assert ("top-5" in succeed("validate", tmp_path / "net.safetensors", "--data", tmp_path / "data")) == shown


def test_fine_tuning_says_that_images_are_normalized_otherwise(
    here: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for n, photo in enumerate(photographs(16)):
        path = tmp_path / "data" / "ab"[n % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.resize((40, 40)).save(path)
    network = load(here / "fresh.safetensors")
    network.preprocess = replace(network.preprocess, mean=(0.5,) * 3, std=(0.25,) * 3)
    save(network, tmp_path / "other.safetensors")
    brief = ("--epochs", "1", "--batch-size", "4", "--data", tmp_path / "data", "--output", tmp_path / "run")
    assert run("train", "--model", tmp_path / "other.safetensors", *brief).code == 0
    assert "images are normalized with mean (0.485, 0.456, 0.406) and standard deviation" in caplog.text
