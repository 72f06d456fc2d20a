"""Int8 models for LiteRT, as candidates of :func:`fbnetv3_zoo.export.quantization.candidates.good_enough`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.runtimes import sandbox
from fbnetv3_zoo.runtimes.litert_tflite import Runner
from fbnetv3_zoo.utils.atomic_write import replacing

from ..litert.file import content
from ..litert.graph import Model
from .calibration import BATCH
from .candidates import OnnxBuild
from .litert_int8 import quantized
from .qdq import Floats, Logits


@dataclass(frozen=True, slots=True)
class LiteRTInt8:
    """A candidate for LiteRT."""

    model: Model

    def logits(self, *, threads: int | None = None) -> Logits:
        """See :class:`~fbnetv3_zoo.export.quantization.candidates.Int8Model`."""
        run = Runner(Path("network.tflite"), self.model.packed({}), threads)

        def logits(images: Floats) -> Floats:
            return np.concatenate([run(images[n : n + BATCH]) for n in range(0, len(images), BATCH)])

        return logits

    def save(self, path: Path, entries: Mapping[str, str]) -> int:
        """See :class:`~fbnetv3_zoo.export.quantization.candidates.Int8Model`."""
        data = content(self.model, entries)
        sandbox.remember(".tflite", (data,))
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        return len(data)


@dataclass(frozen=True, slots=True)
class LiteRTBuild:
    """Makes int8 models of the float graph ``model``, which errors call ``name``, with the numbers of ``work``.

    ``image`` is the shape of its images: channels, height and width.
    """

    name: str
    model: onnx.ModelProto
    image: tuple[int, int, int]
    work: OnnxBuild

    def __call__(self, keep: frozenset[str]) -> LiteRTInt8:
        """The int8 model in which the layers ``keep`` stay in float."""
        channels, *sides = self.image
        shape = (1, *sides, channels)
        try:
            return LiteRTInt8(quantized(self.model, shape, self.work.ranges, self.work.weights, keep=keep))
        except ZooError as error:
            raise ZooError(f"{self.name}: cannot be converted for LiteRT ({error})") from None
