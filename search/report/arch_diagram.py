"""Networks drawn as their blocks, for a page."""

from __future__ import annotations

from itertools import groupby, pairwise

from markupsafe import Markup

from fbnetv3_zoo.arch import Arch, Block, PoolingHead
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.report.page import render

_STEP, _BAR, _LEFT = 22, 15, 68  # pixels: from block to block, of a bar, of the names of the lines
_TOP, _HEIGHT, _BELOW = 30, 96, 79  # above the bars, of the tallest bar, below the bars
EXPLAINED = (
    "A bar is a block, as high as its channels; bars that go on beyond the top are cut. Dark bars have kernels larger "
    "than 3; a dot marks squeeze-excite. Lines part the stages."
)
"""What is to be said of a diagram."""


def sketch(arch: Arch) -> Markup:
    """``arch`` as an SVG element: a bar a block, as high as its channels; below it kernel, expansion, squeeze-excite.

    Below each stage stands the side of its output in pixels. The last block of a head is wider than all others by far:
    its bar is cut, and says how many channels it has.
    """
    tallest = max((block.out_channels for block in arch.blocks if not isinstance(block.row, PoolingHead)), default=1)
    blocks, channels = [], 0
    for index, block in enumerate(arch.blocks):
        blocks.append(_block(index, block, tallest, shows_channels=index == 0 or block.out_channels != channels))
        channels = block.out_channels
    svg = render(
        __package__, "network.svg.jinja", name=arch.name, blocks=blocks, stages=_stages(arch), bar=_BAR,
        base=_TOP + _HEIGHT, cut_at=_TOP + 16, stages_end=_TOP + _HEIGHT + _BELOW - 6,
        width=_LEFT + _STEP * len(blocks) + 12, height=_TOP + _HEIGHT + _BELOW,
    )  # fmt: skip
    return Markup(svg)


def _block(index: int, block: Block, tallest: int, *, shows_channels: bool) -> dict[str, object]:
    expansion = getattr(block.row, "expansion", None)
    return {
        "x": _LEFT + _STEP * (index + 0.5),
        "top": _TOP + _HEIGHT * (1 - min(1.0, block.out_channels / tallest)),
        "is_cut": block.out_channels > tallest,
        "is_head": isinstance(block.row, PoolingHead),
        "kernel": block.kernel_size,
        "expansion": None if expansion is None else f"{expansion:.2g}",  # more digits would touch the neighbors'
        "squeezed": bool(block.se_channels),
        "channels": block.out_channels if shows_channels else None,
    }


def _stages(arch: Arch) -> list[dict[str, object]]:
    """Where each stage begins, its middle, and the side of its feature maps."""
    bounds, sides = [0], []
    for _, blocks in groupby(arch_cost(arch).blocks, key=lambda cost: cost.block.stage):
        inside = list(blocks)
        bounds.append(bounds[-1] + len(inside))
        sides.append(inside[-1].size)
    return [
        {"x": _LEFT + _STEP * first, "middle": _LEFT + _STEP * (first + last) / 2, "side": side}
        for (first, last), side in zip(pairwise(bounds), sides, strict=True)
    ]
