"""Image files: decoded within limits, and converted to 8-bit gray or RGB."""

from .reading import FORMATS, MAX_BYTES, LeastSize, decode_image, open_image_file, read_image, size_of_image

__all__ = ["FORMATS", "LeastSize", "MAX_BYTES", "decode_image", "open_image_file", "read_image", "size_of_image"]
