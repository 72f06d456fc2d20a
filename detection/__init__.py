"""Detectors: any network of the zoo as the backbone of Faster R-CNN, and the published FBNetV3 detectors."""

import fbnetv3_zoo.telemetry  # noqa: F401 - ahead of the libraries that it silences
from fbnetv3_zoo.detection.checkpoint import load_published
from fbnetv3_zoo.detection.detector import Detector, split
from fbnetv3_zoo.detection.faster_rcnn import Settings, faster_rcnn_c4, faster_rcnn_fpn, mask_rcnn_fpn
from fbnetv3_zoo.detection.published import DETECTORS

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
