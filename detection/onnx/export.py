"""Exports detectors to ONNX, whole or in parts, and compares ONNX Runtime with PyTorch before a file is written."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.detection import FasterRCNN, MaskRCNN

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.blocks import ConvNormAct
from fbnetv3_zoo.runtimes.sandbox import remember
from fbnetv3_zoo.utils.atomic_write import replacing, replacing_together
from fbnetv3_zoo.utils.onnx_io import quiet_exporter, write_graph
from fbnetv3_zoo.utils.serialization import to_json

from ..models.faster_rcnn import use_true_strides
from ..models.serialization import FORMAT, DetectorSpec
from .parity import compare_detections, on_onnx, on_torch
from .traceable import TRANSLATIONS, BoxOutputs, EndToEnd

OPSET = 18
PART_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class DetectorExportReport:
    """The exported file and its difference from the PyTorch detector.

    ``detections`` counts per image the detections that match: same label, boxes within 0.1 pixels, scores within 1e-3.
    ``box_difference`` (pixels) and ``score_difference`` are the largest among them. ``borderline`` counts unmatched
    detections whose score is at most 1e-3 above the other side's cut-off. ``file_size`` is in bytes.
    """

    path: Path
    detections: tuple[int, ...]
    borderline: int
    box_difference: float
    score_difference: float
    file_size: int

    @property
    def images(self) -> int:
        """Number of images compared."""
        return len(self.detections)


@dataclass(frozen=True, slots=True)
class PartReport:
    """The file of a part, the names of its inputs and outputs, and its largest difference from PyTorch.

    ``difference`` is relative to the largest absolute value of the same output.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    difference: float


