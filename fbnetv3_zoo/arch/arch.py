"""A network as one frozen, validated value: an :class:`Arch` is a table of rows, as printed in the papers.

Everything else (module, cost, export, search) is derived from it. Imports no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from ..errors import ZooError, assert_never, check_number, check_type, check_whole, plain_whole, shown
from ..utils.serialization import from_json, to_json
from ..utils.tables import in_notebook, table
from .rows import Conv, InvertedResidual, PoolingHead, Row, Skip, round_width


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


@dataclass(frozen=True)
class Arch:
    """A whole network: stages of rows, then global average pool, dropout and a linear classifier with bias.

    ``resolution`` is the side in pixels of the images that the network was designed for; expanded and squeeze-excite
    widths are rounded to multiples of ``width_divisor``. Raises :class:`ZooError`, naming the row, for values that
    cannot be built.
    """

    name: str
    resolution: int
    stages: tuple[tuple[Row, ...], ...]
    width_divisor: int = 8
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{,199}", self.name):
            rule = "use letters, digits, '.', '_' and '-', as in a file name, 200 at most"
            raise ZooError(f"Arch.name is {shown(self.name)}; {rule}")
        for field in ("resolution", "width_divisor", "in_channels", "num_classes"):
            object.__setattr__(self, field, plain_whole(getattr(self, field)))
            check_whole(f"{self.name}: {field}", getattr(self, field))
        self._check_stages()
        if self.resolution < self.min_resolution:
            raise ZooError(
                f"{self.name}: resolution is {self.resolution}; its strides and padding need at least "
                f"{self.min_resolution}"
            )

    def _check_stages(self) -> None:
        if not isinstance(self.stages, tuple):
            raise ZooError(f"{self.name}: stages is {shown(self.stages)}; give a tuple of stages, each a tuple of rows")
        if not self.stages:
            raise ZooError(f"{self.name}: stages is empty; give at least one stage")
        for s, stage in enumerate(self.stages):
            if not isinstance(stage, tuple):
                raise ZooError(f"{self.name}: stages[{s}] is {shown(stage)}; give a tuple of rows")
            if not stage:
                raise ZooError(f"{self.name}: stages[{s}] is empty; give at least one row")
            for r, row in enumerate(stage):
                kinds = "Conv, InvertedResidual, Skip or PoolingHead"
                check_type(f"{self.name}: stages[{s}][{r}]", row, Row, f"a {kinds}")
                if isinstance(row, PoolingHead) and (s, r) != (len(self.stages) - 1, len(stage) - 1):
                    raise ZooError(f"{self.name}: stages[{s}][{r}] is a PoolingHead; it may only be the last row")
        try:
            blocks = self.blocks
        except ZooError as error:
            raise ZooError(f"{self.name}: {error}") from None
        for block in blocks:
            _check_groups(self.name, block)
        check_size(self.name, blocks, resolution=self.resolution, num_classes=self.num_classes)

    def __str__(self) -> str:
        """The rows as a table, like those of the papers."""
        heading = ("stage", "row", "kernel", "stride", "expansion", "squeeze-excite", "activation", "out", "repeats")
        lines = [heading, *(_cells(s, row) for s, stage in enumerate(self.stages) for row in stage)]
        images = f"{self.in_channels} x {self.resolution} x {self.resolution} pixels"
        return f"{self.name}: {images}, {self.num_classes:,} classes\n{table(lines, left=2)}"

    def _repr_html_(self) -> str:
        return in_notebook(str(self))

    def summary(self, *, resolution: int | None = None) -> str:
        """Every block with side of its output in pixels, multiply-accumulates, parameters; at ``resolution`` pixels."""
        from .summary import summarize

        return summarize(self, resolution=resolution)

    def to_json(self) -> str:
        """This network as JSON, for :meth:`from_json`."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Arch:
        """The network in the JSON ``text``. Raises :class:`ZooError` naming the key that is wrong."""
        return from_json(cls, text)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks in order."""
        return settle(self.stages, in_channels=self.in_channels, width_divisor=self.width_divisor)

    @cached_property
    def min_resolution(self) -> int:
        """Smallest image side, in pixels, that every convolution can process."""
        need = 1
        for block in reversed(self.blocks):
            need = max(1, (need - 1) * block.stride + block.kernel_size - 2 * block.padding)
        return need

    @property
    def trunk_depth(self) -> int:
        """Number of stages before the head, which is a last stage of only PoolingHead and 1x1 Conv rows."""
        head = all(isinstance(r, PoolingHead) or (isinstance(r, Conv) and r.kernel_size == 1) for r in self.stages[-1])
        return len(self.stages) - head

    def scaled(self, *, width: float = 1.0, depth: float = 1.0, resolution: float = 1.0) -> Arch:
        """Compound scaling (EfficientNet, arXiv 1905.11946), from which FBNetV3 A, F and G result.

        ``width`` multiplies the ``out_channels`` of every row (rounded by :func:`round_width`), ``depth`` the number of
        blocks in each run of equal width within a stage (rounded up; not in stem and head), ``resolution`` the image
        side (rounded to a multiple of 8).
        """
        for field, factor in (("width", width), ("depth", depth), ("resolution", resolution)):
            check_number(f"scaled: {field}", factor, above=0)
        if (blocks := math.ceil(len(self.blocks) * depth)) > MOST_BLOCKS:
            raise ZooError(
                f"{self.name}: scaled by a depth of {depth:g}, it has {blocks} blocks; at most {MOST_BLOCKS}"
            )
        stages = tuple(
            tuple(_scale_width(row, width, self.width_divisor) for row in _scale_depth(stage, depth))
            for stage in self.stages
        )
        factors = (("w", width), ("d", depth), ("r", resolution))
        suffix = "".join(f"_{letter}{factor:g}" for letter, factor in factors if factor != 1)
        side = round_width(self.resolution * resolution, 8) if resolution != 1 else self.resolution
        return replace(self, name=self.name + suffix, resolution=side, stages=stages)

    def for_small_images(self, *, resolution: int = 32, scale: float = 1.0) -> Arch:
        """The paper's CIFAR form (section 4.3): the second stride-2 block gets stride 1, with symmetric padding.

        The side is ``scale`` times ``resolution``, to the nearest pixel; in the paper, ``scale`` is the ratio of own
        resolutions (G / A: 320 / 224). Raises :class:`ZooError` for a side that is too small, and without two strides.
        """
        check_number("for_small_images: scale", scale, above=0)
        strided = [(s, r) for s, stage in enumerate(self.stages) for r, row in enumerate(stage) if _stride(row) == 2]
        if len(strided) < 2:
            raise ZooError(f"{self.name}: for_small_images needs two rows of stride 2; this network has {len(strided)}")
        s, r = strided[1]
        stage = self.stages[s]
        stage = (*stage[:r], _unstrided(stage[r]), *stage[r + 1 :])
        stages = (*self.stages[:s], stage, *self.stages[s + 1 :])
        return replace(self, name=f"{self.name}_small", resolution=math.floor(resolution * scale + 0.5), stages=stages)

    def with_symmetric_padding(self) -> Arch:
        """This network with padding ``kernel_size // 2``: maps are ceil(side / stride), weights still fit."""
        stages = tuple(
            tuple(replace(r, depthwise_padding=None) if isinstance(r, InvertedResidual) else r for r in stage)
            for stage in self.stages
        )
        return replace(self, name=f"{self.name}_symmetric", stages=stages)


