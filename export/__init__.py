"""From a trained network to a file that runs without PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import fbnetv3_zoo.telemetry  # noqa: F401 - ahead of the libraries that it silences

if TYPE_CHECKING:
    from fbnetv3_zoo.export.to_intermediate import IntermediateReport, export_intermediate
    from fbnetv3_zoo.export.to_mobile import MobileReport, export_mobile
    from fbnetv3_zoo.export.to_onnx import ExportReport, export_onnx
    from fbnetv3_zoo.export.to_program import ProgramReport, export_program
    from fbnetv3_zoo.export.web import WebReport, write_web

_HOMES = {
    "ExportReport": "to_onnx",
    "IntermediateReport": "to_intermediate",
    "MobileReport": "to_mobile",
    "ProgramReport": "to_program",
    "WebReport": "web",
    "export_intermediate": "to_intermediate",
    "export_mobile": "to_mobile",
    "export_onnx": "to_onnx",
    "export_program": "to_program",
    "write_web": "web",
}

__all__ = [
    "ExportReport", "IntermediateReport", "MobileReport", "ProgramReport", "WebReport", "export_intermediate",
    "export_mobile", "export_onnx", "export_program", "write_web",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
