"""Looking at the headers of all images before a run, so that what is known beforehand is told beforehand.

:func:`look_at` is for images of any kind of data, :func:`check_images` for a :class:`Dataset`. Sizes of sound images
are remembered in the cache, where they are many, by place, size and time of their files: the next run over the same
data opens none of them.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from ...errors import SHOWN, ZooError, printable
from ...images import size_of_image
from ...preprocess import Preprocess
from ...recipes import Recipe
from ...utils.atomic_write import replacing
from ...utils.cache_folder import cache_folder
from ...utils.log import LOG
from ..distributed import World
from ..execution import Execution, OnBadImage
from . import SPLITS, Dataset, Example, Split

Size: TypeAlias = tuple[int, int]
"""Upright width and height in pixels."""
Words: TypeAlias = npt.NDArray[np.uint64]

_THREADS, _AT_ONCE, _AHEAD = 8, 256, 32
_LEAST_KEPT = 1000  # new images from which a file is worth while
_MOST_KNOWN = 10_000_000  # images that are remembered for one place


class EncodedImage(Protocol):
    """An image in a file, or in a part of one."""

    @property
    def path(self) -> str:
        """What it is called in errors."""
        ...

    def stamp(self) -> str:
        """Its place, size and time: other text where it may be another image. Raises :class:`ZooError` likewise."""
        ...

    def open(self) -> BinaryIO:
        """The encoded image from its beginning. Raises :class:`ZooError` where it cannot be opened."""
        ...


class HeaderCache:
    """Sizes of sound images by digests of their stamps, kept in the cache for the data at ``place``."""

    def __init__(self, place: str | Path) -> None:
        name = hashlib.sha256(str(Path(place).absolute()).encode(errors="surrogateescape")).hexdigest()[:16]
        self.file = cache_folder() / "image-sizes" / f"{name}.npy"
        self._known = _rows_in(self.file)
        self._stamps, self._sizes, self._news = array("Q"), array("Q"), 0

    def size_of(self, stamp: int) -> Size | None:
        """What is known of the image with this stamp."""
        at = int(np.searchsorted(self._known[:, 0], np.uint64(stamp)))
        if at == len(self._known) or int(self._known[at, 0]) != stamp:
            return None
        packed = int(self._known[at, 1])
        return packed >> 32, packed & 0xFFFFFFFF

    def take(self, stamp: int, size: Size, *, new: bool) -> None:
        """Remember an image that is sound."""
        self._stamps.append(stamp)
        self._sizes.append(size[0] << 32 | size[1])
        self._news += new

    def keep(self) -> None:
        """Write what has been found anew; a cache that takes nothing is no error."""
        if self._news < _LEAST_KEPT:
            return
        rows = np.stack([np.array(self._stamps, np.uint64), np.array(self._sizes, np.uint64)], 1)
        if len(self._known) <= _MOST_KNOWN:
            rows = np.concatenate([rows, self._known])
        _, chosen = np.unique(rows[:, 0], return_index=True)
        try:
            with replacing(self.file) as temporary, temporary.open("wb") as file:
                np.save(file, rows[chosen], allow_pickle=False)
        except ZooError:
            pass


def _rows_in(file: Path) -> Words:
    """Stamps, in order, and sizes; nothing where the file is missing, damaged or of another kind."""
    try:
        rows = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError):
        rows = None
    sound = isinstance(rows, np.ndarray) and rows.dtype == np.uint64 and rows.ndim == 2 and rows.shape[1] == 2
    if not sound or (rows[1:, 0] <= rows[:-1, 0]).any():
        return np.empty((0, 2), np.uint64)
    return cast("Words", rows)


def look_at(
    images: Iterable[object], place: str | Path, *, looked: Callable[[int], object] = lambda count: None
) -> Iterator[Size | ZooError | None]:
    """By the header of each of ``images``, in order: its size, or why it cannot be read; None where it is no file's.

    ``images`` are readers of a data set, such as :class:`~fbnetv3_zoo.training.data.image_files.FileReader`, or
    any other :class:`EncodedImage`; one without a stamp is taken for an array. ``place`` is the data's folder or file,
    for the cache of sizes. ``looked`` is called now and then with the number of images checked so far.
    """
    memory, count = HeaderCache(place), 0
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS, "image-headers") as pool:
        warnings.simplefilter("ignore")  # once for all threads: it is not theirs to change
        for part in _in_order(pool, lambda chosen: [_look(image, memory) for image in chosen], images):
            for stamp, found, new in part:
                if isinstance(found, tuple):
                    memory.take(stamp, found, new=new)
                yield found
            looked(count := count + len(part))
    memory.keep()


_Look: TypeAlias = tuple[int, Size | ZooError | None, bool]
"""Stamp, size or why not, and whether that was not known before."""


def _in_order(
    pool: ThreadPoolExecutor, look: Callable[[Sequence[object]], list[_Look]], images: Iterable[object]
) -> Iterator[list[_Look]]:
    """What ``look`` finds, part by part; never more than a few parts ahead of who asks."""
    left, waiting = iter(images), list[Future[list[_Look]]]()
    try:
        while True:
            while len(waiting) < _AHEAD and (chosen := list(itertools.islice(left, _AT_ONCE))):
                waiting.append(pool.submit(look, chosen))
            if not waiting:
                return
            yield waiting.pop(0).result()
    finally:
        for part in waiting:
            part.cancel()


def _look(image: object, memory: HeaderCache) -> _Look:
    if not hasattr(image, "stamp"):  # an array
        return 0, None, False
    image = cast("EncodedImage", image)
    try:
        text = image.stamp().encode(errors="surrogateescape")
        stamp = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        if (size := memory.size_of(stamp)) is not None:
            return stamp, size, False
        with image.open() as file:
            return stamp, size_of_image(file, image.path), True
    except ZooError as error:
        return 0, error, False


@dataclass(frozen=True, slots=True)
class Unusable:
    """An image that a run cannot use, by its key, and why."""

    key: str
    reason: str


def check_images(
    data: Dataset,
    preprocess: Preprocess,
    recipe: Recipe,
    *,
    looked: Callable[[int, int], object] = lambda done, of: None,
) -> dict[Split, list[Unusable]]:
    """The images of ``data`` that training by ``recipe`` cannot use, by split: unreadable, too large, too thin.

    ``looked`` is told at how many images of how many has been looked.
    """
    total = sum(len(data[split]) for split in SPLITS)
    examples = ((split, example) for split in SPLITS for example in data[split])
    kept, given = itertools.tee(examples)
    sizes = look_at((example.read for _, example in given), _place(data), looked=lambda count: looked(count, total))
    found: dict[Split, list[Unusable]] = {split: [] for split in SPLITS}
    for (split, example), size in zip(kept, sizes, strict=True):
        cropped = split == "train" and recipe.augmentation.crop_area < 1  # to the input's shape, whatever the image's
        if (reason := _complaint(example, size, None if cropped else preprocess)) is not None:
            found[split].append(Unusable(example.key, reason))
    return found


def _place(data: Dataset) -> str:
    """Where the files of ``data`` lie; its name where they are none."""
    first = next((data[split][0].read for split in SPLITS if len(data[split])), None)
    return str(getattr(first, "root", data.name))


def _complaint(example: Example, size: Size | ZooError | None, preprocess: Preprocess | None) -> str | None:
    if isinstance(size, ZooError):
        return str(size)
    if size is None or preprocess is None:
        return None
    try:
        preprocess.check_size(*size)
    except ZooError as error:
        return f"{printable(example.key)}: {error}"
    return None


def in_one_line(found: Sequence[Unusable], *, name: Callable[[Unusable], str] = lambda image: image.reason) -> str:
    """The first :data:`SHOWN` of them, and how many more there are."""
    more = len(found) - SHOWN
    return "; ".join(map(name, found[:SHOWN])) + (f"; and {more:,} more" if more > 0 else "")


def look_before_run(
    data: Dataset, preprocess: Preprocess, recipe: Recipe, *, execution: Execution, world: World = World(),
    looked: Callable[[int, int], object] = lambda done, of: None,
) -> list[Unusable]:  # fmt: skip
    """Look at all images where ``execution`` says so; those that the run has to do without, which are logged.

    Raises :class:`ZooError`, in every process of ``world``, where it may not, or a split would be empty.
    """
    if not execution.check_images:
        return []
    found = world.share(check_images(data, preprocess, recipe, looked=looked) if world.leads else {})
    for split, images in found.items():
        if images and len(images) == len(data[split]):
            raise ZooError(f"none of the {len(images):,} {split} images can be used: {in_one_line(images)}")
    every = [image for split in found for image in found[split]]
    if every and execution.on_bad_image is OnBadImage.RAISE:
        count = "" if len(every) == 1 else f"{len(every):,} images cannot be used: "
        raise ZooError(f"{count}{in_one_line(every)}; with --on-bad-image skip they are left out and counted")
    if every and world.leads:
        shown = in_one_line(every, name=lambda image: printable(image.key))
        LOG.warning("%s images cannot be used and are left out: %s", f"{len(every):,}", shown)
    return every
