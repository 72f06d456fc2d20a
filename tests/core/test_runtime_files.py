"""Model files of every kind on their runtimes: the answers, the refusals, and files that are damaged or not ours."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import ncnn
import numpy as np
import onnx
import openvino
import pytest
import torch
from disks import file_limit
from networks import NAMES
from PIL import Image

from fbnetv3_zoo.classify import ENDINGS, Classifier, Floats
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export.backends.openvino_ir import write_model
from fbnetv3_zoo.export.sample_images import photographs
from fbnetv3_zoo.preprocess import Preprocess, stack
from fbnetv3_zoo.runtimes.executorch_pte import check_whole_program
from fbnetv3_zoo.runtimes.ncnn_param import check_pair
from fbnetv3_zoo.utils.onnx_io import EXPORT_AGAIN
from fbnetv3_zoo.weights.serialization import load

KINDS = {
    ".onnx": "ONNX", ".ort": "ORT", ".xml": "OpenVINO IR", ".pte": "ExecuTorch program", ".ncnn.param": "ncnn model",
    ".tflite": "LiteRT",
}  # fmt: skip
FORMS = {
    ".onnx": "onnx", ".ort": "mobile", ".xml": "openvino", ".pte": "executorch", ".param": "ncnn", ".tflite": "litert",
}  # fmt: skip
IMAGES = photographs(7)


@pytest.fixture(params=KINDS)
def file(request: pytest.FixtureRequest, model_files: Path) -> Path:
    return model_files / f"net{request.param}"


@pytest.fixture(scope="module")
def images(model_files: Path) -> Floats:
    return stack(load(model_files / "net.safetensors").preprocess, IMAGES)


@pytest.fixture(scope="module")
def expected(model_files: Path, images: Floats) -> Floats:
    with torch.inference_mode():
        return np.asarray(load(model_files / "net.safetensors")(torch.from_numpy(images)).numpy())


def _refusal(path: Path, **options: object) -> str:
    with pytest.raises(ZooError) as caught:
        Classifier.open(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _placed(file: Path, folder: Path, content: bytes) -> Path:
    """``content`` under the name of ``file`` in ``folder``, with the weights beside it if it has any there."""
    path = folder / file.name
    path.write_bytes(content)
    if file.suffix in (".xml", ".param"):
        path.with_suffix(".bin").write_bytes(file.with_suffix(".bin").read_bytes())
    return path


def test_all_kinds_are_tested() -> None:
    kinds = (Path(f"net{kind}").suffix for kind in KINDS)
    assert (".safetensors", *kinds, ".mlpackage") == ENDINGS  # the last in tests/export/test_coreml.py


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize(
    "name", ["net.onnx", "net.ort", "three.ort", "net.xml", "net.pte", "net.ncnn.param", "net.tflite"]
)
def test_any_number_of_images(name: str, count: int, model_files: Path, images: Floats, expected: Floats) -> None:
    found = Classifier.open(model_files / name).logits(images[:count])
    assert found.dtype == np.float32
    assert np.abs(found - expected[:count]).max() <= 1e-4 * np.abs(expected[:count]).max()
    assert found.argmax(1).tolist() == expected[:count].argmax(1).tolist()
    assert expected.std() > 0.2


def test_answers_are_kept(file: Path, images: Floats) -> None:
    """A later call does not write into an earlier one's answer, and gives the same one."""
    logits = Classifier.open(file).logits
    first = logits(images[:2])
    before = first.copy()
    logits(images[2:4])
    np.testing.assert_array_equal(first, before)
    np.testing.assert_array_equal(logits(images[:2]), before)


def test_the_description_is_the_networks(file: Path, model_files: Path) -> None:
    found = Classifier.open(file)
    assert found.description == load(model_files / "net.safetensors").description
    assert found.description.class_names == NAMES
    assert {p.name for p in found(IMAGES[:1], top=10)[0]} == set(NAMES)


