"""Static int8 quantisation."""
