"""Graphs that take an image as it comes, of any size, and answer probabilities; and graphs for images of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import skimage.data
import torch
from networks import SHORT, fitted, settled
from onnx import TensorProto, helper
from PIL import Image

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.export.onnx.preprocessing import take_images
from fbnetv3_zoo.export.sample_images import photographs
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Interpolation, Preprocess
from fbnetv3_zoo.training.data import digits
from fbnetv3_zoo.utils.onnx_io import entries_of

Floats = npt.NDArray[np.float32]
PREPROCESS = Preprocess(40, 32, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
PHOTOS = tuple(Image.fromarray(getattr(skimage.data, name)()) for name in ("astronaut", "coffee", "chelsea", "rocket"))


def _session(model: Path | onnx.ModelProto) -> Callable[[Image.Image], Floats]:
    """What a file of :func:`take_images` answers to an image."""
    data = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def answer(image: Image.Image) -> Floats:
        pixels = np.asarray(image.convert("L" if given.shape[2] == 1 else "RGB"))
        found: Floats = session.run(None, {given.name: pixels.reshape(*pixels.shape[:2], -1)})[0]
        return found

    return answer


def _prepared(preprocess: Preprocess) -> Callable[[Image.Image], npt.NDArray[np.float64]]:
    """The levels, 0 to 255, that a graph of nothing but ``preprocess`` hands on: shape (channels, side, side)."""
    side, channels = preprocess.resolution, len(preprocess.mean)
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", channels, side, side])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", channels * side * side])
    graph = helper.make_graph([helper.make_node("Flatten", ["images"], ["logits"])], "flat", [images], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    take_images(model, preprocess)
    onnx.checker.check_model(model, full_check=True)
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    softmax.op_type = "Identity"
    del softmax.attribute[:]
    answer = _session(model)
    mean, std = (np.array(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    return lambda image: (answer(image).reshape(channels, side, side) * std + mean) * 255


def _levels(preprocess: Preprocess, image: Image.Image) -> npt.NDArray[np.float64]:
    pixels = np.asarray(preprocess.crop(image), np.float64)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@pytest.fixture(scope="module")
def model() -> FBNet:
    network = settled(SHORT)
    network.preprocess = PREPROCESS
    with torch.no_grad():
        network.classifier.weight *= 4  # so that it is sure of what it sees
    return network


@pytest.fixture(scope="module")
def inside(model: FBNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network with its preprocessing inside."""
    report = export_onnx(model, tmp_path_factory.mktemp("inside") / "net.onnx", preprocessing=True)
    assert report.inputs == {"image": ("height", "width", 3)}
    assert report.outputs == {"probabilities": (10,)}
    assert list(report.differences) == [1, 2, 7, 32]
    assert report.max_difference < 1e-4
    assert 0.5 < report.scale <= 1
    return report.path


def _expected(model: FBNet, image: Image.Image) -> Floats:
    with torch.inference_mode():
        found: Floats = model(model.preprocess([image])).softmax(1)[0].numpy()
    return found


@pytest.mark.parametrize("size", [(40, 40), (40, 73), (91, 40), (40, 41), (41, 40), (32, 32)])
def test_images_that_are_not_resampled(size: tuple[int, int], model: FBNet, inside: Path) -> None:
    """Odd and even surpluses are cropped as Pillow's are; (32, 32) is enlarged and therefore only near."""
    image = PHOTOS[0].crop((100, 50, 100 + size[0], 50 + size[1]))
    found = _session(inside)(image)
    assert found.dtype == np.float32
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, _expected(model, image), rtol=0, atol=1e-4 if 40 in size else 0.1)


def test_photographs_of_any_size_get_the_same_class(model: FBNet, inside: Path) -> None:
    images = [*PHOTOS, *photographs(40, seed=3)]
    found, expected = (
        np.stack([answer(image) for image in images]) for answer in (_session(inside), lambda i: _expected(model, i))
    )
    sure = np.sort(expected, 1)[:, -1] - np.sort(expected, 1)[:, -2] > 0.1
    assert sure.sum() > 20
    assert (found.argmax(1) == expected.argmax(1))[sure].all()
    assert np.abs(found - expected).max() < 0.1


