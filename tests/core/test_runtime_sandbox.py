"""Model files made to harm whoever opens them: refused in one line, while this process lives on."""

from __future__ import annotations

import logging
import platform
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import settled
from onnx import TensorProto, helper, numpy_helper

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.runtimes import sandbox
from fbnetv3_zoo.utils.onnx_io import EXPORT_AGAIN


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FBNETV3_ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


def _refusal(path: Path) -> str:
    with pytest.raises(ZooError) as caught:
        Classifier.open(path)
    told = str(caught.value)
    assert told.isprintable()
    return told.removeprefix(f"{path}: cannot be read as ").removesuffix(f"; {EXPORT_AGAIN}")


def _with(model_files: Path, target: Path, change: str) -> Path:
    """The network of ``model_files`` with something in it that no network has."""
    proto = onnx.load(model_files / "net.onnx")
    graph, extra = proto.graph, []
    if change == "loop":
        body = helper.make_graph([], "body", [], [])
        extra = [helper.make_node("Loop", ["", "on"], [], body=body)]
    elif change == "batch":
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 40
    elif change == "outside":
        graph.initializer[0].data_location = TensorProto.EXTERNAL
        graph.initializer[0].external_data.add(key="location", value="passwd")
    elif change == "declared":
        graph.initializer[0].dims[0] = 1 << 40
    elif change == "folded":
        shape = numpy_helper.from_array(np.array([40, 1 << 30], np.int64), "shape")
        graph.initializer.append(shape)
        extra = [helper.make_node("ConstantOfShape", ["shape"], ["huge"]), helper.make_node("Neg", ["huge"], ["more"])]
        graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, None))
    graph.node.extend(extra)
    target.write_bytes(proto.SerializeToString())
    return target


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("loop", "ONNX (it has a graph inside the operator Loop)"),
        ("batch", "ONNX (images has the shape [1099511627776, 3, 32, 32])"),
        ("outside", "ONNX (its weights .* are outside the file)"),
        ("declared", "ONNX (its weights .* are declared larger than they are)"),
        ("folded", "ONNX (.*)"),
    ],
)
def test_graphs_made_to_harm(change: str, told: str, model_files: Path, tmp_path: Path) -> None:
    pattern = re.escape(told).replace(r"\.\*", ".*")
    assert re.fullmatch(pattern, _refusal(_with(model_files, tmp_path / "net.onnx", change)))


@pytest.mark.parametrize("name", [b"Conv", b"images"])
def test_names_that_are_no_text(model_files: Path, tmp_path: Path, name: bytes) -> None:
    """Protobuf hands them out as bytes."""
    content = (model_files / "net.onnx").read_bytes()
    (tmp_path / "net.onnx").write_bytes(content.replace(name, b"\xff" + name[1:]))
    assert re.search(r"its (op_type|name|input|value) is not UTF-8 text", _refusal(tmp_path / "net.onnx"))


def test_a_word_of_a_sealed_pair(model_files: Path, tmp_path: Path) -> None:
    text = (model_files / "net.xml").read_bytes()
    (tmp_path / "net.bin").write_bytes((model_files / "net.bin").read_bytes())
    for word, other in ((b'"Convolution"', b'"MaxPool"'), (b"f32", b"f64"), (b'name="images"', b'name="others"')):
        (tmp_path / "net.xml").write_bytes(text.replace(word, other, 1))
        assert _refusal(tmp_path / "net.xml") == "OpenVINO IR (it is damaged: its digest is another)"
    (tmp_path / "net.xml").write_bytes(text)
    assert Classifier.open(tmp_path / "net.xml").logits(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 10)


def test_pairs_without_a_seal_are_tried_out(model_files: Path, tmp_path: Path) -> None:
    text = re.sub(rb"<(weights|seal)_blake3[^>]*>", b"", (model_files / "net.xml").read_bytes())
    (tmp_path / "net.bin").write_bytes((model_files / "net.bin").read_bytes())
    (tmp_path / "net.xml").write_bytes(text)
    assert not sandbox.known(".xml", (text, (model_files / "net.bin").read_bytes()))
    assert Classifier.open(tmp_path / "net.xml").description.arch.num_classes == 10
    assert sandbox.known(".xml", (text, (model_files / "net.bin").read_bytes()))
    (tmp_path / "net.xml").write_bytes(re.sub(rb'offset="0" size="\d+"', b'offset="0" size="99999999999"', text))
    assert _refusal(tmp_path / "net.xml").startswith("OpenVINO IR (")


def test_a_pair_that_is_no_text(model_files: Path, tmp_path: Path) -> None:
    text = re.sub(rb"<(weights|seal)_blake3[^>]*>", b"", (model_files / "net.xml").read_bytes())
    (tmp_path / "net.bin").write_bytes((model_files / "net.bin").read_bytes())
    (tmp_path / "net.xml").write_bytes(text.replace(b"hard_s", b"\xffard_s"))
    assert _refusal(tmp_path / "net.xml") == "OpenVINO IR (it is not UTF-8 text)"


def test_damaged_mobile_files(model_files: Path, tmp_path: Path) -> None:
    content = bytearray((model_files / "net.ort").read_bytes())
    content[64:96] = b"\xff" * 32
    (tmp_path / "net.ort").write_bytes(content)
    assert _refusal(tmp_path / "net.ort").startswith("ORT (")


def test_what_went_well_is_remembered_where_nobody_else_writes(
    model_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FBNETV3_ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(sandbox, "_good", set())
    parts = ((model_files / "net.onnx").read_bytes(),)
    assert not sandbox.known(".onnx", parts)
    sandbox.remember(".onnx", parts)
    for mode, counts in ((0o700, True), (0o777, False), (0o700, True)):
        (tmp_path / "tried").chmod(mode)
        monkeypatch.setattr(sandbox, "_good", set())
        assert sandbox.known(".onnx", parts) is counts
    assert not sandbox.known(".onnx", (parts[0] + b"\0",))
    assert not sandbox.known(".ort", parts)


def test_a_file_laid_out_for_other_processors_says_so(
    model_files: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sandbox, "_own", set())
    for machine, lines in (("aarch64", 0), ("x86_64", 1)):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        with caplog.at_level(logging.WARNING, logger="fbnetv3_zoo"):
            Classifier.open(model_files / "arm.ort")
        assert len(caplog.messages) == lines
    assert "is laid out for ARM processors and slow on this one (x86_64)" in caplog.messages[0]


@pytest.mark.parametrize(("opset", "version"), [(18, 8), (21, 10)])
def test_files_declare_the_lowest_version_of_the_format(
    opset: int, version: int, tiny_arch: Arch, tmp_path: Path
) -> None:
    export_onnx(settled(tiny_arch), tmp_path / "net.onnx", opset=opset, batch_sizes=[1])
    assert onnx.load(tmp_path / "net.onnx").ir_version == version
