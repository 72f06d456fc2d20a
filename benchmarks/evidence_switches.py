"""What each difference between the plans `paper` and `paper-literal` is worth on letters (docs/search.md).

    python benchmarks/evidence_switches.py rounds        # fields of the plan's `rounds`: stages 1 and 2
    python benchmarks/evidence_switches.py evolving      # fields of `evolving`, and `finalists`: stage 3

The default minus the same with one field as in `paper-literal`: test accuracy of what is found, in points, by the model
of the table (evidence_surrogate.py) for 4,000 points; `rounds` after 48, 96 and 192 trainings, the others after 96.
Means over 20 seeds with 95 % intervals, paired by seed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import evidence_surrogate
import numpy as np
from evidence_methods import LITERAL, MOST, SHIPPED, Spent, Trainings, searched
from evidence_table import SEEDS, Doubles, encoder, markdown, mean_of

from fbnetv3_zoo.search import PLANS
from fbnetv3_zoo.search.predictors import MLP, fit
from fbnetv3_zoo.search.space import LETTERS, Constraint, NetworkCosts, outside
from fbnetv3_zoo.search.stages import EvolutionConfig, IterativeConfig, evolve
from fbnetv3_zoo.search.stages.evolution import Evolved

AT = (48, 96, 192)
TRAININGS = 96
FINALISTS = PLANS["paper"].finalists
BOUNDS: tuple[Constraint, ...] = PLANS["letters"].constraints
_PREDICTOR = ("members", "pretraining", "epochs", "thresholds", "transform")
_CHOOSING = ("optimism", "by_member")
_EVOLVING = ("linear_fit", "local_search", "restarts", "scaled_rates", "crossover")


def _literal(given: Any, literal: Any, *names: str) -> Any:
    """``given`` with the fields ``names`` as in ``literal``."""
    return replace(given, **{name: getattr(literal, name) for name in names})


ROUNDS: Mapping[str, IterativeConfig] = {
    "all as in paper": SHIPPED,
    **{
        f"rounds.predictor.{name}": replace(SHIPPED, predictor=_literal(SHIPPED.predictor, LITERAL.predictor, name))
        for name in _PREDICTOR
    },
    **{
        f"rounds.choosing.{name}": replace(SHIPPED, choosing=_literal(SHIPPED.choosing, LITERAL.choosing, name))
        for name in _CHOOSING
    },
    "all of rounds": LITERAL,
}
_SHIPPED_EVOLUTION, _LITERAL_EVOLUTION = PLANS["paper"].evolving, PLANS["paper-literal"].evolving
EVOLVING: Mapping[str, EvolutionConfig] = {
    "all as in paper": _SHIPPED_EVOLUTION,
    **{f"evolving.{name}": _literal(_SHIPPED_EVOLUTION, _LITERAL_EVOLUTION, name) for name in _EVOLVING},
    "all of evolving": _LITERAL_EVOLUTION,
}


def trained(config: IterativeConfig, seed: int, budget: int) -> tuple[Trainings, Doubles]:
    """What stage 2 has had trained, and the true accuracies of all points."""
    model, codes = evidence_surrogate.surrogate(), evidence_surrogate.points()
    train = Trainings(codes, model.told(codes, np.random.default_rng([seed, 5])), budget)
    with suppress(Spent):
        searched(config, train, seed)
    return train, model.test(codes)


def after_rounds(name: str, seed: int) -> list[float]:
    """The accuracy of the point told to be the best, after each of ``AT`` trainings."""
    train, true = trained(ROUNDS[name], seed, MOST)
    told = train.told[train.rows]
    return [float(true[train.rows[told[:number].argmax()]]) for number in AT]


def evolved(seed: int, evolving: EvolutionConfig) -> tuple[Trainings, list[Evolved]]:
    """What stage 2 has had trained, and what stage 3 finds by the predictor fitted on that."""
    train, _ = trained(SHIPPED, seed, TRAININGS)
    codes, told = train.codes[train.rows], train.told[train.rows]
    predictor = fit(MLP(), LETTERS, codes, told / 100, encoder=encoder(MLP(), seed), seed=seed)
    found = evolve(
        lambda asked: predictor.predict(asked).mean, LETTERS, _costs(), BOUNDS,
        seeds=codes[np.argsort(-told, kind="stable")], evolving=evolving, seed=seed,
    )  # fmt: skip
    return train, found


def after_evolution(name: str, seed: int) -> list[float]:
    """The accuracy of the points predicted best, their predicted one, and evaluations: means over the bounds."""
    test = evidence_surrogate.surrogate().test
    _, found = evolved(seed, EVOLVING[name])
    figures = [[test(one.codes[:1])[0], 100 * one.scores[0], one.progress[-1][0]] for one in found]
    return [float(value) for value in np.mean(figures, axis=0)]


def with_finalists(name: str, seed: int) -> list[float]:
    """The accuracy of the winners: the best predicted, or with finalists the best trained one; mean over the bounds."""
    model, rng, accuracies = evidence_surrogate.surrogate(), np.random.default_rng([seed, 6]), []
    train, found = evolved(seed, _SHIPPED_EVOLUTION)
    known, told = train.codes[train.rows], train.told[train.rows]
    order = np.argsort(-told, kind="stable")
    for one in found:
        codes = one.codes[:1]
        if name != "0":  # the best trained so far is one of them
            new = one.codes[: int(name) - 1]
            fitting = order[outside(_costs(), one.constraint, known[order]) == 0]
            codes = np.concatenate([known[fitting[:1]], new])
            codes = codes[[int(np.append(told[fitting[:1]], model.told(new, rng)).argmax())]]
        accuracies.append(model.test(codes)[0])
    return [float(np.mean(accuracies))]


@cache
def _costs() -> NetworkCosts:
    return NetworkCosts(LETTERS)


def compared(of: Callable[[str, int], list[float]], names: list[str], head: list[str], given: Any) -> None:
    """Print the first of ``names``, and it minus each of the others."""
    jobs = [(name, seed) for name in names for seed in range(given.seeds)]
    with ProcessPoolExecutor(given.processes) as pool:
        found = dict(zip(jobs, pool.map(of, *zip(*jobs, strict=True)), strict=True))
    scores = {name: np.array([found[name, seed] for seed in range(given.seeds)]) for name in names}
    first = scores[names[0]]
    rows = [[names[0], *(mean_of(column) for column in first.T)]]
    rows += [[f"minus {name}", *(mean_of(column) for column in (first - scores[name]).T)] for name in names[1:]]
    print(markdown(["", *head], rows), end="\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("rounds", "evolving"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if given.what == "rounds":
        compared(after_rounds, list(ROUNDS), [f"{number} trainings" for number in AT], given)
        return
    compared(after_evolution, list(EVOLVING), ["test accuracy", "predicted", "evaluations"], given)
    compared(with_finalists, [str(FINALISTS), "0"], ["test accuracy"], given)


if __name__ == "__main__":
    main()
