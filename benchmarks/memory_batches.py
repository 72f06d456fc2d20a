"""Time training on images in memory, of which batches are augmented as a whole, against one image at a time.

A network of 1.2 MMACs at 32 px takes batches of 128 gray images; one thread, no worker processes. Both ways in turn, a
few steps each, in process time. Prints a Markdown table, with the share of a step that is spent on its batch.

    python benchmarks/memory_batches.py --rounds 15
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from against_timm import machine

from fbnetv3_zoo.arch import Activation, Arch, Conv, InvertedResidual, PoolingHead, SqueezeExcite
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.recipes import SGD, Augmentation, Recipe
from fbnetv3_zoo.training.data import Example, Examples
from fbnetv3_zoo.training.data.arrays import ArrayImages
from fbnetv3_zoo.training.data.dataset import Names
from fbnetv3_zoo.training.learner import Learner
from fbnetv3_zoo.training.loader import Batch, TrainingBatches

BATCH, SIDE, IMAGES, CLASSES, STEPS = 128, 32, 4096, 34, 3
AUGMENTATIONS = {
    "nothing": Augmentation(),
    "flips": Augmentation(flip=0.5),
    "shifts": Augmentation(shift=True),
    "crops, flips": Augmentation(crop_area=0.35, flip=0.5),
    "shifts, erasing": Augmentation(shift=True, erasing=0.25),
}


def network() -> FBNet:
    swish, excite = Activation.HARD_SWISH, SqueezeExcite(reduces="input")
    rows = (
        InvertedResidual(3, 16, 1, 1, 1, swish), InvertedResidual(3, 24, 2, 3, 2, swish, excite),
        InvertedResidual(5, 40, 2, 3, 2, swish, excite),
    )  # fmt: skip
    stages = ((Conv(3, 16, 2, swish),), rows, (PoolingHead(128, 2, swish),))
    arch = Arch("small", SIDE, stages, num_classes=CLASSES, in_channels=1)
    return FBNet(arch, generator=torch.Generator().manual_seed(0))


def way(examples: Examples | list[Example], augmentation: Augmentation) -> Callable[[], tuple[float, float]]:
    """A function that takes a few steps and returns the seconds of a step: for its batch, and for the rest."""
    recipe = Recipe(10**4, BATCH, SGD(), 0.1, augmentation, ema_decay=0.999)
    preprocess = Preprocess(SIDE, SIDE, mean=(0.1,), std=(0.3,))
    batches, learner = TrainingBatches(examples, preprocess, recipe), Learner(network(), recipe)

    def endless() -> Iterator[list[Batch]]:
        for epoch in range(recipe.epochs):
            yield from batches.epoch(epoch)

    parts = endless()

    def steps() -> tuple[float, float]:
        loading = training = 0.0
        for _ in range(STEPS):
            begun = time.process_time()
            step = next(parts)
            loaded = time.process_time()
            learner.gradients(step, seed=0)
            learner.update(0.1)
            loading, training = loading + loaded - begun, training + time.process_time() - loaded
        return loading / STEPS, training / STEPS

    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(IMAGES, SIDE, SIDE), dtype=np.uint8)
    labels = rng.integers(CLASSES, size=IMAGES)
    examples = Examples(Names.of(map(str, range(IMAGES))), labels, np.arange(IMAGES), ArrayImages(images))
    print(f"{machine(1)}; {rounds} rounds of {STEPS} steps\n")
    print("| augmentation | one by one (ms) | of a step | batch (ms) | of a step | whole step, ratio | quartiles |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, augmentation in AUGMENTATIONS.items():
        ways = [way(list(examples), augmentation), way(examples, augmentation)]
        [steps() for steps in ways]  # the first steps take longer
        print(line(name, [[steps() for steps in ways] for _ in range(rounds)]), flush=True)


def line(name: str, measured: list[list[tuple[float, float]]]) -> str:
    columns = []
    for one in zip(*measured, strict=True):
        loading, whole = statistics.median(load for load, _ in one), statistics.median(map(sum, one))
        columns.append(f"{1e3 * loading:.1f} | {loading / whole:.0%}")
    ratios = [sum(single) / sum(batch) for single, batch in measured]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    return f"| {name} | {columns[0]} | {columns[1]} | **{ratio:.2f}** | {low:.2f} to {high:.2f} |"


if __name__ == "__main__":
    main()
