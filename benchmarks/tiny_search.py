"""Search the space "tiny" on the digits for real: joint, architecture-only, recipe-only and random search.

python benchmarks/tiny_search.py run --folder runs/tiny      # trains on two cores, and resumes after an interruption
python benchmarks/tiny_search.py tables --parts 3            # from the recorded results, in half a minute

Every search has the same number of trainings under the same bound, and every one's best is trained again with three
other seeds and tested on the test images. ``run`` writes the data of the tables to benchmarks/tiny_search/, and the
report of the first joint search to FOLDER/report.html.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from fbnetv3_zoo.search.evaluation import (
    EvaluatorConfig,
    Limits,
    Outcome,
    Recording,
    Task,
    TrainingEvaluator,
    Trial,
    record,
)
from fbnetv3_zoo.search.executors import LocalPool
from fbnetv3_zoo.search.plan import PLANS, SearchPlan
from fbnetv3_zoo.search.predictors import MLP, Pretraining, Trees, fit, pretrain_encoder
from fbnetv3_zoo.search.predictors.mlp import Encoder
from fbnetv3_zoo.search.report import write_report
from fbnetv3_zoo.search.result import SearchResult
from fbnetv3_zoo.search.run import SearchCallback, run_search
from fbnetv3_zoo.search.space import TINY, Codes, NetworkCosts, Space, draw_pool, parse_constraint
from fbnetv3_zoo.training import Execution

SEEDS = (0, 1, 2)
RETRAININGS = (101, 102, 103)
BOUND = parse_constraint("macs<=1M")
RESULTS = Path(__file__).parent / "tiny_search"
SAMPLES, PARTS = (20, 40, 80, 160), 20
Doubles = npt.NDArray[np.float64]

# What stands still in the partial searches: a recipe near that of `fbnetv3 recipe show digits`, a network of middle
# values.
RECIPE = {
    "learning_rate": 0.1, "optimizer": "sgd", "ema_decay": 0.98, "dropout": 0.0, "stochastic_depth": 0.0,
    "augmentation.mixup": 0.0, "augmentation.shift": True, "label_smoothing": 0.1, "weight_decay": 1e-05,
}  # fmt: skip


def _middle(space: Space) -> dict[str, object]:
    """The middle value of every dimension of the architecture, two blocks in every row that has a choice."""
    middle = {d.name: d.options.values[(len(d) - 1) // 2] for d in space.dimensions if d.part == "architecture"}
    return middle | {name: 2 for name in middle if name.endswith("depth")}


def plans() -> Iterator[tuple[str, int, SearchPlan]]:
    """Every search of the comparison with its method and seed."""
    tiny = replace(PLANS["tiny"], constraints=(BOUND,), within=BOUND)
    trainings = tiny.rounds.rounds * tiny.rounds.batch + tiny.finalists
    at_random = replace(tiny.rounds, rounds=1, batch=trainings)
    held = {f"recipe.{field}": value for field, value in RECIPE.items()}
    for seed in SEEDS:
        yield "joint", seed, replace(tiny, seed=seed)
        yield "random", seed, replace(tiny, seed=seed, rounds=at_random)
        yield "architecture only", seed, replace(tiny, seed=seed, space=TINY.hold(held))
        yield "recipe only", seed, replace(tiny, seed=seed, space=TINY.hold(_middle(TINY)))


class _Lines(SearchCallback):
    def on_stage(self, line: str) -> None:
        print(line, flush=True)

    def on_outcome(self, trial: Trial, outcome: Outcome) -> None:
        last = f"{outcome.curve[-1]:.4f}" if outcome.curve else outcome.reason
        print(f"  {trial.number:3} {last} ({trial.epochs} epochs, {outcome.seconds:.1f} s)", flush=True)


def best(found: SearchResult) -> tuple[int, ...]:
    """The code of what a search gives: its winner; of a random search, the best measured."""
    if found.winners:
        return found.winners[0].code
    codes, scores = found.scored()
    return tuple(codes[scores.argmax()].tolist())


def run(folder: Path, only: str) -> None:
    """All searches (or those of one method), then every winner again."""
    origin, pool = EvaluatorConfig(data="digits"), LocalPool(2)
    results = []
    for method, seed, plan in plans():
        if only and method != only:
            continue
        place = folder / f"{method.replace(' ', '-')}-{seed}"
        print(f"{method}, seed {seed}", flush=True)
        found = run_search(
            plan, origin.evaluator(plan.space, Execution()), place, executor=pool, limits=Limits(seconds=600),
            origin=origin.to_plain(), resume=True, stages=2 if method == "random" else 3, callbacks=[_Lines()],
            report=False,
        )  # fmt: skip
        winner = plan.space.values(best(found))
        seconds = sum(outcome.seconds for outcome in found.outcomes.values())
        results.append(
            {
                "method": method,
                "seed": seed,
                "trainings": len(found.trials),
                "epochs": sum(trial.epochs for trial in found.trials),
                "seconds": round(seconds),
                "stop_epoch": found.stop_epoch,
                "validation": max(o.curve[-1] for o in found.outcomes.values() if o.curve),
                "winner": winner,
                "tests": _tested(plan, winner, place / "tests.json"),
            }
        )
    if only:
        return
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    curves = [
        (tuple(TINY.code(found.plan.space.values(trial.code)).tolist()), found.outcomes[trial.number].curve)
        for found in (SearchResult.read(path.parent) for path in sorted(folder.glob("*/journal.sqlite")))
        for trial in found.trials
        if found.outcomes[trial.number].failure is None
    ]
    record(TINY, curves, NetworkCosts(TINY)).save(RESULTS / "curves.safetensors")
    write_report(SearchResult.read(folder / "joint-0"), folder / "report.html")
    tables()


def _tested(plan: SearchPlan, winner: dict[str, object], kept: Path) -> list[float]:
    """Test accuracies of the winner trained in full with other seeds; kept in a file once measured."""
    if not kept.exists():
        candidate = TINY.candidate(TINY.code(winner), "winner")
        assert candidate.recipe is not None
        tasks = [
            Task(n, replace(candidate, recipe=replace(candidate.recipe, seed=seed)), plan.rounds.epochs)
            for n, seed in enumerate(RETRAININGS)
        ]
        outcomes = LocalPool(2).run(TrainingEvaluator("digits", split="test"), tasks, Limits(seconds=600))
        kept.write_text(json.dumps([outcome.curve[-1] for outcome in sorted(outcomes, key=lambda o: o.number)]))
    tests: list[float] = json.loads(kept.read_text())
    return tests


def tables(parts: int = PARTS) -> None:
    """Print what was recorded."""
    results = json.loads((RESULTS / "results.json").read_text())
    print("| search | trainings | epochs trained | best validation % | test % of the winner (mean, 95 % interval) |")
    print("|---|---:|---:|---:|---:|")
    for method in ("joint", "architecture only", "recipe only", "random"):
        of = [result for result in results if result["method"] == method]
        tests = 100 * np.array([np.mean(result["tests"]) for result in of])
        half = stats.t.ppf(0.975, len(tests) - 1) * tests.std(ddof=1) / np.sqrt(len(tests))
        validation = 100 * np.mean([result["validation"] for result in of])
        trainings, epochs = (np.mean([result[key] for result in of]) for key in ("trainings", "epochs"))
        print(f"| {method} | {trainings:.0f} | {epochs:.0f} | {validation:.2f} | {tests.mean():.2f} ± {half:.2f} |")
    print()
    pretraining(parts)


def pretraining(parts: int) -> None:
    """Print the predictor's error on the recorded curves: fitted on some points at random, asked for all others."""
    recording = Recording.load(RESULTS / "curves.safetensors")
    epoch = int(recording.lengths[:, 0].min())
    codes, scores = recording.codes, recording.curves[:, 0, epoch - 1]
    pool = draw_pool(TINY, NetworkCosts(TINY), BOUND, 20_000, np.random.default_rng(0))
    encoder = pretrain_encoder(TINY, pool.codes, pool.costs)
    kinds = {way.value: MLP(pretraining=way) for way in Pretraining} | {"trees": Trees()}
    print(f"{len(codes)} points, score after epoch {epoch}; mean squared error in variances of the scores / Kendall's")
    print(f"tau, mean and 95 % interval over {parts} random parts.\n")
    print(f"| samples | {' | '.join(kinds)} |\n|---:|{'---:|' * len(kinds)}")
    for samples in SAMPLES:
        cells = []
        for kind in kinds.values():
            found = np.array([_error(kind, codes, scores, encoder, samples, part) for part in range(parts)])
            half = stats.t.ppf(0.975, parts - 1) * found.std(0, ddof=1) / np.sqrt(parts)
            mean = found.mean(0)
            cells.append(f"{mean[0]:.2f} ± {half[0]:.2f} / {mean[1]:.2f} ± {half[1]:.2f}")
        print(f"| {samples} | {' | '.join(cells)} |")


def _error(
    kind: MLP | Trees, codes: Codes, scores: Doubles, encoder: Encoder, samples: int, part: int
) -> tuple[float, float]:
    order = np.random.default_rng([part, samples]).permutation(len(codes))
    seen, rest = order[:samples], order[samples:]
    predicted = fit(kind, TINY, codes[seen], scores[seen], encoder=encoder, seed=part).predict(codes[rest]).mean
    error = float(np.mean((predicted - scores[rest]) ** 2) / scores.var())
    return error, float(stats.kendalltau(predicted, scores[rest]).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("run", "tables"))
    parser.add_argument("--folder", type=Path, default=Path("runs/tiny"), help="where the searches are kept")
    parser.add_argument("--only", default="", help="one method, without the results: joint, random, ...")
    parser.add_argument("--parts", type=int, default=PARTS, help="random parts that the predictors are judged on")
    arguments = parser.parse_args()
    if arguments.what == "run":
        run(arguments.folder, arguments.only)
    else:
        tables(arguments.parts)


if __name__ == "__main__":
    main()
