"""Compares the logits of model files on their runtimes with those of their network."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fbnetv3_zoo.classify import Classifier, Floats
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.network import Network, network_of
from fbnetv3_zoo.preprocess import Preprocess, stack

from .sample_images import photographs

if TYPE_CHECKING:
    from PIL import Image

TOLERANCE = 1e-4
"""Largest allowed logit difference of a float32 file, relative to the largest logit."""

PHOTOGRAPHS = 10
BATCHES = (1, 2, 7)


@dataclass(frozen=True, slots=True)
class FileParity:
    """Comparison of one file with the reference.

    Attributes:
        path: the file.
        images: number of images compared.
        difference: the largest absolute difference of a logit.
        scale: the largest absolute logit of the reference.
        disagree: indices of the images whose top class differs.
    """

    path: Path
    images: int
    difference: float
    scale: float
    disagree: tuple[int, ...]

    @property
    def relative(self) -> float:
        """:attr:`difference` as a fraction of :attr:`scale`."""
        return self.difference / self.scale if self.scale else self.difference

    @property
    def agreement(self) -> float:
        """Fraction of the images, 0 to 1, with the same top class."""
        return 1 - len(self.disagree) / self.images

    def __str__(self) -> str:
        text = (
            f"{self.path}: logits differ by up to {self.difference:.2g}, {self.relative:.2g} of the largest; "
            f"same top class for {self.images - len(self.disagree)} of {self.images} images"
        )
        return f"{text}, not for {', '.join(map(str, self.disagree))}" if self.disagree else text

    def check(self, tolerance: float = TOLERANCE) -> None:
        """Raise :class:`ZooError` if :attr:`relative` exceeds ``tolerance``."""
        if not self.relative <= tolerance:
            raise ZooError(
                f"{self.path}: logits differ from the network's by {self.difference:.2g} at a scale of "
                f"{self.scale:.2g}, more than {tolerance:g} of it"
            )


@dataclass(frozen=True, slots=True)
class Parity:
    """Result of :func:`parity`: the name of the reference, and the comparison of each file, in the order given."""

    reference: str
    files: tuple[FileParity, ...]

    def __str__(self) -> str:
        return "\n".join([f"compared with {self.reference}:", *map(str, self.files)])


def parity(
    reference: Network | str | Path, paths: Sequence[str | Path], *, images: Sequence[Image.Image] | None = None,
    batches: Sequence[int] = BATCHES, threads: int | None = None, bfloat16: bool = False,
) -> Parity:  # fmt: skip
    """Compare model files with ``reference`` on images.

    Images are preprocessed as each file describes; the reference gets the same tensors. The files get them in batches
    of the sizes ``batches`` in turn, the reference one by one, which also reveals errors that depend on the batch.

    Args:
        reference: a network (a copy of it is evaluated), or a file of any kind that
            :meth:`~fbnetv3_zoo.classify.Classifier.open` takes.
        paths: the files.
        images: images to compare on (default: some photographs; noise for networks without 1 or 3 channels).
        batches: batch sizes.
        threads: number of threads for the files (default: chosen by the runtime).
        bfloat16: run OpenVINO files in bfloat16.

    Raises :class:`ZooError` if a file cannot be read or the reference's logits are not finite.
    """
    if images is not None and not images:
        raise ZooError("images is empty; give at least one, or None for photographs")
    name, network = _opened(reference)
    files = []
    for path in map(Path, paths):
        classifier = Classifier.open(path, threads=threads, bfloat16=bfloat16 and path.suffix == ".xml")
        prepared = _prepared(classifier.description.preprocess, images)
        files.append(_compared(path, _in_batches(network, prepared, [1]), _in_batches(classifier, prepared, batches)))
    return Parity(name, tuple(files))


def _compared(path: Path, expected: Floats, actual: Floats) -> FileParity:
    if not np.isfinite(expected).all():
        raise ZooError("the network's own logits are not finite; its weights are damaged")
    if actual.shape != expected.shape:
        raise ZooError(f"{path}: has {actual.shape[1]} classes, but the network has {expected.shape[1]}")
    difference = np.abs(actual.astype(np.float64) - expected).max()
    disagree = np.flatnonzero(actual.argmax(1) != expected.argmax(1))
    return FileParity(
        path=path,
        images=len(expected),
        difference=float("inf") if np.isnan(difference) else float(difference),
        scale=float(np.abs(expected).max()),
        disagree=tuple(disagree.tolist()),
    )


def _opened(reference: Network | str | Path) -> tuple[str, Classifier]:
    """The name of the reference and its classifier."""
    if not isinstance(reference, (str, os.PathLike)):
        return "PyTorch", Classifier.of(copy.deepcopy(network_of(reference, "reference")).cpu().eval())
    return str(reference), Classifier.open(reference)


def _prepared(preprocess: Preprocess, images: Sequence[Image.Image] | None) -> Floats:
    channels, side = len(preprocess.mean), preprocess.resolution
    if images is None and channels not in (1, 3):
        return np.random.default_rng(0).standard_normal((PHOTOGRAPHS, channels, side, side), dtype=np.float32)
    return stack(preprocess, photographs(PHOTOGRAPHS) if images is None else images)


def _in_batches(classifier: Classifier, images: Floats, batches: Sequence[int]) -> Floats:
    logits: list[Floats] = []
    start = 0
    while start < len(images):
        size = batches[len(logits) % len(batches)]
        logits.append(classifier.logits(images[start : start + size]))
        start += size
    return np.concatenate(logits)
