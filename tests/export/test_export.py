"""ONNX files: on ONNX Runtime, without PyTorch, they answer as the network does."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import skimage.data
import torch
from networks import SHORT
from PIL import Image
from torch import nn

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export import ExportReport, export_onnx
from fbnetv3_zoo.export.onnx import export as to_onnx
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.blocks import Hardswish, InvertedResidualBlock, SqueezeExcitation
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess, stack
from fbnetv3_zoo.utils.onnx_io import entries_of
from fbnetv3_zoo.weights.serialization import load, save
from fbnetv3_zoo.zoo import ARCHS

NAMES = ("zero", "één", "две", "三", "four", "five", "six", "seven", "eight", "nine")
PHOTOS = tuple(
    Image.fromarray(getattr(skimage.data, name)())
    for name in ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry", "retina")
)


class Exported(NamedTuple):
    """A network in evaluation mode, and what exporting it said. The file is only read."""

    model: FBNet
    report: ExportReport


def trained_like(arch: Arch) -> FBNet:
    """A network that has seen photographs and noise, no norm of which is neutral, with logits of about 1."""
    generator = torch.Generator().manual_seed(0)
    model = create(arch, num_classes=10, drop_rate=0.3, drop_path_rate=0.3, generator=generator)
    model.preprocess, model.class_names = Preprocess(40, 32, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)), NAMES
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.normal_(norm.bias, std=0.1, generator=generator)
        norm.momentum = None  # the plain average over all batches
    for block in (module for module in model.modules() if isinstance(module, InvertedResidualBlock)):
        if block.has_residual:  # small, as training makes them: else rounding errors grow from block to block
            nn.init.uniform_(block.project.norm.weight, 0.1, 0.3, generator=generator)
    noise = torch.randn(64, 3, 32, 32, generator=generator)
    images = torch.cat([torch.from_numpy(stack(model.preprocess, _crops(64))), noise])
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for batch in images[torch.randperm(128, generator=generator)].split(32):
            model(batch)
        model.classifier.weight /= model.eval()(images).std()
    return model


def _crops(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(count)
    corners = rng.integers(0, 100, (count, 2))
    return [PHOTOS[n % 7].crop((x, y, x + 200, y + 160)) for n, (x, y) in enumerate(corners.tolist())]


@pytest.fixture(scope="module", params=["tiny", pytest.param("fbnetv3_a_small", marks=pytest.mark.long)])
def exported(request: pytest.FixtureRequest, tiny_arch: Arch, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    arch = tiny_arch if request.param == "tiny" else ARCHS["fbnetv3_a"].for_small_images()
    model = trained_like(arch)
    return Exported(model, export_onnx(model, tmp_path_factory.mktemp("exported") / f"{arch.name}.onnx"))


@pytest.fixture(scope="module")
def short() -> FBNet:
    return trained_like(SHORT)


def _refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(ZooError) as caught:
        export_onnx(*arguments, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_the_report(exported: Exported) -> None:
    report = exported.report
    assert report.path.name == f"{exported.model.arch.name}.onnx"
    assert report.opset == 18
    assert report.inputs == {"images": ("batch", 3, 32, 32)}
    assert report.outputs == {"logits": ("batch", 10)}
    assert list(report.differences) == [1, 2, 7, 32]
    assert report.max_difference == max(report.differences.values())
    assert 0 < report.max_difference < 1e-4 * report.scale
    assert 0.5 < report.scale < 20
    weights = sum(p.numel() for p in exported.model.parameters()) * 4
    assert weights < report.file_size == report.path.stat().st_size
    assert [file.name for file in report.path.parent.iterdir()] == [report.path.name]  # no weights beside it


@pytest.mark.parametrize("batch", [1, 2, 7, 32])
def test_photographs_get_the_same_logits(batch: int, exported: Exported) -> None:
    session = onnxruntime.InferenceSession(exported.report.path, providers=["CPUExecutionProvider"])
    images = stack(exported.model.preprocess, PHOTOS if batch == 7 else _crops(batch))
    (logits,) = session.run(["logits"], {"images": images})
    with torch.inference_mode():
        expected = exported.model(torch.from_numpy(images)).numpy()
    assert logits.dtype == np.float32
    assert expected.std() > 0.2
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_the_file_describes_itself(exported: Exported) -> None:
    entries = {entry.key: entry.value for entry in onnx.load(exported.report.path).metadata_props}
    assert Description.from_metadata(entries) == exported.model.description
    assert tuple(json.loads(entries["class_names"])) == NAMES
    sides = {"resize": 40, "resolution": 32, "interpolation": "bilinear"}  # the default, too: others do not know it
    expected = {**sides, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    assert json.loads(entries["preprocess"]) == expected
    assert (entries["format"], entries["format_version"]) == ("fbnetv3_zoo", "1")


def test_where_weights_come_from_travels(short: FBNet, tmp_path: Path) -> None:
    """From the network into its weight file, out of that, into the ONNX file; with a digest and how it was made."""
    model = copy.deepcopy(short)
    model.weights, model.license = "fbnetv3_a.fb_in1k", "CC-BY-NC-4.0"
    save(model, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert (loaded.weights, loaded.license) == ("fbnetv3_a.fb_in1k", "CC-BY-NC-4.0")
    entries = entries_of(onnx.load(export_onnx(loaded, tmp_path / "net.onnx", batch_sizes=[1]).path))
    assert (entries["weights"], entries["licence"]) == ("fbnetv3_a.fb_in1k", "CC-BY-NC-4.0")
    assert Description.from_metadata(entries) == model.description
    assert entries["weights_sha256"] == to_onnx.weights_digest(model) == to_onnx.weights_digest(short)
    assert len(entries["weights_sha256"]) == 64
    made_by = r"fbnetv3-zoo \S+, torch \S+, onnx \S+; opset 18, channels in multiples of 16"
    assert re.fullmatch(made_by, entries["made_by"])
    with torch.no_grad():
        model.classifier.bias[0] += 1
    assert to_onnx.weights_digest(model) != entries["weights_sha256"]
    assert not {"weights", "licence"} & short.description.to_metadata().keys()


def test_a_file_may_be_off_as_far_as_float32_itself(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a network loses more than the tolerance by its own rounding, its file may lose twice as much."""
    _write_file_of(exported.report.path, monkeypatch)
    monkeypatch.setattr(to_onnx, "TOLERANCE", 0)
    form = to_onnx._Form(18, exported.model.preprocess, False, False, 16)
    assert 0 < to_onnx._own_rounding(exported.model, form, [7]) < 1e-4 * exported.report.scale
    difference = exported.report.max_difference
    monkeypatch.setattr(to_onnx, "_own_rounding", lambda model, form, sizes: difference / 1.9)
    assert export_onnx(exported.model, tmp_path / "net.onnx").path.exists()
    monkeypatch.setattr(to_onnx, "_own_rounding", lambda model, form, sizes: difference / 2.1)
    assert _refusal(exported.model, tmp_path / "other.onnx").endswith("; nothing was written")


