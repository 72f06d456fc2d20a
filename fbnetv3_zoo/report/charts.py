"""Charts of one style and one palette: matplotlib's, as SVG elements for a page or as picture files.

A page's charts take its font and its colors, so that they follow when it turns dark. The same chart gives the same
text.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..utils.atomic_write import replacing

INK, FAINT, PAPER = "#1d2125", "#5f666e", "#fcfcfb"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#cc79a7", "#f0e442")
"""The colors of series, which all eyes tell apart: Okabe and Ito's."""
FIRST, SECOND = SERIES[:2]
STEPS = 9
"""How many colors :func:`between` has."""


def mixed(first: str, second: str, share: float) -> str:
    """A color on the way from ``first`` (share 0) to ``second`` (1)."""
    ends = zip(bytes.fromhex(first[1:]), bytes.fromhex(second[1:]), strict=True)
    return "#" + bytes(round(a + share * (b - a)) for a, b in ends).hex()


_GRADIENT = [mixed(FIRST, SECOND, step / (STEPS - 1)) for step in range(STEPS)]
_ON_PAGE = {
    **{color: f"color-mix(in oklab, var(--first), var(--second) {100 * step / (STEPS - 1):g}%)"
       for step, color in enumerate(_GRADIENT)},
    INK: "var(--ink)", FAINT: "var(--faint)", PAPER: "var(--paper)", FIRST: "var(--first)", SECOND: "var(--second)",
}  # fmt: skip
_CLEANED = {
    r' id="[a-zA-Z0-9.]+_\d+"': "",  # nothing refers to these, and the page's next chart has them, too
    r"font-family: [^;]+": "font-family: inherit",
    r"<style.*?</style>": "",  # would be for the whole page
    r' (width|height)="[\d.]+pt"': "",
    r'\bxmlns(:xlink)?="[^"]+" ?': "",
}


def between(share: float) -> str:
    """A color on the way from :data:`FIRST` (share 0) to :data:`SECOND` (1)."""
    return _GRADIENT[round(min(1.0, max(0.0, share)) * (STEPS - 1))]


@contextmanager
def style(name: str = "") -> Iterator[None]:
    """Matplotlib's settings for figures of ours; ``name`` is what ids within an SVG are made from."""
    from cycler import cycler
    from matplotlib import rc_context

    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    settings: dict[Any, Any] = {
        **dict.fromkeys(inked, INK),
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.prop_cycle": cycler(color=SERIES),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.constrained_layout.use": True,
        "axes.linewidth": 0.6,
        "grid.alpha": 0.15,
        "grid.linewidth": 0.6,
        "font.size": 9,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
    }
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing", UserWarning)  # the page's font has it
        yield


def chart(
    title: str, draw: Callable[..., None], *values: object, size: tuple[float, float] = (4.4, 3.2)
) -> Markup:  # fmt: skip
    """What ``draw(axes, *values)`` draws on matplotlib's axes, as an SVG element named ``title``; ``size`` in inches.

    Whatever text it has is shown as it is, formulas too.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with style(title):
        figure = Figure(figsize=size, facecolor="none")
        draw(figure.subplots(subplot_kw={"facecolor": "none"}), *values)
        written = io.StringIO()
        canvas: Any = FigureCanvasSVG(figure)  # savefig would draw it twice
        canvas.print_svg(written, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    element = written.getvalue().partition("<svg ")[2]
    for pattern, replacement in _CLEANED.items():
        element = re.sub(pattern, replacement, element)
    element = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda color: _ON_PAGE.get(color[0], color[0]), element)
    return Markup('<svg role="img" aria-label="{}" {}').format(title, Markup(element))


def save_picture(figure: Any, path: str | Path, *, dpi: int) -> Path:
    """Write matplotlib's ``figure``, made under :func:`style`, as the PNG file ``path``."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png", metadata={"Software": "fbnetv3_zoo"})
    return Path(path)


def shares(count: int) -> list[float]:
    """So many places from 0 to 1, for :func:`between`."""
    return [n / max(1, count - 1) for n in range(count)]


def legend_above(axes: Any, columns: int = 2) -> None:
    """A legend above the axes, in so many columns, where lines have names."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(ncols=columns, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, handletextpad=0.4,
                    columnspacing=1.0)  # fmt: skip


def whole_numbers(axis: Any) -> None:
    """Ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def amounts(axis: Any) -> None:
    """Few ticks, in thousands and millions."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(EngFormatter())
