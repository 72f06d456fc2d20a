"""The short way in: :func:`create` a network by name, value or file, and :func:`list_models`."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError, nearest
from fbnetv3_zoo.model import FBNet
from fbnetv3_zoo.weights.files import load_into
from fbnetv3_zoo.zoo import ARCHS


def list_models(pattern: str = "*") -> list[str]:
    """Names of the published networks that match ``pattern`` (shell wildcards), in order of publication."""
    return [name for name in ARCHS if fnmatchcase(name, pattern)]


def find_arch(source: str | Path | Arch) -> Arch:
    """The network that ``source`` stands for: a value, a published name, or the path of an arch JSON file.

    Raises :class:`ZooError` for an unknown name (with the nearest known one) or an unreadable file.
    """
    if isinstance(source, Arch):
        return source
    if not isinstance(source, (str, Path)):
        raise ZooError(f"a model is named by text, a path or an Arch, not {source!r}")
    if str(source) in ARCHS:
        return ARCHS[str(source)]
    path = Path(source)
    if path.suffix != ".json":
        raise ZooError(f"unknown model {str(source)!r}{nearest(str(source), ARCHS)} `fbnetv3 list` shows all")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return Arch.from_json(text)
    except ZooError as error:
        raise ZooError(f"{path}: {error}") from None


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
        weights: a ``.safetensors`` file made by :func:`fbnetv3_zoo.save`, or one of this project's state dict. Where the
            file has another number of classes, the new classifier keeps its initial values; where it has another
            number of input channels, the stem's weights are adapted.
        generator: source of the initial weights (default: torch's global one).

    Raises :class:`ZooError` for anything that does not fit.
    """
    arch = find_arch(model)
    changes = {"num_classes": num_classes, "in_channels": in_channels}
    arch = replace(arch, **{field: value for field, value in changes.items() if value is not None})
    network = FBNet(arch, dropout=dropout, stochastic_depth=stochastic_depth, generator=generator)
    if weights is not None:
        load_into(network, weights)
    return network
