"""Time this project's networks against timm's of the same name: forward, creation, training step.

Both get the same images, on one thread, in turn (A B A B ...); a ratio is taken pair by pair. Networks: those that both
have (FBNetV3 b, d, g), symmetric padding on both sides. Prints a Markdown table; needs the extra ``bench``.

    python benchmarks/against_timm.py --rounds 15
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fbnetv3_zoo
from fbnetv3_zoo.zoo import ARCHS

NAMES = ("fbnetv3_b", "fbnetv3_d", "fbnetv3_g")
TRAIN_BATCH, TRAIN_SIDE = 8, 224


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def forward(model: nn.Module, images: Tensor) -> Callable[[], object]:
    model.eval()

    def work() -> object:
        with torch.inference_mode():
            return model(images)

    return work


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def work() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return work


def cases(name: str) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """What is timed: label -> (ours, timm's)."""
    arch = ARCHS[name].with_symmetric_padding()
    ours, theirs = fbnetv3_zoo.create(arch), timm.create_model(name)
    side = arch.resolution
    found: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "create": (lambda: fbnetv3_zoo.create(arch), lambda: timm.create_model(name))
    }
    for batch in (1, 8):
        images = torch.randn(batch, 3, side, side)
        found[f"forward, batch {batch}"] = (forward(ours, images), forward(theirs, images))
        images = images.to(memory_format=torch.channels_last)
        found[f"forward, batch {batch}, channels-last input"] = (forward(ours, images), forward(theirs, images))
    images, labels = torch.randn(TRAIN_BATCH, 3, TRAIN_SIDE, TRAIN_SIDE), torch.randint(0, 1000, (TRAIN_BATCH,))
    steps = (training_step(model, images, labels) for model in (fbnetv3_zoo.create(arch), timm.create_model(name)))
    found[f"training step, batch {TRAIN_BATCH}, {TRAIN_SIDE} px"] = tuple(steps)  # type: ignore[assignment]
    return found


def compare(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """Times in seconds of ``rounds`` pairs, after one of each that does not count."""
    ours(), theirs()
    return [(seconds(ours), seconds(theirs)) for _ in range(rounds)]


def line(name: str, label: str, pairs: list[tuple[float, float]]) -> str:
    medians = [statistics.median(column) * 1e3 for column in zip(*pairs, strict=True)]
    ratios = [a / b for a, b in pairs]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    return f"| {name} | {label} | {medians[0]:.1f} | {medians[1]:.1f} | **{ratio:.2f}** | {low:.2f} to {high:.2f} |"


def machine(threads: int = 1) -> str:
    info = Path("/proc/cpuinfo")
    names = [row.split(":", 1)[1].strip() for row in info.read_text().splitlines() if row.startswith("model name")]
    avx512 = "avx512f" in info.read_text()
    cpu = f"{names[0]} ({platform.machine()}{', AVX-512' if avx512 else ''})" if names else platform.processor()
    used = "one thread" if threads == 1 else f"{threads} threads"
    return f"{cpu}, {used}; torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"{machine()}; {rounds} pairs each\n")
    print("| network | what | ours (ms) | timm (ms) | ratio (median) | quartiles |")
    print("|---|---|---:|---:|---:|---:|")
    for name in NAMES:
        for label, (ours, theirs) in cases(name).items():
            print(line(name, label, compare(ours, theirs, rounds)), flush=True)


if __name__ == "__main__":
    main()
