"""How well a round of 48 candidates fills 64 GPUs, with one GPU or several for each candidate: a simulation.

Nothing is trained. The candidates are drawn from the pool of the plan ``paper``, as its first round draws them. A
candidate takes as long as its exact MACs say, times a factor that the search does not know (log-normal, as recipes
and machines differ). Candidates are handed out as executors do, in the order that the search chooses
(``fbnetv3_zoo.search.executors.scheduling``). Two assumptions are printed with the table: the efficiency of several
GPUs, which is not measured here, and the spread of that factor.

    python benchmarks/utilization.py
    python benchmarks/utilization.py --efficiency 0.8
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt
from scipy import stats

from fbnetv3_zoo.search import PLANS
from fbnetv3_zoo.search.executors.scheduling import longest_first, makespan
from fbnetv3_zoo.search.parts import Search
from fbnetv3_zoo.utils.tables import table

PLAN = PLANS["paper"]
GROUPS = (1, 2, 4, 8)
UNIT = 600e6
"""MACs of a candidate whose duration on one GPU is 1: the middle of the plan's 400 to 800 million."""
Doubles = npt.NDArray[np.float64]


def simulate(macs: Doubles, factors: Doubles, gpus: int, each: int, efficiency: float, *, ordered: bool) -> Doubles:
    """Duration of a round in units of a middling candidate's on one GPU; shares of GPUs held, and of useful work."""
    work = macs * factors / UNIT
    durations = work / (each * efficiency if each > 1 else 1.0)
    order = longest_first(macs) if ordered else range(len(macs))
    lasted = makespan([float(durations[n]) for n in order], gpus // each)
    whole = lasted * gpus
    return np.array([lasted, durations.sum() * each / whole, work.sum() / whole])


def interval(values: Doubles, unit: float = 1.0, digits: int = 2) -> str:
    """Mean and 95 % interval of the mean."""
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return f"{values.mean() * unit:.{digits}f} ± {half * unit:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--efficiency", type=float, default=0.9, help="of a group of GPUs, against as many single ones")
    parser.add_argument("--spread", type=float, default=0.1, help="standard deviation of the logarithm of the factor")
    parser.add_argument("--seeds", type=int, default=200)
    options = parser.parse_args()
    pool = Search(PLAN).pool().costs["macs"]
    rows: dict[tuple[int, bool], list[Doubles]] = {(each, ordered): [] for each in GROUPS for ordered in (False, True)}
    for seed in range(options.seeds):
        rng = np.random.default_rng(seed)
        macs = rng.choice(pool, PLAN.rounds.batch, replace=False)
        factors = np.exp(rng.normal(0, options.spread, len(macs)))
        for (each, ordered), results in rows.items():
            results.append(simulate(macs, factors, options.gpus, each, options.efficiency, ordered=ordered))
    found = {key: np.array(results) for key, results in rows.items()}
    base = found[1, False][:, 0]
    print(
        f"{PLAN.rounds.batch} candidates of plan {PLAN.name} on {options.gpus} GPUs, {options.seeds} seeds; assumed: "
        f"several GPUs are {options.efficiency:.0%} as efficient as single ones, spread {options.spread:g}"
    )
    head = ("GPUs each", "order", "duration of the round", "against the first row", "GPUs held, %", "useful, %")
    lines = [
        (
            str(each), "most MACs first" if ordered else "as drawn", interval(one[:, 0]), interval(one[:, 0] / base),
            interval(one[:, 1], 100, 1), interval(one[:, 2], 100, 1),
        )
        for (each, ordered), one in found.items()
    ]  # fmt: skip
    print(table([head, *lines]))


if __name__ == "__main__":
    main()
