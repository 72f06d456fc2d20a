"""Images with boxes in COCO's format, read and checked before anything is trained on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.images import read_image
from fbnetv3_zoo.utils.serialization import is_unicode

from .faults import Faults, in_brief
from .image_folder import ImageFolder
from .image_headers import orientation_of, sizes_of, turned_back
from .json_entries import Entries

T = TypeVar("T")
_LISTS = ("images", "annotations", "categories")
_LONGEST_SIDE = 1 << 24
"""Pixels: float32 has every whole number up to here."""


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image and its objects: ``boxes`` (objects, 4) as x0, y0, x1, y1 in pixels inside the image, ``labels`` from 1.

    ``crowd`` marks boxes around many objects, which are not trained on and count in no one's disfavour. ``names`` tells
    the objects as the file does: "annotation 7". ``orientation``: of EXIF, where the boxes are for the pixels as they
    are stored, and the image must not be turned upright; 1 otherwise.
    """

    path: Path
    image_id: int
    width: int
    height: int
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    names: tuple[str, ...] = ()
    orientation: int = 1

    def only(self, kept: npt.NDArray[np.bool_]) -> AnnotatedImage:
        """The same image with the objects where ``kept`` (objects) is true."""
        names = tuple(name for name, keep in zip(self.names, kept, strict=False) if keep)
        return replace(self, boxes=self.boxes[kept], labels=self.labels[kept], crowd=self.crowd[kept], names=names)


@dataclass(frozen=True)
class CocoData:
    """A checked data set. Label n is ``class_names[n - 1]``; ``faults`` says what was left out or mended, and where."""

    name: str
    samples: tuple[AnnotatedImage, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    faults: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)


def read_coco(annotations: str | Path, images: str | Path, *, follow_links: bool = False) -> CocoData:
    """The data set whose annotations are in a JSON file of COCO's format, and whose images are in a folder.

    Left out, and told of in ``faults``: images that are not there, cannot be read by their header, have no size or
    another than annotated, or lie outside the folder (see :class:`ImageFolder`; ``follow_links`` lets links lead
    there); boxes of images or categories that are not listed, boxes without a finite area in single precision. Mended:
    boxes that reach beyond their image are cut at its edge, categories of one name become one class. An image is turned
    upright as its EXIF orientation says, unless its annotated size is that of the pixels as stored.

    Raises :class:`ZooError` for a file that cannot be read or has another format, and where no image is left.
    """
    path, faults = Path(annotations), Faults()
    entries = Entries(path, _LISTS)
    reader = _Reader(path, ImageFolder(images, follow_links=follow_links), faults)
    categories = reader.categories(entries["categories"])
    first_ids = {name: number for number, name in reversed(categories.items())}
    names = tuple(dict.fromkeys(categories.values()))
    by_name = {name: label for label, name in enumerate(names, start=1)}
    labels = {number: by_name[name] for number, name in categories.items()}
    files = {image.number: image for image in _looked_at([*reader.images(entries["images"])], faults)}
    boxes = reader.boxes(entries["annotations"], files, labels)
    if not files:
        first = f"; {faults.lines[0]}" if faults.lines else ""
        raise ZooError(f"{path}: lists no image that is in {images}{first}")
    samples = tuple(_sample(image, boxes.get(number, [])) for number, image in files.items())
    return CocoData(path.stem, samples, names, tuple(first_ids[name] for name in names), faults.lines)


def open_image(sample: AnnotatedImage) -> Image.Image:
    """The image of a data set as its boxes are for. Raises :class:`ZooError` where its size is not the annotated."""
    image = turned_back(read_image(sample.path), sample.orientation)
    if image.size != (sample.width, sample.height):
        raise ZooError(
            f"{sample.path}: is {image.width} x {image.height} pixels, its annotations say {sample.width} x "
            f"{sample.height}; its boxes would be wrong"
        )
    return image


@dataclass(frozen=True)
class _Image:
    number: int
    name: str
    path: Path
    width: int
    height: int
    orientation: int = 1


@dataclass(frozen=True)
class _Box:
    corners: npt.NDArray[np.float32]
    label: int
    crowd: bool
    name: str


