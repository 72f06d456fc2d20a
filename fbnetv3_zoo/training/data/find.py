"""From what a user names to a dataset."""

from __future__ import annotations

from pathlib import Path

from fbnetv3_zoo.training.data.dataset import Dataset
from fbnetv3_zoo.training.data.digits import digits
from fbnetv3_zoo.training.data.folder import folder


def find_dataset(source: str | Path, *, seed: int = 0) -> Dataset:
    """The dataset that ``source`` stands for: ``"digits"``, or the path of a folder (see :func:`folder`)."""
    return digits(seed=seed) if str(source) == "digits" else folder(source, seed=seed)
