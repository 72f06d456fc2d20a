"""Detectors as ONNX files: on ONNX Runtime they find what they find on PyTorch, in images of any size."""

from __future__ import annotations

import copy
import json
import re
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import shapes
import torch
import torch.nn.functional as F
from refusals import refusal
from torch import Tensor, nn
from torch.export import Dim
from torchvision.models.detection import FasterRCNN
from torchvision.ops import batched_nms

from fbnetv3_zoo.arch import Activation, Arch, Conv, InvertedResidual, PoolingHead, SqueezeExcite
from fbnetv3_zoo.detection import RCNNSettings, mask_rcnn_fpn
from fbnetv3_zoo.detection.models.modules import freeze_norms
from fbnetv3_zoo.detection.models.serialization import DetectorKind, DetectorSpec, load_detector, save_detector
from fbnetv3_zoo.detection.onnx import export as to_onnx
from fbnetv3_zoo.detection.onnx import parity
from fbnetv3_zoo.detection.onnx.export import DetectorExportReport, PartReport, export_detector, export_parts
from fbnetv3_zoo.detection.onnx.traceable import TRANSLATIONS, _Candidates
from fbnetv3_zoo.detection.training.evaluate import Detections
from fbnetv3_zoo.models.blocks import InvertedResidualBlock
from fbnetv3_zoo.utils.serialization import from_json

NAMES = ("disc", "square", "drie hoeken △")
SMALL = RCNNSettings(min_size=96, max_size=160, anchor_sizes=(16, 32), proposals=30, score_threshold=0.2)
PUBLISHED = RCNNSettings(
    min_size=96, max_size=160, anchor_sizes=(16, 24, 32, 48, 64), proposals=50, score_threshold=0.1
)
BOXES = torch.tensor([[0.0, 0.0, 30.0, 20.0], [20.5, 11.0, 90.0, 80.0], [4.0, 4.0, 150.0, 95.0]])
SIZES = ((20, 30), (33, 200), (700, 520), (173, 255))  # scaled in single precision, the last would gain a pixel


class Exported(NamedTuple):
    """A detector in evaluation mode, and what exporting it said. The file is only read."""

    model: FasterRCNN
    spec: DetectorSpec
    report: DetectorExportReport


def narrow() -> Arch:
    """Strides 2 to 32, one block each, of which one has all that a block can have."""
    swish, relu = Activation.HARD_SWISH, Activation.RELU
    rich = InvertedResidual(5, 32, 2, 1, 2, swish, SqueezeExcite(reduces="input"))
    plain = [InvertedResidual(3, width, 2, 1, 2, relu) for width in (16, 24, 48)]
    stages = [(block,) for block in (Conv(3, 16, 2, relu), *plain[:2], rich, plain[2], PoolingHead(64, 2, relu))]
    return Arch("narrow", 64, tuple(stages), num_classes=5)


def crops(number: int, *, seed: int) -> list[Tensor]:
    """Crops of photographs, of 50 to 240 pixels a side."""
    rng, photos = np.random.default_rng(seed), shapes.photographs()
    found = []
    for index in range(number):
        photo, (height, width) = photos[index % len(photos)], rng.integers(50, 241, 2)
        top, left = rng.integers(0, photo.shape[0] - height), rng.integers(0, photo.shape[1] - width)
        pixels = torch.from_numpy(photo[top : top + height, left : left + width].copy())
        found.append(pixels.permute(2, 0, 1).float() / 255)
    return found


