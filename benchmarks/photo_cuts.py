"""Recipes on cuts of scikit-image's photographs, as in docs/fine-tuning.md: ``python benchmarks/photo_cuts.py``."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import skimage.data
from PIL import Image

from fbnetv3_zoo.preprocess import IMAGENET_MEAN, IMAGENET_STD
from fbnetv3_zoo.recipes import SGD, Augmentation, ExponentialDecay, Recipe, fit_recipe
from fbnetv3_zoo.training import Dataset, train
from fbnetv3_zoo.training.data import Example
from fbnetv3_zoo.training.data.arrays import ArrayReader
from fbnetv3_zoo.training.data.random_split import split_by_seed
from fbnetv3_zoo.zoo import ARCHS

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "coins", "grass", "brick", "gravel", "clock", "camera")
ARCH = replace(ARCHS["fbnetv3_a"].scaled(width=0.5), resolution=96)
FORMER = Recipe(
    100, 64, SGD(), 0.1, Augmentation(crop_area=0.08, flip=0.5), ExponentialDecay(0.96), weight_decay=2e-5,
    ema_decay=0.999, label_smoothing=0.1, dropout=0.2,
)  # fmt: skip


def cuts(photos: Sequence[str], per_class: int, seed: int, *, side: int = 128) -> Dataset:
    """Square cuts of each of ``photos``, a quarter to half of its shorter side long, at ``side`` pixels."""
    rng, examples = np.random.default_rng(seed), []
    for label, name in enumerate(photos):
        whole = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        for number in range(per_class):
            part = int(rng.integers(min(whole.size) // 4, min(whole.size) // 2))
            left, top = (int(rng.integers(length - part + 1)) for length in whole.size)
            cut = whole.crop((left, top, left + part, top + part)).resize((side, side))
            examples.append(Example(ArrayReader(np.asarray(cut)), label, f"{name}/{number}"))
    labels = np.array([example.label for example in examples])
    parts = split_by_seed(labels, seed, image=lambda n: examples[n].key, classes=photos)
    splits = MappingProxyType({split: [examples[n] for n in indices] for split, indices in parts.items()})
    return Dataset("cuts", tuple(photos), IMAGENET_MEAN, IMAGENET_STD, 8 / 7, splits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--per-class", type=int, default=75)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    print("| recipe | seed | steps | test accuracy |\n|---|---:|---:|---:|", flush=True)
    for seed in range(options.seeds):
        data = cuts(PHOTOS[: options.classes], options.per_class, seed)
        count = len(data["train"])
        former = replace(FORMER, epochs=options.epochs)
        recipes = {
            "fitted": fit_recipe(count, epochs=options.epochs).recipe,
            "former": former.for_images(count),
            "former, batches of 16": former.for_batch_size(16),
        }
        for name, recipe in recipes.items():
            with tempfile.TemporaryDirectory() as folder:
                run = train(ARCH, data, replace(recipe, seed=seed), folder, report=False)
            assert run.test is not None
            steps = recipe.epochs * (count // recipe.batch_size)
            print(f"| {name} | {seed} | {steps} | {run.test.fraction:.1%} |", flush=True)


if __name__ == "__main__":
    main()
