# The public names: read by type checkers, and by lazy_loader, which imports each on first use.

from .data.coco import (
    CocoData as CocoData,
    read_coco as read_coco,
)
from .models.d2go_checkpoint import load_published as load_published
from .models.detector import (
    Detector as Detector,
    split as split,
)
from .models.faster_rcnn import (
    RCNNSettings as RCNNSettings,
    faster_rcnn_c4 as faster_rcnn_c4,
    faster_rcnn_fpn as faster_rcnn_fpn,
    mask_rcnn_fpn as mask_rcnn_fpn,
)
from .models.presets import DETECTORS as DETECTORS
from .models.serialization import (
    DetectorKind as DetectorKind,
    DetectorSpec as DetectorSpec,
    load_detector as load_detector,
    save_detector as save_detector,
)
from .onnx.export import export_detector as export_detector
from .opened import (
    OpenDetector as OpenDetector,
    open_detector as open_detector,
)
from .training.evaluate import (
    Detections as Detections,
    average_precision as average_precision,
)
from .training.train import train_detector as train_detector

__all__: list[str]