def trained_like(spec: DetectorSpec) -> FasterRCNN:
    """A detector that has seen photographs: no norm is neutral, and logits and deltas are spread as by training."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = spec.build().eval()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.normal_(norm.bias, std=0.1, generator=generator)
        norm.momentum = None  # the plain average over all batches
        norm.train()
    for block in (module for module in model.modules() if isinstance(module, InvertedResidualBlock)):
        if block.has_residual:  # small, as training makes them: else rounding errors grow from block to block
            nn.init.uniform_(block.project.norm.weight, 0.1, 0.3, generator=generator)
    images, layers = crops(3, seed=1), last_layers(model)
    with torch.no_grad():
        model(images)
        model.eval()
        for layer, reach in zip(layers, (6.0, 1.0, 6.0, 4.0), strict=True):
            scale(model, layer, reach, images)
    return model


def last_layers(model: FasterRCNN) -> list[nn.Module]:
    """Logits and deltas of the RPN, then of the box predictor."""
    heads = (model.rpn.head, model.roi_heads.box_predictor)
    return [layer for head in heads for layer in [*head.children()] if isinstance(layer, (nn.Conv2d, nn.Linear))]


def scale(model: FasterRCNN, layer: nn.Module, reach: float, images: list[Tensor]) -> None:
    """Give every output of ``layer`` the mean 0 and, over ``images``, the largest distance ``reach`` from it."""
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, y: seen.append(y.transpose(0, 1).flatten(1)))
    model(images)
    hook.remove()
    outputs = torch.cat(seen, 1)
    mean = outputs.mean(1, keepdim=True)
    factor = reach / (outputs - mean).abs().amax(1)
    layer.weight *= factor.reshape(-1, *[1] * (layer.weight.ndim - 1))
    layer.bias.copy_(-mean[:, 0] * factor)


def found_on_torch(model: FasterRCNN, image: Tensor) -> Detections:
    with torch.inference_mode():
        (found,) = model([image])
    return Detections(*(found[key].numpy() for key in ("boxes", "scores", "labels")))


def found_on_onnx(path: Path, images: list[Tensor]) -> list[Detections]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers = [session.run(None, {"image": image.numpy()}) for image in images]
    return [Detections(boxes, scores, labels) for boxes, labels, scores in answers]


SPECS = {
    "c4": DetectorSpec(
        NAMES, arch=narrow(), settings=SMALL, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), weights="facebook/tiny_in1k",
        license="CC-BY-NC-4.0",
    ),
    "fpn": DetectorSpec(NAMES, arch=narrow(), kind=DetectorKind.FPN, settings=SMALL),
    "published": DetectorSpec((*NAMES, "star"), published="fbnetv3_a_detector", settings=PUBLISHED),
}  # fmt: skip


@pytest.fixture(scope="module")
def exported_as(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Exports one of ``SPECS``, once."""

    @cache
    def export(name: str) -> Exported:
        spec, path = SPECS[name], tmp_path_factory.mktemp("exported") / f"{name}.onnx"
        model = trained_like(spec)
        return Exported(model, spec, export_detector(model, spec, path, images=crops(20, seed=2)))

    return export


@pytest.fixture(params=["c4", *(pytest.param(name, marks=pytest.mark.long) for name in ("fpn", "published"))])
def exported(request: pytest.FixtureRequest, exported_as: Callable[[str], Exported]) -> Exported:
    return exported_as(request.param)


@pytest.fixture
def c4(exported_as: Callable[[str], Exported]) -> Exported:
    return exported_as("c4")


def test_the_report(exported: Exported) -> None:
    report = exported.report
    assert report.images == 20
    assert min(report.detections) >= 3
    assert report.borderline <= 2
    assert 0 < report.box_difference < 0.1
    assert 0 < report.score_difference < 1e-3
    weights = sum(parameter.numel() for parameter in exported.model.parameters()) * 4
    assert 0.95 * weights < report.file_size == report.path.stat().st_size
    assert [file.name for file in report.path.parent.iterdir()] == [report.path.name]  # no weights beside it


def test_other_images_have_the_same_detections(exported: Exported) -> None:
    """Images of 20 to 700 pixels, that the export has not seen."""
    resized = [F.interpolate(image[None], size)[0] for image, size in zip(crops(4, seed=4), SIZES, strict=True)]
    images = [*crops(6, seed=3), *resized]
    assert len({image.shape for image in images}) == 10
    for image, found in zip(images, found_on_onnx(exported.report.path, images), strict=True):
        expected = found_on_torch(exported.model, image)
        assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
        assert (np.diff(found.scores) <= 0).all()
        check_contained(expected, found)
        check_contained(found, expected)


def check_contained(one: Detections, other: Detections) -> None:
    """Every detection of ``one``, the last in score apart, is one of ``other`` too; there are three and more."""
    clear = one.scores > max(one.scores.min(), other.scores.min()) + 1e-3
    assert clear.sum() >= 3
    for box, label, score in zip(one.boxes[clear], one.labels[clear], one.scores[clear], strict=True):
        near = (np.abs(other.boxes - box).max(1) < 0.1) & (np.abs(other.scores - score) < 1e-3)
        assert label in other.labels[near]


