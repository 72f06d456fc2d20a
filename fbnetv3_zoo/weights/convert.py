"""State dicts of other implementations, renamed to this project's parameter names. Always strict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fbnetv3_zoo.arch import Arch, Block
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.model import FBNet
from fbnetv3_zoo.rows import Conv, InvertedResidual, PoolingHead

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def from_official(arch: Arch, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The official FBNet layout (project mobile-vision) under this project's names.

    ``state_dict`` maps names such as ``backbone.stages.xif1_0.dw.conv.weight`` to tensors, with or without the prefix
    ``module.``; or it is the whole checkpoint, of which ``model_ema`` is taken where present, else ``state_dict``.
    Raises :class:`ZooError` naming missing and left-over keys, and tensors of the wrong shape by their official names.
    """
    inner = state_dict.get("model_ema") or state_dict.get("state_dict") or state_dict
    if not isinstance(inner, Mapping) or not all(isinstance(value, Tensor) for value in inner.values()):
        raise ZooError(f"state dict for {arch.name} is not a mapping of names to tensors")
    given = {key.removeprefix("module."): value for key, value in inner.items()}
    names = dict(_official_names(arch))
    missing, left_over = sorted(names.keys() - given.keys()), sorted(given.keys() - names.keys())
    if missing or left_over:
        difference = _some("missing", missing) + _some("left over", left_over)
        raise ZooError(f"state dict does not fit {arch.name}: {difference.removesuffix('; ')}")
    with torch.device("meta"):
        wanted = FBNet(arch).state_dict()
    converted = {}
    for official, ours in names.items():
        tensor = given[official].flatten(1) if ours == "classifier.weight" else given[official]
        if tensor.shape != wanted[ours].shape:
            shapes = f"{tuple(given[official].shape)}, not {tuple(wanted[ours].shape)}"
            raise ZooError(f"state dict does not fit {arch.name}: {official} has shape {shapes}")
        converted[ours] = tensor
    return converted


def _some(what: str, keys: list[str], limit: int = 3) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return f"{len(keys)} {what} ({', '.join(keys[:limit])}{more}); "


def _official_names(arch: Arch) -> Iterator[tuple[str, str]]:
    """Pairs (official name, our name) of every parameter and buffer."""
    for block in arch.blocks:
        official, ours = f"backbone.stages.xif{block.stage}_{block.index}", f"stages.{block.stage}.{block.index}"
        for theirs, own in _block_names(block):
            yield f"{official}.{theirs}", f"{ours}.{own}"
    yield from (("head.conv.weight", "classifier.weight"), ("head.conv.bias", "classifier.bias"))


def _block_names(block: Block) -> Iterator[tuple[str, str]]:
    row = block.row
    if isinstance(row, Conv):
        yield from _conv_norm("", "", row.bias)
    elif isinstance(row, InvertedResidual):
        if block.expands:
            yield from _conv_norm("pw.", "expand.", row.conv_bias)
        yield from _conv_norm("dw.", "depthwise.", row.conv_bias)
        if row.squeeze_excite is not None:
            for tensor in ("weight", "bias"):
                yield f"se.se.0.conv.{tensor}", f"squeeze_excite.reduce.{tensor}"
                yield f"se.se.1.{tensor}", f"squeeze_excite.expand.{tensor}"
        yield from _conv_norm("pwl.", "project.", row.conv_bias)
    elif isinstance(row, PoolingHead):
        yield from _conv_norm("pw.", "expand.", False)
        yield "pwl.conv.weight", "project.weight"
    elif not block.keeps_shape:
        yield from _conv_norm("conv.", "", False)


def _conv_norm(theirs: str, ours: str, bias: bool) -> Iterator[tuple[str, str]]:
    for tensor in ("weight", "bias")[: 1 + bias]:
        yield f"{theirs}conv.{tensor}", f"{ours}conv.{tensor}"
    for tensor in _NORM:
        yield f"{theirs}bn.{tensor}", f"{ours}norm.{tensor}"