def _cells(stage: int, row: Row) -> tuple[object, ...]:
    """A row in :meth:`Arch.__str__`; "-" for what its kind does not have."""
    squeeze_excite = getattr(row, "squeeze_excite", None)
    activation = getattr(row, "activation", None)
    return (
        stage, type(row).__name__, getattr(row, "kernel_size", "-"), _stride(row), getattr(row, "expansion", "-"),
        f"{squeeze_excite.ratio:g} of {squeeze_excite.reduces}" if squeeze_excite else "-",
        activation.value if activation else "-", row.out_channels, _repeats(row),
    )  # fmt: skip


def _stride(row: Row) -> int:
    return 1 if isinstance(row, PoolingHead) else row.stride


def _repeats(row: Row) -> int:
    return 1 if isinstance(row, PoolingHead) else row.repeats


def _unstrided(row: Row) -> Row:
    if isinstance(row, InvertedResidual):
        return replace(row, stride=1, depthwise_padding=None)
    return row if isinstance(row, PoolingHead) else replace(row, stride=1)


MOST_BLOCKS = 1000
WIDEST = 1 << 17
"""Largest width inside a network, in channels."""

LARGEST_KERNEL = 127
MOST_WEIGHTS, MOST_ELEMENTS = 1 << 31, 1 << 33
"""Most weights of a network, and most elements of one of its feature maps for one image.

FBNetV3-20G has 105 million weights and maps of 3 million elements; it may be four times as wide, deep or large.
"""


