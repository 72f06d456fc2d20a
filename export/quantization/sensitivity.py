"""Which convolutions cost accuracy on int8: each quantised alone, with all others in float.

What leaving a layer in float costs is mostly the size of its weights, so the error counts for each weight: small layers
that cost much come first. On EfficientNet-Lite0 sixteen layers in that order bring as much as sixteen by the error
alone, in 0.28 of the float file's size against 0.45, and 0.68 of its time against 0.84.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import onnx

from .calibration import ValueRange
from .qdq import QDQSettings, WholeWeight, logits_of, quantised

Floats = npt.NDArray[np.float32]


def by_sensitivity(
    model: onnx.ModelProto, ranges: Mapping[str, ValueRange], weights: Mapping[str, WholeWeight], settings: QDQSettings,
    images: Floats, *, but: Collection[str] = (),
) -> list[str]:  # fmt: skip
    """Names of the layers of ``model``, the one that on int8 changes its logits most for each of its weights first.

    Those that ``but`` names are left out.
    ``images`` has shape (images, channels, height, width); 16 are enough to rank.
    """
    expected, errors = logits_of(model)(images), {}
    for layer in weights.keys() - set(but):
        alone = quantised(model, ranges, weights, settings, keep=weights.keys() - {layer})
        errors[layer] = float(np.square(logits_of(alone)(images) - expected).sum())
    return sorted(errors, key=lambda layer: (-errors[layer] / weights[layer].whole.size, layer))
