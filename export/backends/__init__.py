"""Files for other runtimes: ONNX Runtime Mobile, OpenVINO, ExecuTorch."""
