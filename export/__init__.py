"""From a trained network to a file that runs without PyTorch."""

from fbnetv3_zoo.export.to_onnx import ExportReport, export_onnx

__all__ = ["ExportReport", "export_onnx"]
