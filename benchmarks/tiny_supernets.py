"""Differentiable searches on small images: what they find against random networks of the same cost.

    python benchmarks/tiny_supernets.py run digits --folder runs/supernets     # resumes after an interruption
    python benchmarks/tiny_supernets.py run letters --data data --folder runs/supernets
    python benchmarks/tiny_supernets.py tables digits                          # from the recorded results

Three seeds of the plans ``tiny`` of DNAS and DMaskingNAS. Every network found is trained from scratch with three other
seeds, and so are, once each, 20 random networks of its space whose MACs are within 5 % of its own; so are, on the
digits, the networks that the joint search found under the same bound (benchmarks/tiny_search/results.json). All are
tested on images that no search has seen. The digits are trained by the recipe ``digits``; the letters, the images of
the table `nars-letters`, by the one recipe of its networks. ``run`` writes into benchmarks/tiny_supernets/ what the
table is made from.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nars_letters
import numpy as np
import torch
from scipy import stats

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.recipes import RECIPES, Recipe
from fbnetv3_zoo.search.evaluation import Limits, Task, TrainingEvaluator
from fbnetv3_zoo.search.executors import LocalPool
from fbnetv3_zoo.search.space import LETTERS, TINY, Bound, Candidate
from fbnetv3_zoo.search.supernet import DMASKING_PLANS, DNAS_PLANS, SupernetPlan, SupernetResult, search_supernet
from fbnetv3_zoo.search.supernet.decoding import draw, uniform
from fbnetv3_zoo.search.supernet.expected_cost import CostTables
from fbnetv3_zoo.training import find_dataset

SEEDS, RETRAININGS, RANDOM, BAND = (0, 1, 2), (101, 102, 103), 20, 0.05
PLANS = {"DNAS": DNAS_PLANS["tiny"], "DMaskingNAS": DMASKING_PLANS["tiny"]}
RESULTS = Path(__file__).parent / "tiny_supernets"
JOINT = Path(__file__).parent / "tiny_search" / "results.json"


@dataclass(frozen=True)
class Images:
    """What is searched and trained on: a data set, the form of its images, and the recipe of final trainings."""

    data: str
    in_channels: int
    num_classes: int
    recipe: Recipe

    @classmethod
    def of(cls, name: str, folder: Path) -> Images:
        """``digits``, or ``letters`` from the files of make_letters.py in ``folder``."""
        if name == "digits":
            return cls("digits", 3, 10, RECIPES["digits"])
        part = folder / f"{name}-part.safetensors"
        nars_letters.part_of(folder / f"{name}.safetensors", part, nars_letters.IMAGES[name])
        recipe = LETTERS.candidate(LETTERS.code(nars_letters.MIDDLE), "middle").recipe
        assert recipe is not None
        return cls(str(part), 1, 34, recipe)

    def plan(self, method: str, seed: int) -> SupernetPlan:
        """The plan of a method for these images, with another seed."""
        plan = PLANS[method]
        space = replace(plan.space, in_channels=self.in_channels, num_classes=self.num_classes)
        return replace(plan, space=space, recipe=replace(plan.recipe, seed=seed))


def search(images: Images, method: str, seed: int, place: Path) -> None:
    """One search, on one thread."""
    torch.set_num_threads(1)
    if not (place / "found.json").exists():
        search_supernet(images.plan(method, seed), find_dataset(images.data), place, resume=True)


def run(name: str, data: Path, folder: Path) -> None:
    """All searches, then everything that they are compared with."""
    images = Images.of(name, data)
    places = {(method, seed): folder / f"{name}-{method.lower()}-{seed}" for method in PLANS for seed in SEEDS}
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in [pool.submit(search, images, method, seed, place) for (method, seed), place in places.items()]:
            done.result()
    results = [_compared(images, *which, SupernetResult.read(place)) for which, place in places.items()]
    if name == "digits":
        results += _joint(images, folder)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    tables(name)


def _joint(images: Images, folder: Path) -> list[dict[str, Any]]:
    """The networks of the joint search, trained from scratch."""
    results = []
    for number, winner in enumerate(one for one in json.loads(JOINT.read_text()) if one["method"] == "joint"):
        arch = TINY.candidate(TINY.code(winner["winner"]), "joint").arch
        assert arch is not None
        tests = _tested(images, [arch] * len(RETRAININGS), RETRAININGS, folder / f"joint-{number}.json")
        results.append({"method": "joint search", "seed": winner["seed"], "macs": arch_cost(arch).macs, "tests": tests})
    return results


def _compared(images: Images, method: str, seed: int, record: SupernetResult) -> dict[str, Any]:
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
        images, [record.arch] * len(RETRAININGS) + archs, [*RETRAININGS, *[RETRAININGS[0]] * len(archs)],
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


def _tested(images: Images, archs: Sequence[Arch], seeds: Sequence[int], kept: Path) -> list[float]:
    """Test accuracies after training from scratch; kept in a file once measured."""
    if not kept.exists():
        recipe = images.recipe
        tasks = [
            Task(n, Candidate(arch.name, {}, arch, replace(recipe, seed=seed)), recipe.epochs)
            for n, (arch, seed) in enumerate(zip(archs, seeds, strict=True))
        ]
        outcomes = LocalPool(2).run(TrainingEvaluator(images.data, split="test"), tasks, Limits(seconds=900))
        ordered = sorted(outcomes, key=lambda outcome: outcome.number)
        kept.write_text(json.dumps([outcome.curve[-1] for outcome in ordered]))
    tests: list[float] = json.loads(kept.read_text())
    return tests


def tables(name: str) -> None:
    """Print what was recorded: means over the seeds with 95 % intervals (Student's t)."""
    results = json.loads((RESULTS / f"{name}.json").read_text())
    print("| search | found: MMACs | test % | 20 random of the same cost, test % | better than, of 20 | seconds |")
    print("|---|---:|---:|---:|---:|---:|")
    for method in dict.fromkeys(result["method"] for result in results):
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
    parser.add_argument("images", choices=("digits", "letters"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the files of make_letters.py")
    parser.add_argument("--folder", type=Path, default=Path("runs/supernets"), help="where the searches are kept")
    arguments = parser.parse_args()
    if arguments.what == "run":
        run(arguments.images, arguments.data, arguments.folder)
    else:
        tables(arguments.images)


if __name__ == "__main__":
    main()
