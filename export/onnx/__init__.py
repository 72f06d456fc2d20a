"""ONNX files of networks and blocks, optimized for speed."""
