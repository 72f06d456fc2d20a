"""The short way in: :func:`create` a network by name, value or file, with weights or without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from .arch import Arch
from .models.fbnet import FBNet
from .weights.cache import WeightsCache
from .weights.pretrained import PretrainedRequest, find_weights, load_pretrained
from .weights.registry import RECORDS, WeightsEntry, find_network
from .zoo import ARCHS


def create(
    model: str | Path | Arch, *, pretrained: bool | str | Path = False, num_classes: int | None = None,
    in_channels: int | None = None, dropout: float = 0.0, stochastic_depth: float = 0.0,
    generator: torch.Generator | None = None, store: WeightsCache | None = None,
) -> FBNet:  # fmt: skip
    """A network, in training mode.

    Args:
        model: a published name (``list_models()``), the name of published weights (``fbnetv3_b.ra2_in1k``, see
            ``list_weights()``) for the network in their form, an :class:`Arch`, or the path of a JSON file of one.
        pretrained: load weights. True: the published ones. Or the tag of others (``"ra2_in1k"``), the path of a file,
            its HTTP(S) address (``#sha256=DIGITS``, 8 to 64 of them, pins its contents), or ``hf-hub:owner/name``.
            Files are ``.safetensors`` or checkpoints of torch.save, in this project's, the official or timm's layout.
        num_classes: width of the classifier, if not that of the weights or the network. Where the weights have another
            width the classifier is new and all else is loaded; the log says so.
        in_channels: channels of the images, likewise. Where the weights have others the stem is adapted.
        dropout: probability before the classifier.
        stochastic_depth: probability of dropping the last residual branch; see :class:`FBNet`.
        generator: source of the initial values (default: torch's global one).
        store: where weights are kept and how they are fetched (default: ``WeightsCache()``).

    A network given by name takes the form that the weights are for: timm's pad symmetrically and have no bias in the
    stem. One given as a value keeps its form, classes and channels. Raises :class:`ZooError` for anything that does
    not fit, and where weights cannot be had.
    """
    arch = find_network(model)
    if pretrained is not False:
        named = isinstance(model, str) and (model in ARCHS or model in RECORDS)
        weights = find_weights(str(model) if named else arch.name, pretrained)
        if named and isinstance(weights, WeightsEntry):
            arch = weights.arch
        wanted = PretrainedRequest(arch, named, num_classes, in_channels, dropout, stochastic_depth, generator)
        return load_pretrained(wanted, weights, WeightsCache() if store is None else store)
    arch = replace(
        arch,
        num_classes=arch.num_classes if num_classes is None else num_classes,
        in_channels=arch.in_channels if in_channels is None else in_channels,
    )
    return FBNet(arch, dropout=dropout, stochastic_depth=stochastic_depth, generator=generator)
