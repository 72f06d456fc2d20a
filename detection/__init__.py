"""Detectors: any network of the zoo as the backbone of Faster R-CNN, and the published FBNetV3 detectors."""

from fbnetv3_zoo.utils import telemetry  # noqa: F401 - ahead of the libraries that it silences

from .models.d2go_checkpoint import load_published
from .models.detector import Detector, split
from .models.faster_rcnn import Settings, faster_rcnn_c4, faster_rcnn_fpn, mask_rcnn_fpn
from .models.presets import DETECTORS

__all__ = [
    "DETECTORS",
    "Detector",
    "Settings",
    "faster_rcnn_c4",
    "faster_rcnn_fpn",
    "load_published",
    "mask_rcnn_fpn",
    "split",
]
