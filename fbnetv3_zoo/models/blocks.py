"""The blocks of a network as modules, each built from a :class:`~fbnetv3_zoo.arch.Block`.

Feature maps have shape (batch, channels, height, width).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy
from torch.jit import is_tracing  # type: ignore[attr-defined]

from ..arch import Activation, Block, Conv, Gate, InvertedResidual, PoolingHead, Skip
from ..errors import assert_never


def is_graph(images: Tensor) -> bool:
    """Whether a graph is being recorded (compiled, exported, traced) rather than computed."""
    if isinstance(images, Proxy) or torch.compiler.is_compiling():
        return True
    traced: bool = is_tracing()  # type: ignore[no-untyped-call]
    return traced


def laid_out(images: Tensor) -> Tensor:
    """``images`` in the memory layout that makes convolutions fastest: channels-last on a CPU, unchanged elsewhere.

    Nothing is changed while a graph is recorded.
    """
    if is_graph(images) or images.device.type != "cpu":
        return images
    return images.contiguous(memory_format=torch.channels_last)


class Hardswish(nn.Hardswish):
    """Hard swish, in place unless gradients are enabled: autograd would copy the input first.

    In a traced or scripted graph, training mode decides, so that the graph does not depend on gradients being enabled.
    Compiling and exporting remove in-place operations, which takes a third of the time of an export: none is recorded.
    """

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            in_place = not self.training
        elif torch.compiler.is_compiling():
            in_place = False
        else:
            in_place = not (self.training if is_graph(x) else torch.is_grad_enabled())
        return F.hardswish(x, inplace=in_place)


_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    Activation.RELU: lambda: nn.ReLU(inplace=True),
    Activation.HARD_SWISH: Hardswish,
}
_GATES: dict[Gate, Callable[[], nn.Module]] = {Gate.HARD_SIGMOID: nn.Hardsigmoid, Gate.SIGMOID: nn.Sigmoid}


class Conv2d(nn.Conv2d):
    """Convolution with the family's initialization: Kaiming normal, fan out, bias 0."""

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the initial weights, unless they are on the meta device."""
        if self.weight.is_meta:
            return
        nn.init.kaiming_normal_(self.weight, mode="fan_out", generator=generator)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class ClassifierHead(nn.Linear):
    """Linear layer initialized like the convolutions, but never with larger weights than for 1000 classes.

    Kaiming's fan-out rule alone gives ten classes weights so large that training starts at a loss of 9 nats.
    """

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the initial weights."""
        nn.init.normal_(self.weight, std=math.sqrt(2 / max(1000, self.out_features)), generator=generator)
        nn.init.zeros_(self.bias)


class ConvNormAct(nn.Sequential):
    """Convolution, batch norm (eps 1e-5, momentum 0.1) if ``norm``, and ``activation`` unless it is None."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int = 1, stride: int = 1, padding: int = 0,
        groups: int = 1, bias: bool = False, norm: bool = True, activation: Activation | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        if norm:
            self.norm = nn.BatchNorm2d(out_channels)
        if activation is not None:
            self.act = _ACTIVATIONS[activation]()


class SqueezeExcitation(nn.Module):
    """Multiplies each channel by a gate computed from the averages of all channels (arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int, *, activation: Activation, gate: Gate) -> None:
        super().__init__()
        self.reduce = Conv2d(channels, squeezed, 1)
        self.act = _ACTIVATIONS[activation]()
        self.expand = Conv2d(squeezed, channels, 1)
        self.gate = _GATES[gate]()

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        average = x.mean((2, 3), keepdim=True)
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(average))))
        return x * gate


class InvertedResidualBlock(nn.Sequential):
    """Expansion, depthwise convolution, optional squeeze-excite, projection, residual add if shapes agree.

    ``drop_path_rate`` is the probability that stochastic depth drops the branch of an image in training.
    """

    def __init__(self, block: Block, row: InvertedResidual, *, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        width, act, groups, bias = block.expanded_channels, row.activation, row.groups_1x1, row.conv_bias
        if block.expands:
            self.expand = ConvNormAct(block.in_channels, width, groups=groups, bias=bias, activation=act)
        if groups > 1:
            self.shuffle = nn.ChannelShuffle(groups)
        self.depthwise = ConvNormAct(
            width, width, kernel_size=block.kernel_size, stride=block.stride, padding=block.padding,
            groups=block.groups, bias=bias, norm=row.depthwise_norm, activation=act if row.depthwise_norm else None,
        )  # fmt: skip
        if row.squeeze_excite is not None:
            self.squeeze_excite = SqueezeExcitation(
                width, block.se_channels, activation=act, gate=row.squeeze_excite.gate
            )
        self.project = ConvNormAct(width, block.out_channels, groups=groups, bias=bias)
        self.has_residual = block.keeps_shape
        if self.has_residual and drop_path_rate > 0:
            from torchvision.ops import StochasticDepth  # here because the import takes longer than building a network

            self.drop_path = StochasticDepth(drop_path_rate, "row")

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = x
        for part in self:
            y = part(y)
        return y.add_(x) if self.has_residual else y


class PoolingHeadBlock(nn.Module):
    """1x1 expansion, global average pool, 1x1 convolution without norm, activation: output (batch, channels, 1, 1)."""

    def __init__(self, block: Block, row: PoolingHead) -> None:
        super().__init__()
        self.expand = ConvNormAct(block.in_channels, block.expanded_channels, activation=row.activation)
        self.project = Conv2d(block.expanded_channels, block.out_channels, 1, bias=False)
        self.act = _ACTIVATIONS[row.activation]()

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y: Tensor = self.act(self.project(self.expand(x).mean((2, 3), keepdim=True)))
        return y


def build_block(block: Block, *, drop_path_rate: float = 0.0) -> nn.Module:
    """The module for ``block``."""
    row, channels = block.row, (block.in_channels, block.out_channels)
    if isinstance(row, InvertedResidual):
        return InvertedResidualBlock(block, row, drop_path_rate=drop_path_rate)
    if isinstance(row, PoolingHead):
        return PoolingHeadBlock(block, row)
    if isinstance(row, Conv):
        return ConvNormAct(
            *channels, kernel_size=block.kernel_size, stride=block.stride, padding=block.padding, bias=row.bias,
            activation=row.activation,
        )  # fmt: skip
    if isinstance(row, Skip):
        if block.keeps_shape:
            return nn.Identity()
        return ConvNormAct(*channels, stride=block.stride, activation=Activation.RELU)
    assert_never(row)
