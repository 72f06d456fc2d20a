"""Folders with a folder of image files per class, as in ImageNet."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ...errors import ZooError, first_few, nearest, printable
from ...images import is_image
from ...images.listing import images_in
from ...preprocess import IMAGENET_MEAN, IMAGENET_STD
from ...utils import paths
from ...utils.paths import composed
from .dataset import SPLITS, Dataset, Example, Examples, Integers, Names, Split
from .folder_contents import folders_in, look_into, warn, warn_left_out
from .folder_source import FolderSource, first_of_equal
from .random_split import hold_out_by_seed, split_by_seed
from .split_names import class_folders, find_splits, warn_unlabeled


def folder(path: str | Path, *, seed: int | None = 0, val_split: float | None = None) -> Dataset:
    """A folder with class folders of image files.

    Either ``path/CLASS/IMAGE``, split randomly by ``seed`` (60 % for training, 20 % each for validation and test, in
    each class; files with equal contents stay together; with None all are test images), or
    ``path/{train,val,test}/CLASS/IMAGE``, in the usual spellings, with these splits. Without a validation folder, a
    fifth of the training images, drawn by seed, is used instead; without a test folder, or if its images have no
    labels, the test split is empty. ``val_split`` is another share for validation than a fifth.
    """
    root = Path(path)
    if not paths.is_folder(root):
        problem = "is a file" if paths.exists(root) else "no such folder"
        raise ZooError(f"{printable(str(root))}: {problem}; give 'digits' or a folder of class folders")
    names = class_folders(root)
    if runs := sorted(set(folders_in(root)) - set(names)):
        warn(f"{printable(str(root))}: results of training left out: {first_few(runs)}")
    if places := find_splits(root, names):
        return _split_folder(root, places, seed, val_split)
    return _whole_folder(root, _enough(root, names), seed, val_split)


def photos(root: Path, classes: Sequence[str], splits: Mapping[Split, Sequence[Example]]) -> Dataset:
    """The dataset of photographs in ``root``, with ImageNet's statistics; missing splits are empty."""
    full = {split: splits.get(split, ()) for split in SPLITS}
    name = root.resolve().name
    return Dataset(name, tuple(classes), IMAGENET_MEAN, IMAGENET_STD, 8 / 7, MappingProxyType(full), str(root))


def divided(
    root: Path, splits: Mapping[Split, Examples], seed: int | None, val_split: float | None, *,
    first: Callable[[Examples], Integers],
) -> Mapping[Split, Examples]:  # fmt: skip
    """``splits``, with ``val_split`` (None: a fifth) of the training images as validation split if there is none."""
    if val_split is not None and "validation" in splits:
        raise ZooError(f"{printable(str(root))}: has validation images of its own; leave out --val-split (val_split)")
    if seed is None or "train" not in splits or "validation" in splits:
        return splits
    whole = splits["train"]
    rest, held_out = hold_out_by_seed(whole.labels, seed, first=first(whole), val_split=val_split)
    warn(
        f"{printable(str(root))}: has no validation images; {len(held_out):,} of {len(whole):,} training images, "
        f"drawn by seed {seed}, are used instead"
    )
    return {**splits, "train": whole.at(rest), "validation": whole.at(held_out)}


def _whole_folder(root: Path, classes: Sequence[str], seed: int | None, val_split: float | None) -> Dataset:
    left_out: Counter[str] = Counter()
    names = _class_names(root, classes)
    examples = _list(root, "", classes, names, left_out)
    warn_left_out(root, left_out, loose=look_into(root).images)
    if seed is None:
        return photos(root, names, {"test": examples})
    parts = split_by_seed(
        examples.labels, seed, image=lambda n: root / examples.keys[n], classes=[root / name for name in classes],
        first=first_of_equal(str(root), examples.keys), val_split=val_split,
    )  # fmt: skip
    splits: dict[Split, Sequence[Example]] = {split: examples.at(indices) for split, indices in parts.items()}
    return photos(root, names, splits)


