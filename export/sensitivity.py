"""Which convolutions cost accuracy on int8: each quantised alone, with all others in float."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from fbnetv3_zoo.export.calibrate import Range
from fbnetv3_zoo.export.quantised_graph import Settings, WholeWeight, logits_of, quantised

Floats = npt.NDArray[np.float32]


def by_sensitivity(
    model: onnx.ModelProto, ranges: Mapping[str, Range], weights: Mapping[str, WholeWeight], settings: Settings,
    images: Floats,
) -> list[str]:  # fmt: skip
    """Names of the layers of ``model``, the one that on int8 changes its logits most first.

    ``images`` has shape (images, channels, height, width); 16 are enough to rank.
    """
    expected, errors = logits_of(model)(images), {}
    for layer in weights:
        alone = quantised(model, ranges, weights, settings, keep=weights.keys() - {layer})
        errors[layer] = float(np.square(logits_of(alone)(images) - expected).sum())
    return sorted(weights, key=lambda layer: -errors[layer])
