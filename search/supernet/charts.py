"""The charts of a differentiable search's report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from fbnetv3_zoo.report.charts import (
    FAINT,
    FIRST,
    PAPER,
    SECOND,
    amounts,
    between,
    chart,
    legend_above,
    shares,
    whole_numbers,
)

from ..report.charts import label
from ..space import Dimension
from .result import SupernetResult

Doubles = npt.NDArray[np.float64]
NAMED = 0.1
"""From what probability at the end on a value is named at its band."""
COSTS = {"macs": "MACs", "parameters": "parameters", "latency_ms": "latency, ms"}
"""What a cost is called on an axis."""
_SIZE = (3.4, 1.5)  # inches, of a chart of probabilities
_LETTER = 0.066  # inches, of a name at a band
_LONGEST = 18  # letters of a name at a band


def cost_by_epoch(axes: Any, record: SupernetResult) -> None:
    """Expected cost, that of the most probable network once choices are trained; the target as a line."""
    plan, trained = record.plan, record.epochs[record.plan.choice_epoch :]
    _line(axes, record, [epoch.cost for epoch in record.epochs], FIRST, "expected")
    axes.plot([epoch.epoch for epoch in trained], [epoch.likeliest for epoch in trained], color=SECOND,
              linewidth=1.2, marker="s", markersize=2.5, label="most probable")  # fmt: skip
    if plan.target is not None:
        axes.axhline(plan.target.at_most, color=FAINT, linestyle="--", linewidth=1, label="target")
    axes.set(ylabel=COSTS[plan.cost])
    axes.set_ylim(bottom=0)
    if plan.cost != "latency_ms":
        amounts(axes.yaxis)
    _by_epoch(axes, record, columns=3)


def losses_by_epoch(axes: Any, record: SupernetResult) -> None:
    """Cross entropies of the images that train the weights, and of the validation images."""
    _line(axes, record, [epoch.train_loss for epoch in record.epochs], FIRST, "training")
    _line(axes, record, [epoch.validation_loss for epoch in record.epochs], SECOND, "validation")
    axes.set(ylabel="cross entropy (nats)")
    axes.set_ylim(bottom=0)
    _by_epoch(axes, record, columns=2)


def figure_by_epoch(axes: Any, record: SupernetResult, values: Sequence[float], unit: str, top: float | None) -> None:
    """One figure by epoch, from 0 to ``top`` (None: as far as it goes)."""
    _line(axes, record, values, FIRST)
    axes.set(ylabel=unit)
    axes.set_ylim(0, top)
    _by_epoch(axes, record)


def _line(axes: Any, record: SupernetResult, values: Sequence[float], ink: str, name: str | None = None) -> None:
    epochs = [epoch.epoch for epoch in record.epochs]
    axes.plot(epochs, values, color=ink, label=name, marker="o" if len(epochs) == 1 else "")


def _by_epoch(axes: Any, record: SupernetResult, columns: int = 1) -> None:
    """Epochs along the axis, a line after the last one without choices; a legend of named lines in so many columns."""
    _mark_beginning(axes, record)
    axes.set_xlabel("epoch (dotted: choices begin)" if record.plan.choice_epoch else "epoch")
    axes.set_xlim(0, record.epochs[-1].epoch + 0.5)
    whole_numbers(axes.xaxis)
    legend_above(axes, columns)


def _mark_beginning(axes: Any, record: SupernetResult) -> None:
    if record.plan.choice_epoch:
        axes.axvline(record.plan.choice_epoch, color=FAINT, linewidth=1, linestyle=":")


def probabilities_by_epoch(record: SupernetResult, number: int) -> Markup:
    """The probabilities of dimension ``number`` (from 0), a band a value, the first at the bottom.

    The band of the value of the network found is solid. Before the first epoch all values are as probable.
    """
    title = f"probabilities of {label(record.plan.space.dimensions[number].name)}"
    svg = chart(title, _bands, record, number, size=_SIZE)
    return Markup(re.sub(r'(?<= d=")[^"]+', lambda path: _short(path[0]), svg))


def _bands(axes: Any, record: SupernetResult, number: int) -> None:
    dimension = record.plan.space.dimensions[number]
    epochs = [0, *(epoch.epoch for epoch in record.epochs)]
    even = [1 / len(dimension)] * len(dimension)
    bands = np.array([even, *(epoch.probabilities[number] for epoch in record.epochs)]).T
    colors = [between(share) for share in shares(len(bands))]
    areas = axes.stackplot(epochs, bands, colors=colors, edgecolor=PAPER, linewidth=0.7)
    for n, area in enumerate(areas):
        area.set_alpha(0.95 if n == record.found.code[number] else 0.4)
    axes.grid(visible=False)
    _mark_beginning(axes, record)
    _name_bands(axes, epochs[-1], bands[:, -1], names_of(dimension))
    axes.set(xlim=(0, epochs[-1]), ylim=(0, 1), xticks=[0, epochs[-1]], yticks=[0, 1])
    axes.tick_params(labelsize=8)
    _same_frame(axes, record)


def _short(path: str) -> str:
    """The same path in tenths of a point: a page may have a hundred of these charts."""
    tenths = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", path)
    return " ".join(tenths.split())


def names_of(dimension: Dimension) -> list[str]:
    """Its values as they stand at their bands."""
    return [label(value, longest=_LONGEST) for value in dimension.options.values]


def _name_bands(axes: Any, at: int, heights: Doubles, names: Sequence[str]) -> None:
    for height, top, shown in zip(heights, heights.cumsum(), names, strict=True):
        if height >= NAMED:
            axes.annotate(shown, (at, top - height / 2), (4, 0), textcoords="offset points", va="center", fontsize=8)


def _same_frame(axes: Any, record: SupernetResult) -> None:
    """The same axes in all charts of a page, with room for the longest name."""
    longest = max(len(name) for dimension in record.plan.space.dimensions for name in names_of(dimension))
    width, height = _SIZE
    left, bottom, right = 0.18 / width, 0.24 / height, 1 - (0.1 + _LETTER * longest) / width
    axes.figure.set_layout_engine("none")
    axes.set_position((left, bottom, right - left, 0.95 - bottom))