def test_the_graph_is_what_runtimes_like(exported: Exported) -> None:
    nodes = [node.op_type for node in onnx.load(exported.report.path).graph.node]
    kinds = [type(module) for module in exported.model.modules()]
    assert nodes.count("HardSwish") == kinds.count(Hardswish) > 0
    assert nodes.count("HardSigmoid") == kinds.count(SqueezeExcitation) > 0
    assert nodes.count("Conv") == sum(isinstance(module, nn.Conv2d) for module in exported.model.modules())
    assert not {"BatchNormalization", "Dropout", "RandomUniform", "Identity"} & set(nodes)


def test_it_answers_as_the_weight_file_does(exported: Exported, tmp_path: Path) -> None:
    save(exported.model, tmp_path / "model.safetensors")
    on_torch, on_onnx = Classifier.open(tmp_path / "model.safetensors"), Classifier.open(exported.report.path)
    assert on_onnx.description == on_torch.description
    answers = on_torch(PHOTOS, top=10)
    for one, other in zip(answers, on_onnx(PHOTOS, top=10), strict=True):
        assert [p.name for p in other] == [p.name for p in one]
        assert [p.probability for p in other] == pytest.approx([p.probability for p in one], abs=1e-4)
    assert len({answer[0].name for answer in answers}) > 1


