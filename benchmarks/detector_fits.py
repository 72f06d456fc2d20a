"""Detectors fitted to few images, as in docs/fine-tuning.md.

    python benchmarks/detector_fits.py --images 20 --seeds 3

A seed: striped discs, squares and triangles on photographs of scikit-image (tests/helpers/shapes.py), of 12 to 50 % of
the image's side, so many to train on and 40 others to test on; FBNetV3-A at half width and depth, images of 160 pixels,
from random weights, trained by the default recipe for as many images with the default settings of `fbnetv3 detect
train`. Prints average precision on the test images, and seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import shapes

from fbnetv3_zoo.detection import CocoData, DetectorSpec, RCNNSettings, average_precision, read_coco, train_detector
from fbnetv3_zoo.detection.data.faults import Unreadable
from fbnetv3_zoo.detection.data.fitting import fitted_anchors
from fbnetv3_zoo.detection.training.predict import find_objects, finder
from fbnetv3_zoo.recipes import Recipe, fit_detection_recipe
from fbnetv3_zoo.utils.intervals import mean_interval
from fbnetv3_zoo.zoo import ARCHS

ARCH = ARCHS["fbnetv3_a"].scaled(width=0.5, depth=0.5)
SIDE, TESTED = 256, 40


def parts(folder: Path, images: int, seed: int) -> tuple[CocoData, CocoData]:
    """Images to train on, and to test on."""
    numbers = {"train": images, "test": TESTED}
    for n, (part, number) in enumerate(numbers.items()):
        shapes.write(folder / part, number, seed=2 * seed + n, side=SIDE, shares=(0.12, 0.5), striped=True)
    train, test = (read_coco(folder / part / "shapes.json", folder / part) for part in numbers)
    return train, test


def trained(recipe: Recipe, images: int, seed: int, *, size: int, fitted: bool) -> tuple[float, float, float]:
    """AP50, AP and seconds of a detector trained by ``recipe``."""
    with tempfile.TemporaryDirectory() as folder:
        train, test = parts(Path(folder), images, seed)
        settings = RCNNSettings().of_size(size)
        settings = fitted_anchors(train, settings) if fitted else settings
        spec, began = DetectorSpec(train.class_names, arch=ARCH, settings=settings), time.perf_counter()
        watched = replace(test, samples=test.samples[:2])  # after every epoch, which takes time
        run = train_detector(spec, train, watched, replace(recipe, seed=seed), Path(folder) / "run", report=False)
        seconds = time.perf_counter() - began
        precision = average_precision(test, find_objects(finder(run.model), test.samples, Unreadable()))
    return precision.ap50, precision.ap, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--learning-rate", type=float, help="default: the recipe's")
    parser.add_argument("--plain-anchors", action="store_true", help="in proportion to the size, not to the objects")
    options = parser.parse_args()
    recipe = fit_detection_recipe(options.images, epochs=options.epochs).recipe
    if options.learning_rate is not None:
        recipe = replace(recipe, learning_rate=options.learning_rate)
    steps = recipe.epochs * (options.images // recipe.batch_size)
    print(f"{recipe.epochs} epochs, {steps} steps of {recipe.batch_size} images, rate {recipe.learning_rate:g}")
    print("| seed | AP50 | AP | seconds |\n|---:|---:|---:|---:|", flush=True)
    figures = []
    for seed in range(options.seeds):
        found = trained(recipe, options.images, seed, size=options.size, fitted=not options.plain_anchors)
        figures.append(found)
        print(f"| {seed} | {found[0]:.3f} | {found[1]:.3f} | {found[2]:.0f} |", flush=True)
    if len(figures) > 1:
        mean, low, high = map(float, mean_interval(np.array(figures)[:, 0]))
        print(f"AP50 {mean:.3f}, 95 % interval {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
