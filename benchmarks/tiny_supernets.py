"""Differentiable searches on the digits: what they find against random networks of the same cost.

python benchmarks/tiny_supernets.py run --folder runs/supernets     # on two cores; resumes after an interruption
python benchmarks/tiny_supernets.py tables                          # from the recorded results

Three seeds of the plans ``tiny`` of DNAS and DMaskingNAS. Every network found is trained from scratch with three other
seeds, and so are, once each, 20 random networks of its space whose MACs are within 5 % of its own; so are the networks
that the joint search found under the same bound (benchmarks/tiny_search/results.json). All are trained by the recipe
``digits`` and tested on images that no search has seen. ``run`` writes into benchmarks/tiny_supernets/ what the table
is made from.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.recipes import RECIPES
from fbnetv3_zoo.search.evaluation import Limits, Task, TrainingEvaluator
from fbnetv3_zoo.search.executors import LocalPool
from fbnetv3_zoo.search.space import TINY, Bound, Candidate
from fbnetv3_zoo.search.supernet import DMASKING_PLANS, DNAS_PLANS, SupernetPlan, SupernetResult, search_supernet
from fbnetv3_zoo.search.supernet.decoding import draw, uniform
from fbnetv3_zoo.search.supernet.expected_cost import CostTables
from fbnetv3_zoo.training import find_dataset

SEEDS, RETRAININGS, RANDOM, BAND = (0, 1, 2), (101, 102, 103), 20, 0.05
PLANS = {"DNAS": DNAS_PLANS["tiny"], "DMaskingNAS": DMASKING_PLANS["tiny"]}
RESULTS = Path(__file__).parent / "tiny_supernets"
JOINT = Path(__file__).parent / "tiny_search" / "results.json"


def plan_of(method: str, seed: int) -> SupernetPlan:
    """The plan of a method with another seed."""
    plan = PLANS[method]
    return replace(plan, recipe=replace(plan.recipe, seed=seed))


def search(method: str, seed: int, place: Path) -> None:
    """One search, on one thread."""
    torch.set_num_threads(1)
    if not (place / "found.json").exists():
        search_supernet(plan_of(method, seed), find_dataset("digits"), place, resume=True)


def run(folder: Path) -> None:
    """All searches, then everything that they are compared with."""
    places = {(method, seed): folder / f"{method.lower()}-{seed}" for method in PLANS for seed in SEEDS}
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(search, method, seed, place) for (method, seed), place in places.items()]:
            done.result()
    results = [_compared(method, seed, SupernetResult.read(place)) for (method, seed), place in places.items()]
    for number, winner in enumerate(one for one in json.loads(JOINT.read_text()) if one["method"] == "joint"):
        arch = TINY.candidate(TINY.code(winner["winner"]), "joint").arch
        assert arch is not None
        tests = _tested([arch] * len(RETRAININGS), RETRAININGS, folder / f"joint-{number}.json")
        results.append({"method": "joint search", "seed": winner["seed"], "macs": arch_cost(arch).macs, "tests": tests})
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    tables()


def _compared(method: str, seed: int, record: SupernetResult) -> dict[str, Any]:
    """What a search found, trained from scratch, beside random networks of the same cost."""
    space = record.plan.space
    costs = CostTables.of(space, "macs")
    band = Bound("macs", record.found.cost * (1 + BAND), record.found.cost * (1 - BAND))
    codes = draw(costs, uniform(space), RANDOM, np.random.default_rng([seed, 2]), target=band)
    if len(codes) < RANDOM:  # rare ones: drawn from twenty times as many
        codes = draw(costs, uniform(space), 20 * RANDOM, np.random.default_rng([seed, 3]), target=band)[:RANDOM]
    assert len(codes) == RANDOM
    archs = [space.arch(code, f"random-{n}") for n, code in enumerate(codes)]
    tests = _tested(
        [record.arch] * len(RETRAININGS) + archs, [*RETRAININGS, *[RETRAININGS[0]] * len(archs)],
        record.folder / "tests.json",
    )  # fmt: skip
    return {
        "method": method,
        "seed": seed,
        "seconds": round(sum(epoch.seconds for epoch in record.epochs)),
        "macs": record.found.cost,
        "expected": record.epochs[-1].cost,
        "chosen": {name: str(value) for name, value in space.values(record.found.code).items()},
        "tests": tests[: len(RETRAININGS)],
        "random": tests[len(RETRAININGS) :],
        "random_macs": [arch_cost(arch).macs for arch in archs],
    }


def _tested(archs: Sequence[Arch], seeds: Sequence[int], kept: Path) -> list[float]:
    """Test accuracies after training from scratch by the recipe ``digits``; kept in a file once measured."""
    if not kept.exists():
        recipe = RECIPES["digits"]
        tasks = [
            Task(n, Candidate(arch.name, {}, arch, replace(recipe, seed=seed)), recipe.epochs)
            for n, (arch, seed) in enumerate(zip(archs, seeds, strict=True))
        ]
        outcomes = LocalPool(2).run(TrainingEvaluator("digits", split="test"), tasks, Limits(seconds=900))
        ordered = sorted(outcomes, key=lambda outcome: outcome.number)
        kept.write_text(json.dumps([outcome.curve[-1] for outcome in ordered]))
    tests: list[float] = json.loads(kept.read_text())
    return tests


def tables() -> None:
    """Print what was recorded: means over the seeds with 95 % intervals (Student's t)."""
    results = json.loads((RESULTS / "results.json").read_text())
    print("| search | found: MMACs | test % | 20 random of the same cost, test % | better than, of 20 | seconds |")
    print("|---|---:|---:|---:|---:|---:|")
    for method in (*PLANS, "joint search"):
        of = [result for result in results if result["method"] == method]
        macs = np.mean([result["macs"] for result in of]) / 1e6
        cells = [method, f"{macs:.2f}", _interval([100 * np.mean(result["tests"]) for result in of])]
        if "random" in of[0]:
            ahead = [sum(np.mean(r["tests"]) > other for other in r["random"]) for r in of]
            cells += [_interval([100 * np.mean(result["random"]) for result in of])]
            cells += [", ".join(map(str, ahead)), ", ".join(str(result["seconds"]) for result in of)]
        print(f"| {' | '.join([*cells, *[''] * (6 - len(cells))])} |")


def _interval(values: Sequence[float]) -> str:
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.2f} ± {half:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("run", "tables"))
    parser.add_argument("--folder", type=Path, default=Path("runs/supernets"), help="where the searches are kept")
    arguments = parser.parse_args()
    if arguments.what == "run":
        run(arguments.folder)
    else:
        tables()


if __name__ == "__main__":
    main()