class _Reader:
    def __init__(self, path: Path, folder: ImageFolder, faults: Faults) -> None:
        self.path, self.folder, self.faults = path, folder, faults

    def categories(self, entries: Iterable[Any]) -> dict[int, str]:
        """Names by number, in the order of the numbers."""
        found: dict[int, str] = {}
        names: set[str] = set()
        for n, entry in enumerate(entries):
            number, name = _field(entry, "id"), _field(entry, "name")
            if type(number) is not int or not isinstance(name, str) or number in found:
                raise ZooError(f"{self.path}: categories[{n}] needs a whole number 'id' of its own and a text 'name'")
            if not is_unicode(name):
                raise ZooError(f"{self.path}: categories[{n}] has a 'name' that is not Unicode text; write another")
            if name in names:
                self.faults.add("categories of the name of another, taken for the same", name)
            names.add(name)
            found[number] = name
        if not found:
            raise ZooError(f"{self.path}: has no categories; there is nothing to find in its images")
        return dict(sorted(found.items()))

    def images(self, entries: Iterable[Any]) -> Iterable[_Image]:
        """The images whose files are there."""
        numbers = set()
        for n, entry in enumerate(entries):
            number, name = _field(entry, "id"), _field(entry, "file_name")
            size = _field(entry, "width"), _field(entry, "height")
            if type(number) is not int or not isinstance(name, str) or number in numbers:
                raise ZooError(f"{self.path}: images[{n}] needs a whole number 'id' of its own and a text 'file_name'")
            numbers.add(number)
            if not all(type(side) is int and 0 < side <= _LONGEST_SIDE for side in size):
                self.faults.add("images without a size, left out", name)
            elif self.folder.leads_outside(name):
                self.faults.add(f"images whose names or links lead outside {self.folder.folder}, left out", name)
            elif (path := self.folder.file(name)) is None:
                self.faults.add("images that are not there, left out", name)
            else:
                yield _Image(number, name, path, *size)

    def boxes(
        self, entries: Iterable[Any], images: Mapping[int, _Image], labels: Mapping[int, int]
    ) -> dict[int, list[_Box]]:
        """Every annotation that can be used, by image."""
        found: dict[int, list[_Box]] = {}
        for n, entry in enumerate(entries):
            image, label = _listed(entry, "image_id", images), _listed(entry, "category_id", labels)
            name = f"annotation {in_brief(entry['id'] if isinstance(entry, dict) and 'id' in entry else f'[{n}]')}"
            where = f"{name} of {image.name}" if image else name
            box, crowd = _corners(_field(entry, "bbox")), _field(entry, "iscrowd")
            if image is None:
                self.faults.add("boxes of images that are left out or not listed, left out", where)
            elif label is None:
                self.faults.add("boxes of categories that are not listed, left out", where)
            elif box is None:
                self.faults.add("boxes that are not four finite numbers with an area, left out", where)
            elif (cut := self._cut(box, image, where)) is not None:
                if crowd not in (None, 0, 1):
                    self.faults.add("boxes whose 'iscrowd' is neither 0 nor 1, taken for single objects", where)
                found.setdefault(image.number, []).append(_Box(cut, label, crowd in (1, True), name))
        return found

    def _cut(self, corners: Sequence[float], image: _Image, where: str) -> npt.NDArray[np.float32] | None:
        """The box as it is used, inside the image and in single precision; None where nothing is left of it."""
        x0, y0, x1, y1 = corners
        inside = [max(0.0, x0), max(0.0, y0), min(float(image.width), x1), min(float(image.height), y1)]
        if inside[2] <= inside[0] or inside[3] <= inside[1]:
            self.faults.add("boxes outside their image, left out", where)
            return None
        cut = np.array(inside, np.float32)
        if (cut[2:] <= cut[:2]).any():
            self.faults.add("boxes too thin for single precision, left out", where)
            return None
        if max(abs(a - b) for a, b in zip(inside, corners, strict=True)) > 1:
            self.faults.add("boxes that reached beyond their image, cut", where)
        return cut


def _field(entry: Any, name: str) -> Any:
    return entry.get(name) if isinstance(entry, dict) else None


def _listed(entry: Any, name: str, known: Mapping[int, T]) -> T | None:
    """What the number in a field stands for; None for one that is not listed, and for what is no whole number."""
    number = _field(entry, name)
    return known.get(number) if type(number) is int else None


def _corners(box: Any) -> list[float] | None:
    """The corners of COCO's (x, y, width, height); None where these are no finite numbers or there is no area."""
    if not isinstance(box, list) or len(box) != 4 or not all(type(x) in (int, float) for x in box):
        return None
    try:
        x, y, width, height = map(float, box)
    except OverflowError:
        return None
    fine = all(map(math.isfinite, (x, y, x + width, y + height))) and width > 0 and height > 0
    return [x, y, x + width, y + height] if fine else None


def _looked_at(images: Sequence[_Image], faults: Faults) -> list[_Image]:
    """Those whose files have the annotated size, upright or as stored."""
    found = []
    for image, size in zip(images, sizes_of(image.path for image in images), strict=True):
        told = image.width, image.height
        if isinstance(size, ZooError):
            reason = str(size).removeprefix(f"{image.path}: ")
            faults.add("images that cannot be read, left out", f"{in_brief(image.name)}: {reason}")
        elif size == told:
            found.append(image)
        elif size == told[::-1] and (orientation := orientation_of(image.path)) > 4:
            faults.add("images that EXIF says to turn but that are annotated as stored, not turned", image.name)
            found.append(replace(image, orientation=orientation))
        else:
            faults.add(
                "images of another size than annotated, left out",
                f"{in_brief(image.name)}: {size[0]} x {size[1]}, annotated {told[0]} x {told[1]}",
            )
    return _all_as_stored(found) if any(image.orientation > 1 for image in found) else found


def _all_as_stored(images: Sequence[_Image]) -> list[_Image]:
    """Sizes do not tell how a mirrored, upside-down or square image is annotated: as stored where others of it are."""
    found = []
    for image in images:
        orientation = orientation_of(image.path)
        same_size = image.width == image.height or orientation <= 4
        found.append(replace(image, orientation=orientation) if same_size else image)
    return found


def _sample(image: _Image, boxes: Sequence[_Box]) -> AnnotatedImage:
    return AnnotatedImage(
        image.path,
        image.number,
        image.width,
        image.height,
        np.array([box.corners for box in boxes], np.float32).reshape(-1, 4),
        np.array([box.label for box in boxes], np.int64),
        np.array([box.crowd for box in boxes], bool),
        tuple(box.name for box in boxes),
        image.orientation,
    )
