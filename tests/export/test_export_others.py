"""Files for other runtimes: what exporting says of them, what it refuses, and what it leaves when it fails."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from disks import small_disk
from networks import NAMES, SHORT, V1, settled
from PIL import Image
from shell import run, succeed

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export.backends import common as sources
from fbnetv3_zoo.export.backends import executorch_pte, ncnn_param, ort_mobile
from fbnetv3_zoo.export.backends.executorch_pte import ExecuTorchReport, export_executorch
from fbnetv3_zoo.export.backends.litert_tflite import LiteRTReport, export_litert
from fbnetv3_zoo.export.backends.ncnn_param import NcnnReport, export_ncnn
from fbnetv3_zoo.export.backends.openvino_ir import OpenVINOReport, export_openvino
from fbnetv3_zoo.export.backends.ort_mobile import MobileReport, Platform, Style, check_usability, export_mobile
from fbnetv3_zoo.export.parity import FileParity, Parity, parity
from fbnetv3_zoo.export.sample_images import photographs
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.weights.serialization import save

Exporter = Callable[[Any, Path], MobileReport | OpenVINOReport | ExecuTorchReport | LiteRTReport | NcnnReport]
EXPORTERS: dict[str, Exporter] = {
    ".ort": export_mobile,
    ".xml": export_openvino,
    ".pte": lambda model, path: export_executorch(model, path, max_batch=1),
    ".ncnn.param": export_ncnn,
    ".tflite": export_litert,
}
LEFT = {
    ".ort": {"net.ort", "net.required_operators.config"},
    ".xml": {"net.bin", "net.xml"},
    ".pte": {"net.pte"},
    ".ncnn.param": {"net.ncnn.bin", "net.ncnn.param"},
    ".tflite": {"net.tflite"},
}


@pytest.fixture(scope="module")
def model(tiny_arch: Arch) -> FBNet:
    return settled(tiny_arch, NAMES)


@pytest.fixture(scope="module")
def short() -> FBNet:
    return settled(SHORT, NAMES)


@pytest.fixture
def graph(model_files: Path) -> Path:
    """The network as an ONNX file."""
    return model_files / "net.onnx"


@pytest.fixture(params=EXPORTERS)
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(suffix: str, model: FBNet, graph: Path, model_files: Path, monkeypatch: pytest.MonkeyPatch) -> FBNet | Path:
    """What a file of this ending is made of; converting it gives, at once, the file of the same network."""
    program = executorch_pte._Lowered((model_files / "net.pte").read_bytes(), 0, 0, {})
    monkeypatch.setattr(executorch_pte, "_lowered", lambda *given: program)
    pair = model_files / "arm.ort", model_files / "arm.required_operators.config"
    monkeypatch.setattr(ort_mobile, "_converted", lambda *given: pair)
    monkeypatch.setattr(ort_mobile, "check_usability", lambda *given: ())
    monkeypatch.setattr(ncnn_param, "_converted", lambda *given: model_files / "net.ncnn.param")
    return model if suffix == ".pte" else graph


def _refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ZooError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.long
def test_networks_of_all_three_papers(
    suffix: str, model: FBNet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """V3 with gates and hard swish; V1 with grouped 1x1 convolutions, a shuffle and ReLU, which V2 has, too."""
    for network in (copy.deepcopy(model).train(), settled(V1).train()):
        report = EXPORTERS[suffix](network, tmp_path / network.arch.name / f"net{suffix}")
        assert all(module.training for module in network.modules())
        assert capfd.readouterr() == ("", "")
        assert report.path == tmp_path / network.arch.name / f"net{suffix}"
        assert report.file_size == report.path.stat().st_size
        assert {file.name for file in report.path.parent.iterdir()} == LEFT[suffix]
        assert list(report.parity) == (["PyTorch"] if suffix == ".pte" else ["PyTorch", "ONNX Runtime"])
        for found in report.parity.values():
            assert (found.path, found.images, found.disagree) == (report.path, 10, ())
            assert 0 < found.relative <= 1e-4
            assert 0.5 < found.scale < 20
        (again,) = parity(network, [report.path], images=photographs(20, seed=2)).files
        assert again.relative <= 1e-4
        assert again.agreement == 1
        assert Classifier.open(report.path).description == network.eval().description


def test_what_a_program_computes_where(short: FBNet, tmp_path: Path) -> None:
    fixed = export_executorch(short, tmp_path / "one.pte", max_batch=1)
    assert (fixed.parts, fixed.portable) == (1, {})
    # more images than torch's own rules of thumb turn at
    free = export_executorch(short, tmp_path / "many.pte", max_batch=20)
    assert (free.parts, free.portable) == (2, {"view_copy": 1})
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in short.modules())
    assert free.delegated == fixed.delegated - 1 > 2 * convolutions
    (found,) = parity(short, [free.path], images=photographs(41), batches=[41]).files
    assert found.relative <= 1e-4


def test_mobile_files(graph: Path, model_files: Path, tmp_path: Path) -> None:
    """Of another style and of another platform than those that :func:`networks.write_files` has written."""
    path = tmp_path / "runtime.ort"
    report = export_mobile(graph, path, style=Style.RUNTIME, type_reduction=True)
    assert (report.path, report.style, report.platform) == (path, Style.RUNTIME, Platform.ARM)
    assert report.operators == tmp_path / "runtime.required_operators.config"
    assert list(report.parity) == ["ONNX Runtime"]
    files = (model_files / "arm.ort", model_files / "net.ort", path)
    for file in files:
        told = file.with_suffix(".required_operators.config").read_text()
        first, *operators = told.splitlines()
        assert first == f"# Generated from {file.name}"
        assert not any(line.startswith("#") for line in operators)  # they would name folders of this machine
        assert any(line.startswith("ai.onnx;13;Gemm") for line in operators)
        assert ("float" in told) == (file == path)
    assert len({file.read_bytes() for file in files}) == 3


def test_a_fixed_batch_suits_accelerators(graph: Path, tmp_path: Path) -> None:
    free = check_usability(graph)
    report = export_mobile(graph, tmp_path / "two.ort", batch=2, platform=Platform.AMD64)
    assert (report.style, report.platform) == (Style.FIXED, Platform.AMD64)
    fixed = report.usability
    assert [found.accelerator for found in fixed] == ["NNAPI", "CoreML NeuralNetwork", "CoreML MLProgram"]
    assert [found.fixed_shapes for found in free] == [True] * 3
    assert [found.fixed_shapes for found in fixed] == [False] * 3
    apple = fixed[2]
    nodes = apple.all_nodes
    assert nodes >= len(onnx.load(graph).graph.node)
    assert (apple.nodes, apple.partitions, apple.unsupported, apple.suits) == (nodes, 1, (), "yes")
    assert str(apple) == f"CoreML MLProgram: yes ({nodes} of {nodes} nodes in 1 partition)"
    android = free[0]
    assert (android.suits, "HardSigmoid" in android.unsupported) == ("no", True)
    assert str(android).startswith(f"NNAPI with a fixed batch: no ({android.nodes} of {nodes} nodes in ")


def test_half_weights_take_half_the_space(graph: Path, tmp_path: Path) -> None:
    whole = export_openvino(graph, tmp_path / "whole.xml")
    half = export_openvino(graph, tmp_path / "half.xml", half=True)
    assert whole.inputs == half.inputs == {"images": ("batch", 3, 32, 32)}
    assert whole.outputs == half.outputs == {"logits": ("batch", 10)}
    assert whole.weights == tmp_path / "whole.bin"
    assert whole.weights_size == whole.weights.stat().st_size
    assert half.weights_size < 0.55 * whole.weights_size
    assert 1e-5 < half.parity["ONNX Runtime"].relative < 1e-2


def test_a_file_that_differs_is_not_kept(
    suffix: str, source: FBNet | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LEFT[suffix]:
        (tmp_path / name).write_bytes(b"an older file")
    monkeypatch.setattr(sources, "TOLERANCE", -1)
    path = tmp_path / f"net{suffix}"
    told = _refusal(lambda: EXPORTERS[suffix](source, path))
    assert told.startswith(f"{path}: logits differ from the network's by ")
    assert told.endswith("more than -1 of it; nothing was written")
    left = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert left == dict.fromkeys(LEFT[suffix], b"an older file")


def test_full_disks(suffix: str, source: FBNet | Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 8192):
        told = _refusal(lambda: EXPORTERS[suffix](source, disk / f"net{suffix}"))
        assert not list(disk.iterdir())
    written = disk / f"net{suffix}"
    assert told in {f"{written}: cannot be written ({why})" for why in ("No space left on device", "File too large")}


def test_an_older_pair_on_a_full_disk_stays(graph: Path, tmp_path: Path) -> None:
    older = export_openvino(graph, tmp_path / "net.xml")
    disk = tmp_path / "disk"
    with small_disk(disk, (older.file_size + older.weights_size) * 3 // 2):
        for path in (older.path, older.weights):
            (disk / path.name).write_bytes(path.read_bytes())
        assert "cannot be written" in _refusal(lambda: export_openvino(graph, disk / "net.xml", half=False))
        for path in (older.path, older.weights):
            assert (disk / path.name).read_bytes() == path.read_bytes()
        assert len(list(disk.iterdir())) == 2


TORN = """
import os, shutil, sys
from pathlib import Path
from typing import Any
import killed
from fbnetv3_zoo.export.backends.common import keep_pair

