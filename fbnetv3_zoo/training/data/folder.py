"""Folders of class folders of image files, as ImageNet is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.preprocess import IMAGENET_MEAN, IMAGENET_STD
from fbnetv3_zoo.training.data.dataset import SPLITS, Dataset, Example, Examples, Names, Split
from fbnetv3_zoo.training.data.files import IMAGE_SUFFIXES, FolderOrigin, first_of_equal, folders_in, images_in
from fbnetv3_zoo.training.data.splitting import split_by_seed


def folder(path: str | Path, *, seed: int = 0) -> Dataset:
    """A folder of class folders of image files.

    Either ``path/CLASS/IMAGE``, split at random by ``seed`` (60 % for training, 20 % each for validation and test,
    class by class; files of equal content stay together), or ``path/{train,validation,test}/CLASS/IMAGE`` as it is
    (``val`` may stand for ``validation``; without a test folder the test split is empty).
    """
    root = Path(path)
    if not root.is_dir():
        raise ZooError(f"{root}: no such folder; give 'digits' or a folder of class folders")
    if (root / "train").is_dir():
        return _split_folder(root)
    classes = _classes(root)
    found = _list(root, "", classes, classes)
    parts = split_by_seed(
        found.labels, seed, image=lambda n: root / found.keys[n], classes=[root / name for name in classes],
        first=first_of_equal(str(root), found.keys),
    )  # fmt: skip
    return photos(root, classes, {split: found.at(chosen) for split, chosen in parts.items()})


def photos(root: Path, classes: Sequence[str], splits: Mapping[Split, Sequence[Example]]) -> Dataset:
    """The dataset of photographs below ``root``, with ImageNet's statistics."""
    name = root.resolve().name
    return Dataset(name, tuple(classes), IMAGENET_MEAN, IMAGENET_STD, 8 / 7, MappingProxyType(dict(splits)))


def split_places(root: Path) -> dict[Split, str]:
    """The folders of ``root`` that hold its splits, for one with a train folder."""
    validation = next((name for name in ("validation", "val") if (root / name).is_dir()), None)
    if validation is None:
        raise ZooError(f"{root}: has a train folder but no validation (or val) folder beside it")
    places: dict[Split, str] = {"train": "train", "validation": validation}
    return {**places, "test": "test"} if (root / "test").is_dir() else places


def _split_folder(root: Path) -> Dataset:
    places = split_places(root)
    names = _classes(root / "train")
    splits: dict[Split, Sequence[Example]] = dict.fromkeys(SPLITS, ())
    for split, place in places.items():
        classes = _classes(root / place)
        if unknown := sorted(set(classes) - set(names)):
            raise ZooError(f"{root / place / unknown[0]}: class {unknown[0]!r} is not among those of {root / 'train'}")
        splits[split] = _list(root, f"{place}/", classes, names)
    return photos(root, names, splits)


def _classes(root: Path) -> list[str]:
    names = folders_in(root)
    if len(names) < 2:
        raise ZooError(f"{root}: needs at least 2 class folders, has {len(names)}")
    return names


def _list(root: Path, place: str, classes: Sequence[str], names: Sequence[str]) -> Examples:
    """All images of the folders ``classes`` in ``root / place``, class by class; labels are places in ``names``."""
    counts: list[int] = []

    def keys() -> Iterator[str]:
        for name in classes:
            members = images_in(root / place / name)
            if not members:
                raise ZooError(f"{root / place / name}: has no image files ({', '.join(sorted(IMAGE_SUFFIXES))})")
            counts.append(len(members))
            yield from (f"{place}{name}/{member}" for member in members)

    found = Names.of(keys())
    numbers = {name: label for label, name in enumerate(names)}
    labels = np.repeat(np.array([numbers[name] for name in classes], dtype=np.int32), counts)
    return Examples(found, labels, np.arange(len(found)), FolderOrigin(str(root)))
