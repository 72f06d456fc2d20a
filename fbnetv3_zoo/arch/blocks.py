"""The blocks of a network, all their widths computed from its rows, and what can be built. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import ZooError, assert_never
from .rows import Conv, InvertedResidual, PoolingHead, Row, Skip, round_width

MOST_BLOCKS = 1000
WIDEST = 1 << 17
"""Largest width inside a network, in channels."""

LARGEST_KERNEL = 127
MOST_WEIGHTS, MOST_ELEMENTS = 1 << 31, 1 << 33
"""Most weights of a network, and most elements of one of its feature maps for one image.

FBNetV3-20G has 105 million weights and maps of 3 million elements; it may be four times as wide, deep or large.
"""


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a row with all its widths computed; modules and costs are built from blocks.

    ``reduction`` is the stride of the block's output relative to the image. ``expanded_channels`` and ``groups``
    belong to the k x k convolution; ``se_channels`` is 0 without squeeze-excite.
    """

    stage: int
    index: int
    row: Row
    in_channels: int
    out_channels: int
    stride: int
    kernel_size: int
    padding: int
    expanded_channels: int
    groups: int
    se_channels: int
    reduction: int

    @property
    def expands(self) -> bool:
        """Whether the block begins with a 1x1 expansion."""
        return isinstance(self.row, PoolingHead) or self.expanded_channels != self.in_channels

    @property
    def keeps_shape(self) -> bool:
        """Whether input and output shapes agree, as a residual add or an identity skip needs."""
        centered = 2 * self.padding == self.kernel_size - 1
        return self.stride == 1 and self.in_channels == self.out_channels and centered


def stride_of(row: Row) -> int:
    """The stride of the first block of ``row``."""
    return 1 if isinstance(row, PoolingHead) else row.stride


def repeats_of(row: Row) -> int:
    """The number of blocks of ``row``."""
    return 1 if isinstance(row, PoolingHead) else row.repeats


def unstrided(row: Row) -> Row:
    """``row`` with stride 1 and symmetric padding."""
    if isinstance(row, InvertedResidual):
        return replace(row, stride=1, depthwise_padding=None)
    return row if isinstance(row, PoolingHead) else replace(row, stride=1)


def settle(stages: Sequence[Sequence[Row]], *, in_channels: int, width_divisor: int = 8) -> tuple[Block, ...]:
    """Compute the blocks of ``stages``, in order, for an input of ``in_channels`` channels.

    Raises :class:`ZooError` for more than :data:`MOST_BLOCKS`.
    """
    if (count := sum(repeats_of(row) for stage in stages for row in stage)) > MOST_BLOCKS:
        raise ZooError(f"its rows are {count} blocks together; at most {MOST_BLOCKS} can be built")
    blocks: list[Block] = []
    channels, reduction = in_channels, 1
    for s, stage in enumerate(stages):
        expanded_rows = ((row, n) for row in stage for n in range(repeats_of(row)))
        for index, (row, n) in enumerate(expanded_rows):
            block = _settle_block(s, index, row if n == 0 else unstrided(row), channels, reduction, width_divisor)
            channels, reduction = block.out_channels, block.reduction
            blocks.append(block)
    return tuple(blocks)


def _settle_block(stage: int, index: int, row: Row, channels: int, reduction: int, divisor: int) -> Block:
    kernel_size, padding, expanded, groups, squeezed = 1, 0, channels, 1, 0
    if isinstance(row, Conv):
        kernel_size, padding = row.kernel_size, row.kernel_size // 2
    elif isinstance(row, PoolingHead):
        expanded = round_width(channels * row.expansion, divisor)
    elif isinstance(row, InvertedResidual):
        kernel_size = row.kernel_size
        padding = kernel_size // 2 if row.depthwise_padding is None else row.depthwise_padding
        expanded = round_width(channels * row.expansion, divisor)
        groups = max(1, expanded // row.channels_per_group)
        if row.squeeze_excite is not None:
            squeezed = row.squeeze_excite.channels(expanded, row.expansion, divisor)
    elif not isinstance(row, Skip):
        assert_never(row)
    return Block(
        stage=stage, index=index, row=row, in_channels=channels, out_channels=row.out_channels, stride=stride_of(row),
        kernel_size=kernel_size, padding=padding, expanded_channels=expanded, groups=groups, se_channels=squeezed,
        reduction=reduction * stride_of(row),
    )  # fmt: skip


def check_size(name: str, blocks: Sequence[Block], *, resolution: int, num_classes: int) -> None:
    """Raise :class:`ZooError` if ``blocks`` and a classifier are too large for images of ``resolution`` pixels."""
    weights, side = blocks[-1].out_channels * num_classes, resolution
    for block in blocks:
        where = f"{name}: stage {block.stage}, block {block.index}"
        if block.kernel_size > LARGEST_KERNEL:
            raise ZooError(f"{where}: kernel_size is {block.kernel_size}; it must be at most {LARGEST_KERNEL}")
        before, side = side, max(1, (side + 2 * block.padding - block.kernel_size) // block.stride + 1)
        weights += _weights(block)
        widest = max(block.in_channels, block.expanded_channels)
        if (elements := max(widest * before**2, block.out_channels * side**2)) > MOST_ELEMENTS:
            raise ZooError(f"{where}: its maps have {elements} elements; at most {MOST_ELEMENTS} can be computed")
    if weights > MOST_WEIGHTS:
        raise ZooError(f"{name}: has about {weights} weights; at most {MOST_WEIGHTS} can be built")


def _weights(block: Block) -> int:
    """Number of convolution weights of ``block``."""
    row, size, before, after = block.row, block.kernel_size**2, block.in_channels, block.out_channels
    middle = block.expanded_channels
    if isinstance(row, Conv):
        return size * before * after
    if isinstance(row, Skip):
        return 0 if block.keeps_shape else before * after
    if isinstance(row, PoolingHead):
        return (before + after) * middle
    if isinstance(row, InvertedResidual):
        inside = size * middle * (middle // block.groups) + 2 * middle * block.se_channels
        return (before + after) * middle // row.groups_1x1 + inside
    assert_never(row)


def check_groups(name: str, block: Block) -> None:
    """Raise :class:`ZooError` for a width of ``block`` that is too large or that its groups do not divide."""
    where = f"{name}: stage {block.stage}, block {block.index}"
    row = block.row
    for what in ("in_channels", "expanded_channels", "out_channels", "se_channels"):
        if (width := getattr(block, what)) > WIDEST:
            raise ZooError(f"{where}: {what} is {width}; it must be at most {WIDEST}")
    if not isinstance(row, InvertedResidual):
        return
    if block.expanded_channels % block.groups:
        raise ZooError(
            f"{where}: expanded width {block.expanded_channels} is not divisible by its {block.groups} groups; "
            f"change channels_per_group ({row.channels_per_group}) or expansion ({row.expansion:g})"
        )
    for what in ("in_channels", "expanded_channels", "out_channels"):
        if getattr(block, what) % row.groups_1x1:
            raise ZooError(
                f"{where}: {what} {getattr(block, what)} is not divisible by groups_1x1 = {row.groups_1x1}; "
                f"change one of them"
            )
