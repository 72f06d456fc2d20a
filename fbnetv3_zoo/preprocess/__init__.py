"""From images to the input of a network."""

from .preprocess import (
    FORMATS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_PIXELS,
    Interpolation,
    LeastSize,
    Preprocess,
    decode_image,
    read_image,
    stack,
)

__all__ = [
    "FORMATS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Interpolation",
    "LeastSize",
    "MAX_PIXELS",
    "Preprocess",
    "decode_image",
    "read_image",
    "stack",
]
