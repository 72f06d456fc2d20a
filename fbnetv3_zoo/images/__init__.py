"""Image files: listed by name, decoded within limits, and converted to 8-bit gray or RGB."""

from .formats import FORMATS, IMAGE_SUFFIXES, is_image
from .reading import MAX_BYTES, LeastSize, decode_image, open_image_file, read_image, size_of_image

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "LeastSize",
    "MAX_BYTES",
    "decode_image",
    "is_image",
    "open_image_file",
    "read_image",
    "size_of_image",
]
