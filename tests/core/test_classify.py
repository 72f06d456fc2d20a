"""Classifying with a model file: both formats, images of any size and mode, and files that are no models."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import skimage.data
import torch
from networks import NAMES
from PIL import Image

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.classify import Classifier, Floats, Prediction
from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.weights.serialization import load, save

PHOTO = Image.fromarray(skimage.data.astronaut())


@pytest.fixture(params=[".safetensors", ".onnx"])
def file(request: pytest.FixtureRequest, model_files: Path) -> Path:
    return model_files / f"net{request.param}"


def _answering(logits: Callable[[Floats], object], arch: Arch, names: tuple[str, ...] | None = NAMES) -> Classifier:
    description = Description(arch, Preprocess(32, 32), names)
    return Classifier(description, lambda images: np.asarray(logits(images), dtype=np.float32))


def _refusal(path: Path) -> str:
    with pytest.raises(ZooError) as caught:
        Classifier.open(path)
    return str(caught.value)


def test_probabilities_are_the_softmax_of_the_logits(file: Path, model_files: Path) -> None:
    model = load(model_files / "net.safetensors")
    with torch.inference_mode():
        logits = model(model.preprocess(PHOTO)[None])
    expected = dict(zip(NAMES, logits.double().softmax(1)[0].tolist(), strict=True))
    (found,) = Classifier.open(file)([PHOTO], top=10)
    assert {p.name: p.probability for p in found} == pytest.approx(expected, abs=1e-5)
    assert sum(p.probability for p in found) == pytest.approx(1, abs=1e-12)
    assert found == sorted(found, key=lambda p: -p.probability)
    assert found[0].probability > 0.2


def test_description_is_the_networks(file: Path, model_files: Path) -> None:
    assert Classifier.open(file).description == load(model_files / "net.safetensors").description


@pytest.mark.parametrize(("top", "count"), [(1, 1), (3, 3), (10, 10), (11, 10), (1000, 10)])
def test_top(top: int, count: int, file: Path) -> None:
    classifier = Classifier.open(file)
    (every,) = classifier([PHOTO], top=10)
    (found,) = classifier([PHOTO], top=top)
    assert len(found) == count
    assert found == every[:count]


def test_five_unless_told_otherwise(file: Path) -> None:
    assert [len(answer) for answer in Classifier.open(file)([PHOTO, PHOTO])] == [5, 5]


def test_an_image_alone_is_answered_alone(file: Path) -> None:
    classifier = Classifier.open(file)
    assert [classifier(PHOTO)] == classifier([PHOTO])


def test_no_images(file: Path) -> None:
    assert Classifier.open(file)([]) == []


def test_a_network_may_be_moved_and_cast_afterwards(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch).eval()
    classifier = Classifier.of(model)
    first = classifier(PHOTO)[0].probability
    model.double()
    assert classifier(PHOTO)[0].probability == pytest.approx(first, rel=1e-5)


def test_a_network_in_training_mode_is_evaluated_and_stays_as_it_was(tiny_arch: Arch) -> None:
    model = FBNet(tiny_arch, drop_rate=0.5).train()
    model.stages[0].eval()  # as if frozen
    modes = [part.training for part in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = Classifier.of(model)([PHOTO, PHOTO])
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert found == Classifier.of(model.eval())([PHOTO, PHOTO])


def test_equal_probabilities_keep_the_order_of_classes(tiny_arch: Arch) -> None:
    (found,) = _answering(lambda images: [[1, 2, 1, 2, 1, 2, 1, 2, 1, 2]], tiny_arch)([PHOTO], top=10)
    assert [NAMES.index(p.name) for p in found] == [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]


def test_large_logits_do_not_overflow(tiny_arch: Arch) -> None:
    (found,) = _answering(lambda images: [[0, 30_000, -30_000, *[0] * 7]], tiny_arch)([PHOTO], top=2)
    assert found == [Prediction("één", 1.0), Prediction("zero", 0.0)]


def test_without_names_classes_are_numbers(tiny_arch: Arch, tmp_path: Path) -> None:
    save(FBNet(tiny_arch), tmp_path / "net.safetensors")
    (found,) = Classifier.open(tmp_path / "net.safetensors")([PHOTO], top=10)
    assert sorted(p.name for p in found) == list("0123456789")


def _pictures() -> dict[str, Image.Image]:
    gray = PHOTO.convert("L").resize((61, 90))
    return {
        "L": gray,
        "RGB": PHOTO,
        "RGBA": PHOTO.convert("RGBA").resize((40, 300)),
        "P": PHOTO.resize((33, 32)).convert("P"),
        "CMYK": PHOTO.resize((100, 50)).convert("CMYK"),
        "I;16": Image.fromarray(np.asarray(gray).astype(np.uint16) * 257),
        "1": PHOTO.resize((8, 8)).convert("1"),
        "LA": PHOTO.resize((20, 20)).convert("LA"),
    }


def test_images_of_any_size_and_mode_in_one_batch(file: Path) -> None:
    classifier, pictures = Classifier.open(file), _pictures()
    assert [picture.mode for picture in pictures.values()] == list(pictures)
    together = classifier(list(pictures.values()), top=10)
    for picture, found in zip(pictures.values(), together, strict=True):
        (alone,) = classifier([picture], top=10)
        assert [p.name for p in found] == [p.name for p in alone]
        assert [p.probability for p in found] == pytest.approx([p.probability for p in alone], abs=1e-5)
    by_mode = dict(zip(pictures, together, strict=True))
    assert by_mode["I;16"] == by_mode["L"]  # the same picture in 16 bits
    assert len({found[0].probability for found in together}) == len(pictures) - 1


def test_images_of_a_batch_are_not_changed(file: Path) -> None:
    before = PHOTO.tobytes()
    Classifier.open(file)([PHOTO])
    assert (PHOTO.tobytes(), PHOTO.mode) == (before, "RGB")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for suffix in (".onnx", ".safetensors"):
        path = tmp_path / f"net{suffix}"
        assert _refusal(path) == f"{path}: no such file"
    (tmp_path / "a.onnx").mkdir()
    assert _refusal(tmp_path / "a.onnx") == f"{tmp_path}/a.onnx: is a folder, not a model file"
    (tmp_path / "a.safetensors").mkdir()
    assert _refusal(tmp_path / "a.safetensors") == f"{tmp_path}/a.safetensors: is a folder, not a weight file"


@pytest.mark.parametrize("name", ["net.pt", "net", "net.ONNX", "checkpoint.pth.tar"])
def test_other_endings(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"whatever")
    assert _refusal(tmp_path / name) == (
        f"{tmp_path / name}: is not a model file; give one that ends in .safetensors, .onnx, .ort, .xml, .pte, .param, "
        ".tflite or .mlpackage"
    )


@pytest.mark.parametrize("size", [0, 7, 1000, -1])
def test_damaged_files(size: int, file: Path, tmp_path: Path) -> None:
    path = tmp_path / file.name
    path.write_bytes(file.read_bytes()[:size])
    kind = "ONNX" if file.suffix == ".onnx" else "safetensors"
    told = _refusal(path)
    assert told.startswith(f"{path}: cannot be read as {kind} (")
    assert "\n" not in told


def test_onnx_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save_model(_identity({}), path)
    expected = f"{path}: does not describe its classes and preprocessing; export it with `fbnetv3 export onnx`"
    assert _refusal(path) == expected


def test_onnx_files_of_another_release(model_files: Path, tmp_path: Path) -> None:
    path = tmp_path / "newer.onnx"
    entries = load(model_files / "net.safetensors").description.to_metadata()
    onnx.save_model(_identity({**entries, "format_version": "2"}), path)
    assert _refusal(path) == f"{path}: has format version '2'; this release reads '1', upgrade fbnetv3-zoo"
    onnx.save_model(_identity({**entries, "class_names": '["one"]'}), path)
    assert _refusal(path) == (f"{path}: damaged description (class_names has 1 names; tiny has 10 classes)")


def _identity(entries: dict[str, str]) -> onnx.ModelProto:
    """A valid ONNX model that returns what it is given."""
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.helper.set_model_props(model, entries)
    return model


@pytest.mark.parametrize("top", [0, -1, 2.5, True])
def test_wrong_top(top: object, tiny_arch: Arch) -> None:
    with pytest.raises(ZooError) as caught:
        _answering(lambda images: [[0] * 10], tiny_arch)([PHOTO], top=top)  # type: ignore[arg-type]
    assert str(caught.value) == f"top is {top!r}; it must be a whole number of at least 1"


def test_images_cannot_fill_five_channels(tiny_arch: Arch, tmp_path: Path) -> None:
    save(FBNet(replace(tiny_arch, in_channels=5)), tmp_path / "net.safetensors")
    with pytest.raises(ZooError) as caught:
        Classifier.open(tmp_path / "net.safetensors")([PHOTO])
    assert str(caught.value) == "this network takes 5 channels; image files can only fill 1 or 3"


def test_onnx_files_need_no_torch(model_files: Path, tmp_path: Path) -> None:
    PHOTO.save(tmp_path / "photo.png")
    code = (
        "import sys; from fbnetv3_zoo.classify import Classifier; from fbnetv3_zoo.preprocess import read_image;"
        "(found,) = Classifier.open(sys.argv[1])([read_image(sys.argv[2])], top=1);"
        "print(found[0].name); assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(model_files / "net.onnx"), str(tmp_path / "photo.png")]
    found = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert found.stderr == b""
    (expected,) = Classifier.open(model_files / "net.safetensors")([PHOTO], top=1)
    assert found.stdout.decode().strip() == expected[0].name