def test_no_images(file: Path, images: Floats) -> None:
    assert Classifier.open(file).logits(images[:0]).shape == (0, 10)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(threads: int, file: Path, images: Floats, expected: Floats) -> None:
    found = Classifier.open(file, threads=threads).logits(images)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_threads_of_torch_are_set(model_files: Path) -> None:
    before = torch.get_num_threads()
    try:
        Classifier.open(model_files / "net.safetensors", threads=before + 1)
        assert torch.get_num_threads() == before + 1
        Classifier.open(model_files / "net.safetensors")
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_wrong_threads(threads: object, file: Path) -> None:
    assert _refusal(file, threads=threads) == f"threads is {threads!r}; it must be a whole number of at least 1"


def test_bfloat16(file: Path, images: Floats, expected: Floats) -> None:
    if file.suffix != ".xml":
        told = f"{file}: only OpenVINO (.xml) computes in bfloat16 here; leave bfloat16 out"
        assert _refusal(file, bfloat16=True) == told
    elif "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        told = f"{file}: this processor does not compute in bfloat16; leave bfloat16 out"
        assert _refusal(file, bfloat16=True) == told
    else:
        apart = np.abs(Classifier.open(file, bfloat16=True).logits(images) - expected).max()
        assert 1e-4 < apart / np.abs(expected).max() < 0.1  # less exact, so it was heeded


def test_images_of_another_shape(file: Path, images: Floats) -> None:
    classifier = Classifier.open(file)
    wrong = {
        "(7, 1, 32, 32)": images[:, :1],
        "(7, 3, 16, 32)": images[:, :, ::2],
        "(7, 3, 32, 64)": np.concatenate([images, images], axis=3),
        "(3, 32, 32)": images[0],
    }
    for shape, given in wrong.items():
        with pytest.raises(ZooError) as caught:
            classifier.logits(given)
        told = f"{file}: images are float32 of shape {shape}; it takes float32, (batch, 3, 32, 32)"
        assert str(caught.value) == told
    with pytest.raises(ZooError, match=r"images are float64 of shape \(7, 3, 32, 32\); it takes float32, "):
        classifier.logits(images.astype(np.float64))  # type: ignore[arg-type]


def test_missing_files_and_folders(file: Path, tmp_path: Path) -> None:
    path = tmp_path / file.name
    assert _refusal(path) == f"{path}: no such file"
    path.mkdir()
    assert _refusal(path) == f"{path}: is a folder, not a model file"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9999])
def test_cut_files(share: float, file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = file.read_bytes()
    path = _placed(file, tmp_path, content[: int(len(content) * share)])
    assert _refusal(path).startswith(f"{path}: cannot be read as {KINDS[''.join(file.suffixes)]} (")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"hello", b"\0" * 5000, b"<?xml ?><html/>"])
