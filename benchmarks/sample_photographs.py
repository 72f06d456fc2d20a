"""Photographs that the comparisons here are made on: those that the package scikit-image brings, and parts of them."""

from __future__ import annotations

import numpy as np
import skimage.data
from PIL import Image

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry", "retina")


def photographs(count: int = 20) -> list[Image.Image]:
    """Whole photographs first, then parts of them."""
    whole = [Image.fromarray(getattr(skimage.data, name)()) for name in NAMES]
    rng, parts = np.random.default_rng(0), whole[:count]
    while len(parts) < count:
        image = whole[len(parts) % len(whole)]
        side = int(rng.integers(min(image.size) // 2, min(image.size)))
        left, top = int(rng.integers(image.width - side)), int(rng.integers(image.height - side))
        parts.append(image.crop((left, top, left + side, top + side)))
    return parts