def test_names_and_free_sizes(exported: Exported) -> None:
    graph = onnx.load(exported.report.path).graph
    assert {value.name: axes(value) for value in graph.input} == {"image": [3, "height", "width"]}
    assert {value.name: axes(value) for value in graph.output} == {
        "boxes": ["detections", 4],
        "labels": ["detections"],
        "scores": ["detections"],
    }


def axes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_the_file_describes_itself(exported: Exported) -> None:
    entries = {entry.key: entry.value for entry in onnx.load(exported.report.path).metadata_props}
    assert entries["format"] == "fbnetv3_zoo.detector"
    assert from_json(DetectorSpec, entries["detector"]) == exported.spec
    assert tuple(json.loads(entries["class_names"])) == exported.spec.class_names
    assert json.loads(entries["mean"]) == exported.model.transform.image_mean
    assert json.loads(entries["std"]) == exported.model.transform.image_std
    assert (entries.get("weights"), entries.get("licence")) == (exported.spec.weights, exported.spec.license)


def test_the_graph_is_what_runtimes_like(exported: Exported) -> None:
    model = onnx.load(exported.report.path)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("NonMaxSuppression") == 2
    assert kinds.count("RoiAlign") == len(exported.model.roi_heads.box_roi_pool.featmap_names)
    assert kinds.count("Conv") >= sum(isinstance(module, nn.Conv2d) for module in exported.model.modules())
    assert not {"BatchNormalization", "Dropout", "Identity", "If", "Loop"} & set(kinds)
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 18)}


def test_an_image_in_which_nothing_is_found(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported.report.path)
    (threshold,) = (node.input[1] for node in model.graph.node if node.op_type == "Greater")
    (value,) = (one for one in model.graph.initializer if one.name == threshold)
    value.CopyFrom(onnx.numpy_helper.from_array(np.array(1.0, np.float32), threshold))
    onnx.save_model(model, tmp_path / "strict.onnx")
    (found,) = found_on_onnx(tmp_path / "strict.onnx", crops(1, seed=5))
    assert [part.shape for part in (found.boxes, found.scores, found.labels)] == [(0, 4), (0,), (0,)]


class Best(nn.Module):
    """The choice among boxes of 90 groups, as the graph of a whole detector makes it."""

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, ...]:
        return tuple(_Candidates(boxes, scores, groups).best(5000, groups=90, overlap=0.5))


