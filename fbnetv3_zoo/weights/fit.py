"""Fitting a state dict to a network: strict but for the classifier's width and the number of input channels."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.model import FBNet

_CLASSIFIER = ("classifier.weight", "classifier.bias")
_STEM = "stages.0.0.conv.weight"


def adapt_stem(weight: Tensor, in_channels: int) -> Tensor:
    """A stem convolution's weight (out, channels, k, k) for another number of input channels.

    One channel takes the sum (a grey image then gives what its RGB copy gave); more are the old ones repeated in turn,
    scaled by old / new number of channels so that the response keeps its size.
    """
    old = weight.shape[1]
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    turns = -(-in_channels // old)
    return weight.repeat(1, turns, 1, 1)[:, :in_channels].contiguous() * (old / in_channels)


def fit_to(model: FBNet, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """``tensors`` as a complete state dict of ``model``.

    A classifier of another width is replaced by the model's own; a stem of another number of input channels is
    adapted. Any other difference raises :class:`ZooError`, with ``source`` before it; so do these two for a model on
    the meta device, which has no values of its own.
    """
    wanted = model.state_dict()
    fitted = dict(tensors)
    given, stem = fitted.get(_CLASSIFIER[0]), fitted.get(_STEM)
    if wanted[_CLASSIFIER[0]].is_meta:
        given = stem = None
    if given is not None and given.shape[0] != model.arch.num_classes:
        fitted.update({name: wanted[name] for name in _CLASSIFIER})
    if stem is not None and stem.ndim == 4 and _only_channels_differ(stem, wanted.get(_STEM)):
        fitted[_STEM] = adapt_stem(stem, model.arch.in_channels)
    _refuse_differences(fitted, wanted, model.arch.name, source)
    return fitted


def _only_channels_differ(stem: Tensor, wanted: Tensor | None) -> bool:
    if wanted is None or stem.shape[1] == wanted.shape[1]:
        return False
    return stem.shape[0] == wanted.shape[0] and stem.shape[2:] == wanted.shape[2:]


def _refuse_differences(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str, source: str) -> None:
    missing, left_over = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    shapes = [key for key in wanted.keys() & given.keys() if wanted[key].shape != given[key].shape]
    if missing or left_over:
        first = f"first missing: {missing[0]}" if missing else f"first left over: {left_over[0]}"
        raise ZooError(
            f"{source}: does not fit {name}: {len(missing)} tensors missing, {len(left_over)} left over ({first})"
        )
    if shapes:
        key = min(shapes)
        raise ZooError(
            f"{source}: does not fit {name}: {key} has shape {tuple(given[key].shape)}, not {tuple(wanted[key].shape)}"
        )
    for key in sorted(given):
        if wanted[key].is_floating_point() and not given[key].is_floating_point():
            raise ZooError(f"{source}: does not fit {name}: {key} is {given[key].dtype}; it must be floating point")
