"""Table 8 of the FBNetV3 paper on handwritten digits: plain, moving average, distillation, both.

A slim student learns from few labeled images, by itself and from a larger teacher that has learned from the same
ones. Plain and averaged weights come from one run, as do distilled ones with and without average. Accuracy is on all
images not trained or validated on. Prints a Markdown table: mean and 95 % interval (Student's t) over the seeds.

    python benchmarks/distillation.py --seeds 5
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors.torch import load_file
from scipy.stats import t

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.recipes import RECIPES, ExponentialDecay
from fbnetv3_zoo.training import Dataset, Run, evaluate, train
from fbnetv3_zoo.training.data import digits
from fbnetv3_zoo.zoo import ARCHS

SMALL = ARCHS["fbnetv3_a"].for_small_images()
TEACHER, STUDENT = SMALL.scaled(width=0.5, depth=0.5), SMALL.scaled(width=0.25, depth=0.25)
COLUMNS = ("plain", "EMA", "distilled", "distilled + EMA", "teacher (EMA)")


def few_digits(labeled: int, seed: int) -> Dataset:
    """``labeled`` images to train on, as many classes as there are; the others to validate (364) and to test."""
    data = digits(seed=seed)
    train_images = list(data["train"])
    kept = train_images[:: len(train_images) // labeled][:labeled]  # sorted by class: every class gets its share
    keys = {example.key for example in kept}
    rest = [example for example in train_images if example.key not in keys]
    splits = {"train": tuple(kept), "validation": data["validation"], "test": (*data["test"], *rest)}
    return replace(data, splits=MappingProxyType(splits))  # type: ignore[arg-type]


def without_average(run: Run, data: Dataset) -> float:
    """Test accuracy of the last step's own weights."""
    newest = max((run.folder / "checkpoints").glob("epoch-*.safetensors"))
    own = {name: tensor for name, tensor in load_file(newest).items() if name.startswith("student.network.")}
    model = FBNet(run.model.arch).eval()
    model.load_state_dict({name.removeprefix("student.network."): tensor for name, tensor in own.items()})
    with torch.inference_mode():
        found = evaluate(lambda x: model(torch.from_numpy(x)).numpy(), data["test"], run.model.preprocess)
    return found.fraction


def one_seed(seed: int, labeled: int, epochs: int, folder: Path) -> list[float]:
    """The accuracies of all columns."""
    data = few_digits(labeled, seed)
    recipe = replace(RECIPES["digits"], epochs=epochs, batch_size=50, ema_decay=0.95, seed=seed)
    recipe = replace(recipe, schedule=ExponentialDecay(0.05 ** (1 / epochs)))

    def run(name: str, arch: Arch, teacher: FBNet | None = None) -> Run:
        return train(arch, data, recipe, folder / name, teacher=teacher)

    teacher = run("teacher", TEACHER)
    alone, distilled = run("alone", STUDENT), run("distilled", STUDENT, teacher.model)
    found = [accuracy for r in (alone, distilled) for accuracy in (without_average(r, data), r.test.fraction)]  # type: ignore[union-attr]
    return [*found, teacher.test.fraction]  # type: ignore[union-attr]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labeled", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=40)
    given = parser.parse_args()
    rows = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(one_seed(seed, given.labeled, given.epochs, Path(folder)))
        print(f"seed {seed}: " + ", ".join(f"{c} {v:.2%}" for c, v in zip(COLUMNS, rows[-1], strict=True)), flush=True)
    print(f"\n{given.labeled} labeled images, {given.epochs} epochs, {given.seeds} seeds\n")
    print(f"| | {' | '.join(COLUMNS)} |\n|---|{'---:|' * len(COLUMNS)}")
    cells = []
    for column in zip(*rows, strict=True):
        half = t.ppf(0.975, len(column) - 1) * statistics.stdev(column) / len(column) ** 0.5
        cells.append(f"{statistics.mean(column):.2%} ± {half:.2%}")
    print(f"| top-1 | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
