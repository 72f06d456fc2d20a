"""Exporters to other runtimes: ONNX Runtime Mobile, OpenVINO, ExecuTorch, ncnn, LiteRT, Core ML."""
