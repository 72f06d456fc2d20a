"""A network block by block, as text."""

from __future__ import annotations

from collections.abc import Iterator

from ..utils.tables import table
from .arch import Arch
from .cost import BlockCost, arch_cost


def summarize(arch: Arch, *, resolution: int | None = None) -> str:
    """See :meth:`Arch.summary`."""
    cost = arch_cost(arch, resolution=resolution)
    heading = ("block", "kind", "in", "expanded", "out", "k", "s", "SE", "map", "MACs", "parameters")
    totals = {
        "MACs": cost.macs, "conv weights": cost.conv_weights, "parameters": cost.parameters,
        "peak activation": cost.peak_activation,
    }  # fmt: skip
    width = max(len(f"{value:,}") for value in totals.values())
    lines = [f"{name:16}{value:>{width},}" for name, value in totals.items()]
    lines[-1] += "   (elements held at once, one image)"
    return "\n".join(
        (
            f"{arch.name}, {cost.resolution} x {cost.resolution} pixels", "",
            table([heading, *_rows(cost.blocks)], left=2), "", *lines,
        )
    )  # fmt: skip


def _rows(blocks: tuple[BlockCost, ...]) -> Iterator[tuple[object, ...]]:
    for line in blocks:
        block = line.block
        yield (
            f"{block.stage}.{block.index}", type(block.row).__name__, block.in_channels,
            block.expanded_channels if block.expands else "-", block.out_channels, block.kernel_size, block.stride,
            block.se_channels or "-", line.size, f"{line.macs:,}", f"{line.parameters:,}",
        )  # fmt: skip
