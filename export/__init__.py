"""From a trained network to a file that runs without PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fbnetv3_zoo.utils import telemetry  # noqa: F401 - ahead of the libraries that it silences

if TYPE_CHECKING:
    from .backends.executorch_pte import ExecuTorchReport, export_executorch
    from .backends.openvino_ir import OpenVINOReport, export_openvino
    from .backends.ort_mobile import MobileReport, export_mobile
    from .onnx.export import ExportReport, export_onnx
    from .quantization.quantize import QuantizationReport, Target, quantize
    from .web import WebReport, write_web

_HOMES = {
    "ExecuTorchReport": "backends.executorch_pte",
    "ExportReport": "onnx.export",
    "MobileReport": "backends.ort_mobile",
    "OpenVINOReport": "backends.openvino_ir",
    "QuantizationReport": "quantization.quantize",
    "Target": "quantization.quantize",
    "WebReport": "web",
    "export_executorch": "backends.executorch_pte",
    "export_mobile": "backends.ort_mobile",
    "export_onnx": "onnx.export",
    "export_openvino": "backends.openvino_ir",
    "quantize": "quantization.quantize",
    "write_web": "web",
}

__all__ = [
    "ExecuTorchReport", "ExportReport", "MobileReport", "OpenVINOReport", "QuantizationReport", "Target", "WebReport",
    "export_executorch", "export_mobile", "export_onnx", "export_openvino", "quantize", "write_web",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