def test_suppression_is_that_of_torchvision(tmp_path: Path) -> None:
    """To the box, whether there are few, which torchvision moves apart by group, or many, which it does not."""
    drawn, free = boxes_of_groups(50), {0: Dim("number")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Best(), drawn, dynamic_shapes=(free, free, free), strict=False)
        torch.onnx.export(
            program, f=tmp_path / "best.onnx", input_names=["boxes", "scores", "groups"], opset_version=18,
            custom_translation_table=TRANSLATIONS, verbose=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(tmp_path / "best.onnx", providers=["CPUExecutionProvider"])
    for number in (0, 1, 2, 1000, 1001, 10000):
        drawn = boxes_of_groups(number)
        found = session.run(None, dict(zip(("boxes", "scores", "groups"), (x.numpy() for x in drawn), strict=True)))
        kept = batched_nms(*drawn, 0.5)[:5000]
        for one, other in zip(found, drawn, strict=True):
            np.testing.assert_array_equal(one, other[kept].numpy())


def boxes_of_groups(number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of boxes, each in one group, with an overlap so near to a half that rounding decides; their scores."""
    generator = torch.Generator().manual_seed(number)
    pairs = -(-number // 2)
    corners, sides = torch.rand(pairs, 2, generator=generator) * 1000, torch.rand(pairs, 2, generator=generator) * 300
    halves = sides * torch.tensor([0.5, 1.0]) * (1 + 2e-5 * torch.randn(pairs, 1, generator=generator))
    boxes = torch.cat([torch.cat([corners, corners + sides], 1), torch.cat([corners, corners + halves], 1)])
    groups = torch.randint(90, (pairs,), generator=generator).repeat(2)
    return boxes[:number], torch.rand(number, generator=generator), groups[:number]


def test_norms_become_part_of_convolutions(c4: Exported) -> None:
    fixed = copy.deepcopy(c4.model.backbone)
    freeze_norms(fixed)
    image = crops(1, seed=6)[0][None]
    with torch.inference_mode():
        expected = c4.model.backbone(image)["stride16"]
        for trunk in (c4.model.backbone, fixed):
            folded = to_onnx._folded(trunk)
            assert not [name for name, _ in folded.named_modules() if name.endswith("norm")]
            torch.testing.assert_close(folded(image)["stride16"], expected, rtol=1e-4, atol=1e-4)


def copied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting then writes a copy of ``path``, at once."""
    monkeypatch.setattr(to_onnx, "_write", lambda graph, target, metadata: shutil.copy(path, target))


def test_a_loaded_detector_is_exported_like_the_one_saved(
    c4: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(c4.report.path, monkeypatch)
    save_detector(c4.model, c4.spec, tmp_path / "model.safetensors")
    loaded = load_detector(tmp_path / "model.safetensors")
    report = export_detector(*loaded, tmp_path / "deep" / "down" / "net.onnx", images=crops(20, seed=2))
    assert report.detections == c4.report.detections
    assert report.path.exists()


def test_the_detector_is_left_as_it_was(c4: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied(c4.report.path, monkeypatch)
    model = copy.deepcopy(c4.model).train()
    model.backbone.trunk.stages[0].eval()
    training = {name: module.training for name, module in model.named_modules()}
    export_detector(model, c4.spec, tmp_path / "net.onnx", images=crops(2, seed=2))
    assert {name: module.training for name, module in model.named_modules()} == training
    assert model.roi_heads.box_roi_pool.scales == c4.model.roi_heads.box_roi_pool.scales
    for name, tensor in c4.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=0, atol=0)


def test_strides_do_not_depend_on_the_first_image(
    c4: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A map of 2 rows for 21 pixels, padded to 32, is taken by torchvision for one of stride 8, for ever."""
    copied(c4.report.path, monkeypatch)
    model = copy.deepcopy(c4.model)
    pool = model.roi_heads.box_roi_pool
    pool.scales = None
    found_on_torch(model, torch.rand(3, 40, 300))
    assert pool.scales == [1 / 8]
    report = export_detector(model, c4.spec, tmp_path / "net.onnx", images=crops(20, seed=2))
    assert report.detections == c4.report.detections
    assert pool.scales == [1 / 8]


@pytest.mark.parametrize("older", [None, b"an older file"])
def test_a_file_that_differs_is_not_kept(
    older: bytes | None, c4: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of a detector whose boxes are a little off is not accepted."""
    copied(c4.report.path, monkeypatch)
    model, path = copy.deepcopy(c4.model), tmp_path / "net.onnx"
    with torch.no_grad():
        model.roi_heads.box_predictor.deltas.bias += 0.2
    if older is not None:
        path.write_bytes(older)
    told = refusal(lambda: export_detector(model, c4.spec, path, images=crops(3, seed=2)))
    assert re.fullmatch(
        rf"{path}: ONNX Runtime differs from PyTorch in images\[0\]: \d+ detections match, \d+ have no match "
        r"within 0\.1 pixels and 0\.001; nothing was written",
        told,
    )
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == ({"net.onnx": older} if older else {})


def test_nothing_found_is_no_evidence(c4: Exported, tmp_path: Path) -> None:
    model = copy.deepcopy(c4.model)
    model.roi_heads.score_thresh = 1.0
    assert refusal(lambda: export_detector(model, c4.spec, tmp_path / "net.onnx", images=crops(2, seed=2))) == (
        f"{tmp_path}/net.onnx: the detector finds nothing in the 2 images, so there is nothing to compare; give "
        "images with objects of its classes, or lower its score_threshold"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_verge_of_the_threshold_is_no_evidence(
    c4: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(c4.report.path, monkeypatch)
    one, nothing = detections((0, 1, 0.2005)), detections()
    monkeypatch.setattr(to_onnx, "on_torch", lambda detector, image: one)
    monkeypatch.setattr(to_onnx, "on_onnx", lambda path, images: [nothing])
    assert refusal(lambda: export_detector(c4.model, c4.spec, tmp_path / "net.onnx", images=crops(1, seed=2))) == (
        f"{tmp_path}/net.onnx: every score is too close to the score_threshold; give images with clear objects"
    )


def detections(*found: tuple[float, int, float]) -> Detections:
    """Of each (left, label, score), a box 10 pixels wide."""
    boxes = [[left, 0, left + 10, 10] for left, _, _ in found]
    labels, scores = [label for _, label, _ in found], [score for _, _, score in found]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    )


@pytest.mark.parametrize(
    ("one", "other", "agree", "borderline", "lost"),
    [
        ([], [], 0, 0, 0),
        ([(0, 1, 0.9)], [(0.09, 1, 0.9009)], 1, 0, 0),
        ([(0, 1, 0.9)], [(0.11, 1, 0.9)], 0, 0, 2),
        ([(0, 1, 0.9)], [(0, 1, 0.9011)], 0, 0, 2),
        ([(0, 1, 0.9)], [(0, 2, 0.9)], 0, 0, 2),
        ([(0, 1, 0.9)], [], 0, 0, 1),
        ([(0, 1, 0.9)], [(0, 1, 0.9), (0, 1, 0.9)], 1, 0, 1),
        ([(0, 1, 0.9), (5, 1, 0.8999)], [(5, 1, 0.9), (0, 1, 0.8999)], 2, 0, 0),
        ([(0, 1, 0.9), (0.08, 1, 0.9)], [(0.16, 1, 0.9), (0.08, 1, 0.9)], 2, 0, 0),
        ([(0, 1, 0.9), (5, 1, 0.2009)], [(0, 1, 0.9)], 1, 1, 0),
        ([(0, 1, 0.9), (5, 1, 0.2011)], [(0, 1, 0.9)], 1, 0, 1),
        ([(0, 1, 0.9), (5, 1, 0.7), (9, 1, 0.4)], [(0, 1, 0.9), (5, 1, 0.7), (9, 2, 0.4)], 2, 2, 0),
        ([(0, 1, 0.9), (5, 1, 0.7), (9, 1, 0.4)], [(0, 1, 0.9), (5, 1, 0.7), (9, 2, 0.402)], 2, 1, 1),
    ],
)
def test_detections_are_matched(
    one: list[tuple[float, int, float]], other: list[tuple[float, int, float]], agree: int, borderline: int, lost: int
) -> None:
    """With a threshold of 0.2 and three detections an image at most."""
    heads = SimpleNamespace(score_thresh=0.2, detections_per_img=3)
    for pair in ((one, other), (other, one)):
        found = parity._agreement(detections(*pair[0]), detections(*pair[1]), heads)
        assert (len(found.boxes), found.borderline, found.unmatched) == (agree, borderline, lost)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"path": "net.pt"}, "net.pt: ONNX files end in .onnx; change the extension"),
        ({"images": []}, "images is empty; give images with objects of the detector's classes"),
        ({"images": [np.zeros((3, 9, 9))]}, "images[0] is a ndarray; give tensors"),
        (
            {"images": [torch.zeros(3, 64, 64), torch.zeros(1, 64, 64)]},
            "images[1] has shape (1, 64, 64) and torch.float32; give RGB in [0, 1] as (3, height, width) and "
            "torch.float32",
        ),
        (
            {"images": [torch.zeros(3, 64, 64, dtype=torch.uint8)]},
            "images[0] has shape (3, 64, 64) and torch.uint8; give RGB in [0, 1] as (3, height, width) and "
            "torch.float32",
        ),
        ({"images": [torch.zeros(3, 161, 1)]}, "images[0] has 161 x 1 pixels; scaled to 160, nothing is left of it"),
        ({"spec": SPECS["published"]}, "spec has 4 class names, but the detector has 3 classes"),
        ({"model": nn.Linear(1, 1)}, "model is a Linear; give a FasterRCNN, as from load_detector()"),
    ],
)
def test_what_cannot_be_exported(change: dict[str, object], complaint: str, tmp_path: Path) -> None:
    given = {
        "model": SPECS["c4"].build(),
        "spec": SPECS["c4"],
        "path": "net.onnx",
        "images": crops(1, seed=2),
        **change,
    }
    given["path"] = path = tmp_path / str(given["path"])
    expected = complaint.replace("net.pt", str(path))
    assert refusal(lambda: export_detector(**given)) == expected  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_other_models_are_refused(tmp_path: Path) -> None:
    spec, images = SPECS["fpn"], crops(1, seed=2)
    masks, double = mask_rcnn_fpn(narrow(), num_classes=3), SPECS["c4"].build().double()
    assert refusal(lambda: export_detector(masks, spec, tmp_path / "net.onnx", images=images)) == (
        "model is a MaskRCNN; give a FasterRCNN, as from load_detector()"
    )
    assert refusal(lambda: export_parts(double, SPECS["c4"], tmp_path)) == (
        "the detector's weights are torch.float64; export needs torch.float32, call model.float() first"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way(c4: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied(c4.report.path, monkeypatch)
    (tmp_path / "net.onnx").mkdir()
    (tmp_path / "file").touch()
    for path, reason in (("net.onnx", "Is a directory"), ("file/net.onnx", "File exists")):
        told = refusal(lambda: export_detector(c4.model, c4.spec, tmp_path / path, images=crops(1, seed=2)))  # noqa: B023
        assert told == f"{tmp_path / path}: cannot be written ({reason})"


@pytest.mark.parametrize("name", [pytest.param("c4", marks=pytest.mark.long), "fpn"])
def test_parts(
    name: str, exported_as: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model, spec, _ = exported_as(name)
    capfd.readouterr()
    reports = export_parts(model, spec, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["box_head.onnx", "rpn_head.onnx", "trunk.onnx"]
    assert [(part, report.path.name) for part, report in reports.items()] == [
        (part, f"{part}.onnx") for part in ("trunk", "rpn_head", "box_head")
    ]
    assert 0 < max(report.difference for report in reports.values()) < 1e-4
    maps = {"c4": ("stride16",), "fpn": ("stride4", "stride8", "stride16", "stride32", "pool")}[name]
    assert (reports["trunk"].inputs, reports["trunk"].outputs) == (("images",), maps)
    assert (reports["rpn_head"].inputs, reports["box_head"].inputs) == (maps, ("regions",))
    assert reports["box_head"].outputs == ("logits", "deltas")
    check_pipeline(model, tmp_path, reports)
    check_that_all_or_none_are_kept(model, spec, tmp_path, monkeypatch)


def check_pipeline(model: FasterRCNN, folder: Path, reports: dict[str, PartReport]) -> None:
    """A batch of two images goes through the files as through the detector."""
    images, _ = model.transform(crops(2, seed=7))
    heads = model.roi_heads
    with torch.inference_mode():
        maps = model.backbone(images.tensors)
        logits, deltas = model.rpn.head([*maps.values()])
        regions = heads.box_roi_pool(maps, [BOXES, BOXES[:2]], images.image_sizes)
        answers = heads.box_predictor(heads.box_head(regions))
    assert len(regions) == 5
    compare(reports["trunk"], [images.tensors], [*maps.values()])
    compare(reports["rpn_head"], [*maps.values()], [*logits, *deltas])
    compare(reports["box_head"], [regions], [*answers])


def compare(report: PartReport, inputs: list[Tensor], expected: list[Tensor]) -> None:
    session = onnxruntime.InferenceSession(report.path, providers=["CPUExecutionProvider"])
    given = {name: tensor.numpy() for name, tensor in zip(report.inputs, inputs, strict=True)}
    for found, tensor in zip(session.run(report.outputs, given), expected, strict=True):
        assert tensor.std() > 0
        np.testing.assert_allclose(found, tensor.numpy(), rtol=0, atol=1e-4 * tensor.abs().max())
    entries = {entry.key: entry.value for entry in onnx.load(report.path).metadata_props}
    assert tuple(json.loads(entries["class_names"])) == NAMES


def check_that_all_or_none_are_kept(
    model: FasterRCNN, spec: DetectorSpec, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the last of the three differs, none is there."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.roi_heads.box_predictor.parameters():
            parameter *= 1.001
    monkeypatch.setattr(
        to_onnx,
        "_write",
        lambda graph, target, metadata: shutil.copy(folder / target.name, target),
    )
    told = refusal(lambda: export_parts(other, spec, folder / "new"))
    assert re.fullmatch(
        rf"{folder}/new/box_head\.onnx: ONNX Runtime differs from PyTorch by 0\.001 of the largest value of logits; "
        r"nothing was written",
        told,
    )
    assert list((folder / "new").iterdir()) == []
