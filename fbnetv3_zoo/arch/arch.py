"""A network as one frozen, validated value: an :class:`Arch` is a table of rows, as printed in the papers.

Everything else (module, cost, export, search) is derived from it. Imports no torch.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from ..errors import ZooError, check_number, check_type, check_whole, plain_whole, shown
from ..utils.serialization import from_json, to_json
from ..utils.tables import in_notebook, table
from .blocks import MOST_BLOCKS, Block, check_groups, check_size, repeats_of, settle, stride_of, unstrided
from .rows import Conv, InvertedResidual, PoolingHead, Row, Skip, round_width


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
            check_groups(self.name, block)
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
        strided = [(s, r) for s, stage in enumerate(self.stages) for r, row in enumerate(stage) if stride_of(row) == 2]
        if len(strided) < 2:
            raise ZooError(f"{self.name}: for_small_images needs two rows of stride 2; this network has {len(strided)}")
        s, r = strided[1]
        stage = self.stages[s]
        stage = (*stage[:r], unstrided(stage[r]), *stage[r + 1 :])
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
        stage, type(row).__name__, getattr(row, "kernel_size", "-"), stride_of(row), getattr(row, "expansion", "-"),
        f"{squeeze_excite.ratio:g} of {squeeze_excite.reduces}" if squeeze_excite else "-",
        activation.value if activation else "-", row.out_channels, repeats_of(row),
    )  # fmt: skip


def _scale_width(row: Row, width: float, divisor: int) -> Row:
    return row if width == 1 else replace(row, out_channels=round_width(row.out_channels * width, divisor))


def _scale_depth(stage: tuple[Row, ...], depth: float) -> list[Row]:
    """Runs of equal ``out_channels`` grow by repeating their last block, and shrink from the end."""
    if depth == 1 or any(isinstance(row, (Conv, PoolingHead)) for row in stage):
        return list(stage)
    rows: list[Row] = []
    for _, run in groupby(stage, key=lambda row: row.out_channels):
        blocks = [row if n == 0 else unstrided(row) for row in run for n in range(repeats_of(row))]
        blocks = [row if isinstance(row, PoolingHead) else replace(row, repeats=1) for row in blocks]
        target = max(1, math.ceil(len(blocks) * depth))
        blocks = (blocks + [unstrided(blocks[-1])] * (target - len(blocks)))[:target]
        rows += _merge(blocks)
    return rows


def _merge(blocks: list[Row]) -> list[Row]:
    """Single-block rows, written as rows with ``repeats`` again where blocks are equal."""
    rows: list[Row] = []
    for block in blocks:
        last = rows[-1] if rows else None
        if isinstance(last, (InvertedResidual, Skip)) and unstrided(replace(last, repeats=1)) == block:
            rows[-1] = replace(last, repeats=last.repeats + 1)
        else:
            rows.append(block)
    return rows
