"""What a measurement found, as values: rows of figures, and what they were measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from fbnetv3_zoo.errors import ZooError, check_number, counted
from fbnetv3_zoo.utils.serialization import read_json

from .routes import Route

NOISY = 0.15
"""Spread of the baseline, quartile to quartile over the median, from which a machine was too busy to measure."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured on. ``instructions`` are the sets that matter here, ``memory`` counts bytes (None: unknown)."""

    processor: str
    instructions: tuple[str, ...]
    cores: int
    memory: int | None
    system: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Peak:
    """The best speed of a float32 matrix product on so many threads, in 10^9 operations a second.

    An addition and a multiplication are two operations.
    """

    threads: int
    gflops: float


@dataclass(frozen=True, slots=True)
class Subject:
    """A network that was measured, at ``resolution`` pixels.

    ``macs`` counts multiply-accumulates of one image (None: not known). ``top1`` is the published ImageNet accuracy in
    percent of the network of that name at that resolution, None where there is none; ``rival`` marks networks of
    others, ``source`` says who published. Of the weights that were so accurate, ``license`` is theirs, ``distilled``
    says that they learned from a larger network, ``extra_data`` what they saw besides ImageNet-1k.
    """

    name: str
    resolution: int
    macs: int | None = None
    top1: float | None = None
    rival: bool = False
    source: str = ""
    license: str = field(default="", metadata={"key": "licence"})
    distilled: bool = False
    extra_data: str = ""

    @property
    def published(self) -> str:
        """What was published, in a sentence; "" where nothing was."""
        if self.top1 is None:
            return ""
        data = f"ImageNet-1k and {self.extra_data}" if self.extra_data else "ImageNet-1k"
        trained = f"{data}, distilled" if self.distilled else data
        license = f"; license of these weights: {self.license}" if self.license else ""
        return f"published top-1 {self.top1:.2f} % ({trained}; {self.source}{license})"


@dataclass(frozen=True, slots=True)
class Figures:
    """What the times of one row come to: milliseconds of one batch, and what follows.

    ``ratio`` is the median over the rounds of this route's time over the baseline's in the same round (None: none
    in common). ``peak_share`` is the part of :class:`Peak` that was reached, counting two operations a
    multiply-accumulate; None where macs are unknown or the route does not compute in float32.
    """

    p50_ms: float
    p90_ms: float
    minimum_ms: float
    quartiles_ms: tuple[float, float]
    images_per_second: float
    ratio: float | None = None
    ratio_quartiles: tuple[float, float] | None = None
    peak_share: float | None = None

    def __post_init__(self) -> None:
        for name in ("p50_ms", "p90_ms", "minimum_ms", "images_per_second"):
            check_number(f"Figures.{name}", getattr(self, name), above=0)

    @property
    def spread(self) -> float:
        """Upper less lower quartile, over the median."""
        return (self.quartiles_ms[1] - self.quartiles_ms[0]) / self.p50_ms


@dataclass(frozen=True, slots=True)
class Row:
    """A model on a route with so many threads, at one batch.

    ``times_ms`` are the timed calls, round by round; ``first_ms`` is the very first call at this batch, in which
    runtimes plan, and compilers compile. ``memory`` is the most that the process had resident until then, in bytes.
    ``problem`` says why times are missing, from some round on or all ("": none are).
    """

    model: str
    route: Route
    threads: int
    batch: int
    times_ms: tuple[float, ...] = ()
    figures: Figures | None = None
    first_ms: float | None = None
    memory: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LoadCost:
    """What it took to have a model ready on a route, imports included; ``file_size`` in bytes."""

    FORMAT: ClassVar[str] = "loaded"

    model: str
    route: Route
    threads: int
    seconds: float
    file_size: int


@dataclass(frozen=True, slots=True)
class UnavailableRoute:
    """A route that a model could not be measured on here, and why."""

    FORMAT: ClassVar[str] = "absent"

    model: str
    route: Route
    reason: str


