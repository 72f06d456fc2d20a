"""Calibration: reading images, and finding the range of each map that is quantized with the least error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from PIL import Image

from fbnetv3_zoo.errors import ZooError, check_type
from fbnetv3_zoo.images import read_image
from fbnetv3_zoo.images.listing import images_in
from fbnetv3_zoo.runtimes.ort import session_options
from fbnetv3_zoo.utils.paths import exists, is_folder

Floats = npt.NDArray[np.float32]
LEAST_IMAGES = 8
IMAGES = 256
"""Images to calibrate with, where there are so many."""
BATCH = 8
_BINS, _LEVELS, _VALUES = 8192, 255, 50_000
_CLIPPINGS = np.linspace(0.3, 1.0, 71)


class Example(Protocol):
    """A labeled image of a data set."""

    @property
    def label(self) -> int:
        """The class's number."""

    def read(self) -> Image.Image:
        """The image."""


AnyExample = TypeVar("AnyExample", bound=Example)


class StoredImages(Sequence[Image.Image]):
    """Images that are read each time that one is asked for, as many photographs do not fit into memory."""

    def __init__(self, reads: Sequence[Callable[[], Image.Image]]) -> None:
        self._reads = reads

    def __len__(self) -> int:
        return len(self._reads)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> StoredImages: ...
    def __getitem__(self, index: int | slice) -> Image.Image | StoredImages:
        return StoredImages(self._reads[index]) if isinstance(index, slice) else self._reads[index]()

    def at(self, indices: Iterable[int]) -> StoredImages:
        """The images with these numbers."""
        return StoredImages([self._reads[n] for n in indices])

    @classmethod
    def of(cls, examples: Iterable[Example]) -> StoredImages:
        """The images of ``examples``."""
        return cls([example.read for example in examples])


def thinned(examples: Sequence[AnyExample], most: int) -> Sequence[AnyExample]:
    """At most so many of ``examples``, spread evenly over them."""
    return examples[:: max(1, -(-len(examples) // most))]


def sample_images(examples: Sequence[Example]) -> StoredImages:
    """Images spread evenly over ``examples``: all of them, or from 256 to twice as many."""
    return StoredImages.of(examples[:: max(1, len(examples) // IMAGES)])


def read_calibration(folder: str | Path, *, most: int = IMAGES) -> tuple[StoredImages, list[str]]:
    """The images in ``folder`` and its subfolders, at most ``most``, evenly spaced in the order of their names.

    What counts as an image is the same as for training. The second list has the name of each image's top subfolder of
    ``folder``, "" for images in ``folder`` itself. Raises :class:`ZooError` if the folder is missing or has fewer than
    8 images; so does an image that cannot be read.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise ZooError(f"{folder}: {'is a file' if exists(folder) else 'no such folder'}; give a folder of images")
    names = images_in(folder)
    check_enough(len(names), str(folder))
    chosen = [names[int(n)] for n in np.linspace(0, len(names) - 1, min(most, len(names)))]
    reads = [partial(read_image, folder / name) for name in chosen]
    return StoredImages(reads), [name.rpartition("/")[0].partition("/")[0] for name in chosen]


def check_images(name: str, images: object) -> None:
    """Raise :class:`ZooError`, which calls them ``name``, unless ``images`` may be a list, an array or a folder."""
    check_type(name, images, Sized | Path, "a list of images, or a folder of them")


def check_enough(count: int, place: str, *, at_least: int = LEAST_IMAGES) -> None:
    """Raise :class:`ZooError` unless the ``count`` images in ``place`` are enough for calibration."""
    if count < at_least:
        many = {0: "no images", 1: "one image"}.get(count, f"{count} images")
        raise ZooError(f"{place}: {many}; give at least {at_least} images like those the network will be used on")


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The quantized range of a map; values outside are clipped."""

    low: float
    high: float


def find_ranges(
    model: onnx.ModelProto, images: Floats, names: Sequence[str], *, clip: bool = True
) -> dict[str, ValueRange]:
    """The range to quantize for each tensor in ``names``, found by running ``model`` on ``images``.

    With ``clip`` it is the range with the least squared error in 8 bits, which may clip rare large values, else the
    range from the least to the greatest value. Raises :class:`ZooError` if values are not finite.
    """
    watched = {name: _Seen() for name in names}
    for name, values in map_values(model, images, names):
        watched[name].add(values)
    return {
        name: values_seen.least_error() if clip else ValueRange(values_seen.low, values_seen.high)
        for name, values_seen in watched.items()
    }


def map_values(model: onnx.ModelProto, images: Floats, names: Sequence[str]) -> Iterator[tuple[str, Floats]]:
    """Each tensor's values, batch by batch."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    (model_input,) = probed.graph.input
    outputs = {value.name for value in probed.graph.output}
    added = [name for name in names if name != model_input.name and name not in outputs]
    probed.graph.output.extend(map(onnx.helper.make_empty_tensor_value_info, added))
    options = session_options()
    session = onnxruntime.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    others = [name for name in names if name != model_input.name]
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        if model_input.name in names:
            yield model_input.name, batch
        if others:
            yield from zip(others, session.run(others, {model_input.name: batch}), strict=True)


_MOST = 2.0**100
"""The largest allowed value of a map; float32 must be able to represent multiples of it."""


class _Seen:
    """A histogram of a map's values with bins from -reach to reach, which doubles to include larger values."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self._reach, self._counts = 2.0**-20, np.zeros(_BINS)

    def add(self, values: Floats) -> None:
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(high - low):
            raise ZooError("the network's maps are not finite on these images; its weights are damaged")
        if (most := max(-low, high)) > _MOST:
            raise ZooError(f"the network's maps reach {most:.2g} on these images, too large for int8; keep it in float")
        self.low, self.high = min(self.low, low), max(self.high, high)
        while max(-self.low, self.high) > self._reach:
            self._reach *= 2
            pairs = self._counts.reshape(-1, 2).sum(1)
            self._counts = np.pad(pairs, _BINS // 4)
        some = values.reshape(-1)[:: 1 + values.size // _VALUES]
        bins = ((some + np.float32(self._reach)) * np.float32(_BINS / 2 / self._reach)).astype(np.int64)
        self._counts += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)

    def least_error(self) -> ValueRange:
        """The range, scaled down towards 0, with the least sum of squared errors of rounding and clipping."""
        (filled,) = self._counts.nonzero()
        centers, counts = (filled + 0.5) * (2 * self._reach / _BINS) - self._reach, self._counts[filled]
        best = np.inf, ValueRange(self.low, self.high)
        for part in _CLIPPINGS:
            low, high = self.low * part, self.high * part
            step = (high - low) / _LEVELS
            beyond = np.clip(centers, low, high) - centers
            error = float((counts * (beyond**2 + np.where(beyond == 0, step**2 / 12, 0.0))).sum())
            if error < best[0]:
                best = error, ValueRange(low, high)
        return best[1]
