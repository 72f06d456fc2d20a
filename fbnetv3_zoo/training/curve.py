"""How a run went, epoch by epoch, as pictures: one PNG file, or drawings for a page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fbnetv3_zoo.atomic import replacing

Epochs = Sequence[Mapping[str, float]]

_INK = "#0a0b0c"  # stands for the text's colour in a drawing, and for nothing else


def draw_curve(epochs: Epochs, path: str | Path) -> None:
    """Draw losses, validation accuracy and learning rate by epoch into the PNG file ``path``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(_PANELS)), _PANELS.values(), strict=True):
        _draw(axes, panel, epochs)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def curve_drawings(epochs: Epochs) -> dict[str, str]:
    """The same as SVG elements by their titles, for an HTML page, whose font and text colour they take."""
    return {title: _drawing(title, panel, epochs) for title, panel in _PANELS.items()}


def _drawing(title: str, panel: Panel, epochs: Epochs) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK)
    settings: dict[Any, Any] = {
        **ink,
        "grid.color": _INK,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": title,
    }
    with rc_context(settings):
        figure = Figure(figsize=(4.4, 3.2), layout="constrained")
        axes = figure.subplots()
        _draw(axes, panel, epochs)
        axes.spines[["top", "right"]].set_visible(False)
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    element = written.getvalue().partition("<svg ")[2].replace(_INK, "currentColor")
    for pattern, replacement in _FOR_A_PAGE.items():
        element = re.sub(pattern, replacement, element)
    return f'<svg role="img" aria-label="{title} by epoch" {element}'


_FOR_A_PAGE = {
    r' id="[a-z0-9.]+_\d+"': "",  # the ids that nothing refers to; another drawing has them, too
    r"font-family: [^;]+": "font-family: inherit",
    r"<style.*?</style>": "",  # would be for the whole page
    r' (width|height)="[\d.]+pt"': "",
    r'\bxmlns(:xlink)?="[^"]+" ?': "",
}
_METADATA = ("Creator", "Date", "Format", "Type")


def _draw(axes: Any, panel: Panel, epochs: Epochs) -> None:
    from matplotlib.ticker import MaxNLocator

    panel(axes, [epoch["epoch"] for epoch in epochs], epochs)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2)


def _marker(epochs: Epochs) -> str:
    return "." if len(epochs) <= 50 else ""


def _losses(axes: Any, numbers: list[float], epochs: Epochs) -> None:
    for key, label in (("train_loss", "training, as optimised"), ("validation_loss", "validation")):
        axes.plot(numbers, [epoch[key] for epoch in epochs], marker=_marker(epochs), label=label)
    axes.set(title="Loss", ylabel="cross entropy (nats)")
    axes.legend()


def _accuracy(axes: Any, numbers: list[float], epochs: Epochs) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.plot(numbers, [epoch["validation_top1"] for epoch in epochs], marker=_marker(epochs), color="tab:green")
    axes.set(title="Validation accuracy", ylabel="top-1")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))


def _learning_rate(axes: Any, numbers: list[float], epochs: Epochs) -> None:
    axes.plot(numbers, [epoch["learning_rate"] for epoch in epochs], marker=_marker(epochs), color="tab:purple")
    axes.set(title="Learning rate", ylabel="at the end of the epoch")


Panel = Callable[[Any, list[float], Epochs], None]
_PANELS: dict[str, Panel] = {
    "Loss": _losses, "Validation accuracy": _accuracy, "Learning rate": _learning_rate,
}  # fmt: skip
