"""The drawings of a differentiable search's report, as SVG elements that take the page's colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fbnetv3_zoo.search.charts import label, shares
from fbnetv3_zoo.search.supernet.record import SupernetRecord
from fbnetv3_zoo.training.drawing import FAINT, FIRST, SECOND, colour, drawing

NAMED = 0.1
"""From what probability at the end on a value is named."""


def cost_over_time(record: SupernetRecord) -> str:
    """Expected cost and that of the most probable network by epoch; the target as a line."""

    def draw(axes: Any) -> None:
        epochs = [epoch.epoch for epoch in record.epochs]
        axes.plot(epochs, [epoch.cost for epoch in record.epochs], color=FIRST, label="expected")
        axes.plot(epochs, [epoch.likeliest for epoch in record.epochs], color=SECOND, linewidth=1.2,
                  drawstyle="steps-mid", label="most probable")  # fmt: skip
        if record.plan.target is not None:
            axes.axhline(record.plan.target.at_most, color=FAINT, linestyle="--", label="target")
        axes.set_ylim(bottom=0)
        axes.set_ylabel(record.plan.cost)
        axes.yaxis.set_major_formatter(_amounts())
        _by_epoch(axes, record)

    return drawing("cost by epoch", draw)


def accuracy_over_time(record: SupernetRecord) -> str:
    """Validation accuracy of the supernet by epoch."""

    def draw(axes: Any) -> None:
        values = [100 * epoch.validation_top1 for epoch in record.epochs]
        axes.plot([epoch.epoch for epoch in record.epochs], values, color=FIRST, label="supernet")
        axes.set(ylabel="validation accuracy, %", ylim=(0, 102))
        _by_epoch(axes, record)

    return drawing("accuracy by epoch", draw)


def losses_over_time(record: SupernetRecord) -> str:
    """Cross entropies by epoch."""

    def draw(axes: Any) -> None:
        epochs = [epoch.epoch for epoch in record.epochs]
        axes.plot(epochs, [epoch.train_loss for epoch in record.epochs], color=FIRST, label="training")
        axes.plot(epochs, [epoch.validation_loss for epoch in record.epochs], color=SECOND, label="validation")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("cross entropy, nats")
        _by_epoch(axes, record)

    return drawing("losses by epoch", draw)


def probabilities_over_time(record: SupernetRecord, number: int) -> str:
    """The probabilities of dimension ``number`` by epoch, one band a value, from the first at the bottom."""
    dimension = record.plan.space.dimensions[number]

    def draw(axes: Any) -> None:
        epochs = [0, *(epoch.epoch for epoch in record.epochs)]
        even = tuple(1 / len(dimension) for _ in range(len(dimension)))  # before the first epoch
        bands = np.array([even, *(epoch.probabilities[number] for epoch in record.epochs)]).T
        inks = [colour(share) for share in shares(len(bands))]
        axes.stackplot(epochs, bands, colors=inks, alpha=0.75, edgecolor="none", linewidth=0)
        _name_bands(axes, epochs[-1], bands[:, -1], [label(value, longest=18) for value in dimension.options.values])
        axes.set_xlim(0, epochs[-1])
        axes.set_ylim(0, 1)
        axes.set_title(label(dimension.name), fontsize=10, loc="left")
        axes.set_xticks([0, epochs[-1]])
        axes.set_yticks([0, 1])

    return drawing(f"probabilities of {label(dimension.name)}", draw, size=(3.4, 1.7))


def _name_bands(axes: Any, at: int, last: np.ndarray, names: Sequence[str]) -> None:
    middles = np.cumsum(last) - last / 2
    for middle, value, shown in zip(middles, last, names, strict=True):
        if value >= NAMED:
            axes.annotate(shown, (at, middle), (4, 0), textcoords="offset points", va="center", fontsize=8)


def _by_epoch(axes: Any, record: SupernetRecord) -> None:
    from matplotlib.ticker import MaxNLocator

    begins = record.plan.choice_epoch
    if 0 < begins < len(record.epochs):
        axes.axvline(begins + 0.5, color=FAINT, linewidth=1, linestyle=":")
    axes.set_xlabel("epoch (dotted: choices begin)" if 0 < begins < len(record.epochs) else "epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.2)
    axes.legend(ncols=3, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def _amounts() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter()
