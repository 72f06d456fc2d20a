"""Static int8 quantization."""