def test_a_network_that_knows_its_images(tiny_arch: Arch, tmp_path: Path) -> None:
    """Gray digits, of the network's size and thrice that: as many right as in Python."""
    network = fitted(tiny_arch)
    path = export_onnx(network, tmp_path / "digits.onnx", preprocessing=True, batch_sizes=[2]).path
    answer, examples = _session(path), digits()["test"][::4]
    assert next(iter(onnx.load(path).graph.input)).type.tensor_type.shape.dim[2].dim_value == 1
    for factor in (1, 3):
        shown = [
            (image := example.read()).resize((image.width * factor, image.height * factor)) for example in examples
        ]
        found, expected = (np.stack([a(image) for image in shown]) for a in (answer, lambda i: _expected(network, i)))
        assert (found.argmax(1) == expected.argmax(1)).mean() > 0.98
        right = (expected.argmax(1) == [example.label for example in examples]).mean()
        assert right > (0.8 if factor == 1 else 0.6)  # it has not seen smooth digits


@pytest.mark.parametrize("interpolation", Interpolation)
@pytest.mark.parametrize("channels", [1, 3])
def test_levels(interpolation: Interpolation, channels: int) -> None:
    """Within one gray level of Pillow's, and equal in 98 pixels of 100; the nearest pixel is the same one."""
    preprocess = replace(PREPROCESS.for_channels(channels), interpolation=interpolation, resize=72, resolution=64)
    prepared = _prepared(preprocess)
    for photo in (PHOTOS[0].crop((0, 0, 397, 509)), PHOTOS[1].crop((0, 0, 389, 383)), PHOTOS[2].resize((53, 61))):
        image = photo.convert("L") if channels == 1 else photo  # prime sides: no pixel's middle falls on an edge
        difference = np.abs(prepared(image) - _levels(preprocess, image))
        assert difference.max() < (0.01 if interpolation is Interpolation.NEAREST else 1.01)
        assert (difference < 0.01).mean() > 0.98


def test_the_file_describes_itself(model: FBNet, inside: Path) -> None:
    graph = onnx.load(inside)
    assert Description.from_metadata(entries_of(graph)) == model.description
    assert entries_of(graph)["made_by"].endswith("; opset 18, channels in multiples of 16, preprocessing inside")
    assert [node.op_type for node in graph.graph.node][-2:] == ["Softmax", "Squeeze"]


def test_another_resolution_and_opset(model: FBNet, tmp_path: Path) -> None:
    path = export_onnx(
        model, tmp_path / "net.onnx", preprocessing=True, resolution=48, opset=21, batch_sizes=[1], any_size=True
    ).path
    image = PHOTOS[1].crop((0, 0, 60, 99))
    larger = replace(model.preprocess, resize=60, resolution=48)
    with torch.inference_mode():
        expected = model(larger([image])).softmax(1)[0].numpy()
    np.testing.assert_allclose(_session(path)(image), expected, rtol=0, atol=1e-4)
    assert Description.from_metadata(entries_of(onnx.load(path))) == replace(model.description, preprocess=larger)


def test_other_than_images(tmp_path: Path) -> None:
    network = FBNet(replace(SHORT, in_channels=2))
    with pytest.raises(ZooError) as caught:
        export_onnx(network, tmp_path / "net.onnx", preprocessing=True)
    assert str(caught.value).startswith("preprocessing in the graph needs 1 or 3 channels, but this network has 2; ")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def any_size(model: FBNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    report = export_onnx(model, tmp_path_factory.mktemp("any") / "net.onnx", any_size=True)
    assert report.inputs == {"images": ("batch", 3, "height", "width")}
    assert report.outputs == {"logits": ("batch", 10)}
    return report.path


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 32, 77), (7, 50, 33), (32, 40, 40), (1, 16, 16), (1, 225, 319)])
def test_images_of_any_height_and_width(shape: tuple[int, int, int], model: FBNet, any_size: Path) -> None:
    batch, height, width = shape
    images = np.random.default_rng(batch).standard_normal((batch, 3, height, width), np.float32)
    session = onnxruntime.InferenceSession(any_size, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    (found,) = session.run(None, {"images": images})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_file_for_any_size_classifies(model: FBNet, any_size: Path) -> None:
    classifier = Classifier.open(any_size)
    assert classifier.description == model.description
    names = [answers[0].name for answers in classifier(PHOTOS)]
    assert names == [answers[0].name for answers in Classifier.of(model)(PHOTOS)]
    assert not {"Shape", "Gather"} & {node.op_type for node in onnx.load(any_size).graph.node}


@pytest.mark.parametrize("batch", [1, 2, 7, 32])
def test_plain_files_take_any_batch(batch: int, model: FBNet, any_size: Path) -> None:
    images = np.stack([PREPROCESS.array(photo) for photo in photographs(batch)])
    np.testing.assert_allclose(
        Classifier.open(any_size).logits(images), Classifier.of(model).logits(images), rtol=0, atol=1e-3
    )
