"""What the table `nars-letters` says about searching: sample efficiency, joint against parts, rounds.

    python benchmarks/evidence_search.py efficiency       # accuracy found against the number of trainings
    python benchmarks/evidence_search.py parts            # joint against networks alone and recipes alone
    python benchmarks/evidence_search.py rounds           # figure 6: what each round trains

A method is told the validation accuracy of one training of each point that it asks for, by which it goes; what it has
found is judged by test accuracy, the mean over the point's trainings. Methods that make up points of their own get the
nearest one of the table that they have not had. Needs `optuna`; every number is a mean over 20 seeds with its 95 %
interval, differences are paired by seed. Pictures are written into docs/evidence.
"""

from __future__ import annotations

import argparse
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from evidence_table import SEEDS, Doubles, band, encoder, markdown, mean_of, picture, table

from fbnetv3_zoo.report import charts
from fbnetv3_zoo.search import PLANS
from fbnetv3_zoo.search.evaluation import Outcome
from fbnetv3_zoo.search.predictors import MLP, Pretraining
from fbnetv3_zoo.search.space import LETTERS, Choice, Codes
from fbnetv3_zoo.search.stages import IterativeConfig, IterativeSearch

AT = (24, 48, 96, 192)
MOST = 240
BATCH = 24


class Spent(Exception):  # noqa: N818 - a method has had its trainings
    """All trainings are used up."""


@dataclass
class Trainings:
    """The points of a table that a method has had trained, in order; at most ``budget``."""

    codes: Codes
    told: Doubles
    budget: int
    rows: list[int] = field(default_factory=list)

    def __call__(self, code: Sequence[int]) -> float:
        """The validation accuracy of the nearest point that was not trained yet."""
        if len(self.rows) == min(self.budget, len(self.codes)):
            raise Spent
        distances = _distances(self.codes, np.asarray(code))
        distances[self.rows] = np.inf
        self.rows.append(int(distances.argmin()))
        return float(self.told[self.rows[-1]])

    @property
    def last(self) -> Codes:
        """The point trained last."""
        return self.codes[self.rows[-1]]


def _distances(codes: Codes, code: npt.NDArray[np.int64]) -> Doubles:
    """Over the dimensions: 1 for another choice, the share of its range for another number."""
    ranges = np.array([1 if isinstance(d.options, Choice) else max(1, len(d) - 1) for d in LETTERS.dimensions])
    away: Doubles = np.minimum(np.abs(codes - code) / ranges, 1).sum(1)
    return away


Method = Callable[[Trainings, int], None]


def searched(config: IterativeConfig, train: Trainings, seed: int) -> None:
    """Stages 1 and 2 of this package, in rounds of 24."""
    kind, before = config.predictor, None
    if isinstance(kind, MLP) and kind.pretraining is not Pretraining.NONE and np.ptp(train.codes, 0)[_NETWORKS].any():
        before = encoder(kind, seed)
    search = IterativeSearch(LETTERS, train.codes, config, encoder=before, seed=seed)
    while trials := search.ask():
        search.tell([Outcome(trial.number, (train(trial.code),)) for trial in trials])


_NETWORKS = np.array([dimension.part == "architecture" for dimension in LETTERS.dimensions])


def random_search(train: Trainings, seed: int) -> None:
    """Points in random order."""
    for code in train.codes[np.random.default_rng([seed, 1]).permutation(len(train.codes))]:
        train(code)


def evolution(train: Trainings, seed: int) -> None:
    """Regularized evolution (Real et al. 2019) with a population of 25: mutate the best of ten, drop the oldest."""
    rng, free = np.random.default_rng([seed, 2]), np.flatnonzero(LETTERS.sizes > 1)
    alive: deque[tuple[Codes, float]] = deque()
    for code in train.codes[rng.permutation(len(train.codes))[:25]]:
        alive.append((code, train(code)))
    while True:
        parents = [alive[index] for index in rng.permutation(len(alive))[:10]]
        child = max(parents, key=lambda parent: parent[1])[0].copy()
        column = rng.choice(free)
        child[column] = (child[column] + rng.integers(1, LETTERS.sizes[column])) % LETTERS.sizes[column]
        score = train(child)
        alive.append((train.last, score))
        alive.popleft()


def tpe(train: Trainings, seed: int) -> None:
    """Optuna's TPE, multivariate; what it is told is of the point of the table that it got."""
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    kinds: dict[str, optuna.distributions.BaseDistribution] = {
        d.name: optuna.distributions.CategoricalDistribution(range(len(d)))
        if isinstance(d.options, Choice)
        else optuna.distributions.IntDistribution(0, len(d) - 1)
        for d in LETTERS.dimensions
        if len(d) > 1
    }
    while True:
        asked = study.ask(kinds)
        score = train([asked.params.get(d.name, 0) for d in LETTERS.dimensions])
        got = {d.name: int(value) for d, value in zip(LETTERS.dimensions, train.last, strict=True) if len(d) > 1}
        study.tell(asked, state=optuna.trial.TrialState.FAIL)
        study.add_trial(optuna.trial.create_trial(params=got, distributions=kinds, value=score))


