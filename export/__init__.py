"""From a trained network to a file that runs without PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fbnetv3_zoo.utils import telemetry  # noqa: F401 - ahead of the libraries that it silences

if TYPE_CHECKING:
    from .backends.executorch_pte import ProgramReport, export_program
    from .backends.openvino_ir import IntermediateReport, export_intermediate
    from .backends.ort_mobile import MobileReport, export_mobile
    from .onnx.export import ExportReport, export_onnx
    from .web import WebReport, write_web

_HOMES = {
    "ExportReport": "onnx.export",
    "IntermediateReport": "backends.openvino_ir",
    "MobileReport": "backends.ort_mobile",
    "ProgramReport": "backends.executorch_pte",
    "WebReport": "web",
    "export_intermediate": "backends.openvino_ir",
    "export_mobile": "backends.ort_mobile",
    "export_onnx": "onnx.export",
    "export_program": "backends.executorch_pte",
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