@dataclass(frozen=True, slots=True)
class OperatorKind:
    """All operators of one kind in one call: number and time. ``how`` is the runtime's word for the code that ran."""

    kind: str
    how: str
    count: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Operators:
    """Where the time of one call goes, the longest first. Measuring it makes the call slower."""

    model: str
    route: Route
    threads: int
    batch: int
    kinds: tuple[OperatorKind, ...]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A whole measurement. ``interrupted`` says that it was ended before all was measured."""

    machine: Machine
    baseline: Route
    rounds: int
    subjects: tuple[Subject, ...]
    rows: tuple[Row, ...] = ()
    peaks: tuple[Peak, ...] = ()
    loaded: tuple[LoadCost, ...] = ()
    absent: tuple[UnavailableRoute, ...] = ()
    operators: tuple[Operators, ...] = ()
    warnings: tuple[str, ...] = ()
    interrupted: bool = field(default=False)

    @classmethod
    def read(cls, path: Path) -> Benchmark:
        """The measurement in a file that :func:`fbnetv3_zoo.utils.serialization.to_json` filled."""
        return read_json(cls, path)

    def best(self, model: str, route: Route) -> Row | None:
        """The row with the highest throughput; None where there is none."""
        rows = [row for row in self.rows if (row.model, row.route) == (model, route) and row.figures]
        return max(rows, key=throughput, default=None)


def throughput(row: Row) -> float:
    """Images a second; 0 for a row without figures."""
    return row.figures.images_per_second if row.figures else 0.0


def figures_of(
    times_ms: Sequence[float], *, batch: int, baseline_ms: Sequence[float] = (), macs: int | None = None,
    gflops: float | None = None,
) -> Figures | None:  # fmt: skip
    """The figures of ``times_ms``, one a round; None where there are none.

    Args:
        times_ms: milliseconds of one batch, by round.
        batch: images in it.
        baseline_ms: the baseline's, from the same first round on; ratios are taken over the rounds that both have.
        macs: multiply-accumulates of one image, for the share of the peak; None: no share.
        gflops: the peak, in 10^9 operations a second.
    """
    if not times_ms:
        return None
    low, p50, high, p90 = (float(value) for value in np.quantile(times_ms, (0.25, 0.5, 0.75, 0.9)))
    ratio, ratio_quartiles = None, None
    if common := min(len(times_ms), len(baseline_ms)):
        ratios = np.asarray(times_ms[:common]) / np.asarray(baseline_ms[:common])
        below, ratio, above = (float(value) for value in np.quantile(ratios, (0.25, 0.5, 0.75)))
        ratio_quartiles = (below, above)
    share = None if macs is None or not gflops else 2 * macs * batch / (p50 * 1e-3) / (gflops * 1e9)
    return Figures(p50, p90, min(times_ms), (low, high), batch / p50 * 1e3, ratio, ratio_quartiles, share)


def noise(rows: Sequence[Row], baseline: Route) -> tuple[str, ...]:
    """A warning where the quartiles of some of the baseline's rows lie too far apart."""
    spreads = [(row.figures.spread, row) for row in rows if row.route is baseline and row.figures]
    noisy = [spread for spread, _ in spreads if spread > NOISY]
    if not noisy:
        return ()
    most, row = max(spreads, key=lambda pair: pair[0])
    measurement = f"{row.model}, {counted(row.threads, 'thread')}, batch {row.batch}"
    return (
        f"the machine was busy: quartiles of {baseline.value} lie over {100 * NOISY:.0f} % of the median apart in "
        f"{len(noisy)} of {counted(len(spreads), 'row')}, most ({100 * most:.0f} %) for {measurement}; measure again",
    )


def check_measured(found: Benchmark) -> Benchmark:
    """``found``; raises where no route could be measured at all."""
    if found.rows or found.interrupted:
        return found
    reasons = "; ".join(f"{absent.route.value}: {absent.reason}" for absent in found.absent)
    raise ZooError(f"nothing could be measured ({reasons})")
