"""Images with boxes in COCO format, read and checked before training."""

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
from .image_headers import as_stored, orientation_of, sizes_of
from .json_entries import Entries

T = TypeVar("T")
_LISTS = ("images", "annotations", "categories")
_LONGEST_SIDE = 1 << 24
"""In pixels: float32 represents every whole number up to here."""


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image and its objects: ``boxes`` (objects, 4) as x0, y0, x1, y1 in pixels inside the image, ``labels`` from 1.

    ``crowd`` marks boxes around many objects, which are not trained on and are ignored in evaluation. ``names`` are the
    objects' names in the file, such as "annotation 7". ``orientation`` is the EXIF orientation if the boxes are for the
    pixels as stored, so that the image must not be turned upright; 1 otherwise.
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

    def only(self, mask: npt.NDArray[np.bool_]) -> AnnotatedImage:
        """The same image with only the objects where ``mask`` (objects) is true."""
        names = tuple(name for name, keep in zip(self.names, mask, strict=False) if keep)
        return replace(self, boxes=self.boxes[mask], labels=self.labels[mask], crowd=self.crowd[mask], names=names)


@dataclass(frozen=True)
class CocoData:
    """A checked dataset. Label n is ``class_names[n - 1]``; ``faults`` lists what was left out or corrected.

    ``file`` is the file of the annotations (None: they come from elsewhere).
    """

    name: str
    samples: tuple[AnnotatedImage, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    faults: tuple[str, ...] = ()
    file: Path | None = None

    def __len__(self) -> int:
        return len(self.samples)


def read_coco(annotations: str | Path, images: str | Path, *, follow_links: bool = False) -> CocoData:
    """The dataset with its annotations in a JSON file in COCO format and its images in a folder.

    Left out, and listed in ``faults``: images that are missing, have an unreadable header, no annotated size or not the
    annotated one, or lie outside the folder (see :class:`ImageFolder`; ``follow_links`` allows links that lead there);
    boxes of unlisted images or categories, and boxes without a finite area in single precision. Corrected: boxes that
    extend beyond their image are clipped, categories of the same name are merged into one class. An image is turned
    upright by its EXIF orientation, unless its annotated size is that of the pixels as stored.

    Raises :class:`ZooError` if the file cannot be read or has another format, or if no image is left.
    """
    path, faults = Path(annotations), Faults()
    entries = Entries(path, _LISTS)
    reader = _Reader(path, ImageFolder(images, follow_links=follow_links), faults)
    categories = reader.categories(entries["categories"])
    first_ids = {name: number for number, name in reversed(categories.items())}
    names = tuple(dict.fromkeys(categories.values()))
    by_name = {name: label for label, name in enumerate(names, start=1)}
    labels = {number: by_name[name] for number, name in categories.items()}
    files = {image.number: image for image in _of_annotated_size([*reader.images(entries["images"])], faults)}
    boxes = reader.boxes(entries["annotations"], files, labels)
    if not files:
        first = f"; {faults.lines[0]}" if faults.lines else ""
        raise ZooError(
            f"{path}: none of its images is usable in {images}{first}; give the folder of its images (--images)"
        )
    samples = tuple(_sample(image, boxes.get(number, [])) for number, image in files.items())
    return CocoData(path.stem, samples, names, tuple(first_ids[name] for name in names), faults.lines, path)


def open_image(sample: AnnotatedImage) -> Image.Image:
    """The image of a sample, oriented as its boxes. Raises :class:`ZooError` if its size is not the annotated one."""
    image = as_stored(read_image(sample.path), sample.orientation)
    if image.size != (sample.width, sample.height):
        raise ZooError(
            f"{sample.path}: has {image.width} x {image.height} pixels but is annotated as {sample.width} x "
            f"{sample.height}; correct the annotation or restore the image"
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


def _pixels(value: Any) -> Any:
    """``value``, as an int where it is a whole number with a point, as some tools write it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Reader:
    def __init__(self, path: Path, folder: ImageFolder, faults: Faults) -> None:
        self.path, self.folder, self.faults = path, folder, faults

    def categories(self, entries: Iterable[Any]) -> dict[int, str]:
        """Names by id, in ascending order of id."""
        categories: dict[int, str] = {}
        names: set[str] = set()
        for n, entry in enumerate(entries):
            number, name = _field(entry, "id"), _field(entry, "name")
            if type(number) is not int or not isinstance(name, str) or number in categories:
                raise ZooError(f"{self.path}: categories[{n}] needs a unique whole number 'id' and a text 'name'")
            if not is_unicode(name):
                raise ZooError(f"{self.path}: categories[{n}] has a 'name' that is not valid Unicode text; rename it")
            if name in names:
                self.faults.add("categories with the name of another, merged", name)
            names.add(name)
            categories[number] = name
        if not categories:
            raise ZooError(f"{self.path}: has no categories; give annotations with at least one category")
        return dict(sorted(categories.items()))

    def images(self, entries: Iterable[Any]) -> Iterable[_Image]:
        """The images whose files exist."""
        numbers = set()
        for n, entry in enumerate(entries):
            number, name = _field(entry, "id"), _field(entry, "file_name")
            size = _pixels(_field(entry, "width")), _pixels(_field(entry, "height"))
            if type(number) is not int or not isinstance(name, str) or number in numbers:
                raise ZooError(f"{self.path}: images[{n}] needs a unique whole number 'id' and a text 'file_name'")
            numbers.add(number)
            if not all(type(side) is int and 0 < side <= _LONGEST_SIDE for side in size):
                self.faults.add("images without a size, left out", name)
            elif self.folder.leads_outside(name):
                self.faults.add(f"images whose names or links lead outside {self.folder.folder}, left out", name)
            elif (path := self.folder.file(name)) is None:
                self.faults.add("images that do not exist, left out", name)
            else:
                yield _Image(number, name, path, *size)

    def boxes(
        self, entries: Iterable[Any], images: Mapping[int, _Image], labels: Mapping[int, int]
    ) -> dict[int, list[_Box]]:
        """The usable annotations by image id."""
        boxes: dict[int, list[_Box]] = {}
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
            elif (clipped := self._clip(box, image, where)) is not None:
                if crowd not in (None, 0, 1):
                    self.faults.add("boxes whose 'iscrowd' is neither 0 nor 1, taken for single objects", where)
                boxes.setdefault(image.number, []).append(_Box(clipped, label, crowd in (1, True), name))
        return boxes

    def _clip(self, corners: Sequence[float], image: _Image, where: str) -> npt.NDArray[np.float32] | None:
        """The box clipped to the image, in single precision; None if nothing is left of it."""
        x0, y0, x1, y1 = corners
        inside = [max(0.0, x0), max(0.0, y0), min(float(image.width), x1), min(float(image.height), y1)]
        if inside[2] <= inside[0] or inside[3] <= inside[1]:
            self.faults.add("boxes outside their image, left out", where)
            return None
        clipped = np.array(inside, np.float32)
        if (clipped[2:] <= clipped[:2]).any():
            self.faults.add("boxes too thin for single precision, left out", where)
            return None
        if max(abs(a - b) for a, b in zip(inside, corners, strict=True)) > 1:
            self.faults.add("boxes that extended beyond their image, clipped", where)
        return clipped


def _field(entry: Any, name: str) -> Any:
    return entry.get(name) if isinstance(entry, dict) else None


def _listed(entry: Any, name: str, known: Mapping[int, T]) -> T | None:
    """The entry of ``known`` for the id in a field; None if it is not listed or not a whole number."""
    number = _field(entry, name)
    return known.get(number) if type(number) is int else None


def _corners(box: Any) -> list[float] | None:
    """The corners of COCO's (x, y, width, height); None if these are not finite numbers or have no area."""
    if not isinstance(box, list) or len(box) != 4 or not all(type(x) in (int, float) for x in box):
        return None
    try:
        x, y, width, height = map(float, box)
    except OverflowError:
        return None
    valid = all(map(math.isfinite, (x, y, x + width, y + height))) and width > 0 and height > 0
    return [x, y, x + width, y + height] if valid else None


def _of_annotated_size(images: Sequence[_Image], faults: Faults) -> list[_Image]:
    """Those whose files have the annotated size, upright or as stored."""
    matching = []
    for image, size in zip(images, sizes_of(image.path for image in images), strict=True):
        annotated = image.width, image.height
        if isinstance(size, ZooError):
            reason = str(size).removeprefix(f"{image.path}: ")
            faults.add("images that cannot be read, left out", f"{in_brief(image.name)}: {reason}")
        elif size == annotated:
            matching.append(image)
        elif size == annotated[::-1] and (orientation := orientation_of(image.path)) > 4:
            faults.add("images with an EXIF rotation but annotated as stored, not rotated", image.name)
            matching.append(replace(image, orientation=orientation))
        else:
            faults.add(
                "images whose size differs from their annotation, left out",
                f"{in_brief(image.name)}: {size[0]} x {size[1]}, annotated {annotated[0]} x {annotated[1]}",
            )
    return _all_as_stored(matching) if any(image.orientation > 1 for image in matching) else matching


def _all_as_stored(images: Sequence[_Image]) -> list[_Image]:
    """Mark mirrored, upside-down and square images as stored too: their size does not show how they are annotated.

    Only called if another image of the dataset is annotated as stored.
    """
    marked = []
    for image in images:
        orientation = orientation_of(image.path)
        same_size = image.width == image.height or orientation <= 4
        marked.append(replace(image, orientation=orientation) if same_size else image)
    return marked


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
