"""ONNX files of networks and blocks, in the form that runs fastest."""
