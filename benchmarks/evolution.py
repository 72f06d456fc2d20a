"""Stage 3 beside pymoo's genetic algorithm, Optuna's TPE and random search: same predictor, same number of calls.

Predictors are fitted on 240 points of the space ``paper``, scored by made-up functions; MACs are bounded. One line of
JSON a run goes to stdout as soon as it is there; ``--table FILE ...`` makes them into tables.

    pip install pymoo optuna
    python benchmarks/evolution.py --calls 4000 --methods ours,pymoo,random > evolution.jsonl
    python benchmarks/evolution.py --calls 400 --methods ours,pymoo,random,tpe --bounds 550 >> evolution.jsonl
    python benchmarks/evolution.py --table evolution.jsonl
    python benchmarks/evolution.py --time        # seconds of the default settings under all four bounds together
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from fbnetv3_zoo.search.predictors import MLP, PredictorKind, Pretraining, Trees, fit
from fbnetv3_zoo.search.space import PAPER, Codes, Constraint, NetworkCosts, draw_pool, outside, parse_constraint
from fbnetv3_zoo.search.stages import EvolutionConfig, evolve

Doubles = npt.NDArray[np.float64]
Score = Callable[[Codes], Doubles]
COSTS = NetworkCosts(PAPER)
BOUNDS = (450, 550, 650, 750)


def additive(seed: int) -> Score:
    """Larger networks are better; every dimension adds something, with some saturation."""
    rng = np.random.default_rng(seed)
    linear, mixed = rng.normal(size=PAPER.width()), rng.normal(size=(PAPER.width(), 8))

    def truth(codes: Codes) -> Doubles:
        encoded = PAPER.encode(codes)
        found: Doubles = np.log(COSTS(codes)["macs"]) + 0.1 * encoded @ linear + 0.1 * np.tanh(encoded @ mixed).sum(1)
        return found

    return truth


def interacting(seed: int) -> Score:
    """What one dimension is worth depends on others, of network and recipe alike."""
    rng, width = np.random.default_rng(seed), PAPER.width()
    linear = rng.normal(size=width)
    one, other = (rng.normal(size=(width, 12)) * 2 / np.sqrt(width) for _ in range(2))

    def truth(codes: Codes) -> Doubles:
        encoded = PAPER.encode(codes) - 0.5
        pairs = ((encoded @ one) * (encoded @ other)).sum(1)
        bowl = ((encoded @ one[:, :4]) ** 2).sum(1)
        found: Doubles = 2 * np.log(COSTS(codes)["macs"]) + 0.1 * encoded @ linear + 0.2 * pairs - 0.3 * bowl
        return found

    return truth


PLAIN = MLP(pretraining=Pretraining.NONE)
PREDICTORS: dict[str, tuple[PredictorKind, Score]] = {
    "perceptrons, additive": (PLAIN, additive(11)),
    "perceptrons, interacting": (PLAIN, interacting(12)),
    "trees, interacting": (Trees(), interacting(13)),
}


def predictor(name: str) -> Score:
    """The mean of a predictor fitted on 240 points."""
    kind, truth = PREDICTORS[name]
    codes = draw_pool(PAPER, COSTS, parse_constraint("400M<=macs<=800M"), 240, np.random.default_rng(5)).codes
    fitted = fit(kind, PAPER, codes, truth(codes))
    return lambda points: fitted.predict(points).mean


def ours(score: Score, constraints: Sequence[Constraint], calls: int, seed: int) -> list[float]:
    how = EvolutionConfig(evaluations=calls)
    return [float(found.scores[0]) for found in evolve(score, PAPER, COSTS, constraints, evolving=how, seed=seed)]


def random(score: Score, constraints: Sequence[Constraint], calls: int, seed: int) -> list[float]:
    """The best of so many points that meet the constraint, drawn as pools are."""
    pools = [draw_pool(PAPER, COSTS, one, calls, np.random.default_rng(seed)) for one in constraints]
    return [float(score(pool.codes).max()) for pool in pools]


def pymoo(score: Score, constraints: Sequence[Constraint], calls: int, seed: int) -> list[float]:
    """The GA of pymoo as its guide sets it up for whole numbers, with the bound as a constraint."""
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    class Points(Problem):  # type: ignore[misc]
        def __init__(self, constraint: Constraint) -> None:
            super().__init__(n_var=len(PAPER.sizes), n_obj=1, n_ieq_constr=1, xl=0, xu=PAPER.sizes - 1, vtype=int)
            self.constraint = constraint

        def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            codes = np.rint(x).astype(np.int64)
            out["F"], out["G"] = -score(codes), outside(COSTS, self.constraint, codes)

    found = []
    for constraint in constraints:
        algorithm = GA(
            pop_size=100, sampling=IntegerRandomSampling(), eliminate_duplicates=True,
            crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
            mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
        )  # fmt: skip
        result = minimize(Points(constraint), algorithm, ("n_eval", calls), seed=seed)
        found.append(float("nan") if result.F is None else float(-result.F[0]))
    return found


def tpe(score: Score, constraints: Sequence[Constraint], calls: int, seed: int) -> list[float]:
    """Optuna's TPE, told how far every point is outside the bound."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = []
    for constraint in constraints:
        sampler = optuna.samplers.TPESampler(seed=seed, constraints_func=lambda trial: (trial.user_attrs["outside"],))
        study = optuna.create_study(direction="maximize", sampler=sampler)
        best = -np.inf
        for _ in range(calls):
            trial = study.ask()
            code = np.array([[trial.suggest_int(d.name, 0, len(d) - 1) for d in PAPER.dimensions]])
            distance, value = float(outside(COSTS, constraint, code)[0]), float(score(code)[0])
            trial.set_user_attr("outside", distance)
            study.tell(trial, value)
            best = max(best, value) if distance == 0 else best
        found.append(float(best))
    return found


