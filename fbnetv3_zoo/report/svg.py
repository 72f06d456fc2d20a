"""Drawings for a page: what matplotlib draws, as SVG elements that take the page's font and colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

_INK = "#0a0b0c"  # stands for the text's colour in a drawing, and for nothing else
COLOURS = 9
"""How many colours :func:`colour` tells apart."""
_COLOUR = "#0a0b{:02x}"


def colour(share: float) -> str:
    """A colour on the way from the page's first (share 0) to its second (1): blue to orange, told apart by all eyes.

    For matplotlib; it is the page's own, lighter on dark paper.
    """
    return _COLOUR.format(0x20 + round(min(1.0, max(0.0, share)) * (COLOURS - 1)))


FIRST, SECOND = colour(0), colour(1)
FAINT = "#0a0b0d"
"""Stands for the colour of what is of less weight."""


def drawing(title: str, draw: Callable[[Any], None], *, size: tuple[float, float] = (4.4, 3.2)) -> str:
    """What ``draw`` draws on matplotlib's axes, as an SVG element named ``title``; ``size`` in inches.

    The same drawing gives the same text. Whatever text it has is shown as it is, formulas too.
    """
    from html import escape

    element = _svg(title, draw, size).partition("<svg ")[2].replace(_INK, "currentColor")
    element = element.replace(FAINT, "var(--faint)")
    for step in range(COLOURS):
        element = element.replace(_COLOUR.format(0x20 + step), _mixed(step / (COLOURS - 1)))
    for pattern, replacement in _FOR_A_PAGE.items():
        element = re.sub(pattern, replacement, element)
    return f'<svg role="img" aria-label="{escape(title)}" {element}'


def _svg(title: str, draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK)
    settings: dict[Any, Any] = {
        **ink,
        "grid.color": _INK,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "text.parse_math": False,
    }
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing", UserWarning)  # the page's font has it
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        axes = figure.subplots(subplot_kw={"facecolor": "none"})
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        written = io.StringIO()
        canvas: Any = FigureCanvasSVG(figure)  # savefig would draw it twice
        canvas.print_svg(written, metadata=dict.fromkeys(_METADATA))
    return written.getvalue()


def _mixed(share: float) -> str:
    if share in (0, 1):
        return "rgb(var(--wrong))" if share else "rgb(var(--right))"
    return f"color-mix(in oklab, rgb(var(--right)), rgb(var(--wrong)) {100 * share:g}%)"


_FOR_A_PAGE = {
    r' id="[a-zA-Z0-9.]+_\d+"': "",  # the ids that nothing refers to; another drawing has them, too
    r"font-family: [^;]+": "font-family: inherit",
    r"<style.*?</style>": "",  # would be for the whole page
    r' (width|height)="[\d.]+pt"': "",
    r'\bxmlns(:xlink)?="[^"]+" ?': "",
}
_METADATA = ("Creator", "Date", "Format", "Type")
