"""Time the exact cost of 20,000 networks counted at once, and compare it with other ways to count.

First the paper's search space, from encoded points to MACs, parameters and peak activation, on one thread: the time;
whether all are those that ``cost.py`` gives for the networks built one by one; and against fvcore, which needs the
module built and run. fvcore has no rule for global average pools, so their elements are added to its count. Then the
published networks at many scales, at once and one by one. Needs the extra ``bench``.

    python benchmarks/pool_cost.py
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import numpy as np
import torch

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.arch.cost import Table, arch_cost, pool_cost, tabulate
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.search.space import PAPER, Codes, NetworkCosts
from fbnetv3_zoo.zoo import ARCHS

NETWORKS, SHOWN = 20_000, 2_000


def points(seed: int = 0) -> Codes:
    """Points of the paper's space, as its first stage samples them."""
    return PAPER.sample(NETWORKS, np.random.default_rng(seed))


def arch_of(code: Codes) -> Arch:
    arch = PAPER.candidate(code).arch
    assert arch is not None
    return arch


def spread(times: list[float], unit: float, name: str, digits: int = 2) -> str:
    low, median, high = (f"{value * unit:.{digits}f}" for value in (min(times), statistics.median(times), max(times)))
    return f"{median} {name} (from {low} to {high})"


def wrong(codes: Codes) -> int:
    """How many of these networks do not cost what ``cost.py`` says of them when built."""
    model, differ = NetworkCosts(PAPER), 0
    for start in range(0, len(codes), SHOWN):
        part = codes[start : start + SHOWN]
        costs, built = model(part), pool_cost(tabulate([arch_of(code) for code in part]))
        same = [costs[name] == getattr(built, name) for name in model.names]
        differ += int((~np.logical_and.reduce(same)).sum())
    return differ


def pooled(table: Table) -> list[int]:
    """Elements that enter a global average pool, one number a network."""
    c, sizes = table.columns, pool_cost(table).sizes
    before = np.concatenate([table.resolution[:, None], sizes[:, :-1]], axis=1)
    inside = (c["se"] > 0) * c["mid"] * sizes**2 + c["pools"] * c["mid"] * before**2
    found: list[int] = (inside.sum(1) + table.features * sizes[:, -1] ** 2).tolist()
    return found


def by_fvcore(code: Codes) -> tuple[int, int]:
    """MACs without pools, and parameters, of a network built and counted."""
    from fvcore.nn import FlopCountAnalysis, parameter_count

    arch = arch_of(code)
    model, images = FBNet(arch).eval(), torch.zeros(1, 3, arch.resolution, arch.resolution)
    counts = FlopCountAnalysis(model, images).unsupported_ops_warnings(False).by_operator()
    return counts["conv"] + counts["linear"], parameter_count(model)[""]


def against_fvcore(codes: Codes, rounds: int) -> None:
    """``rounds`` networks; each is followed by the pool, so that both meet the same machine."""
    model, whole = NetworkCosts(PAPER), points()
    extra, times, ratios = pooled(PAPER.tabulate(codes[:rounds])), [], []
    by_fvcore(codes[0])
    for n, code in enumerate(codes[:rounds]):
        started = time.perf_counter()
        macs, parameters = by_fvcore(code)
        times.append(time.perf_counter() - started)
        started = time.perf_counter()
        model(whole)
        ratios.append(times[-1] / ((time.perf_counter() - started) / NETWORKS))
        cost = model(code[None])
        assert (macs + extra[n], parameters) == (cost["macs"][0], cost["parameters"][0]), n
    print(f"fvcore: {rounds} networks counted alike; building and counting one takes {spread(times, 1e3, 'ms', 0)}")
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"ratio to our time for one network of the pool: {middle:,.0f} (quartiles {low:,.0f} to {high:,.0f})")


def whole_space(rounds: int, counted: int) -> None:
    codes, model, times = points(), NetworkCosts(PAPER), []
    for _ in range(rounds):
        started = time.perf_counter()
        model(codes)
        times.append(time.perf_counter() - started)
    print(f"{NETWORKS:,} points of the paper's space: {spread(times, 1, 's')}")
    print(f"of these, {wrong(codes):,} cost something else when built one by one and counted by cost.py")
    against_fvcore(codes, counted)


def published() -> None:
    archs = networks()
    table, times = tabulate(archs), []
    for _ in range(7):
        started = time.perf_counter()
        pool = pool_cost(table)
        times.append(time.perf_counter() - started)
    sample = archs[:200]
    started = time.perf_counter()
    singles = [arch_cost(arch).macs for arch in sample]
    alone = (time.perf_counter() - started) / len(sample)
    assert singles == list(pool.macs[: len(sample)])
    print(f"{NETWORKS:,} published networks at many scales, tabulated before: {spread(times, 1, 's')}")
    print(f"one by one: {alone * 1e3:.2f} ms each, {alone * NETWORKS:.1f} s for all")


def networks() -> list[Arch]:
    """The FBNetV3 networks at many widths, depths and resolutions, repeated up to the number wanted."""
    bases = [arch for name, arch in ARCHS.items() if name.startswith("fbnetv3_") and name != "fbnetv3_20g"]
    made = [
        base.scaled(width=width / 20, depth=depth / 10, resolution=side / 10)
        for base in bases for width in (16, 18, 20, 22, 25) for depth in (8, 10, 12) for side in (10, 11, 12)
    ]  # fmt: skip
    return (made * (NETWORKS // len(made) + 1))[:NETWORKS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--fvcore", type=int, default=50, help="networks to count with fvcore")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)  # at the import of fvcore
    whole_space(given.rounds, given.fvcore)
    published()


if __name__ == "__main__":
    main()
