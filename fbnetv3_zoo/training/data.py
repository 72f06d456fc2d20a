"""Labelled images in three splits, no image in two of them: handwritten digits, or a folder of class folders."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from PIL import Image

from fbnetv3_zoo.errors import ZooError, check_whole
from fbnetv3_zoo.preprocess import IMAGENET_MEAN, IMAGENET_STD, read_image

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class Example:
    """One image, read when asked for, with its class number; ``key`` tells it from others in :attr:`fingerprint`."""

    read: Callable[[], Image.Image]
    label: int
    key: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples by split, with what a network needs to know of them.

    ``mean`` and ``std`` (of values in [0, 1]) have one entry a channel; ``resize_ratio`` is how much larger than the
    crop the shorter side is made for evaluation.
    """

    name: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_ratio: float
    splits: Mapping[Split, Sequence[Example]]

    def __getitem__(self, split: Split) -> Sequence[Example]:
        return self.splits[split]

    @property
    def fingerprint(self) -> str:
        """Digest of names, labels and keys in order: a run is only continued on the data it began with."""
        text = repr((self.name, self.class_names, [[(e.label, e.key) for e in self.splits[s]] for s in SPLITS]))
        return hashlib.sha256(text.encode()).hexdigest()


def find_dataset(source: str | Path, *, seed: int = 0) -> Dataset:
    """The dataset that ``source`` stands for: ``"digits"``, or the path of a folder (see :func:`folder`)."""
    return digits(seed=seed) if str(source) == "digits" else folder(source, seed=seed)


def digits(*, seed: int = 0) -> Dataset:
    """The 1,797 handwritten digits that scikit-learn ships: 8 x 8 grey images, about 20 % each for validation and test.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository.
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    pixels = np.rint(source.images * (255 / 16)).astype(np.uint8)
    labels = [int(label) for label in source.target]
    names = tuple(str(digit) for digit in range(10))
    parts = _split([image.tobytes() for image in pixels], labels, seed, images=range(len(labels)), classes=names)
    splits = {
        split: tuple(Example(_ArrayReader(pixels[n]), labels[n], key=str(n)) for n in chosen)
        for split, chosen in parts.items()
    }
    return Dataset("digits", names, (0.305,), (0.376,), 1.0, MappingProxyType(splits))


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
    files = _class_files(root)
    names = tuple(files)
    found = [(file, names.index(name)) for name, members in files.items() for file in members]
    digests = [hashlib.sha256(file.read_bytes()).digest() for file, _ in found]
    paths, labels = [file for file, _ in found], [label for _, label in found]
    parts = _split(digests, labels, seed, images=paths, classes=[root / name for name in names])
    splits = {split: tuple(_file_example(root, *found[n]) for n in chosen) for split, chosen in parts.items()}
    return _photos(root, names, splits)


def _split_folder(root: Path) -> Dataset:
    places: dict[Split, Path] = {"train": root / "train", "validation": root / "validation", "test": root / "test"}
    if not places["validation"].is_dir():
        places["validation"] = root / "val"
    if not places["validation"].is_dir():
        raise ZooError(f"{root}: has a train folder but no validation (or val) folder beside it")
    if not places["test"].is_dir():
        del places["test"]
    names = tuple(_class_files(places["train"]))
    splits: dict[Split, tuple[Example, ...]] = dict.fromkeys(SPLITS, ())
    for split, place in places.items():
        files = _class_files(place)
        if unknown := [name for name in files if name not in names]:
            raise ZooError(f"{place / unknown[0]}: class {unknown[0]!r} is not among those of {places['train']}")
        splits[split] = tuple(
            _file_example(root, file, names.index(name)) for name, members in files.items() for file in members
        )
    return _photos(root, names, splits)


def _photos(root: Path, names: tuple[str, ...], splits: Mapping[Split, Sequence[Example]]) -> Dataset:
    return Dataset(root.resolve().name, names, IMAGENET_MEAN, IMAGENET_STD, 8 / 7, MappingProxyType(dict(splits)))


def _class_files(root: Path) -> dict[str, list[Path]]:
    """Image files by class name, both sorted; hidden files and folders left out."""
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(folders) < 2:
        raise ZooError(f"{root}: needs at least 2 class folders, has {len(folders)}")
    files = {
        entry.name: sorted(
            file
            for file in entry.rglob("*")
            if file.suffix.lower() in IMAGE_SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(entry).parts)
        )
        for entry in folders
    }
    for name, members in files.items():
        if not members:
            raise ZooError(f"{root / name}: has no image files ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return files


def _split(
    contents: Sequence[Hashable], labels: Sequence[int], seed: int, *, images: Sequence[object],
    classes: Sequence[object],
) -> dict[Split, list[int]]:  # fmt: skip
    """Indices for each split, class by class; equal contents stay together. Errors name ``images`` and ``classes``."""
    check_whole("seed", seed, at_least=0, at_most=2**32 - 1)
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for n, (content, label) in enumerate(zip(contents, labels, strict=True)):
        groups[content].append(n)
        first = groups[content][0]
        if labels[first] != label:
            raise ZooError(f"{images[first]} and {images[n]}: one image in two classes; remove one of the two")
    rng = np.random.default_rng(seed)
    parts: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for label in sorted(set(labels)):
        members = [group for group in groups.values() if labels[group[0]] == label]
        if len(members) < 3:
            count = len(members)
            raise ZooError(f"{classes[label]}: has {count} different images; at least 3 are needed, one a split")
        order = rng.permutation(len(members))
        held_out = max(1, -(-len(members) // 5))
        parts["test"] += _flat(members[n] for n in order[:held_out])
        parts["validation"] += _flat(members[n] for n in order[held_out : 2 * held_out])
        parts["train"] += _flat(members[n] for n in order[2 * held_out :])
    return parts


def _flat(groups: Iterable[list[int]]) -> list[int]:
    return [n for group in groups for n in group]


@dataclass(frozen=True, slots=True)
class _ArrayReader:
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

    def __call__(self) -> Image.Image:
        return Image.fromarray(self.pixels)


@dataclass(frozen=True, slots=True)
class _FileReader:
    path: Path

    def __call__(self) -> Image.Image:
        return read_image(self.path)


def _file_example(root: Path, path: Path, label: int) -> Example:
    return Example(_FileReader(path), label, key=path.relative_to(root).as_posix())
