"""What masks over channels cost: eight widths (and expansions) of every layer against one, and against eight branches.

python benchmarks/channel_masks.py --rounds 15

Peak memory of a forward and backward pass in a process of its own (the largest resident size, less that before the
pass), and time, all forms in turn in one process. Four inverted residuals of 64 channels, 16 images of 48 x 48 pixels.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from torch import Tensor, nn

from fbnetv3_zoo.blocks import build_block
from fbnetv3_zoo.rows import Activation, Conv, InvertedResidual, PoolingHead
from fbnetv3_zoo.search.supernet.layers import Layer, LayerSpace, fixed
from fbnetv3_zoo.search.supernet.net import Supernet

HSWISH = Activation.HARD_SWISH
BLOCK = InvertedResidual(3, 64, 1, 1, 4, HSWISH)
WIDTHS, EXPANSIONS = tuple(range(8, 65, 8)), (2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 3.75, 4.0)
LAYERS, IMAGES, SIDE = 4, 16, 48
FORMS = ("one", "widths", "expansions", "both", "branches")


class Branches(nn.Module):
    """The naive way: every width of every layer a block of its own, padded, weighted, added up."""

    def __init__(self, space: LayerSpace) -> None:
        super().__init__()
        self.stem = build_block(space.block(0, 0, 0, 0, 0))
        wide = len(WIDTHS) - 1
        self.layers = nn.ModuleList(
            nn.ModuleList(build_block(space.block(n, 0, wide if n > 1 else 0, 0, at)) for at in range(len(WIDTHS)))
            for n in range(1, LAYERS + 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for options in self.layers:
            assert isinstance(options, nn.ModuleList)
            parts = [option(x) / len(WIDTHS) for option in options]
            x = sum(nn.functional.pad(part, (0, 0, 0, 0, 0, 64 - part.shape[1])) for part in parts)
        average: Tensor = x.mean((2, 3))
        return average


def network(form: str) -> nn.Module:
    """The network of a form, in training."""
    channels = WIDTHS if form in ("widths", "both", "branches") else ()
    expansions = EXPANSIONS if form in ("expansions", "both") else ()
    layers = (Layer((BLOCK,), channels, expansions),) * LAYERS
    space = LayerSpace("masks", (SIDE,), (fixed(Conv(3, 64, 2, HSWISH)), layers, fixed(PoolingHead(64, 2, HSWISH))))
    if form == "branches":
        return Branches(space)
    supernet = Supernet(space)
    supernet.draw_noise(0)
    return supernet.train()


def step(model: nn.Module, images: Tensor) -> None:
    """Forward and backward."""
    model(images).sum().backward()


def peak(form: str) -> None:
    """Print the bytes that one pass needs beyond what was there before it; a small pass has warmed everything up."""
    torch.set_num_threads(1)
    model = network(form)
    step(model, torch.randn(2, 3, SIDE, SIDE))
    images = torch.randn(IMAGES, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(model, images)
    print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


def measure(rounds: int) -> None:
    """Print the table."""
    memory = {form: [] for form in FORMS}  # type: dict[str, list[int]]
    for _ in range(3):
        for form in FORMS:
            told = subprocess.run(
                [sys.executable, __file__, "--peak", form], capture_output=True, text=True, check=True
            )
            memory[form].append(int(told.stdout))
    torch.set_num_threads(1)
    models, images = {form: network(form) for form in FORMS}, torch.randn(IMAGES, 3, SIDE, SIDE)
    seconds = {form: [] for form in FORMS}  # type: dict[str, list[float]]
    for turn in range(rounds + 1):
        for form in FORMS[turn % len(FORMS) :] + FORMS[: turn % len(FORMS)]:
            began = time.perf_counter()
            step(models[form], images)
            seconds[form].append(time.perf_counter() - began)
    print("| form | peak memory, MB | to one | time to one, median | quartiles |\n|---|---:|---:|---:|---:|")
    one = np.median(memory["one"])
    for form in FORMS:
        ratios = np.array(seconds[form][1:]) / np.array(seconds["one"][1:])
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        bytes_ = np.median(memory[form])
        print(f"| {form} | {bytes_ / 1e6:.0f} | {bytes_ / one:.2f} | {middle:.2f} | {low:.2f} to {high:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="passes of every form")
    parser.add_argument("--peak", choices=FORMS, help="measure the memory of one form in this process")
    arguments = parser.parse_args()
    if arguments.peak:
        peak(arguments.peak)
    else:
        measure(arguments.rounds)


if __name__ == "__main__":
    main()
