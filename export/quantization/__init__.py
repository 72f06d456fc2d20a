"""int8 by static quantization."""
