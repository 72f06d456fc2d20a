"""The charts of a search's report, each drawn on axes of matplotlib's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.report.charts import FAINT, FIRST, SECOND, amounts, between, legend_above, shares, whole_numbers
from fbnetv3_zoo.utils.intervals import mean_interval

from ..stages.pareto import undominated
from .analysis import Effect, Efficiency, Predictions, ScoredPoints
from .formatting import value_of

Doubles = npt.NDArray[np.float64]
SERIES = 8
"""How many lines of one chart are named."""
_LONGEST = 26  # characters of a label
_MARKERS = "osD^vP*X"
_CURVES, _CURVE_POINTS = 100, 40


def label(value: object, *, longest: int = _LONGEST) -> str:
    """A value as a short text that can be drawn."""
    shown = "".join(c if c.isprintable() else "?" for c in value_of(value))
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def scatter(axes: Any, predictions: Predictions) -> None:
    """Predicted against measured score, and the line on which both are the same; colors are rounds."""
    numbers = sorted(set(predictions.rounds.tolist()))
    for n, (share, number) in enumerate(zip(shares(len(numbers)), numbers, strict=True)):
        part, shown = predictions.of_round(number), str(number) if n else f"round {number}"
        axes.scatter(part.predicted, part.measured, s=18, color=between(share), alpha=0.75, linewidths=0,
                     marker=_MARKERS[n % len(_MARKERS)], label=shown)  # fmt: skip
    ends = np.array([*predictions.predicted, *predictions.measured])
    low, high = float(ends.min()), float(ends.max())
    axes.plot([low, high], [low, high], color=FAINT, linewidth=1, linestyle="--")
    axes.set(xlabel="predicted score", ylabel="measured score")
    legend_above(axes, 7)


def efficiency(axes: Any, curves: Sequence[Efficiency], of: str) -> None:
    """Error (``of`` "mse") or rank correlation ("kendall") by number of points, with 95 % intervals."""
    positions = np.arange(len(curves[0].sizes))
    for n, one in enumerate(curves):
        mean, low, high = mean_interval(one.mse if of == "mse" else one.kendall)
        where = positions + (0.06 * (2 * n - 1) if len(curves) > 1 else 0)
        ink, marker = (FIRST, "o") if one.pretrained else (SECOND, "s")
        axes.errorbar(where, mean, yerr=[mean - low, high - mean], color=ink, marker=marker, markersize=5,
                      elinewidth=1, capsize=3,
                      label="with pretraining" if one.pretrained else "without")  # fmt: skip
    axes.set_xticks(positions, [str(size) for size in curves[0].sizes])
    axes.set_xlim(-0.4, len(positions) - 0.6)
    axes.set(xlabel="candidates fitted on", ylabel="mean squared error" if of == "mse" else "Kendall's tau")
    if of == "mse":
        axes.set_ylim(bottom=0)
    axes.grid(visible=False, axis="x")
    if len(curves) > 1:
        legend_above(axes)


def correlation(axes: Any, values: Sequence[float], epoch: int, threshold: float) -> None:
    """Rank correlation with the last epoch by epoch; the threshold, and the epoch that was chosen."""
    epochs = np.arange(1, len(values) + 1)
    axes.plot(epochs, values, color=FIRST, marker="o" if len(values) <= 40 else "", markersize=4)
    axes.axhline(threshold, color=FAINT, linestyle="--", linewidth=1, label=f"wanted: {threshold:g}")
    axes.axvline(epoch, color=SECOND, label=f"chosen: epoch {epoch}")
    axes.set(xlabel="epoch", ylabel="rank correlation (Spearman)")
    axes.set_ylim(min(0.0, *values), 1.03)
    whole_numbers(axes.xaxis)
    legend_above(axes)


def learning_curves(axes: Any, curves: Doubles, epoch: int) -> None:
    """Curves, shape (candidates, epochs), colored by their last score; the epoch that was chosen."""
    from matplotlib.collections import LineCollection

    shown = curves[:_CURVES]
    picked = np.unique(np.linspace(0, curves.shape[1] - 1, _CURVE_POINTS).round().astype(np.int64))
    order = shown[:, -1].argsort(kind="stable")
    lines = [np.stack([picked + 1, shown[n, picked]], 1).tolist() for n in order]
    axes.add_collection(
        LineCollection(lines, colors=[between(share) for share in shares(len(lines))], linewidths=0.9, alpha=0.6)
    )
    axes.autoscale()
    axes.axvline(epoch, color=SECOND, label=f"chosen: epoch {epoch}")
    axes.set(xlabel="epoch", ylabel="score")
    whole_numbers(axes.xaxis)
    legend_above(axes)


def rounds(axes: Any, scored: ScoredPoints) -> None:
    """Every score by round, with quartiles, and the best so far."""
    numbers = sorted(set(scored.rounds.tolist()))
    groups = [scored.scores[scored.rounds == number] for number in numbers]
    for share, number, scores in zip(shares(len(numbers)), numbers, groups, strict=True):
        aside = (np.arange(len(scores)) * 0.618 % 1 - 0.5) * 0.5
        axes.scatter(number + aside, scores, s=12, color=between(share), alpha=0.6, linewidths=0)
    lines = {name: {"color": FAINT} for name in ("boxprops", "whiskerprops", "capprops")}
    axes.boxplot(groups, positions=numbers, widths=0.62, showfliers=False, manage_ticks=False,
                 medianprops={"color": FAINT, "linewidth": 2}, **lines)  # fmt: skip
    best = np.maximum.accumulate([scores.max() for scores in groups])
    axes.plot(numbers, best, color=SECOND, marker="D", markersize=4, linewidth=1.2, label="best so far")
    axes.set_xticks(numbers, [f"{number}\n({len(scores)})" for number, scores in zip(numbers, groups, strict=True)])
    axes.set(xlabel="round (candidates scored)", ylabel="score")
    axes.grid(visible=False, axis="x")
    legend_above(axes)


def evolution(axes: Any, progress: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Best predicted score by points scored, a line a constraint."""
    for share, (n, (name, points)) in zip(shares(len(progress)), enumerate(progress.items()), strict=True):
        ink, (counts, scores) = between(share), np.array(points, np.float64).reshape(-1, 2).T
        shown = label(name) if n < SERIES else None
        axes.plot(counts, scores, color=ink, drawstyle="steps-post", label=shown, markersize=6,
                  marker=_MARKERS[n % len(_MARKERS)], markevery=[len(counts) - 1])  # fmt: skip
    axes.set(xlabel="points scored by the predictor", ylabel="best predicted score")
    legend_above(axes, 1 if max(len(name) for name in progress) > 14 else 2)


