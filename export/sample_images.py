"""Real photographs for comparing runtimes: parts of the two that scikit-learn carries, so that nothing is fetched."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fbnetv3_zoo.errors import check_whole

LEAST_SIDE = 160


def photographs(count: int, *, seed: int = 0) -> list[Image.Image]:
    """``count`` parts of photographs of a temple and of a flower, in turn, RGB, sides from 160 to 640 pixels.

    The first two are whole. The same ``seed`` gives the same images.
    """
    from sklearn.datasets import load_sample_images

    check_whole("count", count)
    whole = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(seed)
    parts = whole[:count]
    while len(parts) < count:
        image = whole[len(parts) % len(whole)]
        width, height = (int(rng.integers(LEAST_SIDE, side + 1)) for side in image.size)
        left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
        parts.append(image.crop((left, top, left + width, top + height)))
    return parts
