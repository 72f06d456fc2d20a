"""What masks over channels cost: eight widths, eight expansions or both in every layer, against one of each.

Memory: the peak of one forward and backward pass beyond what the process held before it, each in a process of its own,
the median of a few. Time: all forms in one process, in turn (A B C, B C A, ...); ratios are to one option, round by
round. Four inverted residuals of 64 channels in training. For comparison, the options as separate blocks, padded to the
largest; those of widths and expansions together would be 64 a layer. Prints a Markdown table.

    python benchmarks/channel_masks.py --rounds 15
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fbnetv3_zoo.arch import Activation, Conv, InvertedResidual, PoolingHead
from fbnetv3_zoo.models.blocks import build_block
from fbnetv3_zoo.search.supernet import Layer, LayerSpace, Supernet
from fbnetv3_zoo.search.supernet.space import fixed

SWISH = Activation.HARD_SWISH
BLOCK = InvertedResidual(3, 64, 1, 1, 4, SWISH)
WIDTHS, EXPANSIONS = tuple(range(8, 65, 8)), tuple(2.25 + 0.25 * n for n in range(8))
LAYERS = 4
LABELS = {
    "one": "one width, one expansion",
    "widths": "8 widths",
    "expansions": "8 expansions",
    "both": "8 widths and 8 expansions",
    "separate_widths": "8 widths as separate blocks",
    "separate_expansions": "8 expansions as separate blocks",
}


class Separate(nn.Module):
    """Every option of every layer a block of its own: their outputs, padded, weighted and added up."""

    def __init__(self, space: LayerSpace) -> None:
        super().__init__()
        last = len(space.layers) - 1
        self.stem, self.head = build_block(space.block(0, 0, 0, 0, 0)), build_block(space.block(last, 0, -1, 0, 0))
        self.layers = nn.ModuleList(nn.ModuleList(options(space, number)) for number in range(1, last))
        logits = [torch.zeros(len(list(layer.children()))) for layer in self.layers]
        self.logits, self.width = nn.ParameterList(logits), BLOCK.out_channels

    def forward(self, images: Tensor) -> Tensor:
        x: Tensor = self.stem(images.contiguous(memory_format=torch.channels_last))
        for layer, logits in zip(self.layers, self.logits, strict=True):
            total: Tensor | None = None
            for option, weight in zip(layer.children(), torch.softmax(logits, 0), strict=True):
                y = option(x)
                y = weight * F.pad(y, (0, 0, 0, 0, 0, self.width - y.shape[1]))
                total = y if total is None else total + y
            assert total is not None
            x = total
        features: Tensor = self.head(x).flatten(1)
        return features


def options(space: LayerSpace, number: int) -> list[nn.Module]:
    """The blocks of layer ``number`` (from 0) for all its widths and expansions, behind the largest width."""
    _, before, expansions, widths = space.shape(number)
    return [
        build_block(space.block(number, 0, before - 1, expansion, width))
        for expansion in range(expansions)
        for width in range(widths)
    ]


def network(form: str, side: int) -> nn.Module:
    """The network of ``form``, in training."""
    channels = WIDTHS if "widths" in form or form == "both" else ()
    expansions = EXPANSIONS if "expansions" in form or form == "both" else ()
    layers = (Layer((BLOCK,), channels, expansions),) * LAYERS
    space = LayerSpace("masks", (side,), (fixed(Conv(3, 64, 2, SWISH)), layers, fixed(PoolingHead(64, 2, SWISH))))
    if form.startswith("separate"):
        return Separate(space).train()
    supernet = Supernet(space)
    supernet.draw_noise(0)
    return supernet.train()


def step(model: nn.Module, images: Tensor) -> None:
    """Forward and backward."""
    model.zero_grad()
    model(images).sum().backward()


def peak(form: str, batch: int, side: int) -> None:
    """Print the bytes that one pass needs beyond what is there before it; a small pass has warmed everything up."""
    model, images = network(form, side), torch.randn(batch, 3, side, side)
    step(model, images[:1])
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    step(model, images)
    print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def memory(given: argparse.Namespace) -> dict[str, float]:
    """Peak bytes of every form, the medians of fresh processes in turn."""
    told: dict[str, list[int]] = {form: [] for form in LABELS}
    sizes = [f"--{name}={getattr(given, name)}" for name in ("batch", "side", "threads")]
    for _ in range(given.processes):
        for form, found in told.items():
            command = [sys.executable, __file__, "--peak-of", form, *sizes]
            found.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return {form: statistics.median(found) for form, found in told.items()}


def seconds(given: argparse.Namespace) -> dict[str, list[float]]:
    """Times of every form, round by round, after one round that does not count."""
    models = {form: network(form, given.side) for form in LABELS}
    images, forms = torch.randn(given.batch, 3, given.side, given.side), list(LABELS)
    taken: dict[str, list[float]] = {form: [] for form in forms}
    for turn in range(given.rounds + 1):
        for form in forms[turn % len(forms) :] + forms[: turn % len(forms)]:
            began = time.perf_counter()
            step(models[form], images)
            taken[form].append(time.perf_counter() - began)
    return {form: row[1:] for form, row in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--processes", type=int, default=3, help="a form, for memory")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak-of", choices=LABELS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak_of:
        peak(given.peak_of, given.batch, given.side)
        return
    print(
        f"{platform.machine()}, {given.threads} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}; ",
        end="",
    )
    print(f"{given.batch} images of {given.side} x {given.side}, {given.rounds} rounds\n", flush=True)
    peaks, taken = memory(given), seconds(given)
    print("| form | peak memory, MB | to one | time, ms | to one, median | quartiles |\n|---|---:|---:|---:|---:|---:|")
    for form, label in LABELS.items():
        low, ratio, high = statistics.quantiles([a / b for a, b in zip(taken[form], taken["one"], strict=True)], n=4)
        print(
            f"| {label} | {peaks[form] / 1e6:.0f} | {peaks[form] / peaks['one']:.2f} "
            f"| {1e3 * statistics.median(taken[form]):.0f} | {ratio:.2f} | {low:.2f} to {high:.2f} |"
        )


if __name__ == "__main__":
    main()
