"""Ten recipes on small data sets, from random weights and from those that the package brings: docs/fine-tuning.md.

    python benchmarks/fine_tuning.py run letters.safetensors emoji.safetensors
    python benchmarks/fine_tuning.py table

Sets that the weights have not seen: handwritten digits; small letters, in fonts of other families for the test; five
groups of emoji, drawn by another vendor for the test; parts of ten photographs. Every run is a line of the results, and
what is there already is not run again. All recipes see each image equally often.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parent))

from photo_cuts import PHOTOS, cuts

from fbnetv3_zoo.recipes import SGD, AdamW, Augmentation, CosineDecay, ExponentialDecay, RandAugment, Recipe, fit_recipe
from fbnetv3_zoo.training import Dataset, find_dataset, train
from fbnetv3_zoo.training.data import Example, Split
from fbnetv3_zoo.training.engine import ExplodedLossError
from fbnetv3_zoo.utils.intervals import mean_interval
from fbnetv3_zoo.weights.serialization import WeightsFile, open_weights
from fbnetv3_zoo.zoo import ARCHS

LETTERS = "abdefghnqrt"
EMOJI = ("Activities", "Animals Nature", "Food Drink", "Objects", "Travel Places")
SIZES = (5, 20, 100, 1000)
MOST_VALIDATED, MOST_TESTED = 100, 2000
NANO = ARCHS["fbnetv3_nano"]
SETS = ("digits", "letters", "emoji", "photos")
STARTS = ("random", "nano")


def recipes(images: int, start: str) -> Mapping[str, Recipe]:
    """The fitted recipe and nine others, by name."""
    pretrained = start != "random"
    own = fit_recipe(images, pretrained=pretrained).recipe
    usual = Augmentation(crop_area=0.08, flip=0.5)
    timm = replace(
        own, augmentation=usual, learning_rate=0.05, batch_size=128, warmup_epochs=min(5, own.epochs - 1),
        weight_decay=2e-5, ema_decay=0.0, dropout=0.0, schedule=CosineDecay(),
    ).for_images(images)  # fmt: skip
    torchvision = replace(
        own, augmentation=usual, learning_rate=0.1, batch_size=32, warmup_epochs=0, weight_decay=1e-4, ema_decay=0.0,
        label_smoothing=0.0, dropout=0.0, optimizer=SGD(nesterov=False), schedule=_steps(own.epochs),
    ).for_images(images)  # fmt: skip
    batch = min(4 * own.batch_size, images)
    adam = replace(own, optimizer=AdamW(), learning_rate=(0.001 if pretrained else 0.003), weight_decay=0.05)
    return {
        "fitted": own,
        "rate x 3": replace(own, learning_rate=3 * own.learning_rate),
        "rate / 3": replace(own, learning_rate=own.learning_rate / 3),
        "batch x 4": own.for_batch_size(batch),
        "AdamW": adam,
        "images as they are": replace(own, augmentation=Augmentation()),
        "shifts": replace(own, augmentation=Augmentation(shift=True)),
        "shifts, flips": replace(own, augmentation=Augmentation(shift=True, flip=0.5)),
        "crops of 70 %": replace(own, augmentation=Augmentation(crop_area=0.7)),
        "crops, flips": replace(own, augmentation=Augmentation(crop_area=0.35, flip=0.5)),
        "RandAugment": replace(own, augmentation=replace(own.augmentation, policy=RandAugment())),
        "timm": timm,
        "torchvision": torchvision,
    }


def _steps(epochs: int) -> ExponentialDecay:
    """In place of torchvision's steps (x 0.1 after each third): as much, a little after every epoch."""
    return ExponentialDecay(0.1 ** (3 / epochs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("files", type=Path, nargs="*", help="letters.safetensors and emoji.safetensors")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("fine_tuning_runs.jsonl"))
    parser.add_argument("--weights", type=Path, help="Weights of fbnetv3_nano, instead of those in the package.")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--starts", nargs="+", default=STARTS)
    parser.add_argument("--recipes", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    options = parser.parse_args()
    if options.command == "table":
        print_tables(options.results)
        print_gains(options.results)
        return
    done = {tuple(row[key] for key in KEYS) for row in read(options.results)}
    for row in todo(options):
        if tuple(row[key] for key in KEYS) not in done:
            run(row, options)


KEYS = ("set", "size", "start", "seed", "recipe")


def read(results: Path) -> list[dict[str, object]]:
    """The runs so far."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def todo(options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """All runs, seed by seed."""
    for seed in options.seeds:
        for size in options.sizes:
            for name in options.sets:
                for start in options.starts:
                    names = options.recipes or recipes(100, start)
                    yield from (
                        {"set": name, "size": size, "start": start, "seed": seed, "recipe": recipe} for recipe in names
                    )


_LOADED: dict[str, Dataset] = {}


def data_of(name: str, files: Sequence[Path]) -> Dataset:
    """A set whole, with all its training images."""
    if name not in _LOADED:
        if name == "digits":
            data = find_dataset("digits")
        elif name == "photos":
            data = cuts(PHOTOS, 1700, 0, side=32)
        else:
            whole = find_dataset(next(file for file in files if file.stem == name))
            data = only(whole, LETTERS if name == "letters" else EMOJI)
        _LOADED[name] = data
    return _LOADED[name]


def only(data: Dataset, names: Sequence[str]) -> Dataset:
    """The classes ``names`` of ``data``."""
    labels = {data.class_names.index(name): n for n, name in enumerate(names)}
    splits: dict[Split, Sequence[Example]] = {
        split: tuple(replace(e, label=labels[e.label]) for e in data[split] if e.label in labels)
        for split in ("train", "validation", "test")
    }
    return replace(data, class_names=tuple(names), splits=MappingProxyType(splits))


def sample(data: Dataset, size: int, seed: int) -> Dataset:
    """``size`` training images of each class, or all where there are fewer; parts of the others."""
    rng = np.random.default_rng([seed, size])
    rows: list[int] = []
    labels = np.array([example.label for example in data["train"]])
    for label in range(len(data.class_names)):
        rows += rng.permutation(np.flatnonzero(labels == label))[:size].tolist()
    fixed = np.random.default_rng(0)
    parts: dict[Split, npt.NDArray[np.int64]] = {
        "train": np.array(rows),
        "validation": fixed.permutation(len(data["validation"]))[:MOST_VALIDATED],
        "test": fixed.permutation(len(data["test"]))[:MOST_TESTED],
    }
    splits: dict[Split, Sequence[Example]] = {
        split: tuple(data[split][int(n)] for n in chosen) for split, chosen in parts.items()
    }
    return replace(data, splits=MappingProxyType(splits))


def run(row: dict[str, object], options: argparse.Namespace) -> None:
    """Train, and add the row with its accuracy to the results."""
    start, seed = str(row["start"]), int(str(row["seed"]))
    data = sample(data_of(str(row["set"]), options.files), int(str(row["size"])), seed)
    images = len(data["train"])
    recipe = replace(recipes(images, start)[str(row["recipe"])], seed=seed)
    pretrained: bool | WeightsFile = False
    if start == "nano":
        pretrained = open_weights(str(options.weights)) or True if options.weights else True
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = train(NANO, data, recipe, folder, pretrained=pretrained, report=False)
            accuracy = found.test.fraction if found.test else math.nan
        except ExplodedLossError as error:  # a result, too
            print(row, error, file=sys.stderr)
            accuracy = 1 / len(data.class_names)
    seconds = round(time.process_time() - began, 1)
    line = {**row, "images": images, "accuracy": accuracy, "epochs": recipe.epochs, "seconds": seconds}
    with options.results.open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def print_tables(results: Path) -> None:
    """Accuracy of each recipe by set and size, mean over seeds; the fitted one's distance from the best."""
    runs: dict[tuple[str, str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read(results):
        key = str(row["start"]), str(row["set"]), int(str(row["size"]))
        runs[key][str(row["recipe"])].append(100 * float(str(row["accuracy"])))
    for start in STARTS:
        keys = sorted((key for key in runs if key[0] == start), key=lambda key: (SETS.index(key[1]), key[2]))
        if not keys:
            continue
        names = list(recipes(100, start))
        print(f"\nfrom {start} weights\n\n| set | images a class | seeds | {' | '.join(names)} | behind the best |")
        print("|---|---:|---:|" + "---:|" * (len(names) + 1))
        for key in keys:
            print_row(key, runs[key], names)


def print_gains(results: Path) -> None:
    """What the packaged weights bring with the fitted recipe: pairs of runs of the same seed."""
    found = {tuple(row[key] for key in KEYS): 100 * float(str(row["accuracy"])) for row in read(results)}
    print(
        "\n| set | images a class | seeds | random weights | packaged weights | gain |\n|---|---:|---:|---:|---:|---:|"
    )
    for name in SETS:
        for size in SIZES:
            seeds = [seed for seed in range(5) if all((name, size, s, seed, "fitted") in found for s in STARTS)]
            scores = [[found[name, size, start, seed, "fitted"] for seed in seeds] for start in STARTS]
            if len(seeds) > 1:
                gain, low, high = map(float, mean_interval(np.array(scores[1]) - np.array(scores[0])))
                means = " | ".join(f"{np.mean(of):.1f}" for of in scores)
                print(f"| {name} | {size:,} | {len(seeds)} | {means} | {gain:+.1f} ({low:+.1f} to {high:+.1f}) |")


def print_row(key: tuple[str, str, int], by_recipe: Mapping[str, Sequence[float]], names: Sequence[str]) -> None:
    """One line of a table."""
    own = by_recipe.get("fitted", [])
    best = max((name for name in by_recipe), key=lambda name: float(np.mean(by_recipe[name])))
    pairs = list(zip(by_recipe[best], own, strict=False))
    behind = f"{np.mean([a - b for a, b in pairs]):.1f}" if pairs else ""
    if len(pairs) > 1 and best != "fitted":
        _, low, high = map(float, mean_interval(np.array([a - b for a, b in pairs])))
        behind += f" ({low:.1f} to {high:.1f})"
    cells = " | ".join(f"{np.mean(by_recipe[name]):.1f}" if by_recipe.get(name) else "" for name in names)
    print(f"| {key[1]} | {key[2]:,} | {len(own)} | {cells} | {behind} |")


if __name__ == "__main__":
    main()
