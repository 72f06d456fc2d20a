"""Evaluation of anything that maps batches of images to logits, such as a module or an ONNX Runtime session."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ZooError, check_member
from ..preprocess import Preprocess
from .data import Example
from .distributed import World
from .evaluation_images import EvaluationBatch, EvaluationImages, UnreadableImage
from .execution import SKIPPING, OnBadImage
from .losses import row_scores

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Predict = Callable[[Floats], Floats]

FEW_CLASSES = 10  # for so few, the accuracy among the first five answers says little
_ALONE = World()


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """The numbers of ``images`` of the class ``name``, and of those classified correctly (``right``)."""

    name: str
    images: int
    right: int

    @property
    def fraction(self) -> float | None:
        """Accuracy in [0, 1]; None if the class has no images."""
        return self.right / self.images if self.images else None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval of :attr:`fraction`; from 0 to 1 without images."""
        return _wilson(self.right, self.images)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The result for each readable image, in the order of the examples; all other figures are derived from it.

    ``labels``, ``predicted``: true and top class. ``ranks``: number of other classes ranked at least as high as the
    true one (0: correct); ties and NaN count as errors. ``losses``: cross entropy in nats. ``probabilities``: those of
    the top class. ``positions``: index into the examples. ``skipped``: keys of the unreadable images. ``seconds``:
    duration of the whole evaluation.
    """

    labels: Ints
    predicted: Ints
    ranks: Ints
    losses: Doubles
    probabilities: Doubles
    positions: Ints
    skipped: tuple[str, ...]
    seconds: float
    class_names: tuple[str, ...]

    @property
    def total(self) -> int:
        """Number of evaluated images."""
        return len(self.labels)

    @property
    def top1(self) -> int:
        """Number of images whose true class is ranked first."""
        return int((self.ranks == 0).sum())

    @property
    def top5(self) -> int:
        """Number of images whose true class is among the first five."""
        return int((self.ranks < 5).sum())

    @property
    def fraction(self) -> float:
        """Top-1 accuracy in [0, 1]."""
        return self.top1 / self.total

    @property
    def top5_fraction(self) -> float:
        """Top-5 accuracy in [0, 1]."""
        return self.top5 / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval of :attr:`fraction`."""
        return _wilson(self.top1, self.total)

    @property
    def top5_interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval of :attr:`top5_fraction`."""
        return _wilson(self.top5, self.total)

    @property
    def loss(self) -> float:
        """Mean cross entropy in nats; not finite if a logit is not."""
        return float(self.losses.mean())

    @property
    def images_per_second(self) -> float:
        """Images per second of the whole evaluation: reading, preprocessing and inference."""
        return self.total / self.seconds

    @property
    def per_class(self) -> tuple[ClassAccuracy, ...]:
        """Accuracy of each class, in the order of :attr:`class_names`."""
        classes = len(self.class_names)
        images = np.bincount(self.labels, minlength=classes).tolist()
        right = np.bincount(self.labels[self.ranks == 0], minlength=classes).tolist()
        return tuple(ClassAccuracy(*row) for row in zip(self.class_names, images, right, strict=True))

    @property
    def answers(self) -> Ints:
        """Rows of true class, predicted class and number of images, for every pair that occurs, most frequent first.

        There are at most as many rows as images, however many classes there are.
        """
        classes = len(self.class_names)
        pairs, counts = np.unique(self.labels * classes + self.predicted, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        return np.stack([pairs[order] // classes, pairs[order] % classes, counts[order]], 1).astype(np.int64)

    @property
    def commonest(self) -> tuple[str, float]:
        """The most frequent class and its fraction in [0, 1], which is the accuracy of always predicting it."""
        counts = np.bincount(self.labels)
        return self.class_names[int(counts.argmax())], float(counts.max() / self.total)

    @property
    def beats_chance(self) -> bool:
        """Whether the 95 % interval lies above the accuracy of always predicting the most frequent class."""
        return self.interval[0] > self.commonest[1]

    @property
    def wrong(self) -> Ints:
        """Indices of the misclassified images, by decreasing loss; NaN comes first."""
        return self._by_loss(np.flatnonzero(self.ranks > 0))

    @property
    def right(self) -> Ints:
        """Indices of the correctly classified images, by decreasing loss: the least certain first."""
        return self._by_loss(np.flatnonzero(self.ranks == 0))

    def _by_loss(self, rows: npt.NDArray[np.intp]) -> Ints:
        losses = np.nan_to_num(self.losses[rows], nan=math.inf, posinf=math.inf)
        return rows[np.argsort(-losses, kind="stable")].astype(np.int64)

    def summary(self) -> dict[str, Any]:
        """The figures as plain values for JSON; the loss is None if it is not finite."""
        return {
            "accuracy": self.fraction,
            "interval": list(self.interval),
            "top5_accuracy": self.top5_fraction,
            "top5_interval": list(self.top5_interval),
            "top1": self.top1,
            "top5": self.top5,
            "total": self.total,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "skipped": len(self.skipped),
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.fraction:.2%} ({self.top1} of {self.total}; 95 % interval {low:.2%} to {high:.2%})"


def _wilson(right: int, total: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    if not total:
        return 0.0, 1.0
    low, high = binomtest(right, total).proportion_ci(method="wilson")
    return float(low), float(high)


def evaluate(
    predict: Predict, examples: Sequence[Example], preprocess: Preprocess, *,
    class_names: Sequence[str] | None = None, batch_size: int = 64, workers: int = 0,
    on_bad_image: OnBadImage = OnBadImage.RAISE, world: World = _ALONE,
) -> Evaluation:  # fmt: skip
    """Evaluate ``predict``, which maps (images, channels, height, width) to logits (images, classes), on ``examples``.

    Args:
        predict: called with batches of float32 arrays.
        examples: labeled images; each is read and preprocessed once, in full resolution.
        preprocess: preprocessing of the images.
        class_names: one per logit (default: the indices).
        batch_size: maximum batch size.
        workers: number of processes that load images (0: this one).
        on_bad_image: what to do if an image cannot be read or preprocessed.
        world: the processes that share the work, each calling this function with the same arguments: process r
            evaluates examples r, r + size and so on, and all get the whole result.

    Raises :class:`ZooError`, in every process, if there are no images, none can be read, one cannot be read and
    ``on_bad_image`` is RAISE, or the logits do not match labels and names.
    """
    check_member("on_bad_image", on_bad_image, OnBadImage)
    images = EvaluationImages(examples, preprocess, batch_size=batch_size, workers=workers, world=world)
    return evaluate_images(predict, images, class_names=class_names, on_bad_image=on_bad_image, world=world)


def evaluate_images(
    predict: Predict, images: EvaluationImages, *, class_names: Sequence[str] | None = None,
    on_bad_image: OnBadImage = OnBadImage.RAISE, world: World = _ALONE,
) -> Evaluation:  # fmt: skip
    """:func:`evaluate` for images that are evaluated again and again, as after every epoch."""
    started = time.perf_counter()
    share: _Share | str
    try:
        share = _predictions(predict, images, on_bad_image)
    except ZooError as error:  # passed on to the other processes, which would wait for this one's share
        share = str(error)  # the error itself would keep this frame, and so the loader's processes, alive
    shares = world.gather(share)
    seconds = max(world.gather(time.perf_counter() - started))
    return _merged(_raise_errors(shares), class_names, seconds)


@dataclass(slots=True)
class _Share:
    """The results of one process by batch, with rows positions, labels, predicted, ranks; and losses, probabilities."""

    integers: list[Ints] = field(default_factory=list)
    reals: list[Doubles] = field(default_factory=list)
    bad: list[UnreadableImage] = field(default_factory=list)
    classes: int = 0


def _predictions(predict: Predict, batches: Iterable[EvaluationBatch], on_bad_image: OnBadImage) -> _Share:
    share = _Share()
    for batch in batches:
        if batch.bad and on_bad_image is OnBadImage.RAISE:
            raise ZooError(f"{batch.bad[0].reason}; {SKIPPING} such images are left out and counted")
        share.bad += batch.bad
        if batch.images is None:
            continue
        labels = batch.labels
        logits = predict(batch.images.numpy()).astype(np.float64)
        share.classes = logits.shape[1]
        if labels.max() >= share.classes:
            raise ZooError(f"an image has label {labels.max()}, but the network has {share.classes} classes")
        predicted, ranks, losses, probabilities = row_scores(logits, labels)
        share.integers.append(np.stack([batch.positions, labels, predicted, ranks]))
        share.reals.append(np.stack([losses, probabilities]))
    return share


def _raise_errors(shares: Sequence[_Share | str]) -> list[_Share]:
    for share in shares:
        if isinstance(share, str):
            raise ZooError(share)
    return [share for share in shares if isinstance(share, _Share)]


def _merged(shares: Sequence[_Share], class_names: Sequence[str] | None, seconds: float) -> Evaluation:
    """The shares as one result in the order of the examples."""
    bad = sorted((bad for share in shares for bad in share.bad), key=lambda bad: bad.position)
    if not (integers := [block for share in shares for block in share.integers]):
        raise ZooError(f"none of the {len(bad)} images can be read; the first: {bad[0].reason}")
    table = np.concatenate(integers, axis=1)
    order = np.argsort(table[0])
    positions, labels, predicted, ranks = table[:, order]
    losses, probabilities = np.concatenate([block for share in shares for block in share.reals], axis=1)[:, order]
    classes = max(share.classes for share in shares)
    names = tuple(map(str, range(classes))) if class_names is None else tuple(class_names)
    if len(names) != classes:
        raise ZooError(f"class_names has {len(names)} names, but the network has {classes} classes")
    for array in (positions, labels, predicted, ranks, losses, probabilities):
        array.setflags(write=False)
    skipped = tuple(entry.key for entry in bad)
    return Evaluation(labels, predicted, ranks, losses, probabilities, positions, skipped, seconds, names)
