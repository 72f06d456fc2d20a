"""Trainings beyond the table `nars-letters`: tables 3, 6, 7 and 8 of the paper, on letters.

    python benchmarks/evidence_training.py winners --data data       # tables 6 and 7
    python benchmarks/evidence_training.py teachers --data data      # table 8
    python benchmarks/evidence_training.py torchvision --data data   # table 3

Every training has one thread and seeds that the table has not; what has been trained is kept in
``nars_letters/finals.jsonl`` and not trained again. Test accuracies in percent: mean and 95 % interval over the seeds,
differences paired by seed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import nars_letters
import numpy as np
from evidence_table import encoder, interval, markdown, mean_of, picture, table

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.recipes import SGD, Augmentation, CosineDecay, Recipe
from fbnetv3_zoo.report import charts
from fbnetv3_zoo.search.evaluation import TrainingEvaluator
from fbnetv3_zoo.search.predictors import MLP, fit
from fbnetv3_zoo.search.space import LETTERS, Candidate, NetworkCosts, outside, parse_constraint
from fbnetv3_zoo.search.stages import evolve

KEPT = nars_letters.FOLDER / "finals.jsonl"
BOUNDS = ("0.6M", "1.2M", "2.4M")
SEEDS = (101, 102, 103, 104, 105)
MODELS = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5")
DEFAULT = Recipe(
    12, 128, SGD(nesterov=False), 0.05, augmentation=Augmentation(crop_area=0.7), schedule=CosineDecay(),
    weight_decay=1e-4,
)  # fmt: skip
"""As torchvision's reference for classifiers: SGD at 0.1 for 256 images, random crops; with cosine decay."""
Code = tuple[int, ...]


@dataclass(frozen=True)
class Final:
    """A training: the codes of its network (or torchvision's name of it) and of its recipe (empty: the default one).

    ``teacher``: how it learns: "" by itself, "distilled" from a network of the code ``teacher_code``.
    """

    network: Code | str
    recipe: Code
    seed: int
    average: bool | None = None
    teacher: Code = ()

    @property
    def key(self) -> str:
        """The training as text."""
        return json.dumps(asdict(self))


def arch_of(code: Code) -> Arch:
    """The network of a point."""
    arch = LETTERS.candidate(np.array(code), "network").arch
    assert arch is not None
    return arch


def recipe_of(final: Final) -> Recipe:
    """The recipe, with the seed of the training."""
    recipe = DEFAULT
    if final.recipe:
        found = LETTERS.candidate(np.array(final.recipe), "recipe").recipe
        assert found is not None
        recipe = found
    if final.average is not None:
        recipe = replace(recipe, ema_decay=0.95 if final.average else 0.0)
    return replace(recipe, seed=final.seed)


def tested(final: Final, data: str) -> float:
    """Test accuracy in percent after training."""
    import torch

    torch.set_num_threads(1)
    recipe = recipe_of(final)
    if final.teacher:
        return _taught(final, recipe, data)
    evaluator = TrainingEvaluator(data, resolution=32, split="test")
    if isinstance(final.network, str):
        candidate = Candidate("model", {}, None, recipe, f"torchvision:{final.network}")
    else:
        candidate = Candidate("network", {}, arch_of(final.network), recipe)
    return 100 * evaluator(candidate, recipe.epochs)[-1]


def _taught(final: Final, recipe: Recipe, data: str) -> float:
    """The same, learning from a network that has learned from the same images."""
    from fbnetv3_zoo.training import find_dataset, train

    images = find_dataset(data)
    assert not isinstance(final.network, str)
    with tempfile.TemporaryDirectory() as place:
        taught = recipe_of(replace(final, average=True))
        teacher = train(arch_of(final.teacher), images, taught, Path(place, "teacher"), report=False)
        run = train(arch_of(final.network), images, recipe, Path(place, "student"), teacher=teacher.model, report=False)
    assert run.test is not None
    return 100 * run.test.fraction


def measured(finals: Sequence[Final], data: Path, workers: int) -> dict[Final, float]:
    """The test accuracies of all trainings; what was not kept is trained now, and written at once."""
    kept = dict(map(json.loads, KEPT.read_text().splitlines())) if KEPT.exists() else {}
    part = data / "letters-part.safetensors"
    if not part.exists():
        nars_letters.part_of(data / "letters.safetensors", part, nars_letters.IMAGES["letters"])
    missing = [final for final in dict.fromkeys(finals) if final.key not in kept]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool, KEPT.open("a") as file:
        waiting = {pool.submit(tested, final, str(part)): final for final in missing}
        for done in as_completed(waiting):
            key, found = waiting[done].key, round(done.result(), 3)
            kept[key] = found
            file.write(json.dumps([key, found]) + "\n")
            file.flush()
    return {final: kept[final.key] for final in finals}