def test_files_of_another_kind(content: bytes, file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = _placed(file, tmp_path, content)
    assert _refusal(path).startswith(f"{path}: cannot be read as {KINDS[''.join(file.suffixes)]} (")
    assert capfd.readouterr() == ("", "")


def test_files_that_say_nothing_of_themselves(file: Path, model_files: Path, tmp_path: Path) -> None:
    path = tmp_path / file.name
    if file.suffix == ".xml":
        openvino.save_model(openvino.convert_model(_bare(model_files, tmp_path)), path)
    elif file.suffix == ".param":
        _placed(file, tmp_path, re.sub(rb"(?m)^# .*\n", b"", file.read_bytes()))
    elif file.suffix == ".pte":
        path.write_bytes(file.read_bytes().replace(b"fbnetv3_zoo blake3 ", b"of other people    "))
    elif file.suffix == ".tflite":
        path.write_bytes(file.read_bytes().replace(b"fbnetv3_zoo", b"some others"))
    elif file.suffix == ".ort":
        export = "import sys, onnxruntime as o; s = o.SessionOptions(); s.optimized_model_filepath = sys.argv[2];"
        export += "s.add_session_config_entry('session.save_model_format', 'ORT'); s.log_severity_level = 3;"
        export += "o.InferenceSession(sys.argv[1], s, providers=['CPUExecutionProvider'])"
        subprocess.run([sys.executable, "-c", export, _bare(model_files, tmp_path), path], check=True)
    else:
        _bare(model_files, tmp_path).rename(path)
    form = FORMS[file.suffix]
    told = f"{path}: does not describe its classes and preprocessing; export it with `fbnetv3 export {form}`"
    assert _refusal(path) == told


def _bare(model_files: Path, target: Path) -> Path:
    """The network as an ONNX file without metadata."""
    proto = onnx.load(model_files / "net.onnx")
    del proto.metadata_props[:]
    onnx.save_model(proto, target / "bare.onnx")
    return target / "bare.onnx"


def test_a_description_of_another_network(model_files: Path, tmp_path: Path) -> None:
    proto = onnx.load(model_files / "net.onnx")
    side = proto.graph.input[0].type.tensor_type.shape.dim[2]
    assert side.dim_value == 32
    side.dim_value = proto.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 64
    onnx.save_model(proto, tmp_path / "net.onnx")
    told = "takes (batch, 3, 64, 64), but says of itself (batch, 3, 32, 32); export it again"
    assert _refusal(tmp_path / "net.onnx") == f"{tmp_path}/net.onnx: {told}"


@pytest.mark.parametrize("name", ["net.xml", "net.ncnn.param"])
def test_weights_that_are_missing_or_of_another_model(name: str, model_files: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    weights = path.with_suffix(".bin")
    path.write_bytes((model_files / name).read_bytes())
    assert _refusal(path) == f"{path}: its weights are missing; put {weights.name} beside it"
    content = (model_files / weights.name).read_bytes()
    kind = KINDS["".join(path.suffixes)]
    told = f"{path}: cannot be read as {kind} ({weights.name} is damaged or of another model); {EXPORT_AGAIN}"
    for place in (0, len(content) // 2, len(content) - 1):
        weights.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert _refusal(path) == told
    weights.write_bytes(content + b"\0")
    assert _refusal(path) == told
    weights.write_bytes(content[:-1])
    assert _refusal(path).startswith(f"{path}: cannot be read as {kind} (")
    weights.write_bytes(content)
    assert Classifier.open(path).description.class_names == NAMES


def test_every_change_of_a_program_is_noticed(model_files: Path) -> None:
    """A damaged program would end the process, so nothing but what was written may reach the runtime."""
    path = model_files / "net.pte"
    whole, rng = path.read_bytes(), random.Random(0)
    check_whole_program(path, whole)
    for place in [*range(64), *(rng.randrange(len(whole)) for _ in range(300))]:
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(ZooError):
            check_whole_program(path, bytes(changed))
    for length in [0, 7, 39, 40, *(rng.randrange(len(whole)) for _ in range(50)), len(whole) - 1]:
        with pytest.raises(ZooError):
            check_whole_program(path, whole[:length])
    with pytest.raises(ZooError, match=r"has \d+ bytes, and says that there are \d+"):
        check_whole_program(path, whole + b"\0")


def test_every_change_of_a_pair_is_noticed(model_files: Path) -> None:
    """ncnn, too, would end the process."""
    path = model_files / "net.ncnn.param"
    text, weights, rng = path.read_bytes(), path.with_suffix(".bin").read_bytes(), random.Random(0)
    check_pair(path, text, weights)
    for place in [*range(24), *(rng.randrange(len(text)) for _ in range(300)), len(text) - 2]:
        changed = bytearray(text)
        changed[place] ^= 1 << rng.randrange(8)
        with pytest.raises(ZooError):
            check_pair(path, bytes(changed), weights)
    for length in [0, 7, 8, 12, *(rng.randrange(len(text)) for _ in range(50)), len(text) - 2]:
        with pytest.raises(ZooError):
            check_pair(path, text[:length], weights)
    with pytest.raises(ZooError, match="it is damaged: its digest is another"):
        check_pair(path, text + b"\n", weights)


def test_what_a_client_of_ncnn_reads(model_files: Path) -> None:
    """Without this package: ncnn itself ignores the entries, which are lines of text behind the layers."""
    path = model_files / "net.ncnn.param"
    net = ncnn.Net()
    assert (net.load_param(str(path)), net.load_model(str(path.with_suffix(".bin")))) == (0, 0)
    lines = [line[2:].split(" ", 1) for line in path.read_text().splitlines() if line.startswith("# ")]
    entries = dict(lines)
    assert len(entries) == len(lines)
    assert (net.input_names(), net.output_names()) == ([entries["input"]], [entries["output"]])
    assert tuple(json.loads(entries["class_names"])) == NAMES
    pixels = np.asarray(IMAGES[0].resize((32, 32)))
    image = ncnn.Mat.from_pixels(pixels, ncnn.Mat.PixelType.PIXEL_RGB, 32, 32)
    means, norms = ([float(value) for value in entries[name].split()] for name in ("mean_vals", "norm_vals"))
    image.substract_mean_normalize(means, norms)
    wanted = Preprocess(32, 32).array(Image.fromarray(pixels))
    np.testing.assert_allclose(np.array(image), wanted, atol=1e-5)


@pytest.mark.parametrize("suffix", [".ort", ".xml", ".ncnn.param", ".tflite"])
def test_no_torch_is_needed(suffix: str, model_files: Path, tmp_path: Path) -> None:
    IMAGES[0].save(tmp_path / "photo.png")
    code = (
        "import sys; from fbnetv3_zoo.classify import Classifier; from fbnetv3_zoo.preprocess import read_image;"
        "(found,) = Classifier.open(sys.argv[1])([read_image(sys.argv[2])], top=1);"
        "print(ascii(found[0].name)); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(model_files / f"net{suffix}"), str(tmp_path / "photo.png")]
    ended = subprocess.run(command, capture_output=True, check=False, text=True)
    ((wanted,),) = Classifier.open(model_files / "net.safetensors")(IMAGES[:1], top=1)
    assert (ended.stdout, ended.stderr) == (f"{wanted.name!a}\n", "")


@pytest.mark.parametrize(
    ("suffix", "module", "name", "extra"),
    [
        (".xml", "openvino", "OpenVINO", "openvino"),
        (".pte", "executorch", "ExecuTorch", "executorch"),
        (".ncnn.param", "ncnn", "ncnn", "ncnn"),
        (".tflite", "ai_edge_litert", "LiteRT", "litert"),
    ],
)
def test_a_runtime_that_is_not_installed(suffix: str, module: str, name: str, extra: str, model_files: Path) -> None:
    file = model_files / f"net{suffix}"
    code = f"import sys; sys.modules[{module!r}] = None; from fbnetv3_zoo.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "classify", "no.png", "--model", str(file)]
    ended = subprocess.run(command, capture_output=True, check=False, text=True)
    told = f'error: {file}: needs {name}, which is not installed; pip install "fbnetv3-zoo[{extra}]"\n'
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", told)


def test_opening_and_answering_is_quiet(file: Path, model_files: Path, tmp_path: Path) -> None:
    """Native code, too, says nothing, from the very first call of a process."""
    IMAGES[0].save(tmp_path / "photo.png")
    command = [str(Path(sys.executable).with_name("fbnetv3")), "classify", "photo.png", "--model", str(file)]
    ended = subprocess.run(command, capture_output=True, check=False, text=True, cwd=tmp_path, env={**os.environ})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(ended.stdout.splitlines()) >= 6


def test_openvino_files_on_a_full_disk(model_files: Path, tmp_path: Path) -> None:
    model = openvino.Core().read_model(model_files / "net.xml")
    with file_limit(20_000), pytest.raises(ZooError) as caught:
        write_model(model, tmp_path / "net.xml", {})
    assert str(caught.value).startswith(f"{tmp_path}/net.xml: cannot be written (")
