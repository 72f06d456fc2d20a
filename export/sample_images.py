"""Photographs for comparing runtimes: crops of the two that come with scikit-learn, so that nothing is downloaded."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fbnetv3_zoo.errors import check_whole

LEAST_SIDE = 160


def photographs(count: int, *, seed: int = 0) -> list[Image.Image]:
    """``count`` RGB crops with sides from 160 to 640 pixels, alternating between a temple and a flower.

    The first two are uncropped. The same ``seed`` gives the same images.
    """
    from sklearn.datasets import load_sample_images

    check_whole("count", count)
    originals = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(seed)
    images = originals[:count]
    while len(images) < count:
        image = originals[len(images) % len(originals)]
        width, height = (int(rng.integers(LEAST_SIDE, side + 1)) for side in image.size)
        left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
        images.append(image.crop((left, top, left + width, top + height)))
    return images
