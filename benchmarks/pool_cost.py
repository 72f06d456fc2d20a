"""Time the exact cost of 20,000 networks counted at once, against counting them one by one.

python benchmarks/pool_cost.py
"""

from __future__ import annotations

import statistics
import time

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.cost import cost_of, pool_cost, tabulate
from fbnetv3_zoo.zoo import ARCHS

NETWORKS = 20_000


def networks() -> list[Arch]:
    """The FBNetV3 networks at many widths, depths and resolutions, repeated up to the number wanted."""
    bases = [arch for name, arch in ARCHS.items() if name.startswith("fbnetv3_") and name != "fbnetv3_20g"]
    made = [
        base.scaled(width=width / 20, depth=depth / 10, resolution=side / 10)
        for base in bases for width in (16, 18, 20, 22, 25) for depth in (8, 10, 12) for side in (10, 11, 12)
    ]  # fmt: skip
    return (made * (NETWORKS // len(made) + 1))[:NETWORKS]


def main() -> None:
    archs = networks()
    table = tabulate(archs)
    times = []
    for _ in range(7):
        started = time.perf_counter()
        pool = pool_cost(table)
        times.append(time.perf_counter() - started)
    sample = archs[:200]
    started = time.perf_counter()
    singles = [cost_of(arch).macs for arch in sample]
    alone = (time.perf_counter() - started) / len(sample)
    assert singles == list(pool.macs[: len(sample)])
    print(
        f"{NETWORKS:,} networks at once: {statistics.median(times):.2f} s (from {min(times):.2f} to {max(times):.2f})"
    )
    print(f"one by one: {alone * 1e3:.2f} ms each, {alone * NETWORKS:.1f} s for all")


if __name__ == "__main__":
    main()