def pareto(
    axes: Any, axis: str, scored: ScoredPoints, cost: Doubles, predicted: tuple[Doubles, Doubles],
    full: tuple[Doubles, Doubles], marks: Mapping[str, float],
) -> None:  # fmt: skip
    """Score against cost: the points of stage 2 with their front, predicted and fully trained ones as (cost, score).

    ``marks`` are costs of other networks by name, as lines without a score; those far outside are left out.
    """
    axes.scatter(cost, scored.scores, s=12, color=FAINT, alpha=0.5, linewidths=0, label="measured")
    best = undominated(cost, scored.scores)
    if len(best):
        axes.plot(cost[best], scored.scores[best], color=FAINT, linewidth=1, drawstyle="steps-post")
    best = undominated(*predicted)
    if len(best):
        axes.plot(predicted[0][best], predicted[1][best], color=FIRST, marker="D", markersize=4, linewidth=1.2,
                  label="best predicted")  # fmt: skip
    if len(full[0]):
        axes.scatter(*full, s=60, marker="*", color=SECOND, zorder=3, label="trained in full")
    _mark(axes, marks)
    axes.set(xlabel=axis, ylabel="score")
    amounts(axes.xaxis)
    legend_above(axes, 3)


def near(marks: Mapping[str, float], low: float, high: float) -> dict[str, float]:
    """The ``marks`` that are less than a tenth outside of ``low`` to ``high``."""
    return {name: value for name, value in marks.items() if 0.9 * low <= value <= 1.1 * high}


def _mark(axes: Any, marks: Mapping[str, float]) -> None:
    for name, value in marks.items():
        axes.axvline(value, color=FAINT, linewidth=1, linestyle=":")
        axes.text(value, 0.01, f" {name}", transform=axes.get_xaxis_transform(), color=FAINT, fontsize=9, va="bottom")


def published(axes: Any, points: Mapping[str, tuple[float, float]]) -> None:
    """Published accuracy in percent against MACs, a named point a network."""
    costs, scores = np.array(list(points.values())).T
    axes.plot(costs, scores, color=FAINT, marker="o", markersize=5, linewidth=1)
    for name, (cost, score) in points.items():
        axes.annotate(name, (cost, score), (6, -4), textcoords="offset points", fontsize=9, va="top")
    axes.set(xlabel="MACs", ylabel="ImageNet top-1 (%)")
    axes.margins(x=0.08, y=0.12)
    amounts(axes.xaxis)


def effect(axes: Any, shown: Effect, low: float, high: float) -> None:
    """Predicted score by value of one dimension, with the members' range; ``low`` and ``high`` end the axis."""
    positions = np.arange(len(shown.values))
    errors = [shown.score - shown.low, shown.high - shown.score]
    if shown.ordered:
        axes.fill_between(positions, shown.low, shown.high, color=FIRST, alpha=0.2, linewidth=0)
        axes.plot(positions, shown.score, color=FIRST, marker="o", markersize=4)
    else:
        axes.errorbar(positions, shown.score, yerr=np.maximum(errors, 0), color=FIRST, linestyle="", marker="o",
                      markersize=6, capsize=3)  # fmt: skip
    ticks = positions if len(positions) <= 4 else np.unique([0, (len(positions) - 1) // 2, len(positions) - 1])
    axes.set_xticks(ticks, [label(shown.values[int(n)], longest=12) for n in ticks], fontsize=9)
    axes.set_xlim(-0.5, len(positions) - 0.5)
    axes.set_ylim(low, high)
    axes.grid(visible=False, axis="x")
