"""An opened model file, whatever its runtime, and the checks that all runtimes share."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..description import Description, other_kind
from ..errors import ZooError, in_short
from ..utils.onnx_io import EXPORT_AGAIN

Floats = npt.NDArray[np.float32]
Logits = Callable[[Floats], Floats]
Sizes = tuple[int | None, ...]
"""Batch, channels, height and width that a file accepts; None: any."""


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model file on its runtime: ``logits`` maps (images, channels, height, width) to (images, classes)."""

    description: Description
    logits: Logits


MOST_IMAGES, MOST_NUMBERS = 4096, 1 << 30
"""Largest fixed batch that a file may have, and the most numbers in it."""


def check_shape(sizes: Sequence[int]) -> None:
    """Raise :class:`ZooError` unless a file may have a fixed batch of these ``sizes``."""
    if sizes and sizes[0] > MOST_IMAGES and len(sizes) == 4:
        raise ZooError(f"it takes {sizes[0]} images at a time; at most {MOST_IMAGES} can be")
    if math.prod(sizes) > MOST_NUMBERS:
        raise ZooError(f"it takes batches of {_shown(sizes)}, which no machine holds")


def described(metadata: Mapping[str, str], path: Path, form: str) -> Description:
    """The description in the metadata of ``path``; ``form`` is the command of ``fbnetv3 export`` that writes one.

    Raises :class:`ZooError` if it is missing or damaged.
    """
    try:
        description = Description.from_metadata(metadata)
    except ZooError as error:
        raise ZooError(f"{path}: {error}") from None
    if description is None:
        unknown = f"does not describe its classes and preprocessing; export it with `fbnetv3 export {form}`"
        raise ZooError(f"{path}: {other_kind(metadata) or unknown}")
    return description


def unreadable(path: Path, kind: str, reason: object) -> ZooError:
    """The error for a file that its runtime refuses, with the first line of its ``reason``."""
    return ZooError(f"{path}: cannot be read as {kind} ({in_short(reason)}); {EXPORT_AGAIN}")


def check_installed(path: Path | str, name: str, extra: str, *packages: str) -> None:
    """Raise :func:`missing_extra` unless all ``packages`` are found, which are not imported: before long work."""
    if any(importlib.util.find_spec(package) is None for package in packages):
        raise missing_extra(path, name, extra)


def missing_extra(path: Path | str, name: str, extra: str) -> ZooError:
    """The error for a runtime that is not installed."""
    return ZooError(f'{path}: needs {name}, which is not installed; pip install "fbnetv3-zoo[{extra}]"')


def checked(
    path: Path, description: Description, sizes: Sequence[object], run: Logits, *, up_to: bool = False
) -> OpenModel:
    """Wrap ``run`` so that it accepts any number of images and checks its input.

    Args:
        path: the file, for errors.
        description: the file's description. Raises :class:`ZooError` if ``sizes`` contradict it.
        sizes: batch, channels, height and width that ``run`` accepts; anything but a whole number means any.
        run: computes the logits of a batch.
        up_to: whether a fixed batch size is a maximum; otherwise every batch is padded to exactly that size.
    """
    takes = tuple(size if isinstance(size, int) and size > 0 else None for size in sizes)
    side = description.preprocess.resolution
    expected = (None, description.arch.in_channels, side, side)
    if len(takes) != 4 or any(a is not None and b is not None and a != b for a, b in zip(takes, expected, strict=True)):
        raise ZooError(f"{path}: takes {_shown(takes)}, but says of itself {_shown(expected)}; export it again")
    try:
        check_shape([size or 1 for size in takes])
    except ZooError as error:
        raise ZooError(f"{path}: {error}") from None
    batch, classes = takes[0], description.arch.num_classes

    def logits(images: Floats) -> Floats:
        _check_images(path, images, (None, *takes[1:]))
        parts = [images] if batch is None else [images[n : n + batch] for n in range(0, len(images), batch)]
        answers = [_answer(path, part, run, 0 if up_to else batch or 0) for part in parts if len(part)]
        logits_of_all = np.concatenate(answers) if answers else np.zeros((0, classes), np.float32)
        if logits_of_all.shape != (len(images), classes):
            raise ZooError(
                f"{path}: answers {logits_of_all.shape} for {len(images)} images of {classes} classes; export it again"
            )
        return logits_of_all

    return OpenModel(description, logits)


def _answer(path: Path, images: Floats, run: Logits, exactly: int) -> Floats:
    count = len(images)
    if count < exactly:
        images = np.concatenate([images, np.zeros((exactly - count, *images.shape[1:]), np.float32)])
    try:
        return run(np.ascontiguousarray(images))[:count]
    except Exception as error:  # the runtimes' own exceptions share no base
        raise ZooError(f"{path}: cannot be computed ({in_short(error)})") from None


def _check_images(path: Path, images: Floats, takes: Sizes) -> None:
    fits = images.ndim == 4 and all(b is None or a == b for a, b in zip(images.shape, takes, strict=True))
    if not fits or images.dtype != np.float32:
        raise ZooError(f"{path}: images are {images.dtype} of shape {images.shape}; it takes float32, {_shown(takes)}")


def _shown(sizes: Sequence[int | None]) -> str:
    names = ("batch", "channels", "height", "width")
    shown = [str(size or names[n % 4]) for n, size in enumerate(sizes)]
    return f"({', '.join(shown)})"


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Discard everything written to standard output and error, by native code as well."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    saved = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2) if _is_open(descriptor)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor, _ in saved:
            os.dup2(nowhere, descriptor)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.close(nowhere)
        for descriptor, copy in saved:
            os.dup2(copy, descriptor)
            os.close(copy)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
