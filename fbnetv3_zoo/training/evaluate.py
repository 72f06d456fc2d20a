"""Accuracy of anything that turns batches of arrays into logits: a module, an ONNX Runtime session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import ZooError, check_whole
from fbnetv3_zoo.preprocess import Preprocess, stack
from fbnetv3_zoo.training.data import Example

Floats = npt.NDArray[np.float32]
Predict = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How many of ``total`` images had their class ranked first (``top1``) or among the first five (``top5``).

    ``loss`` is the mean cross entropy in nats.
    """

    top1: int
    top5: int
    total: int
    loss: float

    @property
    def fraction(self) -> float:
        """Top-1 accuracy in [0, 1]."""
        return self.top1 / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson score interval of :attr:`fraction`."""
        from scipy.stats import binomtest

        found = binomtest(self.top1, self.total).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.fraction:.2%} ({self.top1} of {self.total}; 95 % interval {low:.2%} to {high:.2%})"


def evaluate(
    predict: Predict, examples: Sequence[Example], preprocess: Preprocess, *, batch_size: int = 64
) -> Accuracy:
    """Accuracy of ``predict``, which maps a batch (images, channels, height, width) to logits (images, classes)."""
    check_whole("batch_size", batch_size)
    if not examples:
        raise ZooError("there are no images to evaluate on in this split")
    top1 = top5 = 0
    loss = 0.0
    for images, labels in _batches(examples, preprocess, batch_size):
        logits = predict(images).astype(np.float64)
        own = np.take_along_axis(logits, labels[:, None], axis=1)
        rank = (~(logits < own)).sum(1) - 1  # ties count against us, and so does what is no number
        top1 += int((rank == 0).sum())
        top5 += int((rank < 5).sum())
        peak = logits.max(1, keepdims=True)
        with np.errstate(invalid="ignore"):  # infinite logits make the loss nan, which says enough
            loss += float((np.log(np.exp(logits - peak).sum(1)) + (peak - own)[:, 0]).sum())
    return Accuracy(top1, top5, len(examples), loss / len(examples))


def _batches(
    examples: Sequence[Example], preprocess: Preprocess, batch_size: int
) -> Iterator[tuple[Floats, npt.NDArray[np.int64]]]:
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        yield stack(preprocess, [e.read() for e in part]), np.array([e.label for e in part], dtype=np.int64)
