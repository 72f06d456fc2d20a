"""From what a user names to a dataset."""

from __future__ import annotations

from pathlib import Path

from ...utils.paths import is_folder
from .cifar import cifar, find_cifar
from .dataset import Dataset
from .digits import digits
from .folder import folder
from .shards import has_shards, shards
from .subset import Subset, load_subset


def find_dataset(source: str | Path, *, seed: int | None = 0, subset: Subset | str | Path | None = None) -> Dataset:
    """The dataset that ``source`` stands for: ``"digits"``, or the path of a folder.

    What the folder holds decides: the files of CIFAR (:func:`cifar`), tar files (:func:`shards`), else class folders
    (:func:`folder`). ``seed`` splits what has no split of its own; with None all images of a folder without splits are
    in the test split, and training images stay together (digits and CIFAR are split as by 0). With ``subset``, or the
    path of its file, only that part is taken, and the subset's own seed splits.
    """
    if subset is not None:
        part = subset if isinstance(subset, Subset) else load_subset(subset)
        return part.apply(find_dataset(source, seed=part.seed))
    root = Path(source)
    if str(source) == "digits":
        return digits(seed=seed or 0)
    if not is_folder(root):
        return folder(root, seed=seed)
    if find_cifar(root):
        return cifar(root, seed=seed or 0)
    return shards(root, seed=seed) if has_shards(root) else folder(root, seed=seed)
