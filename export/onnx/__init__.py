"""ONNX files of networks and blocks, optimised for speed."""
