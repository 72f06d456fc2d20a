"""The rows of a network: frozen values that raise :class:`ZooError` for what cannot be built.

Block rules: FBNet (arXiv 1812.03443), FBNetV2 (2004.05565), FBNetV3 (2006.02049), and the published model records.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from ..errors import ZooError, check_flag, check_number, check_type, check_whole


class Activation(Enum):
    """Non-linearity after a norm."""

    RELU = "relu"
    HARD_SWISH = "hard_swish"


class Gate(Enum):
    """Function that maps the output of squeeze-excite to a factor per channel."""

    HARD_SIGMOID = "hard_sigmoid"
    SIGMOID = "sigmoid"


def round_width(width: float, divisor: int) -> int:
    """``width`` rounded to a multiple of ``divisor`` (the facts' "round8", divisor 8).

    The nearest multiple (halves up, at least ``divisor``), or the next one if that is below 0.95 x ``width``.
    """
    if width % divisor == 0:
        return int(width)
    rounded = max(divisor, math.floor(width / divisor + 0.5) * divisor)
    return rounded if rounded >= 0.95 * width else rounded + divisor


LEAST_EXPANSION = 0.001
"""Smallest expansion; widths are divided by it."""


@dataclass(frozen=True, slots=True)
class SqueezeExcite:
    """Squeeze-excite of an inverted residual.

    ``reduces`` names the width that ``ratio`` applies to: the block's ``"input"`` (expanded width / expansion) or its
    ``"expanded"`` width.
    """

    reduces: Literal["input", "expanded"]
    ratio: float = 0.25
    gate: Gate = Gate.HARD_SIGMOID

    def __post_init__(self) -> None:
        if self.reduces not in ("input", "expanded"):
            raise ZooError(f"SqueezeExcite.reduces is {self.reduces!r}; choose from input, expanded")
        check_number("SqueezeExcite.ratio", self.ratio, above=0)
        check_type("SqueezeExcite.gate", self.gate, Gate, "a Gate")

    def channels(self, expanded: int, expansion: float, divisor: int) -> int:
        """Width of the bottleneck inside a block of ``expanded`` channels."""
        width = expanded * self.ratio
        return round_width(max(1, int(width / expansion if self.reduces == "input" else width)), divisor)


def _check_shape(row: Conv | InvertedResidual | Skip, kernel_size: int) -> None:
    owner = type(row).__name__
    check_whole(f"{owner}.out_channels", row.out_channels)
    check_whole(f"{owner}.repeats", row.repeats)
    check_whole(f"{owner}.kernel_size", kernel_size)
    if kernel_size % 2 == 0:
        raise ZooError(f"{owner}.kernel_size is {kernel_size}; it must be odd (1, 3, 5, 7, ...)")
    if type(row.stride) is not int or row.stride not in (1, 2):
        raise ZooError(f"{owner}.stride is {row.stride!r}; it must be 1 or 2")


@dataclass(frozen=True, slots=True)
class Conv:
    """k x k convolution, batch norm, activation; padding is ``kernel_size // 2``."""

    kernel_size: int
    out_channels: int
    stride: int
    activation: Activation
    bias: bool = True
    repeats: int = 1

    def __post_init__(self) -> None:
        _check_shape(self, self.kernel_size)
        check_type("Conv.activation", self.activation, Activation, "an Activation")
        check_flag("Conv.bias", self.bias)


@dataclass(frozen=True, slots=True)
class InvertedResidual:
    """1x1 expansion, depthwise k x k, optional squeeze-excite, 1x1 projection, residual add if shapes agree.

    There is no expansion if the expanded width equals the input width. ``depthwise_padding`` replaces
    ``kernel_size // 2`` in the first block of the row. ``groups_1x1`` is the number of groups of both 1x1 convolutions;
    channels are shuffled before the depthwise one. ``channels_per_group`` above 1 makes the k x k convolution a grouped
    one with ``expanded // channels_per_group`` groups (FBNetV3-20G). Without ``depthwise_norm`` it has neither norm nor
    activation (the published detectors).
    """

    kernel_size: int
    out_channels: int
    stride: int
    repeats: int
    expansion: float
    activation: Activation
    squeeze_excite: SqueezeExcite | None = None
    depthwise_padding: int | None = None
    conv_bias: bool = False
    groups_1x1: int = 1
    channels_per_group: int = 1
    zero_init_last_norm: bool = False
    depthwise_norm: bool = True

    def __post_init__(self) -> None:
        _check_shape(self, self.kernel_size)
        check_number("InvertedResidual.expansion", self.expansion, at_least=LEAST_EXPANSION)
        check_type("InvertedResidual.activation", self.activation, Activation, "an Activation")
        if self.squeeze_excite is not None:
            check_type("InvertedResidual.squeeze_excite", self.squeeze_excite, SqueezeExcite, "a SqueezeExcite or None")
        if self.depthwise_padding is not None:
            check_whole("InvertedResidual.depthwise_padding", self.depthwise_padding, at_least=0)
            if self.depthwise_padding > self.kernel_size // 2:
                raise ZooError(
                    f"InvertedResidual.depthwise_padding is {self.depthwise_padding}; "
                    f"it must be at most kernel_size // 2 = {self.kernel_size // 2}"
                )
        check_flag("InvertedResidual.conv_bias", self.conv_bias)
        check_whole("InvertedResidual.groups_1x1", self.groups_1x1)
        check_whole("InvertedResidual.channels_per_group", self.channels_per_group)
        check_flag("InvertedResidual.zero_init_last_norm", self.zero_init_last_norm)
        check_flag("InvertedResidual.depthwise_norm", self.depthwise_norm)


@dataclass(frozen=True, slots=True)
class Skip:
    """Identity, or a 1x1 convolution (no bias), norm and ReLU if width or stride change."""

    out_channels: int
    stride: int = 1
    repeats: int = 1

    def __post_init__(self) -> None:
        _check_shape(self, 1)


@dataclass(frozen=True, slots=True)
class PoolingHead:
    """1x1 expansion (conv, norm, act), global average pool, 1x1 convolution (no bias, no norm), activation."""

    out_channels: int
    expansion: float
    activation: Activation

    def __post_init__(self) -> None:
        check_whole("PoolingHead.out_channels", self.out_channels)
        check_number("PoolingHead.expansion", self.expansion, at_least=LEAST_EXPANSION)
        check_type("PoolingHead.activation", self.activation, Activation, "an Activation")


Row: TypeAlias = Conv | InvertedResidual | Skip | PoolingHead
