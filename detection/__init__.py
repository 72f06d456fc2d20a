"""Detectors: any network of the zoo as the backbone of Faster R-CNN, and the published FBNetV3 detectors.

Names resolve on first use: importing this imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fbnetv3_zoo.utils import telemetry  # noqa: F401 - ahead of the libraries that it silences

if TYPE_CHECKING:
    from .data.coco import CocoData, read_coco
    from .models.d2go_checkpoint import load_published
    from .models.detector import Detector, split
    from .models.faster_rcnn import RCNNSettings, faster_rcnn_c4, faster_rcnn_fpn, mask_rcnn_fpn
    from .models.presets import DETECTORS
    from .models.serialization import DetectorKind, DetectorSpec, load_detector, save_detector
    from .onnx.export import export_detector
    from .training.evaluate import Detections, average_precision
    from .training.train import train_detector

_HOMES = {
    "CocoData": "data.coco",
    "DETECTORS": "models.presets",
    "Detections": "training.evaluate",
    "Detector": "models.detector",
    "DetectorSpec": "models.serialization",
    "DetectorKind": "models.serialization",
    "RCNNSettings": "models.faster_rcnn",
    "average_precision": "training.evaluate",
    "export_detector": "onnx.export",
    "faster_rcnn_c4": "models.faster_rcnn",
    "faster_rcnn_fpn": "models.faster_rcnn",
    "load_detector": "models.serialization",
    "load_published": "models.d2go_checkpoint",
    "mask_rcnn_fpn": "models.faster_rcnn",
    "read_coco": "data.coco",
    "save_detector": "models.serialization",
    "split": "models.detector",
    "train_detector": "training.train",
}

__all__ = [
    "CocoData", "DETECTORS", "Detections", "Detector", "DetectorSpec", "DetectorKind", "RCNNSettings",
    "average_precision", "export_detector", "faster_rcnn_c4", "faster_rcnn_fpn", "load_detector", "load_published",
    "mask_rcnn_fpn", "read_coco", "save_detector", "split", "train_detector",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
