"""Finding a dataset by name or path."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ...errors import ZooError, first_few
from ...utils.paths import is_folder
from .cifar import cifar, find_cifar
from .dataset import Dataset, labels_of
from .digits import digits
from .folder import folder
from .folder_contents import warn
from .random_split import check_val_split
from .rendered.dataset_file import DatasetFile
from .shards import has_shards, shards
from .subset import Subset, load_subset


def find_dataset(
    source: str | Path, *, seed: int | None = 0, subset: Subset | str | Path | None = None,
    val_split: float | None = None,
) -> Dataset:  # fmt: skip
    """The dataset ``source``: ``"digits"``, the path of a folder, or of a file written by ``fbnetv3 data``.

    The kind of a folder follows from its contents: the files of CIFAR (:func:`cifar`), tar files (:func:`shards`), or
    class folders (:func:`folder`). ``seed`` splits data without splits of its own; with None, all images of a folder
    without splits are in the test split, and no validation split is taken from the training images (digits and CIFAR
    are split as with 0). ``val_split``: the share of the images held out for validation where the data has no such
    split of its own (default: a fifth, of CIFAR a tenth). ``subset``, or the path of its file, selects a part of the
    data, split by the subset's own seed.
    """
    if not isinstance(source, str | os.PathLike):
        raise ZooError(
            f"find_dataset takes 'digits' or a path, not {type(source).__name__}; give datasets of other libraries to "
            f"as_dataset"
        )
    check_val_split(val_split)
    if subset is not None:
        if val_split is not None:
            raise ZooError("a subset says itself which images are held out; leave out --val-split (val_split)")
        subset = subset if isinstance(subset, Subset) else load_subset(subset)
        data = subset.apply(_find_whole(source, seed=subset.seed, val_split=None))
    else:
        data = _find_whole(source, seed=seed, val_split=val_split)
    _tell_unmeasured(data)
    return data


def _find_whole(source: str | Path, *, seed: int | None, val_split: float | None) -> Dataset:
    root = Path(source)
    if str(source) == "digits":
        return digits(seed=seed or 0, val_split=val_split)
    if not is_folder(root):
        if root.suffix != ".safetensors":
            return folder(root, seed=seed, val_split=val_split)
        if val_split is not None:
            raise ZooError(f"{root}: has validation images of its own; leave out --val-split (val_split)")
        return DatasetFile.load(root).dataset()
    if find_cifar(root):
        return cifar(root, seed=seed or 0, val_split=val_split)
    kind = shards if has_shards(root) else folder
    return kind(root, seed=seed, val_split=val_split)


def _tell_unmeasured(data: Dataset) -> None:
    """Log which classes have images to train on and none to validate on."""
    if not data["validation"]:
        return
    trained, measured = (np.unique(labels_of(data[split])) for split in ("train", "validation"))
    if names := [data.class_names[n] for n in np.setdiff1d(trained, measured)]:
        shown = first_few(names)
        warn(f"{data.name}: classes without validation images, of which its accuracy says nothing: {shown}")
