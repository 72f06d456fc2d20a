"""What the table `nars-letters` says about searching: sample efficiency, joint against parts, rounds.

    python benchmarks/evidence_search.py efficiency     # accuracy found against the number of trainings
    python benchmarks/evidence_search.py parts          # joint against networks alone and recipes alone
    python benchmarks/evidence_search.py rounds         # figure 6: what each round trains

A method is told the validation accuracy of one training of each point that it asks for, by which it goes; what it has
found is judged by test accuracy, the mean over the point's trainings. With ``--surrogate`` there are 4,000 points, and
a model of the table answers for them (evidence_surrogate.py). Needs `optuna` and `smac`; every number is a mean over
20 seeds with its 95 % interval, differences are paired by seed. Pictures are written into docs/evidence.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import evidence_surrogate
import numpy as np
from evidence_methods import BATCH, METHODS, MOST, OURS, RANDOM, SHIPPED, Spent, Trainings
from evidence_table import SEEDS, Doubles, band, markdown, mean_of, picture, table

from fbnetv3_zoo.report import charts
from fbnetv3_zoo.search.space import Codes

AT = (24, 48, 96, 192)


@dataclass(frozen=True)
class Job:
    """One run of a method on some of the points: those of the table, or as many as the model answers for."""

    method: str
    seed: int
    surrogate: bool
    points: str = "pool"
    budget: int = MOST


def run(job: Job) -> list[int]:
    """The rows of the points that were trained, in order."""
    train = Trainings(codes(job), told(job), job.budget)
    with suppress(Spent):
        METHODS[job.method](train, job.seed)
    return train.rows


def codes(job: Job) -> Codes:
    """The points that can be trained."""
    return evidence_surrogate.points(job.points) if job.surrogate else table(job.points).codes


@cache
def true_scores(surrogate: bool, points: str) -> Doubles:
    """Their test accuracies."""
    if surrogate:
        return evidence_surrogate.surrogate().test(evidence_surrogate.points(points))
    return table(points).test_mean


def told(job: Job) -> Doubles:
    """The validation accuracy of every point that a method is told: that of one of its trainings, drawn by the seed."""
    rng = np.random.default_rng([job.seed, 5])
    if job.surrogate:
        return evidence_surrogate.surrogate().told(codes(job), rng)
    known = table(job.points)
    repeats = (known.lengths > 0).sum(1)
    scores: Doubles = known.scores[np.arange(len(known)), (rng.random(len(known)) * repeats).astype(int)]
    return scores


def judged(job: Job, rows: Sequence[int], at: Sequence[int]) -> list[float]:
    """Test accuracy of the point told to be the best, after each number of trainings."""
    of, true = told(job)[list(rows)], true_scores(job.surrogate, job.points)
    return [float(true[rows[of[:number].argmax()]]) for number in at]


def _all(jobs: Sequence[Job], processes: int) -> dict[Job, list[int]]:
    with ProcessPoolExecutor(processes) as pool:
        return dict(zip(jobs, pool.map(run, jobs), strict=True))


def efficiency(seeds: int, processes: int, surrogate: bool) -> None:
    """Accuracy found by each method; ours with N trainings against random search with 4 N."""
    jobs = [Job(method, seed, surrogate, budget=max(MOST, 4 * max(AT)) if method == RANDOM else MOST)
            for method in METHODS for seed in range(seeds)]  # fmt: skip
    rows = _all(jobs, processes)
    size = len(true_scores(surrogate, "pool"))
    x = [n for n in (24, 48, 72, 96, 120, 144, 168, 192, 216, 240) if n <= size]
    found = {
        method: np.array([judged(job, rows[job], x) for job in jobs if job.method == method]) for method in METHODS
    }
    best = true_scores(surrogate, "pool").max()
    print(f"{size} points, the best of which has {best:.2f} % test accuracy\n")
    print(markdown(["trainings", *x], [[name, *(mean_of(column) for column in of.T)] for name, of in found.items()]))
    print("\nshipped with N trainings minus others, points of accuracy, paired by seed\n")
    lines = []
    for number in (n for n in AT if n in x):
        ours = found[OURS][:, x.index(number)]
        four = [judged(job, rows[job], [min(4 * number, size)])[0] for job in jobs if job.method == RANDOM]
        others = [mean_of(ours - of[:, x.index(number)]) for name, of in found.items() if name != OURS]
        lines.append([number, mean_of(ours - np.array(four)), *others])
    print(markdown(["N", "random, 4 N", *(name for name in METHODS if name != OURS)], lines))
    _curves("efficiency-surrogate" if surrogate else "efficiency", x, found)


def parts(seeds: int, processes: int, surrogate: bool) -> None:
    """The same search over networks and recipes, over networks with one recipe, over recipes for one network."""
    named: Mapping[str, str] = {
        "both": "pool",
        "networks, SGD": "networks",
        **{name: name for name in ("networks, AdamW", "networks, RMSprop")},
        "recipes, middle network": "recipes",
        **{name: name for name in ("recipes, small network", "recipes, large network")},
    }
    jobs = [Job(OURS, seed, surrogate, points) for points in named.values() for seed in range(seeds)]
    rows = _all(jobs, processes)
    sizes = {name: len(true_scores(surrogate, points)) for name, points in named.items()}
    x = [n for n in (24, 48, 72, 96, 192) if n <= min(sizes.values())]
    found = {
        name: np.array([judged(job, rows[job], x) for job in jobs if job.points == points])
        for name, points in named.items()
    }
    print(markdown(["trainings", *x], [[name, *(mean_of(column) for column in of.T)] for name, of in found.items()]))
    others = [name for name in named if name != "both"]
    lines = [[name, *(mean_of(column) for column in (found["both"] - found[name]).T)] for name in others]
    print("\nboth minus one part, points of accuracy, paired by seed\n\n" + markdown(["minus", *x], lines))
    best = [[name, sizes[name], f"{true_scores(surrogate, points).max():.2f}"] for name, points in named.items()]
    print("\n" + markdown(["points", "number", "best test accuracy"], best))
    _curves("parts-surrogate" if surrogate else "parts", x, found)


def _curves(name: str, x: list[int], found: Mapping[str, Doubles]) -> None:
    """The picture ``name``: a line for each of ``found``, over the numbers of trainings ``x``."""

    def draw(axes: Any) -> None:
        for color, (label, of) in zip(charts.SERIES, found.items(), strict=False):
            band(axes, x, of, label, color)
        axes.set(xlabel="trainings", ylabel="test accuracy of the best, %")

    picture(name, draw)


def rounds(seeds: int, processes: int, surrogate: bool) -> None:
    """Test accuracy of what is trained in each round of 24, by quartiles over all seeds."""
    names = (OURS, "literal", RANDOM)
    jobs = [Job(method, seed, surrogate) for method in names for seed in range(seeds)]
    rows, true = _all(jobs, processes), true_scores(surrogate, "pool")
    count = min(SHIPPED.rounds, len(true) // BATCH)
    shown: dict[str, list[Doubles]] = {}
    for name in names:
        of = np.array([rows[job][: count * BATCH] for job in jobs if job.method == name])
        shown[name] = [true[of[:, n * BATCH : (n + 1) * BATCH]].ravel() for n in range(count)]
    cells = [[name, *("{1:.1f} ({0:.1f} to {2:.1f})".format(*np.quantile(values, (0.25, 0.5, 0.75))) for values in of)]
             for name, of in shown.items()]  # fmt: skip
    print(markdown(["round", *range(1, count + 1)], cells))

    def draw(axes: Any) -> None:
        for n, (name, color) in enumerate(zip(names, charts.SERIES, strict=False)):
            places = np.arange(1, count + 1) + 0.25 * (n - 1)
            lines = {f"{what}props": {"color": color} for what in ("median", "box", "whisker", "cap")}
            axes.boxplot(shown[name], positions=places, widths=0.2, sym="", **lines)
            axes.plot([], [], color=color, label=name)
        axes.set(xlabel="round", ylabel="test accuracy, %")
        axes.set_xticks(range(1, count + 1), range(1, count + 1))

    picture("rounds-surrogate" if surrogate else "rounds", draw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("efficiency", "parts", "rounds"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--surrogate", action="store_true", help="4,000 points, for which a model of the table answers")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    asked = {"efficiency": efficiency, "parts": parts, "rounds": rounds}[given.what]
    asked(given.seeds, given.processes, given.surrogate)


if __name__ == "__main__":
    main()
