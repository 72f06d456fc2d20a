"""Folders of class folders of image files, as ImageNet is kept."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ...errors import ZooError, first_few, printable
from ...preprocess import IMAGENET_MEAN, IMAGENET_STD
from ...utils import paths
from .dataset import SPLITS, Dataset, Example, Examples, Integers, Names, Split, composed
from .image_files import FolderSource, first_of_equal
from .listing import folders_in, images_in, is_image, look_into, tell, tell_left_out
from .splits import class_places, find_splits, tell_unlabelled
from .splitting import hold_out_by_seed, split_by_seed


def folder(path: str | Path, *, seed: int | None = 0) -> Dataset:
    """A folder of class folders of image files.

    Either ``path/CLASS/IMAGE``, split at random by ``seed`` (60 % for training, 20 % each for validation and test,
    class by class; files of equal content stay together; with None all are test images), or
    ``path/{train,val,test}/CLASS/IMAGE``, in the usual spellings, as it is. Without a folder to validate on a fifth of
    the training images, by seed, are for that; without a test folder, or where its images have no labels, the test
    split is empty.
    """
    root = Path(path)
    if not paths.is_folder(root):
        found = "is a file" if paths.exists(root) else "no such folder"
        raise ZooError(f"{printable(str(root))}: {found}; give 'digits' or a folder of class folders")
    names = class_places(root)
    if runs := sorted(set(folders_in(root)) - set(names)):
        tell(f"{printable(str(root))}: left out, as results of training: {first_few(runs)}")
    if places := find_splits(root, names):
        return _split_folder(root, places, seed)
    return _whole_folder(root, _enough(root, names), seed)


def photos(root: Path, classes: Sequence[str], splits: Mapping[Split, Sequence[Example]]) -> Dataset:
    """The dataset of photographs below ``root``, with ImageNet's statistics; a split that is not given is empty."""
    full = {split: splits.get(split, ()) for split in SPLITS}
    name = root.resolve().name
    return Dataset(name, tuple(classes), IMAGENET_MEAN, IMAGENET_STD, 8 / 7, MappingProxyType(full), str(root))


def divided(
    root: Path, splits: Mapping[Split, Examples], seed: int | None, *, first: Callable[[Examples], Integers]
) -> Mapping[Split, Examples]:
    """``splits`` as given; a fifth of the training images validates where nothing else does."""
    if seed is None or "train" not in splits or "validation" in splits:
        return splits
    whole = splits["train"]
    rest, held_out = hold_out_by_seed(whole.labels, seed, first=first(whole))
    tell(
        f"{printable(str(root))}: has no images to validate on; {len(held_out):,} of {len(whole):,} training images, "
        f"drawn by seed {seed}, are for that"
    )
    return {**splits, "train": whole.at(rest), "validation": whole.at(held_out)}


def _whole_folder(root: Path, classes: Sequence[str], seed: int | None) -> Dataset:
    left_out: Counter[str] = Counter()
    names = _class_names(root, classes)
    found = _list(root, "", classes, names, left_out)
    tell_left_out(root, left_out, loose=look_into(root).images)
    if seed is None:
        return photos(root, names, {"test": found})
    parts = split_by_seed(
        found.labels, seed, image=lambda n: root / found.keys[n], classes=[root / name for name in classes],
        first=first_of_equal(str(root), found.keys),
    )  # fmt: skip
    splits: dict[Split, Sequence[Example]] = {split: found.at(chosen) for split, chosen in parts.items()}
    return photos(root, names, splits)


def _split_folder(root: Path, places: Mapping[Split, str], seed: int | None) -> Dataset:
    leading = next(split for split in SPLITS if split in places)
    names = _class_names(root / places[leading], _enough(root / places[leading], folders_in(root / places[leading])))
    splits: dict[Split, Examples] = {}
    left_out: Counter[str] = Counter()
    known, loose = set(names), 0
    for split, place in places.items():
        classes = folders_in(root / place)
        unknown = [name for name in classes if composed(name) not in known]
        if split == "test" and len(unknown) == len(classes) == 1:
            tell_unlabelled(root / place, len(images_in(root / place)))
            continue
        if unknown:
            raise ZooError(_unknown(root, place, unknown, places[leading]))
        splits[split] = _list(root, f"{place}/", classes, names, left_out)
        loose += look_into(root / place).images
    tell_left_out(root, left_out, loose=loose)
    return photos(root, names, divided(root, splits, seed, first=lambda all_: first_of_equal(str(root), all_.keys)))


def _unknown(root: Path, place: str, unknown: Sequence[str], leading: str) -> str:
    """What is said of classes that only a split other than the ``leading`` one has."""
    if len(unknown) == 1:
        return f"{root / place / unknown[0]}: class {unknown[0]!r} is not among those of {root / leading}"
    return f"{root / place}: {len(unknown):,} classes are not among those of {root / leading}: {first_few(unknown)}"


def _class_names(place: Path, folders: Sequence[str]) -> list[str]:
    """The names of the classes in these folders. Raises :class:`ZooError` where two are one name in other signs."""
    names = list(map(composed, folders))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ZooError(
            f"{place}: has two folders each called {first_few(twice)}, spelled with other bytes; make them one"
        )
    return names


def _enough(root: Path, names: Sequence[str]) -> Sequence[str]:
    if len(names) < 2:
        deeper = names and look_into(root / names[0]).folders
        below = f" ({printable(names[0])}); give it instead if the classes are in it" if deeper else ""
        if not names and (loose := sum(is_image(name) for name in os.listdir(root))):
            below = f" ({loose:,} images lie directly in it); put those of each class into a folder of its own"
        raise ZooError(f"{printable(str(root))}: needs at least 2 class folders, has {len(names)}{below}")
    return names


def _list(root: Path, place: str, classes: Sequence[str], names: Sequence[str], left_out: Counter[str]) -> Examples:
    """All images of the folders ``classes`` in ``root / place``, class by class; labels are places in ``names``.

    What is left out is counted in ``left_out``.
    """
    counts: list[int] = []
    empty: list[Path] = []

    def keys() -> Iterator[str]:
        for name in classes:
            members = images_in(root / place / name, left_out)
            counts.append(len(members))
            if not members:
                empty.append(root / place / name)
            yield from (f"{place}{name}/{member}" for member in members)

    found = Names.of(keys())
    if empty:
        _refuse_empty(root / place, empty, left_out)
    numbers = {name: label for label, name in enumerate(names)}
    labels = np.repeat(np.array([numbers[composed(name)] for name in classes], dtype=np.int32), counts)
    return Examples(found, labels, np.arange(len(found)), FolderSource(str(root)))


def _refuse_empty(place: Path, empty: Sequence[Path], left_out: Counter[str]) -> None:
    """Raise for classes without an image that can be read."""
    others = (
        f"; there are other files: {first_few([f'{n:,} {e}' for e, n in sorted(left_out.items())])}" if left_out else ""
    )
    if len(empty) == 1:
        raise ZooError(f"{empty[0]}: has no image files, such as .jpg, .png or .webp{others}")
    names = first_few([path.name for path in empty])
    raise ZooError(
        f"{place}: {len(empty):,} class folders have no image files, such as .jpg, .png or .webp: {names}{others}"
    )
