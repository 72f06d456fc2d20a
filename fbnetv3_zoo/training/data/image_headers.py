"""Reads the headers of all images before a run, so that unusable ones are reported before training starts.

:func:`look_at` is for images of any kind of data, :func:`check_images` for a :class:`Dataset`. If there are many, the
sizes of readable images are cached by path, size and time of their files, so that the next run over the same data
opens none of them.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from ...utils.in_order import in_order
from ...utils.log import LOG
from ..distributed import World
from ..execution import SKIPPING, Execution, OnBadImage
from . import SPLITS, Dataset, Example, Split

Size: TypeAlias = tuple[int, int]
"""Upright width and height in pixels."""
Words: TypeAlias = npt.NDArray[np.uint64]

_THREADS, _AT_ONCE, _AHEAD = 8, 256, 32
_LEAST_KEPT = 1000  # number of new images from which writing a cache file pays off
_MOST_KNOWN = 10_000_000  # maximum number of cached images per dataset


class EncodedImage(Protocol):
    """An image in a file, or in a part of one."""

    @property
    def path(self) -> str:
        """Its name in errors."""
        ...

    def stamp(self) -> str:
        """Its path, size and time, which change if it may be another image. Raises :class:`ZooError` if unavailable."""
        ...

    def open(self) -> BinaryIO:
        """The encoded image from its beginning. Raises :class:`ZooError` if it cannot be opened."""
        ...


class HeaderCache:
    """Cached sizes of readable images, by digests of their stamps, for the data at ``path``."""

    def __init__(self, path: str | Path) -> None:
        name = hashlib.sha256(str(Path(path).absolute()).encode(errors="surrogateescape")).hexdigest()[:16]
        self.file = cache_folder() / "image-sizes" / f"{name}.npy"
        self._known = _rows_in(self.file)
        self._stamps, self._sizes, self._news = array("Q"), array("Q"), 0

    def size_of(self, stamp: int) -> Size | None:
        """The cached size of the image with this stamp."""
        at = int(np.searchsorted(self._known[:, 0], np.uint64(stamp)))
        if at == len(self._known) or int(self._known[at, 0]) != stamp:
            return None
        packed = int(self._known[at, 1])
        return packed >> 32, packed & 0xFFFFFFFF

    def take(self, stamp: int, size: Size, *, new: bool) -> None:
        """Add a readable image."""
        self._stamps.append(stamp)
        self._sizes.append(size[0] << 32 | size[1])
        self._news += new

    def keep(self) -> None:
        """Write the cache if there are enough new images; errors are ignored."""
        if self._news < _LEAST_KEPT:
            return
        rows = np.stack([np.array(self._stamps, np.uint64), np.array(self._sizes, np.uint64)], 1)
        if len(self._known) <= _MOST_KNOWN:
            rows = np.concatenate([rows, self._known])
        _, indices = np.unique(rows[:, 0], return_index=True)
        try:
            with replacing(self.file) as temporary, temporary.open("wb") as file:
                np.save(file, rows[indices], allow_pickle=False)
        except ZooError:
            pass


def _rows_in(file: Path) -> Words:
    """Sorted stamps and sizes; empty if the file is missing, damaged or of another kind."""
    try:
        rows = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError):
        rows = None
    valid = isinstance(rows, np.ndarray) and rows.dtype == np.uint64 and rows.ndim == 2 and rows.shape[1] == 2
    if not valid or (rows[1:, 0] <= rows[:-1, 0]).any():
        return np.empty((0, 2), np.uint64)
    return cast("Words", rows)


def look_at(
    images: Iterable[object], path: str | Path, *, looked: Callable[[int], object] = lambda count: None
) -> Iterator[Size | ZooError | None]:
    """The size of each of ``images`` by its header, in order, or an error if it cannot be read; None for arrays.

    ``images`` are readers of a dataset, such as :class:`~fbnetv3_zoo.training.data.folder_source.FileReader`, or any
    other :class:`EncodedImage`; one without a stamp is taken for an array. ``path`` is the data's folder or file, for
    the cache of sizes. ``looked`` is called from time to time with the number of images read so far.
    """
    cache, count = HeaderCache(path), 0
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS, "image-headers") as pool:
        warnings.simplefilter("ignore")  # here for all threads, which share the filter
        left = iter(images)
        parts = iter(lambda: list(itertools.islice(left, _AT_ONCE)), [])
        for part in in_order(pool, lambda part: [_look(image, cache) for image in part], parts, ahead=_AHEAD):
            for stamp, size, new in part:
                if isinstance(size, tuple):
                    cache.take(stamp, size, new=new)
                yield size
            looked(count := count + len(part))
    cache.keep()


_Look: TypeAlias = tuple[int, Size | ZooError | None, bool]
"""Stamp, size or error, and whether it was not in the cache."""


def _look(image: object, cache: HeaderCache) -> _Look:
    if not hasattr(image, "stamp"):  # an array
        return 0, None, False
    image = cast("EncodedImage", image)
    try:
        text = image.stamp().encode(errors="surrogateescape")
        stamp = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        if (size := cache.size_of(stamp)) is not None:
            return stamp, size, False
        with image.open() as file:
            return stamp, size_of_image(file, image.path), True
    except ZooError as error:
        return 0, error, False


@dataclass(frozen=True, slots=True)
class Unusable:
    """The key of an image that a run cannot use, and the reason."""

    key: str
    reason: str


def check_images(
    data: Dataset,
    preprocess: Preprocess,
    recipe: Recipe,
    *,
    looked: Callable[[int, int], object] = lambda done, of: None,
) -> dict[Split, list[Unusable]]:
    """The images of ``data`` that training by ``recipe`` cannot use, by split: unreadable, too large or too thin.

    ``looked`` is called with the numbers of images read so far and in total.
    """
    total = sum(len(data[split]) for split in SPLITS)
    examples = ((split, example) for split in SPLITS for example in data[split])
    entries, to_read = itertools.tee(examples)
    sizes = look_at((example.read for _, example in to_read), _path_of(data), looked=lambda count: looked(count, total))
    unusable: dict[Split, list[Unusable]] = {split: [] for split in SPLITS}
    for (split, example), size in zip(entries, sizes, strict=True):
        cropped = split == "train" and recipe.augmentation.crop_area < 1  # which gives any image the right shape
        if (reason := _reason(example, size, None if cropped else preprocess)) is not None:
            unusable[split].append(Unusable(example.key, reason))
    return unusable


def _path_of(data: Dataset) -> str:
    """The folder of the files of ``data``, or its name if it has no files."""
    first = next((data[split][0].read for split in SPLITS if len(data[split])), None)
    return str(getattr(first, "root", data.name))


def _reason(example: Example, size: Size | ZooError | None, preprocess: Preprocess | None) -> str | None:
    if isinstance(size, ZooError):
        return str(size)
    if size is None or preprocess is None:
        return None
    try:
        preprocess.check_size(*size)
    except ZooError as error:
        return f"{printable(example.key)}: {error}"
    return None


def in_one_line(images: Sequence[Unusable], *, name: Callable[[Unusable], str] = lambda image: image.reason) -> str:
    """The first :data:`SHOWN` images, and the number of others."""
    more = len(images) - SHOWN
    return "; ".join(map(name, images[:SHOWN])) + (f"; and {more:,} more" if more > 0 else "")


def look_before_run(
    data: Dataset, preprocess: Preprocess, recipe: Recipe, *, execution: Execution, world: World = World(),
    looked: Callable[[int, int], object] = lambda done, of: None,
) -> list[Unusable]:  # fmt: skip
    """Check all images if ``execution.check_images``; returns those that the run has to skip, which are logged.

    Raises :class:`ZooError`, in every process of ``world``, if they must not be skipped or a split would be empty.
    """
    if not execution.check_images:
        return []
    by_split = world.share(check_images(data, preprocess, recipe, looked=looked) if world.leads else {})
    for split, images in by_split.items():
        if images and len(images) == len(data[split]):
            none = f"none of the {len(images):,} {split} images can be used: {in_one_line(images)}"
            raise ZooError(f"{none}; remove them, so that others are taken for it")
    unusable = [image for split in by_split for image in by_split[split]]
    if unusable and execution.on_bad_image is OnBadImage.RAISE:
        count = "" if len(unusable) == 1 else f"{len(unusable):,} images cannot be used: "
        raise ZooError(f"{count}{in_one_line(unusable)}; {SKIPPING} they are left out and counted")
    if unusable and world.leads:
        keys = in_one_line(unusable, name=lambda image: printable(image.key))
        LOG.warning("%s images cannot be used and are left out: %s", f"{len(unusable):,}", keys)
    return unusable
