"""Datasets of other libraries as a :class:`Dataset`: torchvision's, Hugging Face's `datasets`, one's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np
from PIL import Image, ImageOps

from ...errors import ZooError, check_number, check_type, first_few, in_short, nearest, printable, shown, told
from ...preprocess import IMAGENET_MEAN, IMAGENET_STD, LeastSize, Preprocess
from .arrays import NO_IMAGE, array_of, image_of
from .dataset import SPLITS, Dataset, Examples, Integers, Names, Split
from .find import find_dataset
from .folder_contents import warn
from .random_split import hold_out_by_seed, split_by_seed
from .split_names import SPELLINGS, warn_unlabeled

_IMAGES = ("image", "img", "pixel_values")
_LABELS = ("label", "labels", "fine_label", "target")
_SPLIT_OF = {word: split for split, words in SPELLINGS.items() for word in words}
_MOST_UNNAMED = 1000
"""Classes that are named by number whatever the number of items."""


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
        data: a mapping with "train" and, if there are such splits, "validation" and "test" (a `DatasetDict` is one; the
            usual spellings, such as "val", are known), or one dataset; also what :func:`find_dataset` takes, without
            the options below. Without "validation", a fifth of the training images of each class, drawn by ``seed``,
            is held out; one dataset alone, also in a mapping, is divided into all three splits. A test split without
            labels (-1 throughout) is left out. Images are read when they are needed.
        name: for messages and reports.
        class_names: by label; default: what the training set calls them (``classes``, or the names of a `ClassLabel`),
            otherwise "0", "1", ... to the highest label, of which there may be 1,000, or as many as training images.
        mean: of values in [0, 1], one per channel: three, or one for gray images.
        std: likewise the standard deviation.
        resize_ratio: ratio of the shorter side to the crop in evaluation.
        seed: of the split.
        columns: image and label in items that are mappings; default: the first that there is of "image", "img" and
            "pixel_values", and of "label", "labels", "fine_label" and "target".

    Logs a warning about classes without training images. Raises :class:`ZooError` for options that do not fit, an empty
    split, labels that are no class indices, and, when it is read, for an item that is no image.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path):
        return find_dataset(data)
    check_type("name", name, str, "text")
    check_number("resize_ratio", resize_ratio, at_least=1)
    mean, std = _per_channel("mean", mean), _per_channel("std", std)
    Preprocess(8, 8, mean=mean, std=std)  # refuses what does not fit together
    _check_columns(columns)
    given = _by_split(data, name) if isinstance(data, Mapping) else {"train": data}
    sources = {split: _Source.of(given[split], f"{name}, {split}", columns) for split in SPLITS if split in given}
    if "test" in sources and sources["test"].unlabeled:
        left_out = sources.pop("test")
        warn_unlabeled(left_out.name, len(left_out.items))
    names = sources["train"].class_names if class_names is None else _distinct(class_names)
    splits: dict[Split, Examples] = {split: source.examples(names) for split, source in sources.items()}
    if len(names) < 2:
        raise ZooError(f"{name}: has one class, {shown(names[0])}; give images of at least two")
    train = splits["train"]
    if given.keys() == {"train"}:
        parts = split_by_seed(
            train.labels, seed, image=lambda n: train.keys[n], classes=[f"{name}: class {one!r}" for one in names]
        )
        splits = {split: train.at(rows) for split, rows in parts.items()}
    elif "validation" not in splits:
        rest, held_out = hold_out_by_seed(train.labels, seed, first=np.arange(len(train)))
        splits |= {"train": train.at(rest), "validation": train.at(held_out)}
    full = {split: splits.get(split, ()) for split in SPLITS}
    found = Dataset(name, names, mean, std, resize_ratio, MappingProxyType(full))
    if untrained := [names[n] for n in np.flatnonzero(found.counts("train") == 0)]:
        warn(f"{name}: classes without training images, which are not learned: {first_few(untrained)}")
    return found


def _per_channel(option: str, values: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, values))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) not in (1, 3):
        raise ZooError(f"{option} is {told(values)}; it must be three numbers, one per channel, or one for gray images")
    return numbers


def _check_columns(columns: object) -> None:
    if columns is not None and not (_is_list_of_text(columns) and len(columns) == 2):
        raise ZooError(f"columns is {told(columns)}; it must be two names, such as columns=('image', 'label')")


def _is_list_of_text(value: object) -> TypeGuard[Sequence[str]]:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value)


def _distinct(class_names: object) -> tuple[str, ...]:
    """The class names given. Raises :class:`ZooError` unless they are a list of different names."""
    if not _is_list_of_text(class_names) or not class_names:
        raise ZooError(f"class_names is {told(class_names)}; it must be a list of names, one per class")
    if repeated := [class_name for class_name, count in Counter(class_names).items() if count > 1]:
        raise ZooError(f"class_names has {shown(repeated[0])} more than once; give each class a name of its own")
    return tuple(class_names)


def _by_split(data: Mapping[str, MapDataset], name: str) -> dict[Split, MapDataset]:
    """The datasets by split, without a test split that is empty."""
    found: dict[Split, MapDataset] = {}
    for key, items in data.items():
        split = _SPLIT_OF.get(str(key).casefold())
        if split is None:
            raise ZooError(f"{name}: has {printable(str(key))}; {_EXPECTED}")
        if split in found:
            raise ZooError(f"{name}: has two {split} splits, one of them {printable(str(key))!r}; leave one out")
        found[split] = items
    if "train" not in found:
        raise ZooError(f"{name}: has no 'train'; {_EXPECTED}")
    if "test" in found and isinstance(found["test"], MapDataset) and not len(found["test"]):
        del found["test"]
    return found


_EXPECTED = "give 'train' and, if any, 'validation' and 'test'"


@dataclass(frozen=True, eq=False)
class _Source:
    """The images of one split; ``columns`` are None where items are pairs."""

    items: MapDataset
    name: str
    columns: tuple[str, str] | None

    @classmethod
    def of(cls, items: MapDataset, name: str, columns: tuple[str, str] | None) -> _Source:
        if isinstance(items, str | Path):
            raise ZooError(f"{name}: is a path; give the folder that has all splits alone, as find_dataset() takes it")
        if not isinstance(items, MapDataset):
            streamed = type(items).__module__.partition(".")[0] == "datasets"
            remedy = "load it without streaming=True" if streamed else "give a list of its items"
            raise ZooError(f"{name}: is of {type(items).__name__}, without a length or items by number; {remedy}")
        if not len(items):
            raise ZooError(f"{name}: is empty; give at least one item")
        known = getattr(items, "column_names", None)
        if known is None:
            first = _item(items, 0, name)
            known = list(first) if isinstance(first, Mapping) else None
        if known is None and columns is None:
            return cls(items, name, None)
        if known is None:
            raise ZooError(f"{name}, item 0: is {type(first).__name__}, without columns; leave out columns")
        listed = printable(", ".join(map(str, known)))
        if columns is not None:
            if absent := [one for one in columns if one not in known]:
                guess = nearest(absent[0], map(str, known))
                raise ZooError(f"{name}: has no column {shown(absent[0])}{guess}; there are {listed}")
            return cls(items, name, (columns[0], columns[1]))
        found = [next((one for one in wanted if one in known), None) for wanted in (_IMAGES, _LABELS)]
        if found[0] is None or found[1] is None:
            raise ZooError(f"{name}: has the columns {listed}; say which to use, columns=(IMAGE, LABEL)")
        return cls(items, name, (found[0], found[1]))

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the dataset calls them, otherwise numbers. Raises :class:`ZooError` if there would be too many."""
        if names := _class_names(self.items, self.columns):
            return self._told_apart([", ".join(one) if isinstance(one, tuple) else str(one) for one in names])
        row = int(self.labels.argmax())
        highest, items = int(self.labels[row]), len(self.labels)
        if highest >= max(_MOST_UNNAMED, items):
            raise ZooError(
                f"{self.name}, item {row}: has the label {highest}, which makes {highest + 1:,} classes for {items:,} "
                f"items; number the labels from 0, or give class_names"
            )
        return tuple(map(str, range(highest + 1)))

    def _told_apart(self, names: list[str]) -> tuple[str, ...]:
        """``names``, each different: one that an earlier class has, too, is followed by the number of its class."""
        first: dict[str, int] = {}
        for label, name in enumerate(names):
            first.setdefault(name, label)
        apart = _distinct([name if first[name] == label else f"{name} ({label})" for label, name in enumerate(names)])
        if again := [label for label, name in enumerate(names) if first[name] != label]:
            name, others = names[again[0]], f", and so on ({len(again)} classes)" if len(again) > 1 else ""
            warn(
                f"{self.name}: classes {first[name]} and {again[0]} are both called {shown(name)}; the second is now "
                f"{shown(apart[again[0]])}{others}"
            )
        return apart

    def examples(self, names: Sequence[str]) -> Examples:
        """All of them. Raises :class:`ZooError` for a label that is the index of none of ``names``."""
        labels = self.labels
        if len(wrong := np.flatnonzero((labels < 0) | (labels >= len(names)))):
            label = labels[wrong[0]]
            remedy = "labels count from 0; change it, or leave such items out"
            if label >= 0:
                remedy = f"there are {len(names)} classes, 0 to {len(names) - 1}; give class_names for all of them"
            raise ZooError(f"{self.name}, item {wrong[0]}: has the label {label}; {remedy}")
        keys = Names.of(f"{self.name}, item {n}" for n in range(len(labels)))
        return Examples(keys, labels, np.arange(len(labels)), self)

    @cached_property
    def _listed(self) -> Any:
        """The labels as they are, by the dataset's own list where it has one, otherwise by reading every item."""
        found = _labels(self.items, self.columns)
        return [self.parts(n)[1] for n in range(len(self.items))] if found is None else found

    @property
    def unlabeled(self) -> bool:
        """Whether no item has a label: all are -1, or None."""
        labels = array_of(self._listed)
        return labels.dtype.kind in "ifO" and all(label is None or label == -1 for label in labels.ravel().tolist())

    @cached_property
    def labels(self) -> Integers:
        """The labels of all items. Raises :class:`ZooError` if they are no whole numbers."""
        array = array_of(self._listed)
        if array.shape != (len(self.items),) or array.dtype.kind not in "iu":
            first, remedy = self._listed[0], ""
            if isinstance(first, str) and self.columns is not None and hasattr(self.items, "class_encode_column"):
                remedy = f"; number them by class_encode_column({self.columns[1]!r})"
            elif isinstance(first, str):
                remedy = "; number the classes, and give these names as class_names"
            text = printable(str(first))
            raise ZooError(
                f"{self.name}: labels must be class indices, whole numbers from 0; the first is {text}{remedy}"
            )
        return array.astype(np.int64)

    def parts(self, row: int) -> tuple[Any, Any]:
        """Image and label of an item."""
        item = _item(self.items, row, self.name)
        if self.columns is not None:
            if absent := [one for one in self.columns if not isinstance(item, Mapping) or one not in item]:
                raise ZooError(
                    f"{self.name}, item {row}: has no {shown(absent[0])}, unlike others; give all items both"
                )
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
            try:
                return ImageOps.exif_transpose(image)  # decodes it
            except Exception as error:  # Pillow's decoders raise many kinds
                raise ZooError(f"{self.key}: cannot be read ({in_short(error)})") from None
        if remedy := _remedy(image, self.source):
            raise ZooError(f"{self.key}: {NO_IMAGE} {type(image).__name__}; {remedy}")
        return image_of(image, self.key, any_integers=hasattr(self.source.items, "with_format"))


