"""Handwritten digits, a small real dataset that needs no download."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from .arrays import ArrayImages
from .dataset import Dataset, Examples, Names
from .random_split import split_by_seed


def digits(*, seed: int = 0, val_split: float | None = None) -> Dataset:
    """The 1,797 handwritten digits of scikit-learn: 8 x 8 gray images, about 20 % each for validation and test.

    ``val_split`` is another share for validation.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository.
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    pixels = np.rint(source.images * (255 / 16)).astype(np.uint8)
    labels = source.target
    names = tuple(str(digit) for digit in range(10))
    first_with: dict[bytes, int] = {}
    first = np.array([first_with.setdefault(image.tobytes(), n) for n, image in enumerate(pixels)])
    parts = split_by_seed(labels, seed, image=str, classes=names, first=first, val_split=val_split)
    keys, images = Names.of(map(str, range(len(labels)))), ArrayImages(pixels)
    splits = {split: Examples(keys, labels, np.asarray(rows), images) for split, rows in parts.items()}
    return Dataset("digits", names, (0.305,), (0.376,), 1.0, MappingProxyType(splits))
