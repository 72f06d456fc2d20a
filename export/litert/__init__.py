"""LiteRT (TensorFlow Lite) files: ONNX graphs rewritten in its operators, packed with its schema and metadata."""
