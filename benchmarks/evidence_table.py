"""The table `nars-letters` for the scripts that answer questions with it, and what they share: intervals, pictures."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import nars_letters
import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.report import charts
from fbnetv3_zoo.search.evaluation import Recording
from fbnetv3_zoo.search.predictors import MLP, pretrain_encoder
from fbnetv3_zoo.search.predictors.mlp import Encoder
from fbnetv3_zoo.search.space import LETTERS, Codes, NetworkCosts, draw_pool

Doubles = npt.NDArray[np.float64]
PICTURES = Path(__file__).resolve().parents[1] / "docs" / "evidence"
Points = Literal["pool", "recipes", "networks"]
SEEDS = 20


@dataclass(frozen=True)
class Table:
    """Points with their curves on validation images, by which a search goes, and on test images, which it never sees.

    ``validation`` and ``test`` have the same points, repeats and epochs; accuracies in percent.
    """

    validation: Recording
    test: Recording

    def __len__(self) -> int:
        return len(self.validation)

    @property
    def codes(self) -> Codes:
        """All points, shape (points, dimensions)."""
        return self.validation.codes

    def rows(self, rows: npt.NDArray[np.integer]) -> Table:
        """Some of the points."""
        return Table(*(
            Recording(one.space, one.codes[rows], one.curves[rows], {k: v[rows] for k, v in one.statistics.items()})
            for one in (self.validation, self.test)
        ))  # fmt: skip


@cache
def table(points: Points = "pool", data: str = "letters") -> Table:
    """What has been recorded so far of ``points`` on ``data``; a training that failed counts as chance."""
    listed = [tuple(code) for code in json.loads(nars_letters.POINTS.read_text())[points]]
    curves: Mapping[tuple[int, ...], list[tuple[int, Mapping[str, list[float]]]]] = defaultdict(list)
    wanted = set(listed)
    for training, of in nars_letters.recorded():
        if training.data == data and training.code in wanted:
            curves[training.code].append((training.seed, of))
    if not curves:
        raise SystemExit(f"no trainings of {points} on {data} yet: python benchmarks/nars_letters.py record")
    codes = np.array([code for code in listed if code in curves])
    costs = NetworkCosts(LETTERS)(codes)
    recordings = []
    for split in nars_letters.SPLITS:
        repeats = max(map(len, curves.values()))
        array = np.full((len(codes), repeats, LETTERS_EPOCHS), np.nan)
        for row, code in enumerate(codes):
            for slot, (_, of) in enumerate(sorted(curves[tuple(code.tolist())], key=lambda one: one[0])):
                array[row, slot] = 100 * np.nan_to_num(np.array(of[split]), nan=CHANCE)
        recordings.append(Recording(LETTERS, codes, array, costs))
    return Table(*recordings)


LETTERS_EPOCHS = 12
CHANCE = 1 / 34


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


def picture(name: str, draw: Callable[[Any], None], *, size: tuple[float, float] = (6.4, 3.4)) -> None:
    """Write what ``draw`` puts on matplotlib's axes as ``docs/evidence/NAME.png``."""
    from matplotlib.figure import Figure

    PICTURES.mkdir(parents=True, exist_ok=True)
    with charts.style():
        figure = Figure(figsize=size)
        axes = figure.subplots()
        draw(axes)
        charts.legend_above(axes, columns=3)
        charts.save_picture(figure, PICTURES / f"{name}.png", dpi=150)


def band(axes: Any, x: Sequence[float], values: Doubles, label: str, color: str) -> None:
    """Means of ``values``, shape (seeds, len(x)), as a line, and their 95 % intervals around it."""
    found = [interval(column) for column in values.T]
    means, halves = (np.array(one) for one in zip(*found, strict=True))
    axes.plot(x, means, color=color, label=label, marker="o", markersize=3)
    axes.fill_between(x, means - halves, means + halves, color=color, alpha=0.15, linewidth=0)