_ROUNDS = -(-MOST // BATCH)
OURS, RANDOM = "shipped", "random"
METHODS: Mapping[str, Method] = {
    OURS: partial(searched, IterativeConfig(epochs=1, rounds=_ROUNDS, batch=BATCH)),
    "literal": partial(
        searched,
        IterativeConfig(
            epochs=1, rounds=_ROUNDS, batch=BATCH, predictor=PLANS["paper-literal"].rounds.predictor,
            choosing=PLANS["paper-literal"].rounds.choosing,
        ),
    ),
    RANDOM: random_search,
    "evolution": evolution,
    "TPE": tpe,
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One run of a method on some of the points."""

    method: str
    seed: int
    points: str = "pool"
    budget: int = MOST


def run(job: Job) -> list[int]:
    """The rows of the points that were trained, in order."""
    train = Trainings(table(job.points).codes, told(job), job.budget)
    with suppress(Spent):
        METHODS[job.method](train, job.seed)
    return train.rows


def judged(job: Job, rows: Sequence[int], at: Sequence[int]) -> list[float]:
    """Test accuracy of the point told to be the best, after each number of trainings."""
    of, true = told(job)[list(rows)], table(job.points).test_mean
    return [float(true[rows[of[:number].argmax()]]) for number in at]


def told(job: Job) -> Doubles:
    """The validation accuracy of every point that a method is told: that of one of its trainings, drawn by the seed."""
    known = table(job.points)
    repeats = (known.lengths > 0).sum(1)
    drawn = (np.random.default_rng([job.seed, 5]).random(len(known)) * repeats).astype(int)
    scores: Doubles = known.scores[np.arange(len(known)), drawn]
    return scores


def _all(jobs: Sequence[Job], processes: int) -> dict[Job, list[int]]:
    with ProcessPoolExecutor(processes) as pool:
        return dict(zip(jobs, pool.map(run, jobs), strict=True))


def efficiency(seeds: int, processes: int) -> None:
    """Accuracy found by each method; ours with N trainings against random search with 4 N."""
    jobs = [Job(method, seed, budget=max(MOST, 4 * max(AT)) if method == RANDOM else MOST)
            for method in METHODS for seed in range(seeds)]  # fmt: skip
    rows = _all(jobs, processes)
    size = len(table())
    x = [n for n in (24, 48, 72, 96, 120, 144, 168, 192, 216, 240) if n <= size]
    found = {
        method: np.array([judged(job, rows[job], x) for job in jobs if job.method == method]) for method in METHODS
    }
    best = table().test_mean.max()
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
    _curves("efficiency", x, found)


def parts(seeds: int, processes: int) -> None:
    """The same search over networks and recipes, over networks with one recipe, over recipes for one network."""
    named: Mapping[str, str] = {
        "both": "pool",
        "networks, SGD": "networks",
        **{name: name for name in ("networks, AdamW", "networks, RMSprop")},
        "recipes, middle network": "recipes",
        **{name: name for name in ("recipes, small network", "recipes, large network")},
    }
    jobs = [Job(OURS, seed, points) for points in named.values() for seed in range(seeds)]
    rows = _all(jobs, processes)
    x = [n for n in (24, 48, 72) if n <= min(len(table(points)) for points in named.values())]
    found = {
        name: np.array([judged(job, rows[job], x) for job in jobs if job.points == points])
        for name, points in named.items()
    }
    print(markdown(["trainings", *x], [[name, *(mean_of(column) for column in of.T)] for name, of in found.items()]))
    others = [name for name in named if name != "both"]
    lines = [[name, *(mean_of(column) for column in (found["both"] - found[name]).T)] for name in others]
    print("\nboth minus one part, points of accuracy, paired by seed\n\n" + markdown(["minus", *x], lines))
    best = [[name, len(table(points)), f"{table(points).test_mean.max():.2f}"] for name, points in named.items()]
    print("\n" + markdown(["points", "number", "best test accuracy"], best))
    _curves("parts", x, found)


def _curves(name: str, x: list[int], found: Mapping[str, Doubles]) -> None:
    """The picture ``name``: a line for each of ``found``, over the numbers of trainings ``x``."""

    def draw(axes: Any) -> None:
        for color, (label, of) in zip(charts.SERIES, found.items(), strict=False):
            band(axes, x, of, label, color)
        axes.set(xlabel="trainings", ylabel="test accuracy of the best, %")

    picture(name, draw)


def rounds(seeds: int, processes: int) -> None:
    """Test accuracy of what is trained in each round of 24, by quartiles over all seeds."""
    names = (OURS, "literal", RANDOM)
    jobs = [Job(method, seed) for method in names for seed in range(seeds)]
    rows, true = _all(jobs, processes), table().test_mean
    count = min(_ROUNDS, len(true) // BATCH)
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

    picture("rounds", draw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("efficiency", "parts", "rounds"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    {"efficiency": efficiency, "parts": parts, "rounds": rounds}[given.what](given.seeds, given.processes)


if __name__ == "__main__":
    main()
