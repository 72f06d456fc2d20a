"""The table `nars-letters` for the scripts that answer questions with it, and what they share: intervals, pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import nars_letters
import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.report import charts
from fbnetv3_zoo.search.evaluation import Recording
from fbnetv3_zoo.search.predictors import MLP, pretrain_encoder
from fbnetv3_zoo.search.predictors.mlp import Encoder
from fbnetv3_zoo.search.space import LETTERS, NetworkCosts, draw_pool

Doubles = npt.NDArray[np.float64]
PICTURES = Path(__file__).resolve().parents[1] / "docs" / "evidence"
SEEDS = 20


@cache
def everything(data: str = "letters") -> Recording:
    """All points of the shipped table, with accuracies in percent."""
    whole = Recording.load(f"nars-{data}")
    assert whole.test_curves is not None
    return replace(whole, curves=100 * whole.curves, test_curves=100 * whole.test_curves)


@cache
def table(points: str = "pool", data: str = "letters") -> Recording:
    """Some of them: the pool, or a key of ``nars_letters.HELD``."""
    whole = everything(data)
    listed = {tuple(code) for code in json.loads(nars_letters.POINTS.read_text())[points]}
    return whole.part(np.flatnonzero([tuple(code) in listed for code in whole.codes.tolist()]))


def encoder(kind: MLP, seed: int = 0) -> Encoder:
    """Stage 1 for ``kind`` on a pool of the space, of which no point was trained."""
    pool = draw_pool(LETTERS, NetworkCosts(LETTERS), nars_letters.WITHIN, 4000, np.random.default_rng([seed, 7]))
    costs = {name: pool.costs[name] for name in ("macs", "parameters")}
    return pretrain_encoder(LETTERS, pool.codes, costs, kind=kind, seed=seed)


def mean_of(values: Sequence[float] | Doubles) -> str:
    """Mean and 95 % interval (Student's t) over the seeds."""
    mean, half = interval(values)
    return f"{mean:.2f} ({mean - half:.2f} to {mean + half:.2f})"


def interval(values: Sequence[float] | Doubles) -> tuple[float, float]:
    """Mean, and half of its 95 % interval."""
    from scipy.stats import t

    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return float(array.mean()), float("nan")
    return float(array.mean()), float(t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5)


def markdown(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table, its first column of text."""
    head = [str(cell) for cell in head]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def picture(name: str, *draws: Callable[[Any], None], size: tuple[float, float] = (6.4, 3.4)) -> None:
    """Write what each of ``draws`` puts on matplotlib's axes, side by side, as ``docs/evidence/NAME.png``."""
    from matplotlib.figure import Figure

    PICTURES.mkdir(parents=True, exist_ok=True)
    with charts.style():
        figure = Figure(figsize=size, layout="constrained" if len(draws) > 1 else None)
        for draw, axes in zip(draws, figure.subplots(1, len(draws), squeeze=False).ravel(), strict=True):
            draw(axes)
            charts.legend_above(axes, columns=3)
        charts.save_picture(figure, PICTURES / f"{name}.png", dpi=150)


def band(axes: Any, x: Sequence[float], values: Doubles, label: str, color: str) -> None:
    """Means of ``values``, shape (seeds, len(x)), as a line, and their 95 % intervals around it."""
    found = [interval(column) for column in values.T]
    means, halves = (np.array(one) for one in zip(*found, strict=True))
    axes.plot(x, means, color=color, label=label, marker="o", markersize=3)
    axes.fill_between(x, means - halves, means + halves, color=color, alpha=0.15, linewidth=0)
