"""Fit a state dict to a network, strictly except for the number of classes and of input channels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar, overload

import torch
from torch import Tensor, nn

from ..arch import Arch, Conv
from ..arch.torchvision_arch import AnyArch, TorchvisionArch
from ..description import Description
from ..errors import ZooError
from ..models.fbnet import FBNet
from ..models.network import Network
from ..models.torchvision_model import TorchvisionModel
from ..utils.log import LOG

AnyNetwork = TypeVar("AnyNetwork", bound=Network)


@overload
def new_network(
    arch: Arch, *, drop_rate: float = 0.0, drop_path_rate: float = 0.0, generator: torch.Generator | None = None
) -> FBNet: ...
@overload
def new_network(
    arch: AnyArch, *, drop_rate: float = 0.0, drop_path_rate: float = 0.0, generator: torch.Generator | None = None
) -> Network: ...
def new_network(
    arch: AnyArch, *, drop_rate: float = 0.0, drop_path_rate: float = 0.0, generator: torch.Generator | None = None
) -> Network:
    """The network with initial values, in training mode: this project's, or one of torchvision's."""
    kind = TorchvisionModel if isinstance(arch, TorchvisionArch) else FBNet
    return kind(arch, drop_rate=drop_rate, drop_path_rate=drop_path_rate, generator=generator)  # type: ignore[arg-type]


@overload
def skeleton(arch: Arch, *, drop_rate: float = 0.0, drop_path_rate: float = 0.0) -> FBNet: ...
@overload
def skeleton(arch: AnyArch, *, drop_rate: float = 0.0, drop_path_rate: float = 0.0) -> Network: ...
def skeleton(arch: AnyArch, *, drop_rate: float = 0.0, drop_path_rate: float = 0.0) -> Network:
    """The network on the meta device, without values, in training mode."""
    if isinstance(arch, TorchvisionArch):
        return TorchvisionModel(arch, drop_rate=drop_rate, drop_path_rate=drop_path_rate, empty=True)
    with torch.device("meta"):
        return FBNet(arch, drop_rate=drop_rate, drop_path_rate=drop_path_rate)


def assemble(
    model: AnyNetwork, description: Description, tensors: Mapping[str, Tensor], source: str, *,
    num_classes: int | None = None, in_chans: int | None = None, generator: torch.Generator | None = None,
) -> AnyNetwork:  # fmt: skip
    """Fill ``model``, the :func:`skeleton` of the described network, with ``tensors``, without copying them.

    Args:
        model: the network, which is returned.
        description: network, preprocessing and class names of the weights.
        tensors: a complete state dict of the network, of any floating-point type; converted to float32.
        source: prefix of errors.
        num_classes: number of classes; if it differs, the classifier is replaced by a new one, and a warning is logged.
        in_chans: number of image channels; if it differs, the stem is adapted (:func:`adapt_stem`), except in models of
            torchvision, which take gray images as they are.
        generator: source of a new classifier's values.

    Raises :class:`ZooError` for tensors that do not fit.
    """
    expected = model.state_dict()
    given = fitted(tensors, expected, description.arch.name, source)
    _fill(model, {name: tensor.to(expected[name].dtype) for name, tensor in given.items()})
    model.preprocess, model.class_names = description.preprocess, description.class_names
    model.weights, model.license = description.weights, description.license
    model.trained_on = description.trained_on
    if in_chans is not None and in_chans != model.arch.in_channels:
        before = model.arch.in_channels
        if isinstance(model, FBNet):
            _adapt_stem_of(model, in_chans, source)
            LOG.warning("%s: stem adapted from %d to %d channels", source, before, in_chans)
        model.arch, model.preprocess = (
            replace(model.arch, in_channels=in_chans),
            model.preprocess.for_channels(in_chans),
        )
    if num_classes is not None and num_classes != model.arch.num_classes:
        old = model.arch.num_classes
        LOG.warning("%s: new classifier for %d classes, not %d; all else is loaded", source, num_classes, old)
        model.reset_classifier(num_classes, generator=generator)
    return model


def _fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """``load_state_dict(assign=True)`` without its checks, which take a seventh of the time to load FBNetV3-E."""
    modules, parameters = dict(model.named_modules()), {name for name, _ in model.named_parameters()}
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        setattr(modules[owner], leaf, nn.Parameter(tensor) if name in parameters else tensor)


def _adapt_stem_of(model: FBNet, in_chans: int, source: str) -> None:
    arch = replace(model.arch, in_channels=in_chans)
    if not isinstance(arch.blocks[0].row, Conv):
        raise ZooError(f"{source}: cannot be adapted to {in_chans} channels; {arch.name} begins with no convolution")
    stem = model.get_submodule("stages.0.0.conv")
    assert isinstance(stem, nn.Conv2d)
    stem.weight, stem.in_channels = nn.Parameter(adapt_stem(stem.weight.detach(), in_chans)), in_chans


def adapt_stem(weight: Tensor, in_chans: int) -> Tensor:
    """The weight of a stem convolution, shape (out, channels, k, k), for another number of input channels.

    For one channel it is summed (a gray image gives the same output as its RGB copy); for more it is repeated
    cyclically and scaled by old / new number of channels.
    """
    old = weight.shape[1]
    if in_chans == 1:
        return weight.sum(1, keepdim=True)
    turns = -(-in_chans // old)
    return weight.repeat(1, turns, 1, 1)[:, :in_chans].contiguous() * (old / in_chans)


def fitted(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str, source: str) -> Mapping[str, Tensor]:
    """``given``, checked by :func:`check_fit`, and all of them finite."""
    check_fit(given, expected, name, source)
    refuse_non_finite(given, source)
    return given


def check_fit(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str, source: str) -> None:
    """Check that ``given`` are the tensors ``expected`` of the network ``name``.

    Raises :class:`ZooError`, which begins with ``source``, for missing, left-over or misshapen ones.
    """
    missing, left_over = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    shapes = [key for key in expected.keys() & given.keys() if expected[key].shape != given[key].shape]
    if missing or left_over:
        first = f"first missing: {missing[0]}" if missing else f"first left over: {left_over[0]}"
        raise ZooError(
            f"{source}: does not fit {name}: {len(missing)} tensors missing, {len(left_over)} left over ({first})"
        )
    if shapes:
        key = min(shapes)
        shape, right = str(tuple(given[key].shape))[:80], tuple(expected[key].shape)
        raise ZooError(f"{source}: does not fit {name}: {key} has shape {shape}, not {right}")
    for key in sorted(given):
        if expected[key].is_floating_point() and given[key].dtype not in _FLOATS:
            raise ZooError(f"{source}: does not fit {name}: {key} is {given[key].dtype}; it must be floating point")
        if not expected[key].is_floating_point() and (given[key].is_complex() or given[key].is_quantized):
            raise ZooError(f"{source}: does not fit {name}: {key} is {given[key].dtype}; it must be a whole number")


_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def refuse_non_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise :class:`ZooError`, which names the tensor, if one has values that are not finite as float32."""
    for key, fault in non_finite(tensors):
        raise ZooError(f"{source}: {key} is damaged: {fault}; take a file from before that")


def non_finite(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """The names of tensors with values that are not finite as float32, in order, each with what is said of it."""
    for key in sorted(tensors):
        tensor = tensors[key]
        if not tensor.is_floating_point() or math.isfinite(float(tensor.float().sum())):  # fast, and nearly always all
            continue
        if wrong := int((~tensor.float().isfinite()).sum()):
            subject = f"{wrong} of its {tensor.numel()} values are" if tensor.numel() > 1 else "its value is"
            yield key, f"{subject} NaN or infinite"
