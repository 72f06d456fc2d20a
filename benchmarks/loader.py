"""Time this project's training batches against timm's loader: images a second from the same folder of JPEGs.

Both read 500 x 375 JPEGs (quality 90, cut from the photographs of scikit-image), take a random resized crop of 8 % to
100 % of the area to 224 px (bilinear), mirror half of the images and deliver normalized float batches of 64; no color
changes, no policies. timm has two ways to do so on a CPU, with and without its prefetcher: both are timed, and the
ratio is to the faster of the two in each round. In turn (A B C A B C ...), an epoch each. Prints a Markdown table;
needs the extra ``dev``.

    python benchmarks/loader.py --rounds 11
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import skimage.data
import torch
from against_timm import machine, seconds
from PIL import Image
from timm.data import create_dataset, create_loader
from torch import Tensor

from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.recipes import SGD, Augmentation, Recipe
from fbnetv3_zoo.training import Execution
from fbnetv3_zoo.training.data import Dataset, folder
from fbnetv3_zoo.training.loader import TrainingBatches
from fbnetv3_zoo.training.teacher import normalized

BATCH, SIDE, IMAGES = 64, 224, 512


def make_photos(root: Path) -> None:
    """``IMAGES`` JPEGs in two class folders, pieces of photographs at various scales."""
    rng = np.random.default_rng(0)
    sources = [Image.fromarray(np.ascontiguousarray(photo)) for photo in photographs()]
    for n in range(IMAGES):
        source = sources[n % len(sources)]
        width = min(rng.uniform(0.5, 1) * source.width, source.height * 4 / 3)
        left, top = rng.uniform(0, source.width - width), rng.uniform(0, source.height - width * 3 / 4)
        piece = source.resize((500, 375), Image.Resampling.BICUBIC, (left, top, left + width, top + width * 3 / 4))
        place = root / "train" / str(n % 2)
        place.mkdir(parents=True, exist_ok=True)
        piece.save(place / f"{n:03d}.jpg", quality=90)
    (root / "val").symlink_to(root / "train")


def photographs() -> list[npt.NDArray[np.uint8]]:
    data = skimage.data
    left, _, _ = data.stereo_motorcycle()
    return [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.hubble_deep_field(), left]


def ours(data: Dataset, workers: int) -> Callable[[], int]:
    """An epoch of ours: batches, to floats and normalized as a training step does it."""
    augmentation = Augmentation(crop_area=0.08, flip=0.5)
    recipe = Recipe(epochs=1, batch_size=BATCH, optimizer=SGD(), learning_rate=0.1, augmentation=augmentation)
    preprocess = Preprocess(SIDE, SIDE)
    batches = TrainingBatches(data["train"], preprocess, recipe, execution=Execution(workers=workers))
    epochs = iter(range(10**6))

    def epoch() -> int:
        count = 0
        for (part,) in batches.epoch(next(epochs)):
            count += used(normalized(part.images.float().div_(255), preprocess, in_place=True), part.labels)
        return count

    return epoch


def theirs(root: Path, workers: int, *, prefetcher: bool) -> Callable[[], int]:
    """An epoch of timm's."""
    loader = create_loader(
        create_dataset("", root / "train"), (3, SIDE, SIDE), BATCH, is_training=True, scale=(0.08, 1.0), hflip=0.5,
        color_jitter=0.0, interpolation="bilinear", num_workers=workers, use_prefetcher=prefetcher,
        persistent_workers=workers > 0, device=torch.device("cpu"),
    )  # fmt: skip

    def epoch() -> int:
        return sum(used(images, labels) for images, labels in loader)

    return epoch


def used(images: Tensor, labels: Tensor) -> int:
    """How many images a batch has; it must be one that a network can take."""
    assert images.dtype == torch.float32, images.dtype
    assert images.shape == (len(labels), 3, SIDE, SIDE), images.shape
    return len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"{machine()}; {rounds} rounds\n")
    print("| workers | ours (images/s) | timm | timm, prefetcher | ours / timm's faster | quartiles |")
    print("|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make_photos(root)
        for workers in (0, 2):
            print(line(workers, compare(root, workers, rounds)), flush=True)


def compare(root: Path, workers: int, rounds: int) -> list[list[float]]:
    """Images a second of every loader in every round, after one round that does not count."""
    works = [
        ours(folder(root), workers),
        theirs(root, workers, prefetcher=False),
        theirs(root, workers, prefetcher=True),
    ]
    counts = [work() for work in works]
    assert counts == [IMAGES] * len(works), counts
    return [[IMAGES / seconds(work) for work in works] for _ in range(rounds)]


def line(workers: int, rates: list[list[float]]) -> str:
    columns = list(zip(*rates, strict=True))
    medians = [statistics.median(column) for column in columns]
    faster = columns[1] if medians[1] > medians[2] else columns[2]
    low, ratio, high = statistics.quantiles([a / b for a, b in zip(columns[0], faster, strict=True)], n=4)
    shown = " | ".join(f"{median:.0f}" for median in medians)
    return f"| {workers} | {shown} | **{ratio:.2f}** | {low:.2f} to {high:.2f} |"


if __name__ == "__main__":
    main()
