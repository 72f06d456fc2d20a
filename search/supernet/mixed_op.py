"""A layer of a supernet: the weighted sum of its candidates, whose widths are masks over shared weights.

A width is represented by a mask of ones followed by zeros (FBNetV2, section 3.1); the sum of all masks, weighted by the
choice's weights, is one vector. Multiplying maps by it is avoided where possible, because autograd would save a copy:
it is folded into scale and shift of a norm, the weights of a 1x1 convolution, or the gate of squeeze-excite. All widths
together then take the memory of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fbnetv3_zoo.arch import Activation, Block, Conv, InvertedResidual, PoolingHead, Skip
from fbnetv3_zoo.errors import assert_never
from fbnetv3_zoo.models.blocks import ConvNormAct, InvertedResidualBlock, PoolingHeadBlock

from .space import LayerSpace


@dataclass(frozen=True)
class Masks:
    """Factors of a candidate's maps, one number a channel, or None without scaling.

    ``scale``: of the output; ``same``: of the input where it is added to the output or passed through; ``mid`` and
    ``squeezed``: of the expanded map and of squeeze-excite's bottleneck.
    """

    scale: Tensor | None = None
    same: Tensor | None = None
    mid: Tensor | None = None
    squeezed: Tensor | None = None


class MixedLayer(nn.Module):
    """Layer ``number`` (from 0) of ``space``, every candidate at its largest widths.

    The candidates' parameters have the same names as in :class:`fbnetv3_zoo.FBNet`; those of a single network are the
    first entries along each axis.
    """

    def __init__(self, space: LayerSpace, number: int) -> None:
        super().__init__()
        self.where, self.shape = space.places[number], space.shape(number)
        self.before = space.places[number - 1].channels if number else None
        widths = space.layers[number].widths
        self.candidates = nn.ModuleList(_candidate(space, number, n) for n in range(self.shape[0]))
        self.register_buffer("masks", first_ones(widths, widths[-1]), persistent=False)

    def forward(self, x: Tensor, weights: Sequence[Tensor], share: Tensor | None = None) -> Tensor:
        """The output, shape (batch, largest width, height, width), times ``share``.

        ``x`` is already masked; ``weights`` has one number for every value of every dimension of the space.
        """
        before, width, expansion = (
            None if at is None else weights[at] for at in (self.before, self.where.channels, self.where.expansion)
        )
        total: Tensor | None = None
        for n in range(len(self.candidates)):
            factor = share
            if self.where.candidate is not None:
                one = weights[self.where.candidate][n]
                factor = one if share is None else one * share
            candidate = self.candidate(n)
            y = candidate.mix(x, self._masks(candidate, factor, before, width, expansion))
            total = y if total is None else total + y
        assert total is not None
        return total

    def candidate(self, n: int) -> Branch:
        """Candidate ``n``."""
        candidate = self.candidates[n]
        assert isinstance(candidate, Branch)
        return candidate

    def _masks(
        self, candidate: Branch, factor: Tensor | None, before: Tensor | None, width: Tensor | None,
        expansion: Tensor | None,
    ) -> Masks:  # fmt: skip
        one = self.masks.new_ones(1)  # type: ignore[operator]
        into = one if before is None else before
        out = one if width is None else width
        scale = factor if width is None else width @ self.masks * (one if factor is None else factor)  # type: ignore[operator]
        same = None
        if candidate.keeps is not None:
            passed = (into @ candidate.keeps) * out @ self.masks  # type: ignore[operator]
            same = passed if factor is None else passed * factor
        pairs = torch.outer(into, one if expansion is None else expansion).flatten()
        mid = None if candidate.mids is None else pairs @ candidate.mids
        squeezed = None if candidate.squeezes is None else pairs @ candidate.squeezes
        return Masks(scale, same, mid, squeezed)


def first_ones(widths: Sequence[int], largest: int) -> Tensor:
    """A mask for each width: ones, then zeros up to ``largest``; shape (widths, largest)."""
    return (torch.arange(largest) < torch.tensor(widths)[:, None]).float()


class Branch(nn.Module):
    """Base of all candidates: ``keeps`` is 1 for the input and output widths where the input is passed through.

    None if there are none. ``mids`` and ``squeezes`` are the masks for every pair of input width and expansion; None if
    all are equal.
    """

    keeps: Tensor | None
    mids: Tensor | None
    squeezes: Tensor | None

    def mix(self, x: Tensor, masks: Masks) -> Tensor:
        """The output for the masked map ``x``, scaled by ``masks``."""
        raise NotImplementedError

    def hold_masks(self, keeps: Tensor | None, mids: Tensor | None, squeezes: Tensor | None) -> None:
        """Register the masks as non-persistent buffers."""
        self.register_buffer("keeps", keeps, persistent=False)
        self.register_buffer("mids", mids, persistent=False)
        self.register_buffer("squeezes", squeezes, persistent=False)


class _Residual(InvertedResidualBlock, Branch):
    def mix(self, x: Tensor, masks: Masks) -> Tensor:
        y = self.expand(x) if hasattr(self, "expand") else x
        if hasattr(self, "shuffle"):
            y = self.shuffle(y)
        y, mid = self.depthwise(y), masks.mid
        if hasattr(self, "squeeze_excite"):
            y, mid = self._excited(y, masks), None
        conv = self.project.conv
        weight = conv.weight if mid is None else conv.weight * mid[:, None, None]
        y = _normed(self.project.norm, conv._conv_forward(y, weight, conv.bias), masks.scale)
        return y if masks.same is None else y + _by_channel(masks.same, _widened(x, y.shape[1]))

    def _excited(self, x: Tensor, masks: Masks) -> Tensor:
        se, average = self.squeeze_excite, x.mean((2, 3), keepdim=True)
        if masks.mid is not None:
            average = _by_channel(masks.mid, average)
        squeezed = se.act(se.reduce(average))
        if masks.squeezed is not None:
            squeezed = _by_channel(masks.squeezed, squeezed)
        gate = se.gate(se.expand(squeezed))
        return x * (gate if masks.mid is None else _by_channel(masks.mid, gate))


class _Conv(ConvNormAct, Branch):
    def mix(self, x: Tensor, masks: Masks) -> Tensor:
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y if masks.scale is None else _by_channel(masks.scale, y)


class _Skip(ConvNormAct, Branch):
    """The identity if widths agree, else a 1x1 convolution; ReLU commutes with positive factors."""

    def mix(self, x: Tensor, masks: Masks) -> Tensor:
        changed = masks.scale
        if masks.same is not None:
            changed = (torch.ones_like(masks.same) if changed is None else changed) - masks.same
        y: Tensor = self.act(_normed(self.norm, self.conv(x), changed))
        return y if masks.same is None else y + _by_channel(masks.same, _widened(x, y.shape[1]))


class _Identity(Branch):
    def mix(self, x: Tensor, masks: Masks) -> Tensor:
        return x if masks.same is None else _by_channel(masks.same, x)


class _Pooling(PoolingHeadBlock, Branch):
    def mix(self, x: Tensor, masks: Masks) -> Tensor:
        average = self.expand(x).mean((2, 3), keepdim=True)
        if masks.mid is not None:
            average = _by_channel(masks.mid, average)
        y: Tensor = self.act(self.project(average))
        return y if masks.scale is None else _by_channel(masks.scale, y)


def _candidate(space: LayerSpace, number: int, n: int) -> Branch:
    """Candidate ``n`` of a layer at its largest widths, with its masks."""
    _, before, expansions, widths = space.shape(number)
    blocks = [[space.block(number, n, i, e, 0) for e in range(expansions)] for i in range(before)]
    flat = [block for row in blocks for block in row]
    largest = _largest(flat, space.layers[number].widths[-1])
    keeps = [[_keeps(space.block(number, n, i, 0, o)) for o in range(widths)] for i in range(before)]
    candidate = _build(largest, all(map(all, keeps)))
    candidate.hold_masks(
        torch.tensor(keeps).float() if any(map(any, keeps)) else None,
        _masks([block.expanded_channels for block in flat]),
        _masks([block.se_channels for block in flat]),
    )
    return candidate


def _largest(blocks: Sequence[Block], out_channels: int) -> Block:
    widest = max(blocks, key=lambda block: block.expanded_channels)
    return replace(
        widest, in_channels=max(block.in_channels for block in blocks), out_channels=out_channels,
        se_channels=max(block.se_channels for block in blocks),
    )  # fmt: skip


def _keeps(block: Block) -> bool:
    return block.keeps_shape and isinstance(block.row, (InvertedResidual, Skip))


def _masks(widths: Sequence[int]) -> Tensor | None:
    return None if len(set(widths)) == 1 else first_ones(widths, max(widths))


def _build(block: Block, keeps: bool) -> Branch:
    row, channels = block.row, (block.in_channels, block.out_channels)
    if isinstance(row, InvertedResidual):
        return _Residual(block, row)
    if isinstance(row, PoolingHead):
        return _Pooling(block, row)
    if isinstance(row, Skip):
        return _Identity() if keeps else _Skip(*channels, stride=block.stride, activation=Activation.RELU)
    if isinstance(row, Conv):
        return _Conv(
            *channels, kernel_size=block.kernel_size, stride=block.stride, padding=block.padding, bias=row.bias,
            activation=row.activation,
        )  # fmt: skip
    assert_never(row)


def _by_channel(factors: Tensor, x: Tensor) -> Tensor:
    """``x`` times one number a channel, or one number."""
    return x * (factors if factors.ndim == 0 or len(factors) == 1 else factors[:, None, None])


def _widened(x: Tensor, channels: int) -> Tensor:
    """``x`` with ``channels`` channels: cut, or padded with zeros."""
    missing = channels - x.shape[1]
    return x[:, :channels] if missing <= 0 else F.pad(x, (0, 0, 0, 0, 0, missing))


def _normed(norm: nn.BatchNorm2d | nn.SyncBatchNorm, x: Tensor, factors: Tensor | None) -> Tensor:
    """``factors`` times the norm of ``x``, without saving another map."""
    if factors is None:
        y: Tensor = norm(x)
        return y
    if isinstance(norm, nn.SyncBatchNorm):  # which has no function; for the other it would take longer
        y = torch.func.functional_call(norm, {"weight": norm.weight * factors, "bias": norm.bias * factors}, (x,))
        return y
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    return F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight * factors, norm.bias * factors, norm.training,
        norm.momentum or 0.0, norm.eps,
    )  # fmt: skip
