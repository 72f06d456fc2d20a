"""A detector's file, opened: its suffix selects PyTorch or ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fbnetv3_zoo.errors import ZooError

from .models.serialization import DetectorSpec, load_detector
from .onnx.runtime import open_onnx_detector
from .training.predict import Find, finder

ENDINGS = (".safetensors", ".onnx")
"""Suffixes of the files that :func:`open_detector` opens."""
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class OpenDetector:
    """A detector ready for use: ``find`` gives what is in an image, RGB in [0, 1] of shape (3, height, width)."""

    find: Find
    spec: DetectorSpec


def open_detector(path: str | Path, *, device: torch.device = _CPU) -> OpenDetector:
    """Open the detector in ``path``: one that :func:`train_detector` wrote, or its ONNX file.

    Both find the same, within what :func:`export_detector` tolerates. Raises :class:`ZooError` if the file is missing,
    damaged or not a detector, or if ONNX Runtime is to use a ``device`` other than the CPU.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise ZooError(f"{path}: is not a detector's file; give one that ends in {' or '.join(ENDINGS)}")
    if path.suffix == ".onnx":
        if device != _CPU:
            raise ZooError(f"{path}: ONNX files of detectors run on the CPU; leave out the device ({device})")
        return OpenDetector(*open_onnx_detector(path))
    model, spec = load_detector(path)
    return OpenDetector(finder(model.to(device), device=device), spec)
