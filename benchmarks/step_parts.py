"""What the step of a small network is made of: reading a batch, computing gradients, updating weights and average.

    python benchmarks/step_parts.py                       # a table of the parts
    python benchmarks/step_parts.py --against OTHER       # and images a second, in turn with another checkout

A network of 1.4 MMACs on digits at 32 px, batch 64, one thread, images read by the process itself. With ``--against``,
each checkout trains in processes of its own, which take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from against_timm import machine

SIDE, BATCH, WIDTH = 32, 64, 0.7
PARTS = ("reading the batch", "gradients", "updating weights and average", "all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=48, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(step(given.steps)))
        return
    own = Path(__file__).resolve().parents[1]
    checkouts = [own] if given.against is None else [own, given.against.resolve()]
    found: list[list[list[float]]] = [[] for _ in checkouts]
    for _ in range(given.rounds):
        for place, rounds in zip(checkouts, found, strict=True):
            rounds.append(measured(place, given.steps))
    print(f"{machine(1)}; {given.rounds} rounds of {given.steps} steps, medians and quartiles\n")
    print("| part of a step, ms | " + " | ".join(["this checkout", "the other"][: len(checkouts)]) + " |")
    print("|---|" + "---:|" * len(checkouts))
    for number, part in enumerate(PARTS):
        cells = [spread([1000 * rounds[number] for rounds in one]) for one in found]
        print(f"| {part} | {' | '.join(cells)} |")
    if given.against is not None:
        ratios = [theirs[-1] / ours[-1] for ours, theirs in zip(*found, strict=True)]
        print(f"\nImages a second, this checkout to the other: {spread(ratios)}")


def measured(checkout: Path, steps: int) -> list[float]:
    """Seconds of the parts of a step of ``checkout``, in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", "--steps", str(steps)]
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    seconds: list[float] = json.loads(done.stdout)
    return seconds


def step(steps: int) -> list[float]:
    """Processor seconds of the parts of a step, by the median of ``steps``."""
    from fbnetv3_zoo.factory import create
    from fbnetv3_zoo.recipes import RECIPES
    from fbnetv3_zoo.training import find_dataset
    from fbnetv3_zoo.training.learner import Learner
    from fbnetv3_zoo.training.loader import TrainingBatches
    from fbnetv3_zoo.zoo import find_arch

    torch.set_num_threads(1)
    data, recipe = find_dataset("digits"), replace(RECIPES["digits"], batch_size=BATCH)
    arch = replace(find_arch("fbnetv3_nano"), num_classes=10, in_channels=1).scaled(width=WIDTH)
    network = create(arch, generator=torch.Generator().manual_seed(0))
    network.preprocess = data.preprocess(SIDE)
    learner, batches = Learner(network, recipe), TrainingBatches(data["train"], network.preprocess, recipe)
    endless, times = (batch for epoch in range(recipe.epochs * 10) for batch in batches.epoch(epoch)), []
    for number in range(steps + 4):
        moments = [time.process_time()]
        parts = next(endless)
        moments.append(time.process_time())
        float(learner.gradients(parts, seed=number))
        moments.append(time.process_time())
        learner.update(0.01)
        moments.append(time.process_time())
        times.append([*(b - a for a, b in pairwise(moments)), moments[-1] - moments[0]])
    return [statistics.median(column) for column in zip(*times[4:], strict=True)]


def spread(values: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


if __name__ == "__main__":
    main()
