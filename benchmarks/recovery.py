"""Stages 2 and 3 on made-up functions over the space ``paper``: do they reach the top 0.1 % of random samples?

A search has 240 evaluations: four rounds of 48, then the 48 best by stage 3. Beside it: how often the best of 240
random samples is among the top 0.1 %, which is 21 % of the time by arithmetic.

    python benchmarks/recovery.py --seeds 10 --samples 1000000
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from fbnetv3_zoo.search.evaluation import Outcome
from fbnetv3_zoo.search.predictors import PredictorKind
from fbnetv3_zoo.search.space import PAPER, Codes, Constraint, NetworkCosts, draw_pool, outside, parse_constraint
from fbnetv3_zoo.search.stages import EvolutionConfig, IterativeConfig, IterativeSearch, evolve

Doubles = npt.NDArray[np.float64]
Truth = Callable[[Codes], Doubles]
COSTS = NetworkCosts(PAPER)
ROUNDS, BATCH = 4, 48


def additive(codes: Codes) -> Doubles:
    """Every dimension has a best value of its own, at one of its ends or in its middle; the optimum is known."""
    rng = np.random.default_rng(21)
    weight, place = rng.uniform(0.2, 1, len(PAPER.sizes)), rng.choice((0.0, 0.5, 1.0), len(PAPER.sizes))
    found: Doubles = -(weight * (codes / np.maximum(PAPER.sizes - 1, 1) - place) ** 2).sum(1)
    return found


def interacting(codes: Codes) -> Doubles:
    """The best dropout, mixup and weight decay follow from the network's size; optimum where all three agree."""
    x = codes / np.maximum(PAPER.sizes - 1, 1)
    networks = [n for n, d in enumerate(PAPER.dimensions) if d.part == "architecture"]
    recipes = [n for n, d in enumerate(PAPER.dimensions) if d.part == "recipe" and len(d) > 2]
    size = x[:, networks].mean(1, keepdims=True)
    found: Doubles = additive(codes) - 2 * ((x[:, recipes] - size) ** 2).sum(1)
    return found


FUNCTIONS: dict[str, tuple[Truth, str]] = {
    "additive": (additive, ""),
    "network and recipe interact": (interacting, ""),
    "interact, macs<=600M": (interacting, "macs<=600M"),
}


def threshold(truth: Truth, constraint: Constraint, samples: int) -> float:
    """The score that one in a thousand of so many random samples within the constraint surpasses."""
    rng, kept = np.random.default_rng(77), []
    while sum(map(len, kept)) < samples:
        drawn = PAPER.sample(20_000, rng, method="uniform")
        kept.append(truth(drawn[outside(COSTS, constraint, drawn) == 0]))
    return float(np.quantile(np.concatenate(kept)[:samples], 0.999))


def search(truth: Truth, constraint: Constraint, seed: int, kind: PredictorKind | None = None) -> Doubles:
    """The scores of the 240 evaluations of a search, in their order."""
    pool = draw_pool(PAPER, COSTS, constraint, 4000, np.random.default_rng(seed))
    rounds = IterativeConfig(1, ROUNDS, BATCH) if kind is None else IterativeConfig(1, ROUNDS, BATCH, predictor=kind)
    stage2 = IterativeSearch(PAPER, pool.codes, rounds, seed=seed)
    while trials := stage2.ask():
        scores = truth(np.array([trial.code for trial in trials]))
        stage2.tell([Outcome(trial.number, (float(s),)) for trial, s in zip(trials, scores, strict=True)])
    predictor = stage2.predictor()
    assert predictor is not None
    found = evolve(
        lambda codes: predictor.predict(codes).mean, PAPER, COSTS, [constraint], seeds=stage2.state.best(BATCH),
        evolving=EvolutionConfig(evaluations=4000), seed=seed,
    )  # fmt: skip
    return np.concatenate([stage2.state.scored()[1], truth(found[0].codes[:BATCH])])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1_000_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| function | reached by stage 2 | by stages 2 and 3 | by random search | seconds a search |\n"
        "|---|---|---|---|---|"
    )
    for name, (truth, text) in FUNCTIONS.items():
        constraint = parse_constraint(text)
        wanted = threshold(truth, constraint, options.samples)
        early = late = lucky = 0
        started = time.perf_counter()
        for seed in range(options.seeds):
            scores = search(truth, constraint, seed)
            early, late = early + (scores[: ROUNDS * BATCH].max() >= wanted), late + (scores.max() >= wanted)
            drawn = draw_pool(PAPER, COSTS, constraint, 240, np.random.default_rng(1000 + seed)).codes
            lucky += truth(drawn).max() >= wanted
        seconds = (time.perf_counter() - started) / options.seeds
        counts = " | ".join(f"{count} of {options.seeds}" for count in (early, late, lucky))
        print(f"| {name} | {counts} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
