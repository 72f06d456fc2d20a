"""Quantization-aware training: the network rounds its weights and maps as its int8 form will.

Rounding has no gradient; here that of the identity within the range is used (arXiv 1308.3432), so that the weights stay
floats. Steps of weights are per output channel and symmetric: folding a norm into its convolution scales them, too, so
that the integers are those of the exported network. Maps are rounded wherever the int8 graph of
:mod:`fbnetv3_zoo.export` does it: at the inputs of convolutions and classifier, at terms of a residual sum, and at a
convolution's output before hard swish (from -3) and hard sigmoid (from -3 to 3).
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
"""Weight of a step's range in the running ranges used in evaluation; the same as in batch norm."""

_LEAST_STEP = 1e-12


class RoundedMap(nn.Module):
    """Rounds a map to 8 bits within its range, which includes 0 and is limited to ``least`` and ``greatest``.

    In training the range is the batch's own, in evaluation the running mean updated by :func:`follow_ranges`, in the
    buffers ``low`` and ``high``; before the first update both are 0.
    """

    low: Tensor
    high: Tensor

    def __init__(self, least: float = -math.inf, greatest: float = math.inf) -> None:
        super().__init__()
        self._least, self._greatest = least, greatest
        self._batch_range: tuple[Tensor, Tensor] | None = None
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        low, high = self.low, self.high
        if self.training:  # only stored here: a block recomputed in the backward pass gets the same batch again
            low, high = (end.float() for end in torch.aminmax(x.detach()))
            low, high = low.clamp(self._least, 0.0), high.clamp(0.0, self._greatest)
            self._batch_range = low, high
        step = ((high - low) / LEVELS).clamp(min=_LEAST_STEP)
        zero = (-low / step).round().clamp(0, LEVELS).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x, step, zero, 0, LEVELS)

    def follow(self) -> None:
        """Update the running range by the last batch; the first batch sets it."""
        if self._batch_range is None:
            return
        first = self.low == self.high
        for running, current in zip((self.low, self.high), self._batch_range, strict=True):
            running.copy_(torch.where(first, current, running.lerp(current, MOMENTUM)))
        self._batch_range = None


class _Conv(nn.Conv2d):
    """``conv`` with the same parameters, but with rounded weights and a rounded input."""

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
    """``linear`` with the same parameters, but rounded weights; its input is rounded before dropout scales it."""

    def __init__(self, linear: nn.Linear, levels: int) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias, self.levels = linear.weight, linear.bias, levels

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, rounded_weight(self.weight, self.levels), self.bias)


def rounded_weight(weight: Tensor, levels: int) -> Tensor:
    """``weight`` rounded to integers from -levels to levels, times the step of its output channel (the first axis)."""
    steps = (weight.detach().flatten(1).abs().amax(1).float() / levels).clamp(min=_LEAST_STEP)
    zeros = torch.zeros_like(steps, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, steps, zeros, 0, -levels, levels)


def imitate_int8(network: FBNet, levels: int) -> None:
    """Make ``network`` compute as its int8 form would, in place; parameters keep their names, ranges are buffers.

    ``levels``: the largest absolute value of an integer weight (127; 63 for x86 without VNNI).
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if (replacement := _imitation(child, levels)) is not None:
                setattr(parent, name, replacement)
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
    """Update all running ranges in ``module`` by the last batch; call it once per step."""
    for child in module.modules():
        if isinstance(child, RoundedMap):
            child.follow()


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """The state dict of ``network`` for a plain network: with its rounded weights, and without ranges."""
    state: dict[str, Tensor] = network.state_dict()
    for name, module in network.named_modules():
        if isinstance(module, RoundedMap):
            del state[f"{name}.low"], state[f"{name}.high"]
        elif isinstance(module, (_Conv, _Linear)):
            state[f"{name}.weight"] = rounded_weight(module.weight.detach(), module.levels)
    return state
