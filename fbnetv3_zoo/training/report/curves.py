"""How a run went, epoch by epoch: one PNG file, or charts for a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...report.charts import chart, save_picture, style, whole_numbers

Epochs = Sequence[Mapping[str, float]]


def draw_curve(epochs: Epochs, path: str | Path) -> None:
    """Draw losses, validation accuracy and learning rate by epoch into the PNG file ``path``."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(13, 3.6))
        for axes, panel in zip(figure.subplots(1, len(_PANELS)), _PANELS.values(), strict=True):
            panel(axes, epochs)
        save_picture(figure, path, dpi=120)


def curve_charts(epochs: Epochs) -> dict[str, Markup]:
    """The same as SVG elements by their titles, for a page."""
    return {title: chart(f"{title} by epoch", panel, epochs, size=(3.5, 2.7)) for title, panel in _PANELS.items()}


def _plot(axes: Any, epochs: Epochs, fields: Mapping[str, str], **labels: str) -> None:
    """The ``fields`` by epoch, each with its name in the legend, "" for none."""
    for field, name in fields.items():
        axes.plot([epoch["epoch"] for epoch in epochs], [epoch[field] for epoch in epochs],
                  marker="." if len(epochs) <= 50 else "", label=name)  # fmt: skip
    axes.set(xlabel="epoch", **labels)
    whole_numbers(axes.xaxis)


def _losses(axes: Any, epochs: Epochs) -> None:
    fields = {"train_loss": "training, as optimized", "validation_loss": "validation"}
    _plot(axes, epochs, fields, title="Loss", ylabel="cross entropy (nats)")
    axes.legend()


def _accuracy(axes: Any, epochs: Epochs) -> None:
    from matplotlib.ticker import PercentFormatter

    _plot(axes, epochs, {"validation_top1": ""}, title="Validation accuracy", ylabel="top-1")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))


def _learning_rate(axes: Any, epochs: Epochs) -> None:
    _plot(axes, epochs, {"learning_rate": ""}, title="Learning rate", ylabel="at the end of the epoch")


_PANELS: dict[str, Callable[[Any, Epochs], None]] = {
    "Loss": _losses, "Validation accuracy": _accuracy, "Learning rate": _learning_rate,
}  # fmt: skip
