"""Int8 models of a float graph with more and more layers in float, until one is good enough."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx

from fbnetv3_zoo.utils.atomic_write import replacing

from .calibration import ValueRange, find_ranges
from .gptq import input_moments
from .qdq import Logits, QDQSettings, WholeWeight, layers_of, logits_of, observed, quantized, whole_weights
from .sensitivity import by_sensitivity

Floats = npt.NDArray[np.float32]
RANKED_ON = 8
"""Number of calibration images for ranking layers by sensitivity."""


class Int8Model(Protocol):
    """An int8 model in memory."""

    def logits(self, *, threads: int | None = None) -> Logits:
        """A function from images (images, channels, height, width) to logits."""

    def save(self, path: Path, entries: Mapping[str, str]) -> int:
        """Write it with ``entries`` as metadata; returns the size in bytes."""


@dataclass(frozen=True, slots=True)
class OnnxInt8:
    """A candidate for ONNX Runtime."""

    model: onnx.ModelProto

    def logits(self, *, threads: int | None = None) -> Logits:
        """See :class:`Int8Model`."""
        return logits_of(self.model, threads=threads)

    def save(self, path: Path, entries: Mapping[str, str]) -> int:
        """See :class:`Int8Model`."""
        onnx.helper.set_model_props(self.model, dict(entries))
        onnx.checker.check_model(self.model, full_check=True)
        with replacing(path) as temporary:
            onnx.save_model(self.model, temporary)
        return path.stat().st_size


class OnnxBuild:
    """Makes int8 models of one float graph for ONNX Runtime; ranges and weights are computed once, on first use."""

    def __init__(self, model: onnx.ModelProto, images: Floats, settings: QDQSettings, *, clip: bool) -> None:
        self._model, self._images, self._settings, self._clip = model, images, settings, clip

    def build(self, keep: frozenset[str]) -> OnnxInt8:
        """The int8 model in which the layers ``keep`` stay in float."""
        return OnnxInt8(quantized(self._model, self.ranges, self.weights, self._settings, keep=keep))

    def order(self, *, but: Collection[str]) -> list[str]:
        """All layers except ``but``, those first that cost most on int8."""
        images = self._images[:RANKED_ON]
        return by_sensitivity(self._model, self.ranges, self.weights, self._settings, images, but=but)

    @cached_property
    def ranges(self) -> dict[str, ValueRange]:
        """The ranges of all tensors that are quantized."""
        return find_ranges(self._model, self._images, observed(self._model.graph), clip=self._clip)

    @cached_property
    def weights(self) -> dict[str, WholeWeight]:
        """The int8 weights by layer name."""
        moments = input_moments(self._model, layers_of(self._model), self._images)
        return whole_weights(self._model, self._settings, moments=moments)


def good_enough(
    build: Callable[[frozenset[str]], Int8Model], batch: Floats, expected: Floats, *,
    keep: frozenset[str], agreement: float, most_float: int, order: Callable[[], Sequence[str]],
) -> tuple[Int8Model, frozenset[str]]:  # fmt: skip
    """The first candidate with the required agreement, as more and more layers are left in float.

    Otherwise the one with logits nearest to float, since these say more about few images than their classes do.
    """
    best, floating = build(keep), keep
    logits = best.logits()(batch)
    ranked: Sequence[str] | None = None
    count = 1
    while agreement_of(logits, expected) < agreement and count <= most_float:
        ranked = order() if ranked is None else ranked
        more = keep | set(ranked[:count])
        candidate = build(more)
        now = candidate.logits()(batch)
        if _distance(now, expected) < _distance(logits, expected) or agreement_of(now, expected) >= agreement:
            best, floating, logits = candidate, more, now
        count *= 2
    return best, floating


def _distance(logits: Floats, expected: Floats) -> float:
    return float(np.square(logits - expected).sum())


def agreement_of(logits: Floats, expected: Floats) -> float:
    """The part of images to which two batches of logits give the same class first."""
    return float((logits.argmax(1) == expected.argmax(1)).mean())