old, new, place = map(Path, sys.argv[1:])
number, came = 0, True
while came:
    number += 1
    shutil.copytree(old.parent, place / str(number))
    came = killed.killed_before(number, lambda: keep_pair(new, place / str(number) / "net.xml"))
"""


def test_a_pair_opens_whole_wherever_its_writer_is_killed(graph: Path, tmp_path: Path) -> None:
    other = onnx.load(graph)
    (classifier,) = (node for node in other.graph.node if node.op_type == "Gemm")
    (weight,) = (constant for constant in other.graph.initializer if constant.name == classifier.input[1])
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 1, weight.name))
    onnx.save_model(other, tmp_path / "other.onnx")
    old, new = (tmp_path / name / "net.xml" for name in ("old", "new"))
    export_openvino(graph, old)
    export_openvino(tmp_path / "other.onnx", new)
    search = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-c", TORN, str(old), str(new), str(tmp_path / "kills")]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": search}, check=True)
    whole = [(old.read_bytes(), old.with_suffix(".bin").read_bytes())]
    whole += [(new.read_bytes(), new.with_suffix(".bin").read_bytes())]
    torn = 0
    for folder in (tmp_path / "kills").iterdir():
        pair = folder / "net.xml", folder / "net.bin"
        torn += tuple(path.read_bytes() for path in pair) not in whole
        if tuple(path.read_bytes() for path in pair) not in whole:
            Classifier.open(pair[0])
        assert tuple(path.read_bytes() for path in pair) in whole
    assert torn


def test_a_full_disk_for_temporary_files_is_said(
    suffix: str, short: FBNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 32768):
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        told = _refusal(lambda: EXPORTERS[suffix](short, tmp_path / f"net{suffix}"))
        assert not list(disk.glob(".fbnetv3-zoo-*"))  # torch has put a folder of its own there
    remedy = "make room, or set TMPDIR to another folder"
    reasons = "No space left on device", "File too large"
    assert told in {f"{disk}: cannot take temporary files ({reason}); {remedy}" for reason in reasons}
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_wrong_calls(model: FBNet, graph: Path, tmp_path: Path) -> None:
    end = "; change the extension"
    wrong: dict[str, Callable[[], object]] = {
        f"net.onnx: ONNX Runtime's mobile files end in .ort{end}": lambda: export_mobile(graph, Path("net.onnx")),
        f"net: OpenVINO files end in .xml{end}": lambda: export_openvino(graph, "net"),
        f"net.lite: LiteRT files end in .tflite{end}": lambda: export_litert(graph, "net.lite"),
        f"net.param: ncnn files end in .ncnn.param{end}": lambda: export_ncnn(graph, "net.param"),
        f"net.pt: ExecuTorch programs end in .pte{end}": lambda: export_executorch(model, "net.pt"),
        "max_batch is 0; it must be a whole number of at least 1": lambda: export_executorch(
            model, "net.pte", max_batch=0
        ),
        "batch is 0; it must be a whole number of at least 1": lambda: export_mobile(graph, "net.ort", batch=0),
        "style is 'slow'; choose from fixed, runtime": lambda: export_mobile(
            graph, "net.ort", style="slow",  # type: ignore[arg-type]
        ),
        "platform is 'x'; choose from arm, amd64": lambda: export_mobile(
            graph, "net.ort", platform="x",  # type: ignore[arg-type]
        ),
        "net.pt: give a network or an .onnx file written by `fbnetv3 export onnx`": lambda: export_mobile(
            "net.pt", "net.ort"
        ),
        f"{tmp_path}/no.onnx: no such file": lambda: export_openvino(tmp_path / "no.onnx", "net.xml"),
        "images is empty; give at least one, or None for photographs": lambda: parity(graph, [graph], images=[]),
    }  # fmt: skip
    for told, call in wrong.items():
        assert _refusal(call) == told
    half = FBNet(model.arch).half()
    expected = "the network's weights are torch.float16; export needs torch.float32, call model.float() first"
    assert _refusal(lambda: export_executorch(half, "net.pte")) == expected


def test_files_of_others_are_refused(graph: Path, tmp_path: Path) -> None:
    proto = onnx.load(graph)
    del proto.metadata_props[:]
    onnx.save_model(proto, path := tmp_path / "foreign.onnx")
    told = f"{path}: does not describe its classes and preprocessing; export it with `fbnetv3 export onnx`"
    assert _refusal(lambda: export_mobile(path, tmp_path / "net.ort")) == told
    assert _refusal(lambda: export_openvino(path, tmp_path / "net.xml")) == told
    assert _refusal(lambda: export_ncnn(path, tmp_path / "net.ncnn.param")) == told
    assert _refusal(lambda: export_litert(path, tmp_path / "net.tflite")) == told


def test_parity_finds_what_differs(model: FBNet, graph: Path, tmp_path: Path) -> None:
    """Compared with a network whose first class got a larger bias, one by one, files and network either way round."""
    save(model, tmp_path / "net.safetensors")
    other = FBNet(model.arch).eval()
    other.load_state_dict(model.state_dict())
    other.preprocess, other.class_names = model.preprocess, model.class_names
    with torch.no_grad():
        other.classifier.bias[0] += 0.5
    images = photographs(12)
    with torch.inference_mode():
        one, two = (network(network.preprocess(images)).numpy() for network in (model, other))
    changed = tuple(np.flatnonzero(one.argmax(1) != two.argmax(1)).tolist())
    assert 0 < len(changed) < 12
    found = parity(other, [graph, tmp_path / "net.safetensors"], images=images)
    assert found.reference == "PyTorch"
    for file in found.files:
        assert file.difference == pytest.approx(0.5, rel=1e-4)
        assert file.scale == pytest.approx(np.abs(two).max(), rel=1e-5)
        assert file.relative == file.difference / file.scale
        assert (file.images, file.disagree) == (12, changed)
        assert file.agreement == 1 - len(changed) / 12
        told = _refusal(file.check)
        assert told == (
            f"{file.path}: logits differ from the network's by 0.5 at a scale of {file.scale:.2g}, more than 0.0001 of "
            "it"
        )
    back = parity(tmp_path / "net.safetensors", [graph], images=images)
    assert back.reference == str(tmp_path / "net.safetensors")
    back.files[0].check()


def test_parity_as_text() -> None:
    same = FileParity(Path("a.ort"), 20, 2e-6, 4.0, ())
    other = FileParity(Path("b.xml"), 20, 0.1, 4.0, (3, 17))
    assert str(Parity("PyTorch", (same, other))).splitlines() == [
        "compared with PyTorch:",
        "a.ort: logits differ by up to 2e-06, 5e-07 of the largest; same top class for 20 of 20 images",
        "b.xml: logits differ by up to 0.1, 0.025 of the largest; same top class for 18 of 20 images, not for 3, 17",
    ]


def test_numbers_that_are_none(model: FBNet, graph: Path) -> None:
    broken = FBNet(model.arch).eval()
    broken.preprocess = model.preprocess
    with torch.no_grad():
        broken.classifier.bias[3] = torch.nan
    told = "the network's own logits are not finite; its weights are damaged"
    assert _refusal(lambda: parity(broken, [graph])) == told
    nothing = FileParity(Path("a.ort"), 1, float("inf"), 1.0, ())
    assert "differ from the network's by inf" in _refusal(nothing.check)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("network", ".ort"),
        ("graph", ".ort"),
        ("network", ".xml"),
        ("graph", ".xml"),
        ("network", ".pte"),
        ("network", ".ncnn.param"),
        ("graph", ".ncnn.param"),
        ("network", ".tflite"),
        ("graph", ".tflite"),
    ],
)
def test_the_commands(kind: str, suffix: str, short: FBNet, graph: Path, tmp_path: Path) -> None:
    """Of a network as a person reads it, of a graph as JSON and with a name of its own."""
    given = tmp_path / ("net.safetensors" if kind == "network" else "net.onnx")
    command = {".ort": "mobile", ".xml": "openvino", ".pte": "executorch", ".ncnn.param": "ncnn", ".tflite": "litert"}[
        suffix
    ]
    if kind == "network":
        save(short, given)
        path = given.with_suffix(suffix)
        lines = succeed("export", command, given).splitlines()
        assert lines[0].startswith(f"{path} (")
        compared = [line for line in lines if line.startswith("largest difference to ")]
        assert len(compared) == (1 if suffix == ".pte" else 2)
        assert all(line.endswith(" (10 images, same top class for all)") for line in compared)
    else:
        shutil.copy(graph, given)
        path = tmp_path / f"two{suffix}"
        data = json.loads(succeed("export", command, given, "--output", path, "--json"))
        assert data["path"] == str(path)
        (found,) = data["parity"].values()
        assert 0 < found["relative"] < 1e-4
        assert found["agreement"] == 1
    Image.new("RGB", (50, 40), "orange").save(tmp_path / "image.png")
    (answer,) = json.loads(succeed("classify", tmp_path / "image.png", "--model", path, "--top", 10, "--json"))
    (wanted,) = json.loads(succeed("classify", tmp_path / "image.png", "--model", given, "--top", 10, "--json"))
    assert [found["name"] for found in answer["predictions"]] == [found["name"] for found in wanted["predictions"]]


def test_programs_are_made_of_networks_only(graph: Path) -> None:
    ended = run("export", "executorch", graph)
    told = f"error: {graph}: ExecuTorch takes networks, not graphs; give the .safetensors file or a name\n"
    assert (ended.code, ended.out, ended.err) == (2, "", told)
