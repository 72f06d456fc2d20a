"""The short way in: :func:`create` a network by name, value or file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.model import FBNet
from fbnetv3_zoo.weights.files import load_into
from fbnetv3_zoo.zoo import find_arch


def create(
    model: str | Path | Arch, *, num_classes: int | None = None, in_channels: int | None = None,
    dropout: float = 0.0, stochastic_depth: float = 0.0, weights: str | Path | None = None,
    generator: torch.Generator | None = None,
) -> FBNet:  # fmt: skip
    """A network, in training mode.

    Args:
        model: a published name (``list_models()``), an :class:`Arch`, or the path of a JSON file of one.
        num_classes: width of the classifier, if not the network's own.
        in_channels: channels of the images, if not the network's own.
        dropout: probability before the classifier.
        stochastic_depth: probability of dropping the last residual branch; see :class:`FBNet`.
        weights: a ``.safetensors`` file made by :func:`fbnetv3_zoo.save`, or of this project's state dict. Where the
            file has another number of classes, the new classifier keeps its initial values; where it has another
            number of input channels, the stem's weights are adapted.
        generator: source of the initial weights (default: torch's global one).

    Raises :class:`ZooError` for anything that does not fit.
    """
    arch = find_arch(model)
    arch = replace(
        arch,
        num_classes=arch.num_classes if num_classes is None else num_classes,
        in_channels=arch.in_channels if in_channels is None else in_channels,
    )
    network = FBNet(arch, dropout=dropout, stochastic_depth=stochastic_depth, generator=generator)
    if weights is not None:
        load_into(network, weights)
    return network
