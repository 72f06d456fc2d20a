"""Networks drawn as their blocks, for a page."""

from __future__ import annotations

from html import escape
from itertools import groupby, pairwise

from fbnetv3_zoo.arch import Arch, Block, PoolingHead
from fbnetv3_zoo.arch.cost import cost_of

_STEP, _BAR, _LEFT = 22, 15, 68  # pixels: from block to block, of a bar, of the names of the lines
_TOP, _HEIGHT = 30, 96  # above the bars, of the tallest bar
_LINES = ("kernel", "expansion", "SE")
EXPLAINED = (
    "A bar is a block, as high as its channels; bars that go on beyond the top are cut. Dark bars have kernels larger "
    "than 3; a dot marks squeeze-excite. Lines part the stages."
)
"""What is to be said of a drawing."""


def sketch(arch: Arch) -> str:
    """``arch`` as an SVG element: a bar a block, as high as its channels; below it kernel, expansion, squeeze-excite.

    Below each stage stands the side of its output in pixels. The last block of a head is wider than all others by far:
    its bar is cut, and says how many channels it has.
    """
    blocks = arch.blocks
    tallest = max((b.out_channels for b in blocks if not isinstance(b.row, PoolingHead)), default=1)
    width, height = _LEFT + _STEP * len(blocks) + 12, _TOP + _HEIGHT + 17 * len(_LINES) + 28
    parts = [_stages(arch)]
    for index, block in enumerate(blocks):
        parts.append(_bar(index, block, tallest))
        if index == 0 or block.out_channels != blocks[index - 1].out_channels:
            above = 15 if block.out_channels > tallest else 4  # a cut bar's neighbour may be as high
            parts.append(_text(_middle(index), _top_of(block, tallest) - above, block.out_channels))
    parts += [
        _text(0, _TOP + _HEIGHT + 17 * (n + 1), line, anchor="start", faint=True) for n, line in enumerate(_LINES)
    ]
    parts.append(_text(0, height - 6, "map side", anchor="start", faint=True))
    parts.append(_text(0, _TOP + _HEIGHT - 2, "channels", anchor="start", faint=True))
    return (
        f'<svg class="network" role="img" aria-label="blocks of {escape(arch.name)}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{"".join(parts)}</svg>'
    )


def _middle(index: int) -> float:
    return _LEFT + _STEP * (index + 0.5)


def _top_of(block: Block, tallest: int) -> float:
    return _TOP + _HEIGHT * (1 - min(1.0, block.out_channels / tallest))


def _bar(index: int, block: Block, tallest: int) -> str:
    left, top = _middle(index) - _BAR / 2, _top_of(block, tallest)
    look = "" if block.kernel_size <= 3 else ' class="wider"'
    drawn = f'<rect{look} x="{left:g}" y="{top:.1f}" width="{_BAR}" height="{_TOP + _HEIGHT - top:.1f}"/>'
    if block.out_channels > tallest:
        across = _TOP + 12
        drawn += f'<path class="cut" d="M{left - 3:g} {across + 4} l{_BAR + 6} -8"/>'
    below = _TOP + _HEIGHT + 17
    drawn += _text(_middle(index), below, "" if isinstance(block.row, PoolingHead) else block.kernel_size)
    expansion = getattr(block.row, "expansion", None)
    shown = "" if expansion is None else f"{expansion:.2g}"  # more digits would touch the neighbours'
    drawn += _text(_middle(index), below + 17, shown)
    if block.se_channels:
        drawn += f'<circle cx="{_middle(index):g}" cy="{below + 30:g}" r="3.5"/>'
    return drawn


def _stages(arch: Arch) -> str:
    """Lines between stages, and the side of each one's feature maps."""
    bounds, sides = [0], []
    for _, blocks in groupby(cost_of(arch).blocks, key=lambda cost: cost.block.stage):
        inside = list(blocks)
        bounds.append(bounds[-1] + len(inside))
        sides.append(inside[-1].size)
    bottom = _TOP + _HEIGHT + 17 * len(_LINES) + 22
    drawn = "".join(
        f'<line x1="{_LEFT + _STEP * n}" x2="{_LEFT + _STEP * n}" y1="4" y2="{bottom}"/>' for n in bounds[:-1]
    )
    for (first, last), side in zip(pairwise(bounds), sides, strict=True):
        drawn += _text(_LEFT + _STEP * (first + last) / 2, bottom, side, faint=True)
    return drawn


def _text(x: float, y: float, content: object, *, anchor: str = "middle", faint: bool = False) -> str:
    look = ' class="faint"' if faint else ""
    return f'<text{look} x="{x:g}" y="{y:.1f}" text-anchor="{anchor}">{content}</text>' if content != "" else ""
