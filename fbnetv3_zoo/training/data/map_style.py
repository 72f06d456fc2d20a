"""Datasets of other libraries as a :class:`Dataset`: torchvision's, Hugging Face's `datasets`, one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from PIL import Image, ImageOps

from ...errors import ZooError, in_short, printable
from ...preprocess import IMAGENET_MEAN, IMAGENET_STD, LeastSize
from .dataset import SPLITS, Dataset, Examples, Integers, Names, Split
from .find import find_dataset
from .random_split import hold_out_by_seed, split_by_seed

_IMAGES = ("image", "img", "pixel_values")
_LABELS = ("label", "labels", "fine_label", "target")


@runtime_checkable
class MapDataset(Protocol):
    """A dataset of map style: item ``n`` is (image, label), or a mapping with an image and a label.

    The image is one of Pillow, or an array or tensor of uint8: (height, width), (height, width, 3), or, if a tensor,
    (3, height, width). The label is the index of the class.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, n: int, /) -> Any: ...


TrainingData: TypeAlias = "Dataset | str | Path | MapDataset | Mapping[str, MapDataset]"


def as_dataset(
    data: TrainingData, *, name: str = "dataset", class_names: Sequence[str] | None = None,
    mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD, resize_ratio: float = 8 / 7,
    seed: int = 0, columns: tuple[str, str] | None = None,
) -> Dataset:  # fmt: skip
    """Datasets of torchvision, of `datasets`, or of one's own, as a :class:`Dataset`; such a one is returned as it is.

    Args:
        data: a mapping with "train" and, if there are such splits, "validation" and "test" (a `DatasetDict` is one), or
            one dataset; also what :func:`find_dataset` takes, without the options below. Without "validation", a fifth
            of the training images of each class, drawn by ``seed``, is held out; one dataset alone is divided into all
            three splits. Images are read when they are needed.
        name: for messages and reports.
        class_names: by label; default: what the training set calls them (``classes``, or the names of a `ClassLabel`),
            otherwise "0", "1", ...
        mean: of values in [0, 1], one per channel: three, or one for gray images.
        std: likewise the standard deviation.
        resize_ratio: ratio of the shorter side to the crop in evaluation.
        seed: of the split.
        columns: image and label in items that are mappings; default: the first that there is of "image", "img" and
            "pixel_values", and of "label", "labels", "fine_label" and "target".

    Raises :class:`ZooError` for labels that are no class indices, and, when it is read, for an item that is no image.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path):
        return find_dataset(data)
    given = dict(data) if isinstance(data, Mapping) else {"train": data}
    if unknown := [split for split in given if split not in SPLITS] or ([] if "train" in given else ["no 'train'"]):
        raise ZooError(f"{name}: has {printable(str(unknown[0]))}; give 'train' and, if any, 'validation' and 'test'")
    sources = {split: _Source.of(given[split], f"{name}, {split}", columns) for split in SPLITS if split in given}
    names = tuple(class_names or sources["train"].class_names)
    splits: dict[Split, Examples] = {split: source.examples(names) for split, source in sources.items()}
    train = splits["train"]
    if not isinstance(data, Mapping):
        parts = split_by_seed(train.labels, seed, image=lambda n: train.keys[n], classes=names)
        splits = {split: train.at(rows) for split, rows in parts.items()}
    elif "validation" not in splits:
        rest, held_out = hold_out_by_seed(train.labels, seed, first=np.arange(len(train)))
        splits |= {"train": train.at(rest), "validation": train.at(held_out)}
    full = {split: splits.get(split, ()) for split in SPLITS}
    return Dataset(name, names, tuple(mean), tuple(std), resize_ratio, MappingProxyType(full))


@dataclass(frozen=True, eq=False)
class _Source:
    """The images of one split; ``columns`` are None where items are pairs."""

    items: MapDataset
    name: str
    columns: tuple[str, str] | None

    @classmethod
    def of(cls, items: MapDataset, name: str, columns: tuple[str, str] | None) -> _Source:
        if not isinstance(items, MapDataset):
            raise ZooError(f"{name}: is of {type(items).__name__}, without a length or items by number")
        known = getattr(items, "column_names", None)
        if known is None and len(items) and isinstance(first := _item(items, 0, name), Mapping):
            known = list(first)
        if known is None or columns is not None:
            return cls(items, name, columns)
        found = [next((one for one in wanted if one in known), None) for wanted in (_IMAGES, _LABELS)]
        if found[0] is None or found[1] is None:
            shown = ", ".join(map(str, known))
            raise ZooError(f"{name}: has the columns {printable(shown)}; say which to use, columns=(IMAGE, LABEL)")
        return cls(items, name, (found[0], found[1]))

    @property
    def class_names(self) -> tuple[str, ...]:
        names = _class_names(self.items, self.columns)
        return tuple(map(str, names)) if names else tuple(map(str, range(int(self.labels.max(initial=-1)) + 1)))

    def examples(self, names: Sequence[str]) -> Examples:
        """All of them. Raises :class:`ZooError` for a label that is the index of none of ``names``."""
        labels = self.labels
        if len(wrong := np.flatnonzero((labels < 0) | (labels >= len(names)))):
            raise ZooError(
                f"{self.name}, item {wrong[0]}: has the label {labels[wrong[0]]}; there are {len(names)} classes"
            )
        keys = Names.of(f"{self.name}, item {n}" for n in range(len(labels)))
        return Examples(keys, labels, np.arange(len(labels)), self)

    @cached_property
    def labels(self) -> Integers:
        """The labels of all items, by the dataset's own list where it has one, otherwise by reading every item."""
        found = _labels(self.items, self.columns)
        if found is None:
            found = [self.parts(n)[1] for n in range(len(self.items))]
        array = np.asarray(found)
        if len(array) != len(self.items) or array.ndim != 1 or (len(array) and array.dtype.kind not in "iu"):
            shown = printable(str(found[0])) if len(found) else "none"
            raise ZooError(f"{self.name}: labels must be class indices, whole numbers from 0; the first is {shown}")
        return array.astype(np.int64)

    def parts(self, row: int) -> tuple[Any, Any]:
        """Image and label of an item."""
        item = _item(self.items, row, self.name)
        if self.columns is not None:
            return item[self.columns[0]], item[self.columns[1]]
        if not isinstance(item, Sequence) or len(item) < 2:
            raise ZooError(f"{self.name}, item {row}: is {type(item).__name__}, not (image, label) or a mapping")
        return item[0], item[1]

    def reader(self, row: int, key: str) -> _ItemReader:
        return _ItemReader(self, row, key)


