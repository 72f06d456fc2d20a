"""Exporting detectors to ONNX."""