def _split_folder(root: Path, places: Mapping[Split, str], seed: int | None, val_split: float | None) -> Dataset:
    leading = next(split for split in SPLITS if split in places)
    names = _class_names(root / places[leading], _enough(root / places[leading], folders_in(root / places[leading])))
    splits: dict[Split, Examples] = {}
    left_out: Counter[str] = Counter()
    known, loose = set(names), 0
    for split, place in places.items():
        classes = folders_in(root / place)
        unknown = [name for name in classes if composed(name) not in known]
        if split == "test" and len(unknown) == len(classes) == 1:
            warn_unlabeled(root / place, len(images_in(root / place)))
            continue
        if unknown:
            raise ZooError(_unknown(root, place, unknown, places[leading], names))
        splits[split] = _list(root, f"{place}/", classes, names, left_out)
        loose += look_into(root / place).images
    warn_left_out(root, left_out, loose=loose)
    own = divided(root, splits, seed, val_split, first=lambda train: first_of_equal(str(root), train.keys))
    return photos(root, names, own)


def _unknown(root: Path, folder: str, unknown: Sequence[str], leading: str, known: Sequence[str]) -> str:
    """The message about classes that are missing in the ``leading`` split, whose classes are ``known``."""
    if len(unknown) == 1:
        guess = printable(nearest(composed(unknown[0]), known))
        return f"{root / folder / unknown[0]}: class {unknown[0]!r} is not among those of {root / leading}{guess}"
    return f"{root / folder}: {len(unknown):,} classes are not among those of {root / leading}: {first_few(unknown)}"


def _class_names(root: Path, folders: Sequence[str]) -> list[str]:
    """The class names of ``folders``. Raises :class:`ZooError` if two are the same name in different encodings."""
    names = list(map(composed, folders))
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ZooError(f"{root}: has two folders each named {first_few(twice)}, encoded differently; merge them")
    return names


def _enough(root: Path, names: Sequence[str]) -> Sequence[str]:
    if len(names) < 2:
        deeper = names and look_into(root / names[0]).folders
        below = "; put the images of each class into a folder of its own"
        below = f" ({printable(names[0])}); give it instead if the classes are in it" if deeper else below
        if not names and (loose := sum(is_image(name) for name in os.listdir(root))):
            below = f" ({loose:,} images lie directly in it); put the images of each class into a folder"
        raise ZooError(f"{printable(str(root))}: needs at least 2 class folders, has {len(names)}{below}")
    return names


def _list(root: Path, prefix: str, classes: Sequence[str], names: Sequence[str], left_out: Counter[str]) -> Examples:
    """All images of the folders ``classes`` in ``root / prefix``, class by class; labels are indices into ``names``.

    Files left out are counted in ``left_out``.
    """
    counts: list[int] = []
    empty: list[Path] = []

    def keys() -> Iterator[str]:
        for name in classes:
            members = images_in(root / prefix / name, left_out)
            counts.append(len(members))
            if not members:
                empty.append(root / prefix / name)
            yield from (f"{prefix}{name}/{member}" for member in members)

    all_keys = Names.of(keys())
    if empty:
        _refuse_empty(root / prefix, empty, left_out)
    numbers = {name: label for label, name in enumerate(names)}
    labels = np.repeat(np.array([numbers[composed(name)] for name in classes], dtype=np.int32), counts)
    return Examples(all_keys, labels, np.arange(len(all_keys)), FolderSource(str(root)))


def _refuse_empty(root: Path, empty: Sequence[Path], left_out: Counter[str]) -> None:
    """Raise :class:`ZooError` for class folders without image files."""
    others = (
        f"; there are other files: {first_few([f'{n:,} {e}' for e, n in sorted(left_out.items())])}" if left_out else ""
    )
    if len(empty) == 1:
        raise ZooError(f"{empty[0]}: has no image files, such as .jpg, .png or .webp{others}")
    names = first_few([path.name for path in empty])
    raise ZooError(
        f"{root}: {len(empty):,} class folders have no image files, such as .jpg, .png or .webp: {names}{others}"
    )