def test_another_opset_and_resolution(short: FBNet, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = export_onnx(short, tmp_path / "deep" / "down" / "net.onnx", opset=23, resolution=48, batch_sizes=[3])
    assert capfd.readouterr() == ("", "")
    assert (report.opset, list(report.differences)) == (23, [3])
    assert report.inputs == {"images": ("batch", 3, 48, 48)}
    versions = {entry.domain: entry.version for entry in onnx.load(report.path).opset_import}
    assert versions[""] == 23
    classifier = Classifier.open(report.path)  # which prepares images of the size that the file takes
    assert classifier.description.preprocess == Preprocess(60, 48, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    images = torch.from_numpy(stack(classifier.description.preprocess, PHOTOS))
    with torch.inference_mode():
        expected = short(images).numpy()
    np.testing.assert_allclose(classifier.logits(images.numpy()), expected, rtol=0, atol=1e-4)


def _write_file_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting then writes a copy of ``path``, at once."""
    monkeypatch.setattr(to_onnx, "_write", lambda model, target, form: shutil.copy(path, target))


def _accept_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_onnx, "TOLERANCE", -1)
    monkeypatch.setattr(to_onnx, "_own_rounding", lambda model, form, sizes: -1.0)


def test_training_state_is_left_as_it_was(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_file_of(exported.report.path, monkeypatch)
    model = exported.model
    try:
        model.train()
        model.stages[0].eval()  # a frozen stem
        before = {name: module.training for name, module in model.named_modules()}
        export_onnx(model, tmp_path / "net.onnx")
        assert {name: module.training for name, module in model.named_modules()} == before
        _accept_nothing(monkeypatch)
        _refusal(model, tmp_path / "net.onnx")
        assert {name: module.training for name, module in model.named_modules()} == before
    finally:
        model.eval()


@pytest.mark.parametrize("older", [None, b"an older file"])
def test_a_file_that_differs_is_not_kept(
    older: bytes | None, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_file_of(exported.report.path, monkeypatch)
    _accept_nothing(monkeypatch)
    path = tmp_path / "net.onnx"
    if older is not None:
        path.write_bytes(older)
    difference, scale = exported.report.max_difference, exported.report.scale
    assert _refusal(exported.model, path) == (
        f"{path}: ONNX Runtime differs from PyTorch by {difference:.2g} at logits up to {scale:.2g}; "
        "nothing was written"
    )
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == ({"net.onnx": older} if older else {})


def test_a_small_difference_is_found(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a network whose classifier was 0.1 % off is not accepted."""
    _write_file_of(exported.report.path, monkeypatch)
    weight = exported.model.classifier.weight
    with torch.no_grad():
        weight *= 1.001
        try:
            told = _refusal(exported.model, tmp_path / "net.onnx")
        finally:
            weight /= 1.001
    assert told.startswith(f"{tmp_path}/net.onnx: ONNX Runtime differs from PyTorch by ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("net.pt", {}, "{path}: ONNX files end in .onnx; change the extension"),
        ("net", {}, "{path}: ONNX files end in .onnx; change the extension"),
        ("net.onnx", {"opset": 17}, "opset is 17; choose from 18 to 23"),
        ("net.onnx", {"opset": 24}, "opset is 24; choose from 18 to 23"),
        ("net.onnx", {"align": 0}, "align is 0; it must be a whole number of at least 1"),
        ("net.onnx", {"resolution": 0}, "resolution is 0; it must be a whole number of at least 1"),
        ("net.onnx", {"resolution": 32.0}, "resolution is 32.0; it must be a whole number of at least 1"),
        ("net.onnx", {"batch_sizes": ()}, "batch_sizes is empty; give at least one batch size to compare"),
        ("net.onnx", {"batch_sizes": (1, 0)}, "batch_sizes is 0; it must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be_exported(
    name: str, options: dict[str, object], complaint: str, short: FBNet, tmp_path: Path
) -> None:
    assert _refusal(short, tmp_path / name, **options) == complaint.format(path=tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_number_formats_are_refused(dtype: torch.dtype, tiny_arch: Arch, tmp_path: Path) -> None:
    expected = f"the network's weights are {dtype}; export needs torch.float32, call model.float() first"
    assert _refusal(FBNet(tiny_arch).to(dtype), tmp_path / "net.onnx") == expected


def test_a_folder_in_the_way(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_file_of(exported.report.path, monkeypatch)
    (tmp_path / "net.onnx").mkdir()
    expected = f"{tmp_path}/net.onnx: cannot be written (Is a directory)"
    assert _refusal(exported.model, tmp_path / "net.onnx") == expected
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