def settle(stages: Sequence[Sequence[Row]], *, in_channels: int, width_divisor: int = 8) -> tuple[Block, ...]:
    """Compute the blocks of ``stages``, in order, for an input of ``in_channels`` channels.

    Raises :class:`ZooError` for more than :data:`MOST_BLOCKS`.
    """
    if (count := sum(_repeats(row) for stage in stages for row in stage)) > MOST_BLOCKS:
        raise ZooError(f"its rows are {count} blocks together; at most {MOST_BLOCKS} can be built")
    blocks: list[Block] = []
    channels, reduction = in_channels, 1
    for s, stage in enumerate(stages):
        expanded_rows = ((row, n) for row in stage for n in range(_repeats(row)))
        for index, (row, n) in enumerate(expanded_rows):
            block = _settle_block(s, index, row if n == 0 else _unstrided(row), channels, reduction, width_divisor)
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
        stage=stage, index=index, row=row, in_channels=channels, out_channels=row.out_channels, stride=_stride(row),
        kernel_size=kernel_size, padding=padding, expanded_channels=expanded, groups=groups, se_channels=squeezed,
        reduction=reduction * _stride(row),
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


def _check_groups(name: str, block: Block) -> None:
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


def _scale_width(row: Row, width: float, divisor: int) -> Row:
    return row if width == 1 else replace(row, out_channels=round_width(row.out_channels * width, divisor))


def _scale_depth(stage: tuple[Row, ...], depth: float) -> list[Row]:
    """Runs of equal ``out_channels`` grow by repeating their last block, and shrink from the end."""
    if depth == 1 or any(isinstance(row, (Conv, PoolingHead)) for row in stage):
        return list(stage)
    rows: list[Row] = []
    for _, run in groupby(stage, key=lambda row: row.out_channels):
        blocks = [row if n == 0 else _unstrided(row) for row in run for n in range(_repeats(row))]
        blocks = [row if isinstance(row, PoolingHead) else replace(row, repeats=1) for row in blocks]
        target = max(1, math.ceil(len(blocks) * depth))
        blocks = (blocks + [_unstrided(blocks[-1])] * (target - len(blocks)))[:target]
        rows += _merge(blocks)
    return rows


def _merge(blocks: list[Row]) -> list[Row]:
    """Single-block rows, written as rows with ``repeats`` again where blocks are equal."""
    rows: list[Row] = []
    for block in blocks:
        last = rows[-1] if rows else None
        if isinstance(last, (InvertedResidual, Skip)) and _unstrided(replace(last, repeats=1)) == block:
            rows[-1] = replace(last, repeats=last.repeats + 1)
        else:
            rows.append(block)
    return rows