def _remedy(image: object, source: _Source) -> str:
    """What to do about an image that is neither opened nor an array; empty for others."""
    if image is None:
        return "drop the item"
    if isinstance(image, bytes | bytearray | str | Path | Mapping):
        column = repr(source.columns[0]) if source.columns else ""
        cast = f"cast_column({column}, Image()) opens it" if hasattr(source.items, "cast_column") else ""
        return cast or "open it, as PIL.Image.open() does"
    if isinstance(image, list | tuple):
        return "use with_format('numpy')" if hasattr(source.items, "with_format") else "make it an array of uint8"
    return ""


def _item(items: MapDataset, row: int, name: str) -> Any:
    """An item. Raises :class:`ZooError` for whatever the dataset raises."""
    try:
        return items[row]
    except Exception as error:
        raise ZooError(f"{name}, item {row}: cannot be read ({in_short(error)})") from None


def _labels(items: Any, columns: tuple[str, str] | None) -> Any:
    """All labels as the dataset lists them; None if it does not."""
    if hasattr(items, "column_names") and columns is not None:
        try:
            return items[columns[1]][:]
        except Exception:  # by a transform, which takes whole items
            return None
    if hasattr(items, "indices") and hasattr(items, "dataset"):  # torch.utils.data.Subset
        whole = _labels(items.dataset, columns)
        try:
            return None if whole is None else np.asarray(whole)[np.asarray(items.indices, np.int64)]
        except (IndexError, TypeError, ValueError):  # reading the items tells which
            return None
    if getattr(items, "target_transform", None) is not None:
        return None
    listed = (getattr(items, name, None) for name in ("targets", "labels"))
    return next((labels for labels in listed if _has_length(labels, len(items))), None)


def _has_length(labels: Any, length: int) -> bool:
    return hasattr(labels, "__getitem__") and not isinstance(labels, str | Mapping) and len(labels) == length


def _class_names(items: Any, columns: tuple[str, str] | None) -> Sequence[str] | None:
    """The class names that the dataset has; None if it has none."""
    if isinstance(features := getattr(items, "features", None), Mapping) and columns is not None:
        return getattr(features.get(columns[1]), "names", None)
    if hasattr(items, "indices") and hasattr(items, "dataset"):
        return _class_names(items.dataset, columns)
    names = getattr(items, "classes", None)
    return names if isinstance(names, Sequence) and not isinstance(names, str) else None
