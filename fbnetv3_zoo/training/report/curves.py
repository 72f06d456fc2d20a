"""How a run went, epoch by epoch, as pictures: one PNG file, or drawings for a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...report.svg import drawing
from ...utils.atomic_write import replacing

Epochs = Sequence[Mapping[str, float]]


def draw_curve(epochs: Epochs, path: str | Path) -> None:
    """Draw losses, validation accuracy and learning rate by epoch into the PNG file ``path``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(_PANELS)), _PANELS.values(), strict=True):
        _draw(axes, panel=panel, epochs=epochs)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def curve_drawings(epochs: Epochs) -> dict[str, str]:
    """The same as SVG elements by their titles, for an HTML page, whose font and text colour they take."""
    return {
        title: drawing(f"{title} by epoch", partial(_draw, panel=panel, epochs=epochs))
        for title, panel in _PANELS.items()
    }


def _draw(axes: Any, *, panel: Panel, epochs: Epochs) -> None:
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