def timed(rounds: int = 5) -> None:
    """Print what stage 3 takes as a search runs it: default settings, four bounds in one call."""
    constraints = [parse_constraint(f"macs<={bound}M") for bound in BOUNDS]
    for name in PREDICTORS:
        score, seconds, calls = predictor(name), [], []
        for seed in range(rounds):
            started = time.perf_counter()
            found = evolve(score, PAPER, COSTS, constraints, seed=seed)
            seconds.append(time.perf_counter() - started)
            calls += [one.progress[-1][0] for one in found]
        spread = f"{np.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"
        print(f"{name}: {spread}, {min(calls):,} to {max(calls):,} calls a bound, {torch.get_num_threads()} thread")


METHODS = {"ours": ours, "pymoo": pymoo, "random": random, "tpe": tpe}


def table(files: Sequence[str]) -> None:
    """Mean best score over the seeds and the least of them, by predictor and bound; the best mean in bold."""
    found: dict[tuple[int, str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    seconds: dict[tuple[int, str], list[float]] = defaultdict(list)
    for line in "".join(Path(file).read_text() for file in files).splitlines():
        run = json.loads(line)
        seconds[run["calls"], run["method"]].append(run["seconds"] / len(run["bounds"]))
        for bound, best in zip(run["bounds"], run["best"], strict=True):
            found[run["calls"], run["predictor"], bound][run["method"]].append(best)
    for calls in sorted({key[0] for key in found}):
        methods = [name for name in METHODS if (calls, name) in seconds]
        print(f"\n{calls:,} calls\n\n| predictor | MMACs | {' | '.join(methods)} |\n|---|---:|{'---:|' * len(methods)}")
        for (_, name, bound), runs in sorted((k, v) for k, v in found.items() if k[0] == calls):
            means = {method: float(np.mean(runs[method])) for method in methods if runs[method]}
            cells = [
                f"{'**' if means[m] == max(means.values()) else ''}{means[m]:.3f}"
                f"{'**' if means[m] == max(means.values()) else ''} ({min(runs[m]):.3f}, n={len(runs[m])})"
                if m in means else "" for m in methods
            ]  # fmt: skip
            print(f"| {name} | {bound} | {' | '.join(cells)} |")
        print(f"\nseconds a bound, median: {', '.join(f'{m} {np.median(seconds[calls, m]):.1f}' for m in methods)}")


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", default="ours,pymoo,random")
    parser.add_argument("--bounds", default=",".join(map(str, BOUNDS)))
    parser.add_argument("--predictors", default=";".join(PREDICTORS))
    parser.add_argument("--table", nargs="+")
    parser.add_argument("--time", action="store_true")
    options = parser.parse_args()
    if options.table:
        return table(options.table)
    torch.set_num_threads(1)
    if options.time:
        with threadpool_limits(1):
            return timed()
    bounds = [int(bound) for bound in options.bounds.split(",")]
    constraints = [parse_constraint(f"macs<={bound}M") for bound in bounds]
    for name in options.predictors.split(";"):
        score = predictor(name)
        for seed in range(options.seeds):
            for method in options.methods.split(","):
                started = time.perf_counter()
                best = METHODS[method](score, constraints, options.calls, seed)
                run = {"calls": options.calls, "predictor": name, "seed": seed, "method": method, "bounds": bounds}
                print(json.dumps({**run, "best": best, "seconds": round(time.perf_counter() - started, 2)}))
                sys.stdout.flush()


if __name__ == "__main__":
    main()
