"""The training curve as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fbnetv3_zoo.atomic import replacing


def draw_curve(epochs: Sequence[Mapping[str, float]], path: str | Path) -> None:
    """Draw losses and validation accuracy by epoch into the PNG file ``path``."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    numbers = [epoch["epoch"] for epoch in epochs]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, accuracy = figure.subplots(1, 2)
    for key, label in (("train_loss", "training, as optimised"), ("validation_loss", "validation")):
        losses.plot(numbers, [epoch[key] for epoch in epochs], marker=".", label=label)
    losses.set(title="Loss", xlabel="epoch", ylabel="cross entropy (nats)")
    losses.legend()
    accuracy.plot(numbers, [epoch["validation_top1"] for epoch in epochs], marker=".", color="tab:green")
    accuracy.set(title="Validation accuracy", xlabel="epoch", ylabel="top-1")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    for axes in (losses, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