def export_detector(
    model: FasterRCNN, spec: DetectorSpec, path: str | Path, *, images: Sequence[Tensor]
) -> DetectorExportReport:
    """Write a whole detector as one ONNX file, including resizing, normalization, proposals and suppression.

    Input ``image``: float32 RGB in [0, 1], shape (3, height, width), of any size. Outputs: ``boxes`` (detections, 4) as
    x0, y0, x1, y1 in pixels of that image, ``labels`` (detections) as int64 starting at 1, ``scores`` (detections),
    best first. Metadata, in JSON: ``class_names``, ``mean``, ``std`` and ``detector``, the whole ``spec``.

    The file is checked by onnx, then run on ONNX Runtime and compared with PyTorch on ``images``, both on the CPU (see
    :class:`DetectorExportReport`). If a detection has no match, raises :class:`ZooError` and leaves no file.

    Args:
        model: a detector of this package; it is not modified.
        spec: what it was built from, as returned by
            :func:`fbnetv3_zoo.detection.models.serialization.load_detector`.
        path: file to write, ending in ``.onnx``.
        images: images to compare on, shaped like the input; the detector must find something in at least one.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ZooError(f"{path}: ONNX files end in .onnx; change the extension")
    detector = _detached(model, spec)
    _check_images(images, detector.transform.max_size)
    expected = [on_torch(detector, image) for image in images]
    if not any(len(one.scores) for one in expected):
        raise ZooError(
            f"{path}: the detector finds nothing in the {len(images)} images, so there is nothing to compare; give "
            f"images with objects of its classes, or lower its score_threshold"
        )
    with replacing(path) as temporary:
        _write(_whole(detector), temporary, _metadata(detector, spec))
        agreements = compare_detections(detector, expected, on_onnx(temporary, images), path)
        content = temporary.read_bytes()
    remember(".onnx", (content,))
    boxes, scores = (np.concatenate(each) for each in zip(*((a.boxes, a.scores) for a in agreements), strict=True))
    return DetectorExportReport(
        path=path,
        detections=tuple(len(one.boxes) for one in agreements),
        borderline=sum(one.borderline for one in agreements),
        box_difference=float(boxes.max()),
        score_difference=float(scores.max()),
        file_size=len(content),
    )


def export_parts(model: FasterRCNN, spec: DetectorSpec, folder: str | Path) -> dict[str, PartReport]:
    """Write the networks inside a detector as three ONNX files in ``folder``, for a custom pipeline.

    - ``trunk.onnx``: ``images`` (batch, 3, height, width), normalized by mean and std of the metadata, to maps (batch,
      channels, height, width), one per stride: ``stride16`` or those of the pyramid.
    - ``rpn_head.onnx``: those maps to ``logits_...`` (batch, anchors, height, width) and ``deltas_...`` (batch, 4 x
      anchors, height, width) of each.
    - ``box_head.onnx``: ``regions`` (regions, channels, pooled, pooled) to ``logits`` (regions, 1 + classes),
      background first, and ``deltas`` (regions, 4 x (1 + classes)).

    Batch, regions and an image's sides (of at least 32 pixels) are dynamic. Every file is checked by onnx, then
    compared with PyTorch on normally distributed input of other sizes than it was exported with. If an output differs
    by more than 1e-4 of its largest value, raises :class:`ZooError` and leaves none of the files. Returns a report
    for each of ``"trunk"``, ``"rpn_head"`` and ``"box_head"``.
    """
    detector, reports = _detached(model, spec), {}
    parts = _parts(detector)
    paths = [Path(folder) / f"{name}.onnx" for name in parts]
    with replacing_together(*paths) as written:
        for (name, graph), path, temporary in zip(parts.items(), paths, written, strict=True):
            _write(graph, temporary, _metadata(detector, spec))
            reports[name] = PartReport(path, graph.inputs, graph.outputs, _difference(graph, temporary, path))
    return reports


@dataclass(frozen=True)
class _Graph:
    """A module to export and the axes of its inputs: a number if fixed, a name if dynamic.

    The first axis of every output is ``counted``; the other dynamic axes have a size of at least ``least``.
    """

    module: nn.Module
    axes: Mapping[str, tuple[int | str, ...]]
    outputs: tuple[str, ...]
    counted: str
    least: int = 1

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.axes)

    def example(self, *, more: int = 0) -> tuple[Tensor, ...]:
        """Normally distributed inputs whose dynamic axes all differ in size; ``more`` makes them longer."""
        dynamic = sorted({axis for shape in self.axes.values() for axis in shape if isinstance(axis, str)})
        sides = {axis: 2 + more + 2 * self.least + 3 * n for n, axis in enumerate(dynamic)}
        length = {**sides, self.counted: 2 + more}
        generator = torch.Generator().manual_seed(more)
        shapes = [[a if isinstance(a, int) else length[a] for a in shape] for shape in self.axes.values()]
        return tuple(torch.randn(shape, generator=generator) for shape in shapes)

    def dynamic_axes(self, kind: Callable[[str], Any]) -> dict[str, Any]:
        """The dynamic axes of each input by number, with ``kind`` applied to their names."""
        shapes = self.axes.values()
        return {"inputs": tuple({n: kind(a) for n, a in enumerate(one) if isinstance(a, str)} for one in shapes)}

    def dim(self, axis: str) -> Dim:
        """A dynamic axis for torch.export."""
        return Dim(axis) if axis == self.counted else Dim(axis, min=self.least)


def _whole(detector: FasterRCNN) -> _Graph:
    return _Graph(EndToEnd(detector), {"image": (3, "height", "width")}, ("boxes", "labels", "scores"), "detections")


def _parts(detector: FasterRCNN) -> dict[str, _Graph]:
    heads, channels = detector.roi_heads, detector.backbone.out_channels
    with torch.no_grad():
        names = tuple(detector.backbone(torch.zeros(1, 3, 64, 64)))
    maps = {name: ("batch", channels, f"height_{name}", f"width_{name}") for name in names}
    outputs = tuple(f"{kind}_{name}" for kind in ("logits", "deltas") for name in names)
    regions = {"regions": ("regions", channels, *heads.box_roi_pool.output_size)}
    images = {"images": ("batch", 3, "height", "width")}
    return {
        "trunk": _Graph(_Maps(detector.backbone), images, names, "batch", least=32),
        "rpn_head": _Graph(_RegionHead(detector.rpn.head), maps, outputs, "batch"),
        "box_head": _Graph(BoxOutputs(heads.box_head, heads.box_predictor), regions, ("logits", "deltas"), "regions"),
    }


class _Maps(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(*inputs).values())


class _RegionHead(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        logits, deltas = self.head([*inputs])
        return (*logits, *deltas)


def _detached(model: FasterRCNN, spec: DetectorSpec) -> FasterRCNN:
    """A copy on the CPU in evaluation mode that pools from each map by its true stride."""
    if not isinstance(model, FasterRCNN) or isinstance(model, MaskRCNN):
        raise ZooError(f"model is a {type(model).__name__}; give a FasterRCNN, as from load_detector()")
    if (dtype := next(model.parameters()).dtype) is not torch.float32:
        raise ZooError(f"the detector's weights are {dtype}; export needs torch.float32, call model.float() first")
    if (classes := _classes(model)) != len(spec.class_names):
        raise ZooError(f"spec has {len(spec.class_names)} class names, but the detector has {classes} classes")
    detector = copy.deepcopy(model).cpu().eval()
    use_true_strides(detector.roi_heads.box_roi_pool)
    return detector


def _classes(detector: FasterRCNN) -> int:
    logits = next(layer for layer in detector.roi_heads.box_predictor.modules() if isinstance(layer, nn.Linear))
    return logits.out_features - 1


def _check_images(images: Sequence[Tensor], longest: int) -> None:
    if len(images) == 0:
        raise ZooError("images is empty; give images with objects of the detector's classes")
    for number, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise ZooError(f"images[{number}] is a {type(image).__name__}; give tensors")
        if image.ndim != 3 or len(image) != 3 or image.dtype is not torch.float32:
            raise ZooError(
                f"images[{number}] has shape {tuple(image.shape)} and {image.dtype}; give RGB in [0, 1] as "
                f"(3, height, width) and torch.float32"
            )
        height, width = image.shape[1:]
        if min(height, width) * longest < max(height, width, 1):
            raise ZooError(
                f"images[{number}] has {height} x {width} pixels; scaled to {longest}, nothing is left of it"
            )


def _metadata(detector: FasterRCNN, spec: DetectorSpec) -> dict[str, str]:
    colors = {"mean": detector.transform.image_mean, "std": detector.transform.image_std}
    values = {key: json.dumps(value) for key, value in {"class_names": spec.class_names, **colors}.items()}
    origin = {key: value for key, value in (("weights", spec.weights), ("licence", spec.license)) if value is not None}
    return {"format": FORMAT, "detector": to_json(spec), **values, **origin}


def _folded(module: nn.Module) -> nn.Module:
    """A copy with its norms, fixed or not, folded into the convolutions before them."""
    module = copy.deepcopy(module)
    for unit in module.modules():
        if isinstance(unit, ConvNormAct) and hasattr(unit, "norm"):
            conv, norm = unit.conv, cast(Any, unit.norm)
            statistics = norm.running_mean, norm.running_var, norm.eps
            conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics, norm.weight, norm.bias)
            del unit.norm
    return module


def _write(graph: _Graph, path: Path, metadata: Mapping[str, str]) -> None:
    with quiet_exporter():
        program = torch.export.export(
            _folded(graph.module), graph.example(), dynamic_shapes=graph.dynamic_axes(graph.dim), strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip
        exported = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=graph.inputs, output_names=graph.outputs,
            dynamic_shapes=graph.dynamic_axes(str), optimize=True, verbose=False, custom_translation_table=TRANSLATIONS,
        )  # fmt: skip
    if exported is None:
        raise AssertionError("torch.onnx.export returned nothing")
    proto = exported.model_proto
    for value in proto.graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = graph.counted
    write_graph(proto, path, metadata)


def _difference(graph: _Graph, temporary: Path, path: Path) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
    inputs, largest = graph.example(more=2), 0.0
    with torch.inference_mode():
        expected = graph.module(*inputs)
    actual = session.run(graph.outputs, {name: x.numpy() for name, x in zip(graph.inputs, inputs, strict=True)})
    for one, other, name in zip(expected, actual, graph.outputs, strict=True):
        difference = float(np.abs(one.numpy() - other).max() / one.abs().max().clamp(min=1e-6))
        if not difference <= PART_TOLERANCE:
            raise ZooError(
                f"{path}: ONNX Runtime differs from PyTorch by {difference:.2g} of the largest value of {name}; "
                f"nothing was written"
            )
        largest = max(largest, difference)
    return largest
