"""Costs counted on the module itself, by hooks during one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.models.blocks import InvertedResidualBlock, PoolingHeadBlock, SqueezeExcitation
from fbnetv3_zoo.models.fbnet import FBNet


@dataclass
class Counts:
    """The fields of ``cost.Cost``, and ``normed`` (elements entering a norm) and ``pooled`` (a global average pool)."""

    conv_macs: int = 0
    conv_weights: int = 0
    parameters: int = 0
    peak_activation: int = 0
    normed: int = 0
    pooled: int = 0
    sizes: tuple[int, ...] = ()

    @property
    def macs(self) -> int:
        return self.conv_macs + self.pooled


def count(arch: Arch, *, resolution: int | None = None, device: str = "meta") -> Counts:
    """What one image costs; on the meta device nothing is computed."""
    side = arch.resolution if resolution is None else resolution
    with torch.device(device):
        model, images = FBNet(arch).eval(), torch.empty(1, arch.in_channels, side, side)
    counts = Counts(parameters=sum(p.numel() for p in model.parameters()))
    with torch.inference_mode():
        observe(model, counts)
        model(images)
    return counts


def observe(model: FBNet, counts: Counts) -> None:
    """Let ``counts`` grow with every forward pass of ``model``."""

    def layer(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight: Any = module.weight
        counts.conv_macs += output.numel() * weight[0].numel()
        counts.conv_weights += weight.numel()

    def norm(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts.normed += inputs[0].numel()

    def pool(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        counts.pooled += inputs[0].numel()

    def size(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts.sizes = (*counts.sizes, output.shape[-1])

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(layer)
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(norm)
        if isinstance(module, SqueezeExcitation):
            module.register_forward_pre_hook(pool)
        if isinstance(module, PoolingHeadBlock):
            module.expand.register_forward_hook(lambda head, inputs, output: pool(head, (output,)))
    blocks = [block for stage in model.stages.children() for block in stage.children()]
    for block in blocks:
        block.register_forward_hook(size)
        _watch_peak(block, counts)
    blocks[-1].register_forward_hook(lambda block, inputs, output: pool(block, (output,)))


def _watch_peak(block: nn.Module, counts: Counts) -> None:
    """A convolution holds its input, its output, and the block's input where a residual add still waits for it."""
    waiting: list[Tensor] = []

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, InvertedResidualBlock) and module.has_residual:
            waiting.append(inputs[0])

    def convolve(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        held = {id(tensor): tensor.numel() for tensor in (inputs[0], output, *waiting)}
        counts.peak_activation = max(counts.peak_activation, sum(held.values()))

    def leave(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        waiting.clear()

    block.register_forward_pre_hook(enter)
    block.register_forward_hook(leave)
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(convolve)
