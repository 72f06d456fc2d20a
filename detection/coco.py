"""Images with boxes in COCO's format, read and checked before anything is trained on them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import ZooError

_SHOWN = 3
"""How many places of a kind of fault are named."""


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and its objects: ``boxes`` (objects, 4) as x0, y0, x1, y1 in pixels inside the image, ``labels`` from 1.

    ``crowd`` marks boxes around many objects, which are not trained on and count in no one's disfavour.
    """

    path: Path
    image_id: int
    width: int
    height: int
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CocoData:
    """A checked data set. Label n is ``class_names[n - 1]``; ``faults`` says what was left out or mended, and where."""

    name: str
    samples: tuple[Sample, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    faults: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)


def read_coco(annotations: str | Path, images: str | Path) -> CocoData:
    """The data set whose annotations are in a JSON file of COCO's format, and whose images are in a folder.

    Left out, and told of in ``faults``: images that are not there or have no size, boxes of images or categories that
    are not listed, boxes without a finite area. Mended: boxes that reach beyond their image are cut at its edge. Raises
    :class:`ZooError` for a file that cannot be read or has another format, and where no image is left.
    """
    path, folder = Path(annotations), Path(images)
    told = _read(path)
    reader = _Reader(path, folder)
    categories = reader.categories(told["categories"])
    files = reader.images(told["images"])
    boxes = reader.boxes(told["annotations"], files, categories)
    samples = tuple(_sample(place, boxes.get(number, []), folder) for number, place in files.items())
    if not samples:
        first = f"; {reader.faults()[0]}" if reader.faults() else ""
        raise ZooError(f"{path}: lists no image that is in {folder}{first}")
    ids = tuple(categories)
    return CocoData(path.stem, samples, tuple(categories[number] for number in ids), ids, tuple(reader.faults()))


def _read(path: Path) -> Mapping[str, list[Any]]:
    try:
        told = json.loads(path.read_bytes())
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ZooError(f"{path}: is no JSON ({error})") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(told, dict) or not isinstance(told.get(key), list):
            raise ZooError(f"{path}: has no list {key!r}; give a file of COCO's format for boxes")
    found: Mapping[str, list[Any]] = told
    return found


@dataclass(frozen=True)
class _Image:
    number: int
    file: str
    width: int
    height: int


class _Reader:
    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        self._count: Counter[str] = Counter()
        self._where: dict[str, list[str]] = {}

    def fault(self, kind: str, where: object) -> None:
        self._count[kind] += 1
        if len(shown := self._where.setdefault(kind, [])) < _SHOWN:
            shown.append(str(where))

    def faults(self) -> list[str]:
        """A line for every kind of fault: how often, and where first."""
        lines = []
        for kind, number in self._count.items():
            more = f" and {number - _SHOWN} more" if number > _SHOWN else ""
            lines.append(f"{number} {kind} ({', '.join(self._where[kind])}{more})")
        return lines

    def categories(self, entries: Iterable[Any]) -> dict[int, str]:
        found: dict[int, str] = {}
        for n, entry in enumerate(entries):
            number, name = _field(entry, "id"), _field(entry, "name")
            if type(number) is not int or not isinstance(name, str) or number in found:
                raise ZooError(f"{self.path}: categories[{n}] needs a whole number 'id' of its own and a text 'name'")
            found[number] = name
        if not found:
            raise ZooError(f"{self.path}: has no categories; there is nothing to find in its images")
        return dict(sorted(found.items()))

    def images(self, entries: Iterable[Any]) -> dict[int, _Image]:
        found: dict[int, _Image] = {}
        for n, entry in enumerate(entries):
            number, file = _field(entry, "id"), _field(entry, "file_name")
            size = _field(entry, "width"), _field(entry, "height")
            if type(number) is not int or not isinstance(file, str) or number in found:
                raise ZooError(f"{self.path}: images[{n}] needs a whole number 'id' of its own and a text 'file_name'")
            if not all(type(side) is int and side > 0 for side in size):
                self.fault("images without a size, left out", file)
            elif not (self.folder / file).is_file():
                self.fault("images that are not there, left out", file)
            else:
                found[number] = _Image(number, file, *size)
        return found

    def boxes(
        self, entries: Iterable[Any], images: Mapping[int, _Image], categories: Mapping[int, str]
    ) -> dict[int, list[tuple[list[float], int, bool]]]:
        """Box, label and crowd flag of every annotation that can be used, by image."""
        labels = {number: label for label, number in enumerate(categories, start=1)}
        found: dict[int, list[tuple[list[float], int, bool]]] = {}
        for n, entry in enumerate(entries):
            where = f"annotation {_field(entry, 'id') if isinstance(entry, dict) and 'id' in entry else f'[{n}]'}"
            image, category = images.get(_number(entry, "image_id")), _number(entry, "category_id")
            box = _field(entry, "bbox")
            if image is None:
                self.fault("boxes of images that are left out or not listed, left out", where)
            elif category not in labels:
                self.fault("boxes of categories that are not listed, left out", where)
            elif not _is_box(box):
                self.fault("boxes that are not four finite numbers with an area, left out", where)
            else:
                cut = _cut(box, image)
                if cut[2] <= cut[0] or cut[3] <= cut[1]:
                    self.fault("boxes outside their image, left out", where)
                    continue
                if max(abs(a - b) for a, b in zip(cut, _corners(box), strict=True)) > 1:
                    self.fault("boxes that reached beyond their image, cut", where)
                crowd = _field(entry, "iscrowd") in (1, True)
                found.setdefault(image.number, []).append((cut, labels[category], crowd))
        return found


def _field(entry: Any, name: str) -> Any:
    return entry.get(name) if isinstance(entry, dict) else None


def _number(entry: Any, name: str) -> int:
    value = _field(entry, name)
    return value if type(value) is int else -1


def _is_box(box: Any) -> bool:
    numbers = isinstance(box, list) and len(box) == 4 and all(type(x) in (int, float) and math.isfinite(x) for x in box)
    return numbers and box[2] > 0 and box[3] > 0


def _corners(box: list[float]) -> list[float]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def _cut(box: list[float], image: _Image) -> list[float]:
    x0, y0, x1, y1 = _corners(box)
    return [max(0.0, x0), max(0.0, y0), min(float(image.width), x1), min(float(image.height), y1)]


def _sample(image: _Image, boxes: list[tuple[list[float], int, bool]], folder: Path) -> Sample:
    return Sample(
        folder / image.file,
        image.number,
        image.width,
        image.height,
        np.array([box for box, _, _ in boxes], np.float32).reshape(-1, 4),
        np.array([label for _, label, _ in boxes], np.int64),
        np.array([crowd for _, _, crowd in boxes], bool),
    )