@dataclass(frozen=True, slots=True)
class _ItemReader:
    source: _Source
    row: int
    key: str

    def __call__(self, at_least: LeastSize | None = None) -> Image.Image:
        image, _ = self.source.parts(self.row)
        if isinstance(image, Image.Image):
            return ImageOps.exif_transpose(image)
        array = np.asarray(image)
        if not isinstance(image, np.ndarray) and array.ndim == 3:  # a tensor has its channels first
            array = array.transpose(1, 2, 0)
        if (
            array.dtype != np.uint8
            or array.ndim not in (2, 3)
            or 0 in array.shape
            or array.shape[2:] not in ((), (1,), (3,))
        ):
            raise ZooError(
                f"{self.key}: is no image of Pillow or uint8 but {type(image).__name__} of {array.dtype}, "
                f"{array.shape}; leave out the dataset's transforms, training has its own"
            )
        return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2:] == (1,) else array))


def _item(items: MapDataset, row: int, name: str) -> Any:
    """An item. Raises :class:`ZooError` for whatever the dataset raises."""
    try:
        return items[row]
    except Exception as error:
        raise ZooError(f"{name}, item {row}: cannot be read ({in_short(error)})") from None


def _labels(items: Any, columns: tuple[str, str] | None) -> Any:
    """All labels as the dataset lists them; None if it does not."""
    if hasattr(items, "column_names") and columns is not None:
        return items[columns[1]][:]
    if hasattr(items, "indices") and hasattr(items, "dataset"):  # torch.utils.data.Subset
        whole = _labels(items.dataset, columns)
        return None if whole is None else np.asarray(whole)[np.asarray(items.indices, np.int64)]
    if getattr(items, "target_transform", None) is not None:
        return None
    listed = (getattr(items, name, None) for name in ("targets", "labels"))
    return next((labels for labels in listed if labels is not None and len(labels) == len(items)), None)


def _class_names(items: Any, columns: tuple[str, str] | None) -> Sequence[str] | None:
    """The class names that the dataset has; None if it has none."""
    if hasattr(items, "features") and columns is not None:
        return getattr(items.features[columns[1]], "names", None)
    if hasattr(items, "indices") and hasattr(items, "dataset"):
        return _class_names(items.dataset, columns)
    return getattr(items, "classes", None)