@cache
def found() -> dict[str, tuple[Code, Code]]:
    """For every bound on MMACs: the best point of the table, and the best that evolution finds by the predictor."""
    known, costs = table(), NetworkCosts(LETTERS)
    predictor = fit(MLP(), LETTERS, known.codes, known.mean, encoder=encoder(MLP()))
    constraints = [parse_constraint(f"macs<={bound}") for bound in BOUNDS]
    best = known.codes[np.argsort(-known.mean, kind="stable")]
    evolved = evolve(lambda codes: predictor.predict(codes).mean, LETTERS, costs, constraints, seeds=best)
    winners = {}
    for bound, constraint, one in zip(BOUNDS, constraints, evolved, strict=True):
        fitting = best[outside(costs, constraint, best) == 0]
        winners[bound] = tuple(fitting[0].tolist()), tuple(one.codes[0].tolist())
    return winners


def winners(data: Path, workers: int) -> None:
    """Table 7: stage 2's best against stage 3's; table 6: the smallest and the largest with each other's recipes."""
    codes = [code for pair in found().values() for code in pair]
    (_, small), (_, large) = found()[BOUNDS[0]], found()[BOUNDS[-1]]
    finals = [Final(code, code, seed) for code in codes for seed in SEEDS]
    finals += [Final(*pair, seed) for pair in ((small, large), (large, small)) for seed in SEEDS]
    of = measured(finals, data, workers)

    def scores(network: Code, recipe: Code) -> np.ndarray:
        return np.array([of[Final(network, recipe, seed)] for seed in SEEDS])

    rows = []
    for bound, (second, third) in found().items():
        pair = scores(second, second), scores(third, third)
        rows.append([f"macs <= {bound}", *map(mean_of, pair), mean_of(pair[1] - pair[0])])
    print(markdown(["bound", "stage 2's best", "stage 3's best", "difference"], rows))
    rows = []
    for name, network, other in (("smallest", small, large), ("largest", large, small)):
        pair = scores(network, network), scores(network, other)
        rows.append([name, *map(mean_of, pair), mean_of(pair[0] - pair[1])])
    print("\n" + markdown(["network", "its own recipe", "the other's recipe", "difference"], rows))
    _bars("winners", [(f"{bound}, stage {n}", scores(code, code)) for bound, pair in found().items()
                      for n, code in enumerate(pair, 2)])  # fmt: skip
    _bars("swapped", [(f"{name}, {whose} recipe", scores(network, recipe))
                      for name, network, other in (("smallest", small, large), ("largest", large, small))
                      for whose, recipe in (("its own", network), ("the other's", other))])  # fmt: skip


def teachers(data: Path, workers: int) -> None:
    """Table 8: the smallest winner by itself, averaged, distilled from the largest one, and both."""
    (_, small), (_, large) = found()[BOUNDS[0]], found()[BOUNDS[-1]]
    ways = {
        "plain": (small, False, ()), "average": (small, True, ()), "distilled": (small, False, large),
        "both": (small, True, large), "teacher": (large, True, ()),
    }  # fmt: skip
    finals = {
        name: [Final(network, large, seed, average, teacher) for seed in SEEDS]
        for name, (network, average, teacher) in ways.items()
    }
    of = measured([final for one in finals.values() for final in one], data, workers)
    scores = {name: np.array([of[final] for final in one]) for name, one in finals.items()}
    cells = [[name, mean_of(one), mean_of(one - scores["plain"])] for name, one in scores.items()]
    print(markdown(["45 images a class", "test accuracy", "minus plain"], cells))
    _bars("teachers", list(scores.items()))


def torchvision(data: Path, workers: int) -> None:
    """Table 3: the best recipe for one network of the space, for others, against their default recipe."""
    known = table("recipes")
    best = tuple(known.codes[known.mean.argmax()].tolist())
    finals = [Final(model, recipe, seed) for model in MODELS for recipe in (best, ()) for seed in SEEDS[:3]]
    of = measured(finals, data, workers)
    rows, bars = [], []
    for model in MODELS:
        pair = [np.array([of[Final(model, recipe, seed)] for seed in SEEDS[:3]]) for recipe in (best, ())]
        rows.append([model, *map(mean_of, pair), mean_of(pair[0] - pair[1])])
        bars += [(f"{model}, {which}", one) for which, one in zip(("found", "default"), pair, strict=True)]
    print(markdown(["network, 32 px", "recipe found", "default recipe", "difference"], rows))
    _bars("torchvision", bars)


def _bars(name: str, values: Iterable[tuple[str, np.ndarray]]) -> None:
    """Means with their intervals."""
    labels, scores = zip(*values, strict=True)
    means, halves = zip(*map(interval, scores), strict=True)

    def draw(axes: Any) -> None:
        at = range(len(labels))[::-1]
        axes.errorbar(means, at, xerr=halves, fmt="o", markersize=4, color=charts.FIRST)
        axes.set_yticks(at, labels)
        axes.set(xlabel="test accuracy, %")

    picture(name, draw, size=(5.6, 0.9 + 0.28 * len(labels)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("winners", "teachers", "torchvision"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the files of make_letters.py")
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time, of one thread each")
    given = parser.parse_args()
    {"winners": winners, "teachers": teachers, "torchvision": torchvision}[given.what](given.data, given.workers)


if __name__ == "__main__":
    main()
