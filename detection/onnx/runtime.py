"""Runs exported detectors on ONNX Runtime. Their files may come from anywhere: another process tries them out first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from fbnetv3_zoo.errors import ZooError, in_short, printable
from fbnetv3_zoo.runtimes.ort import open_session
from fbnetv3_zoo.runtimes.sandbox import LARGEST_MODEL
from fbnetv3_zoo.utils.paths import read_file

from ..data.fitting import check_scalable
from ..models.serialization import DetectorSpec, parse_spec
from ..training.evaluate import Detections
from ..training.predict import Find

if TYPE_CHECKING:
    import onnxruntime

OUTPUTS = ("boxes", "labels", "scores")
_WORK = 8
"""A detector's image is larger than a classifier's, and its box head runs on many regions."""


def open_onnx_detector(path: Path) -> tuple[Find, DetectorSpec]:
    """The detector in an ONNX file of :func:`~fbnetv3_zoo.detection.export_detector`, and what it was built from.

    Raises :class:`ZooError` if the file is missing, damaged or not a whole detector of this project.
    """
    session, entries = open_session(path, read_file(path, "a detector", at_most=LARGEST_MODEL), work=_WORK)
    spec = parse_spec(entries, str(path))
    _check_whole(session, path)

    def find(image: Tensor) -> Detections:
        check_scalable(spec.settings.min_size, spec.settings.max_size, image)
        try:
            boxes, labels, scores = session.run([*OUTPUTS], {"image": image.cpu().numpy()})
        except Exception as error:  # onnxruntime's own exception classes share no public base
            raise ZooError(f"{path}: cannot be computed ({in_short(error)})") from None
        return _checked(Detections(boxes, scores, labels), spec, path)

    return find, spec


def _check_whole(session: onnxruntime.InferenceSession, path: Path) -> None:
    """Raise :class:`ZooError` unless the file takes an image and gives boxes, unlike the parts of a detector."""
    inputs = [(value.name, value.type, len(value.shape)) for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    if inputs != [("image", "tensor(float)", 3)] or not {*OUTPUTS} <= {*outputs}:
        takes, gives = (printable(", ".join(names))[:80] for names in ([name for name, _, _ in inputs], outputs))
        raise ZooError(
            f"{path}: turns {takes} into {gives}, not an image into boxes; give a whole detector, as written by "
            f"`fbnetv3 detect export`"
        )


def _checked(found: Detections, spec: DetectorSpec, path: Path) -> Detections:
    """``found`` if that is what a detector of ``spec`` can find."""
    count, labels = len(found.scores), found.labels
    fits = found.boxes.shape == (count, 4) and found.scores.shape == labels.shape == (count,)
    if not fits or not np.isfinite(found.boxes).all() or not np.isfinite(found.scores).all():
        raise ZooError(f"{path}: its boxes or scores are NaN, infinite or too few; export it again")
    if labels.dtype != np.int64 or (count and not 1 <= labels.min() <= labels.max() <= len(spec.class_names)):
        raise ZooError(f"{path}: it finds other than its {len(spec.class_names)} classes; export it again")
    return found
