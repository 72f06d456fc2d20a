"""Time of a training step on one thread and on all: ``python benchmarks/training_threads.py``.

One row for each network and batch: the multiply-accumulates of its images, and the medians of interleaved steps with
their middle halves. The default number of threads of a run follows from this table (docs/training.md).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from fbnetv3_zoo import FBNet
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.zoo import ARCHS

NANO, A = ARCHS["fbnetv3_nano"], ARCHS["fbnetv3_a"]
HALF = replace(A.scaled(width=0.5), resolution=96)
CASES: Sequence[tuple[str, Arch, int]] = (
    ("nano, 32 px", NANO, 8), ("nano, 32 px", NANO, 64), ("nano, 32 px", NANO, 256), ("A half as wide, 96 px", HALF, 8),
    ("A half as wide, 96 px", HALF, 64), ("A, 224 px", A, 4), ("A, 224 px", A, 16),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=8, help="For each row and number of threads.")
    seconds = parser.parse_args().seconds
    most = torch.get_num_threads()
    print(f"| network | batch | million MACs a step | 1 thread, ms | {most} threads, ms | ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, arch, batch in CASES:
        times = measured(arch, batch, (1, most), seconds)
        low, middle, high = ([np.percentile(part, q) for part in times] for q in (25, 50, 75))
        cells = (f"{middle[n]:.1f} ({low[n]:.1f} to {high[n]:.1f})" for n in range(2))
        macs = batch * arch_cost(arch).macs / 1e6
        print(f"| {name} | {batch} | {macs:,.0f} | {' | '.join(cells)} | {middle[0] / middle[1]:.2f} |", flush=True)


def measured(arch: Arch, batch: int, threads: Sequence[int], seconds: float) -> list[list[float]]:
    """Milliseconds of steps on each number of threads, in turn."""
    network = FBNet(replace(arch, num_classes=10)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9)
    shape = (batch, 3, arch.resolution, arch.resolution)
    images = torch.rand(shape).to(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 10
    times: list[list[float]] = [[] for _ in threads]
    ends = time.perf_counter() + seconds * len(threads)
    step = 0
    while time.perf_counter() < ends or step < 6:
        for number, part in zip(threads, times, strict=True):
            torch.set_num_threads(number)
            for repeat in range(4):  # the first after a change wakes or ends threads
                began = time.perf_counter()
                optimizer.zero_grad()
                F.cross_entropy(network(images), labels).backward()
                optimizer.step()
                if repeat:
                    part.append(1000 * (time.perf_counter() - began))
        step += 1
    return times


if __name__ == "__main__":
    main()
