"""Whether model files answer as the network they were made from: on PyTorch, ONNX Runtime, OpenVINO, ExecuTorch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fbnetv3_zoo.classify import Classifier, Floats
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess, stack

from .sample_images import photographs

if TYPE_CHECKING:
    from PIL import Image

TOLERANCE = 1e-4
"""Largest difference of a logit that a float32 file may have, as a part of the largest logit."""

PHOTOGRAPHS = 10
BATCHES = (1, 2, 7)


@dataclass(frozen=True, slots=True)
class FileParity:
    """How far one file is from the reference.

    Attributes:
        path: the file.
        images: how many images both answered.
        difference: the largest absolute difference of a logit.
        scale: the largest absolute logit of the reference.
        disagree: positions of the images whose most probable class is another.
    """

    path: Path
    images: int
    difference: float
    scale: float
    disagree: tuple[int, ...]

    @property
    def relative(self) -> float:
        """:attr:`difference` as a part of :attr:`scale`."""
        return self.difference / self.scale if self.scale else self.difference

    @property
    def agreement(self) -> float:
        """The part of the images, 0 to 1, whose most probable class is the same."""
        return 1 - len(self.disagree) / self.images

    def __str__(self) -> str:
        text = (
            f"{self.path}: logits differ by up to {self.difference:.2g}, {self.relative:.2g} of the largest; "
            f"same top class for {self.images - len(self.disagree)} of {self.images} images"
        )
        return f"{text}, not for {', '.join(map(str, self.disagree))}" if self.disagree else text

    def check(self, tolerance: float = TOLERANCE) -> None:
        """Raise :class:`ZooError` where :attr:`relative` is over ``tolerance``."""
        if not self.relative <= tolerance:
            raise ZooError(
                f"{self.path}: differs from the network by {self.difference:.2g} at logits up to {self.scale:.2g}; "
                f"at most {tolerance:g} of that is allowed"
            )


@dataclass(frozen=True, slots=True)
class Parity:
    """What :func:`parity` found: the name of the reference, and each file, in the order given."""

    reference: str
    files: tuple[FileParity, ...]

    def __str__(self) -> str:
        return "\n".join([f"compared with {self.reference}:", *map(str, self.files)])


def parity(
    reference: FBNet | str | Path, paths: Sequence[str | Path], *, images: Sequence[Image.Image] | None = None,
    batches: Sequence[int] = BATCHES, threads: int | None = None, bfloat16: bool = False,
) -> Parity:  # fmt: skip
    """Compare model files with ``reference`` on images.

    Every file prepares the images as it says itself; the reference is given the same numbers. The files get them in
    batches of ``batches`` in turn, the reference all one by one, so that what depends on a batch is found, too.

    Args:
        reference: a network (a copy of it computes, in evaluation mode), or a file of any kind that
            :meth:`~fbnetv3_zoo.classify.Classifier.open` takes.
        paths: the files.
        images: default: some real photographs (noise for networks whose channels are neither 1 nor 3).
        batches: sizes of the batches.
        threads: how many threads compute the files (default: the runtimes' choice).
        bfloat16: compute OpenVINO's files in bfloat16.

    Raises :class:`ZooError` for files that cannot be read, and where the reference's logits are not finite.
    """
    if images is not None and not images:
        raise ZooError("images is empty; give at least one, or None for photographs")
    name, expected = _opened(reference)
    files = []
    for path in map(Path, paths):
        classifier = Classifier.open(path, threads=threads, bfloat16=bfloat16 and path.suffix == ".xml")
        prepared = _prepared(classifier.description.preprocess, images)
        wanted = _in_batches(expected, prepared, [1])
        files.append(_compared(path, wanted, _in_batches(classifier, prepared, batches)))
    return Parity(name, tuple(files))


def _compared(path: Path, wanted: Floats, found: Floats) -> FileParity:
    if not np.isfinite(wanted).all():
        raise ZooError("the network's own logits are not finite; its weights are damaged")
    if found.shape != wanted.shape:
        raise ZooError(f"{path}: answers {found.shape[1]} classes, the network {wanted.shape[1]}")
    difference = np.abs(found.astype(np.float64) - wanted).max()
    other = np.flatnonzero(found.argmax(1) != wanted.argmax(1))
    return FileParity(
        path=path,
        images=len(wanted),
        difference=float("inf") if np.isnan(difference) else float(difference),
        scale=float(np.abs(wanted).max()),
        disagree=tuple(other.tolist()),
    )


def _opened(reference: FBNet | str | Path) -> tuple[str, Classifier]:
    """The reference's name, and itself, ready to answer."""
    if isinstance(reference, FBNet):
        return "PyTorch", Classifier.of(copy.deepcopy(reference).cpu().eval())
    return str(reference), Classifier.open(reference)


def _prepared(preprocess: Preprocess, images: Sequence[Image.Image] | None) -> Floats:
    channels, side = len(preprocess.mean), preprocess.resolution
    if images is None and channels not in (1, 3):
        return np.random.default_rng(0).standard_normal((PHOTOGRAPHS, channels, side, side), dtype=np.float32)
    return stack(preprocess, photographs(PHOTOGRAPHS) if images is None else images)


def _in_batches(classifier: Classifier, images: Floats, batches: Sequence[int]) -> Floats:
    answers, start, turn = [], 0, 0
    while start < len(images):
        size = batches[turn % len(batches)]
        answers.append(classifier.logits(images[start : start + size]))
        start, turn = start + size, turn + 1
    return np.concatenate(answers)
