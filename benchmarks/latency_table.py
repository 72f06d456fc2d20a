"""Compare latencies from a look-up table of blocks with those of whole networks, on ONNX Runtime on this machine.

Networks of the paper's space, those nearest in MACs to FBNetV3-A to E, are measured whole, and estimated in three ways:
from their MACs alone; as the sum of their blocks, each measured alone, run after run; and as the sum of their blocks
as ``fbnetv3 search lut`` measures them, many in turn and without what a block alone pays for entering and leaving.
``error`` is the mean absolute relative error, ``scaled`` that after scaling by the ratio found on the other networks.
Two networks are also written by ``export_onnx`` and timed beside the graphs that are used here.

    python benchmarks/latency_table.py --each 5
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from fbnetv3_zoo import create
from fbnetv3_zoo.arch import Activation, Arch
from fbnetv3_zoo.arch.cost import arch_cost, pool_cost, tabulate
from fbnetv3_zoo.arch.latency import distinct_blocks, network_blocks
from fbnetv3_zoo.export import export_onnx
from fbnetv3_zoo.export.onnx.block_graphs import block_graph, network_graph
from fbnetv3_zoo.export.onnx.latency import Doubles, Timer, compare, conditions_here, measure_blocks
from fbnetv3_zoo.search.space import PAPER, NetworkCosts
from fbnetv3_zoo.zoo import ARCHS

SWISH = Activation.HARD_SWISH
NAMES = [f"fbnetv3_{letter}" for letter in "abcde"]


def networks(each: int, seed: int) -> list[Arch]:
    """For each of A to E, so many of 20,000 networks of the space, the nearest in MACs."""
    codes = PAPER.sample(20_000, np.random.default_rng(seed))
    macs, found = NetworkCosts(PAPER)(codes)["macs"], []
    for name in NAMES:
        near = np.argsort(np.abs(macs - arch_cost(ARCHS[name]).macs))[:each]
        found += [PAPER.candidate(codes[n], f"{name}_like_{i}").arch for i, n in enumerate(near)]
    return [arch for arch in found if arch is not None]


def alone(archs: list[Arch], timer: Timer) -> Doubles:
    """Sums of blocks that are measured one at a time."""
    table = tabulate(archs)
    cost = {key: timer([block_graph(key, SWISH)])[0] for key in distinct_blocks(table)}
    return np.array([sum(cost[key] for key in keys) for keys in network_blocks(table)])


def show(label: str, sums: Doubles, whole: Doubles, *, unit: bool = True) -> None:
    check = compare(sums, whole)
    plain = f"{check.error:.1%} | {check.bias:+.1%}" if unit else "- | -"
    print(f"| {label} | {plain} | {check.scaled_error:.1%} | {check.kendall:.2f} |", flush=True)


def show_networks(archs: list[Arch], estimates: Doubles, whole: Doubles, each: int) -> None:
    print("\n| networks like | MMACs | whole (ms) | table, plain sum (ms) | error |")
    print("|---|---:|---:|---:|---:|")
    macs = pool_cost(tabulate(archs)).macs / 1e6
    for n, name in enumerate(NAMES):
        part = slice(n * each, (n + 1) * each)
        error = estimates[part] / whole[part] - 1
        means = f"{macs[part].mean():.0f} | {whole[part].mean():.1f} | {estimates[part].mean():.1f}"
        print(f"| {name} | {means} | {error.min():+.1%} to {error.max():+.1%} |")


def against_export(archs: list[Arch], timer: Timer, pairs: int = 7) -> None:
    """How long exported networks take beside graphs written directly."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for arch in archs:
            report = export_onnx(create(arch).eval(), Path(folder) / f"{arch.name}.onnx", batch_sizes=[1])
            exported = onnx.load(report.path)
            exported.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
            direct = network_graph(network_blocks(tabulate([arch]))[0], SWISH)
            ratios += [times[0] / times[1] for times in (timer([direct, exported]) for _ in range(pairs))]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"\nGraphs used here against exported files: ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=5, help="networks for each of A to E")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    archs = networks(given.each, given.seed)  # five times as many
    pool, timer = tabulate(archs), Timer(given.threads, given.rounds)
    blocks = distinct_blocks(pool)
    print(f"{conditions_here(threads=given.threads)}; {len(archs)} networks, {len(blocks)} blocks\n")
    whole = timer([network_graph(keys, SWISH) for keys in network_blocks(pool)])
    table = measure_blocks(blocks, SWISH, threads=given.threads, rounds=given.rounds)
    print("| latency from | error | bias | scaled | Kendall |")
    print("|---|---:|---:|---:|---:|")
    macs = pool_cost(pool).macs
    show("MACs", macs * float(np.median(whole / macs)), whole, unit=False)
    show("blocks measured alone", alone(archs, timer), whole)
    show("the look-up table", replace(table, scale=1.0)(pool), whole)
    show_networks(archs, table(pool), whole, given.each)
    against_export(archs[:: len(archs) - 1], timer)


if __name__ == "__main__":
    main()
