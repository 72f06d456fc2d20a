"""Training for int8: a network that rounds its weights and maps as its int8 form will, and learns to live with it.

Rounding has no slope; here its gradient is that of the identity within the range (arXiv 1308.3432), so that the weights
go on as floats. Steps of weights are per output channel and symmetric: folding a norm into its convolution scales them
along, and the whole numbers are those of the exported network. The place of each map is where the int8 graph of
:mod:`fbnetv3_zoo.export` has one: what convolutions and classifier take in, what is added to a residual, and a
convolution's answer ahead of hard swish (nothing below -3 counts there) and hard sigmoid (from -3 to 3).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.blocks import ClassifierHead, Conv2d, ConvNormAct
from ..models.fbnet import FBNet

LEVELS = 255
"""Steps between the least and the greatest value of a map: 8 bits."""

MOMENTUM = 0.1
"""How far a step moves the ranges that evaluation uses; batch norm's."""

_LEAST_STEP = 1e-12


class RoundedMap(nn.Module):
    """A map of 8 bits between its least and its greatest value, 0 included; nothing beyond ``least`` and ``greatest``.

    In training the range is the batch's own; in evaluation it is the running mean of the batches', which
    :func:`follow_ranges` moves. The buffers ``low`` and ``high`` hold it; as long as both are 0, nothing was seen.
    """

    low: Tensor
    high: Tensor

    def __init__(self, least: float = -math.inf, greatest: float = math.inf) -> None:
        super().__init__()
        self._least, self._greatest = least, greatest
        self._seen: tuple[Tensor, Tensor] | None = None
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        low, high = self.low, self.high
        if self.training:  # kept, not counted: a block that is recomputed in the backward pass sees the batch again
            low, high = (end.float() for end in torch.aminmax(x.detach()))
            low, high = low.clamp(self._least, 0.0), high.clamp(0.0, self._greatest)
            self._seen = low, high
        step = ((high - low) / LEVELS).clamp(min=_LEAST_STEP)
        zero = (-low / step).round().clamp(0, LEVELS).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x, step, zero, 0, LEVELS)

    def follow(self) -> None:
        """Let the running range follow the last batch; the first one seen takes it over."""
        if self._seen is None:
            return
        first = self.low == self.high
        for running, seen in zip((self.low, self.high), self._seen, strict=True):
            running.copy_(torch.where(first, seen, running.lerp(seen, MOMENTUM)))
        self._seen = None


class _Conv(nn.Conv2d):
    """``conv`` with its own parameters, of rounded weights and on a rounded map."""

    def __init__(self, conv: nn.Conv2d, levels: int) -> None:
        super().__init__(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,  # type: ignore[arg-type]
            conv.groups, bias=conv.bias is not None, device="meta",
        )  # fmt: skip
        self.weight, self.bias, self.levels = conv.weight, conv.bias, levels
        self.input = RoundedMap()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._conv_forward(self.input(x), rounded_weight(self.weight, self.levels), self.bias)
        return y


class _Linear(nn.Linear):
    """``linear`` with its own parameters, of rounded weights; its map is rounded ahead of dropout, which scales it."""

    def __init__(self, linear: nn.Linear, levels: int) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias, self.levels = linear.weight, linear.bias, levels

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, rounded_weight(self.weight, self.levels), self.bias)


def rounded_weight(weight: Tensor, levels: int) -> Tensor:
    """``weight`` as whole numbers from -levels to levels times the step of each output channel (the first axis)."""
    steps = (weight.detach().flatten(1).abs().amax(1).float() / levels).clamp(min=_LEAST_STEP)
    zeros = torch.zeros_like(steps, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, steps, zeros, 0, -levels, levels)


def imitate_int8(network: FBNet, levels: int) -> None:
    """Let ``network`` compute as its int8 form would, in place; parameters keep their names, ranges are buffers.

    ``levels``: weights become whole numbers from minus this to this (127; 63 for x86 without VNNI).
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if (made := _imitation(child, levels)) is not None:
                setattr(parent, name, made)
        if isinstance(parent, ConvNormAct) and not hasattr(parent, "act"):
            parent.answer = RoundedMap()


def _imitation(module: nn.Module, levels: int) -> nn.Module | None:
    if isinstance(module, Conv2d):
        return _Conv(module, levels)
    if isinstance(module, ClassifierHead):
        return _Linear(module, levels)
    if isinstance(module, nn.Dropout):
        return nn.Sequential(RoundedMap(), module)
    if isinstance(module, nn.Hardswish):
        return nn.Sequential(RoundedMap(least=-3.0), module)
    if isinstance(module, nn.Hardsigmoid):
        return nn.Sequential(RoundedMap(-3.0, 3.0), module)
    return None


def follow_ranges(module: nn.Module) -> None:
    """Let all ranges in ``module`` follow the batch that was computed last; once a step."""
    for part in module.modules():
        if isinstance(part, RoundedMap):
            part.follow()


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """The state of ``network`` as that of a plain one: weights rounded where it rounds them, and no ranges."""
    state: dict[str, Tensor] = network.state_dict()
    for name, module in network.named_modules():
        if isinstance(module, RoundedMap):
            del state[f"{name}.low"], state[f"{name}.high"]
        elif isinstance(module, (_Conv, _Linear)):
            state[f"{name}.weight"] = rounded_weight(module.weight.detach(), module.levels)
    return state
