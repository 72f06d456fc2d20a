"""Time a whole training step against timm's own: FBNetV3-B, 224 px, batch 16, RMSProp (TensorFlow's), moving average.

Both take the same images and labels, on as many threads, in turn; a ratio is taken pair by pair. timm's step is its
model, its ``RMSpropTF`` and its ``ModelEmaV3`` as its training script puts them together, in its default layout and, a
second time, in channels-last. Ours begins with 8-bit pixels, which it converts and normalizes; timm's begins with
normalized floats. The share of the moving average and the peak memory (each in a process of its own) follow. Needs the
extra ``bench``.

    python benchmarks/training_step.py --rounds 11
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from against_timm import compare, line, machine, seconds
from timm.optim import RMSpropTF
from timm.utils import ModelEmaV3

from fbnetv3_zoo import create
from fbnetv3_zoo.recipes import Recipe, RMSProp
from fbnetv3_zoo.training.learner import Learner
from fbnetv3_zoo.training.loader import Batch
from fbnetv3_zoo.zoo import ARCHS

BATCH, SIDE, RATE, DECAY = 16, 224, 1e-3, 0.9998
RECIPE = Recipe(10, BATCH, RMSProp(), RATE, weight_decay=1e-5, ema_decay=DECAY)


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    return Batch(images.movedim(-1, 1), torch.randint(0, 1000, (BATCH,), generator=generator))


def our_step() -> tuple[Callable[[], object], Learner]:
    learner, part = Learner(create(ARCHS["fbnetv3_b"].with_symmetric_padding()), RECIPE), batch()

    def step() -> None:
        learner.gradients([part], seed=0)
        learner.update(RATE)

    return step, learner


def timm_step(layout: torch.memory_format) -> Callable[[], object]:
    model = timm.create_model("fbnetv3_b").train().to(memory_format=layout)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    groups = [{"params": decayed}, {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}]
    optimizer = RMSpropTF(groups, lr=RATE, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=1e-5)
    average, part = ModelEmaV3(model, decay=DECAY), batch()
    images, labels = (part.images.float() / 255).contiguous(memory_format=layout), part.labels

    def step() -> None:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(model)
        loss.item()

    return step


LAYOUTS = {"default": torch.contiguous_format, "channels-last": torch.channels_last}


def peak(which: str, rounds: int = 4) -> float:
    """Peak resident memory in MB of a process that takes a few steps and nothing else."""
    command = [sys.executable, __file__, "--peak-of", which, "--rounds", str(rounds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak-of", choices=["ours", *LAYOUTS], help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak_of:
        step = our_step()[0] if given.peak_of == "ours" else timm_step(LAYOUTS[given.peak_of])
        for _ in range(given.rounds):
            step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    print(f"{machine(given.threads)}; {given.rounds} pairs each\n")
    print("| network | what | ours (ms) | timm (ms) | ratio (median) | quartiles |")
    print("|---|---|---:|---:|---:|---:|")
    ours, learner = our_step()
    for name, layout in LAYOUTS.items():
        pairs = compare(ours, timm_step(layout), given.rounds)
        print(line("fbnetv3_b", f"training step, batch {BATCH}, {SIDE} px, timm's layout {name}", pairs), flush=True)
    assert learner.average is not None
    average = learner.average
    shares = [seconds(average.update) / seconds(ours) for _ in range(given.rounds)]
    low, share, high = statistics.quantiles(shares, n=4)
    print(f"\nMoving average: {share:.1%} of our step (quartiles {low:.1%} to {high:.1%})")
    peaks = {which: peak(which) for which in ("ours", *LAYOUTS)}
    ratios = ", ".join(f"{peaks['ours'] / peaks[name]:.2f} of timm's in layout {name}" for name in LAYOUTS)
    print(f"Peak memory of the process: {peaks['ours']:.0f} MB; {ratios}")


if __name__ == "__main__":
    main()
