"""Measure which network is the most accurate for its time on this machine, and write docs/choosing.md's figures.

Published top-1 accuracies (with image size, extra data and license of the weights: the package's own records, and
`export/bench/published_baselines.py` for timm's networks) against the time of one image on ONNX Runtime in float32, on
one thread; this package's networks also in int8. Networks are timed in groups. In each group the processes of all
networks and of FBNetV3-A take turns, so that ratios to FBNetV3-A can be compared between groups.

    python benchmarks/choosing.py --prepare    # write the model files: takes long, needs no quiet machine
    python benchmarks/choosing.py              # the same where needed, then measure: run nothing else meanwhile
    python benchmarks/choosing.py --write      # only write docs/choosing.md and its picture from what was measured

It can be interrupted at any time, and continues where it was: files are kept in build/choosing, and every group that
has been measured in benchmarks/choosing.json. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fbnetv3_zoo.errors import ZooError, counted
from fbnetv3_zoo.export.bench.artifacts import BenchModel, ModelOptions, find_candidate
from fbnetv3_zoo.export.bench.hardware import machine_here
from fbnetv3_zoo.export.bench.published_baselines import RIVALS
from fbnetv3_zoo.export.bench.results import Machine, Subject
from fbnetv3_zoo.export.bench.routes import Form
from fbnetv3_zoo.export.timing.turns import Times, quartiles, ratios, times_in_turn
from fbnetv3_zoo.export.timing.worker_process import OpenRequest
from fbnetv3_zoo.report import charts
from fbnetv3_zoo.utils.atomic_write import replacing
from fbnetv3_zoo.utils.serialization import read_json, to_json
from fbnetv3_zoo.weights.licenses import allows_commercial_use
from fbnetv3_zoo.weights.registry import RECORDS

ROOT = Path(__file__).resolve().parents[1]
RECORD, FILES = ROOT / "benchmarks" / "choosing.json", ROOT / "build" / "choosing"
PAGE, PICTURE = ROOT / "docs" / "choosing.md", ROOT / "docs" / "choosing.png"
REFERENCE = "fbnetv3_a.fb_in1k"
SOFTWARE = ("onnxruntime", "torch", "timm")
"""What a measurement is not continued with other versions of."""
GROUP = 9
"""Number of files that are timed together with the reference."""
FORMS: dict[str, Form] = {"float32": "graph", "int8": "int8 graph"}


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of one image, in milliseconds, and its ratio to the reference's: lower quartile, median, upper."""

    subject: Subject
    numbers: str
    milliseconds: tuple[float, float, float]
    ratio: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Choosing:
    """What was measured so far. ``reference_ms`` are the medians of the reference, one a group."""

    machine: Machine
    rounds: int
    timings: tuple[Timing, ...] = ()
    reference_ms: tuple[float, ...] = ()

    def of(self, name: str, numbers: str) -> Timing | None:
        """The timing of the weights ``name`` in float32 or int8; None if it has not been measured."""
        return next((one for one in self.timings if (one.subject.name, one.numbers) == (name, numbers)), None)

    def milliseconds(self, timing: Timing) -> float:
        """The time of ``timing`` by its ratio, on the scale of all groups."""
        return timing.ratio[1] * statistics.median(self.reference_ms)


# ------------------------------------------------------------------------------------------------- model files


def known(only: Sequence[str]) -> list[str]:
    """The weights to compare: ours with published accuracies, and timm's. ``only``: their names, or "" for all."""
    ours = [name for name, record in RECORDS.items() if record.accuracy]
    every = [*ours, *(name for name, rival in RIVALS.items() if rival.weights)]
    if wrong := sorted(set(only) - set(every)):
        raise ZooError(f"--only {wrong[0]}: is not among {', '.join(every)}")
    return [name for name in every if not only or name in (*only, REFERENCE)]


def numbers_of(name: str) -> list[str]:
    """What is timed of a network: ours with their official weights also in int8, others in float32."""
    return ["float32", "int8"] if name.endswith(".fb_in1k") else ["float32"]


def model_of(name: str, folder: Path) -> BenchModel:
    """The network with these weights, at the size of its published accuracy."""
    if name in RIVALS:
        return BenchModel(RIVALS[name].subject, 3, folder, rival=RIVALS[name])
    side = RECORDS[name].accuracy[0].resolution
    return find_candidate(name, folder, ModelOptions(resolution=side))


def place(name: str, numbers: str) -> Path:
    return FILES / f"{name}.{numbers}.onnx"


def subject_file(name: str) -> Path:
    return FILES / f"{name}.json"


def prepare(names: Iterable[str]) -> None:
    """Write the ONNX files that are missing."""
    FILES.mkdir(parents=True, exist_ok=True)
    for name in names:
        missing = [numbers for numbers in numbers_of(name) if not place(name, numbers).exists()]
        if not missing and subject_file(name).exists():
            continue
        print(f"writing {name}: {', '.join(missing)}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            model = model_of(name, Path(folder))
            if place(name, "float32").exists():
                model.files["graph"] = place(name, "float32")
            for numbers in missing:
                data = model.file(FORMS[numbers]).read_bytes()
                with replacing(place(name, numbers)) as temporary:
                    temporary.write_bytes(data)
            with replacing(subject_file(name)) as temporary:
                temporary.write_text(to_json(model.subject), encoding="utf-8")


# ------------------------------------------------------------------------------------------------- measuring


def measure(names: Sequence[str], rounds: int, record: Path) -> Choosing:
    """Time what ``record`` lacks, group by group, and keep every group in it."""
    found = _kept(record, rounds)
    missing = [(name, numbers) for name in names for numbers in numbers_of(name)
               if (name, numbers) != (REFERENCE, "float32") and found.of(name, numbers) is None]  # fmt: skip
    for start in range(0, len(missing), GROUP):
        group = missing[start : start + GROUP]
        print(f"measuring {start + 1} to {start + len(group)} of {len(missing)}", flush=True)
        found = _with_group(found, group, rounds)
        with replacing(record) as temporary:
            temporary.write_text(to_json(found), encoding="utf-8")
    return found


def _kept(record: Path, rounds: int) -> Choosing:
    """What was measured before. Raises :class:`ZooError` if that was on another machine or with other software."""
    now = Choosing(machine_here(), rounds)
    if not record.exists():
        return now
    before = read_json(Choosing, record)
    for what in ("processor", "cores", *SOFTWARE):
        if _of_machine(before.machine, what) != _of_machine(now.machine, what):
            raise ZooError(f"{record}: was measured with another {what}; move it, or give another --record")
    if before.rounds != rounds:
        raise ZooError(f"{record}: was measured with --rounds {before.rounds}; give the same, or another --record")
    return before


def _of_machine(machine: Machine, what: str) -> object:
    return machine.versions.get(what) if what in SOFTWARE else getattr(machine, what)


def _with_group(found: Choosing, group: Sequence[tuple[str, str]], rounds: int) -> Choosing:
    keys = [(REFERENCE, "float32"), *group]
    subjects = {name: read_json(Subject, subject_file(name)) for name, _ in keys}
    requests = {
        f"{name} {numbers}": OpenRequest(
            str(place(name, numbers)), "graph", threads=1, channels=3, side=subjects[name].resolution
        )
        for name, numbers in keys
    }
    times = times_in_turn(requests, rounds)
    reference = times[f"{REFERENCE} float32"]
    timings = [_timing(subjects[name], numbers, times[f"{name} {numbers}"], reference) for name, numbers in keys]
    kept = [one for one in found.timings if one.subject.name != REFERENCE or one.numbers != "float32"]
    return replace(
        found,
        timings=(timings[0], *kept, *timings[1:]),
        reference_ms=(*found.reference_ms, round(1e3 * statistics.median(reference), 4)),
    )


def _timing(subject: Subject, numbers: str, times: Times, reference: Times) -> Timing:
    milliseconds = quartiles([1e3 * seconds for seconds in times])
    return Timing(subject, numbers, _rounded(milliseconds), _rounded(quartiles(ratios(times, reference))))


def _rounded(values: tuple[float, float, float]) -> tuple[float, float, float]:
    low, middle, high = (round(value, 4) for value in values)
    return low, middle, high


# ------------------------------------------------------------------------------------------------- fronts


@dataclass(frozen=True, slots=True)
class Point:
    """Weights in the table: their time in float32, in int8 (None: not measured), and their accuracy."""

    subject: Subject
    milliseconds: float
    ratio: tuple[float, float, float]
    int8: float | None

    @property
    def top1(self) -> float:
        assert self.subject.top1 is not None
        return self.subject.top1

    @property
    def commercial(self) -> bool:
        """Whether the license of the weights is known to allow commercial use."""
        return allows_commercial_use(self.subject.license)


FRONTS = {
    "all": ("all weights", lambda point: True),
    "1k": ("without extra data", lambda point: not point.subject.extra_data),
    "commercial": ("commercial use allowed", lambda point: point.commercial),
}
"""The fronts of the table and the picture: short name, name, and which points count."""


def points_of(found: Choosing) -> list[Point]:
    """What is known of each set of weights, the fastest first."""
    points = []
    for timing in found.timings:
        if timing.numbers == "float32" and timing.subject.top1 is not None:
            int8 = found.of(timing.subject.name, "int8")
            points.append(Point(timing.subject, found.milliseconds(timing), timing.ratio,
                                found.milliseconds(int8) if int8 else None))  # fmt: skip
    return sorted(points, key=lambda point: point.milliseconds)


def front(points: Iterable[Point]) -> list[Point]:
    """Those than which no faster one is as accurate, the fastest first (the Pareto front)."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.milliseconds, -point.top1)):
        if not best or point.top1 > best[-1].top1:
            best.append(point)
    return best


def fronts(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The front of each kind of weights."""
    return {name: front(filter(counts, points)) for name, (_, counts) in FRONTS.items()}


# ------------------------------------------------------------------------------------------------- page and picture


def tables(found: Choosing) -> str:
    """The generated part of the page, in Markdown."""
    points = points_of(found)
    on = fronts(points)
    machine = found.machine
    versions = ", ".join(f"{name} {machine.versions[name]}" for name in SOFTWARE)
    lines = [
        *textwrap.wrap(
            f"Measured on: {machine.processor}, {counted(machine.cores, 'core')} ({', '.join(machine.instructions)}); "
            f"{versions}; one image, one thread, {counted(found.rounds, 'round')}.",
            120,
        ),
        "",
        "| weights | px | top-1 % | license | ms | ratio to FBNetV3-A | int8, ms | best of |",
        "|---|---:|---:|---|---:|---:|---:|---|",
        *(_row(point, on) for point in points),
        "",
        "† distilled from a larger network, ‡ trained on more than ImageNet-1k.",
        "",
        "| of | most accurate for its time, the fastest first |",
        "|---|---|",
        *(f"| {FRONTS[name][0]} | {', '.join(map(_named, members))} |" for name, members in on.items()),
        "",
        *_against_ours(points),
    ]
    return "\n".join(lines)


def _row(point: Point, on: dict[str, list[Point]]) -> str:
    subject = point.subject
    low, ratio, high = point.ratio
    name = f"**{_named(point)}**" if subject.name in RECORDS else _named(point)
    int8 = "" if point.int8 is None else f"{point.int8:.1f}"
    best = ", ".join(name for name, members in on.items() if point in members)
    return (
        f"| {name} | {subject.resolution} | {point.top1:.2f} | {subject.license or '-'} | {point.milliseconds:.1f} "
        f"| {ratio:.2f} ({low:.2f} to {high:.2f}) | {int8} | {best} |"
    )


def _named(point: Point) -> str:
    marks = "†" * point.subject.distilled + "‡" * bool(point.subject.extra_data)
    return f"{point.subject.name.removesuffix('.fb_in1k')}{marks}"


def _against_ours(points: Sequence[Point]) -> list[str]:
    """For each FBNetV3: the fastest others that are at least as accurate, of each kind of weights."""
    lines = [
        "| weights | fastest other, at least as accurate: without extra data | time, ours to its | "
        "commercial use allowed | time, ours to its |",
        "|---|---|---:|---|---:|",
    ]
    for ours in points:
        if ours.subject.name.startswith("fbnetv3_"):
            cells = [cell for kind in ("1k", "commercial") for cell in _fastest_other(ours, points, kind)]
            lines.append(f"| {_named(ours)} | {' | '.join(cells)} |")
    return lines


def _fastest_other(ours: Point, points: Sequence[Point], kind: str) -> tuple[str, str]:
    if kind == "commercial" and not ours.commercial:
        return "-", "(not allowed)"
    counts = FRONTS[kind][1]
    rivals = [p for p in points if p.subject.rival and p.top1 >= ours.top1 and counts(p)]
    if not rivals:
        return "none", "-"
    fastest = min(rivals, key=lambda point: point.milliseconds)
    return _named(fastest), f"{ours.milliseconds / fastest.milliseconds:.2f}"


_PLACE = re.compile(r"(<!-- measured -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(page: str, found: Choosing) -> str:
    """The text of ``choosing.md`` with what was measured."""
    return _PLACE.sub(lambda match: f"{match[1]}\n{tables(found)}\n\n{match[2]}", page)


_STYLES = {"all": ("-", charts.SERIES[2]), "1k": ("--", charts.INK), "commercial": (":", charts.SECOND)}


def draw(found: Choosing, path: Path) -> Path:
    """The picture: accuracy against time, and the three fronts."""
    from matplotlib.figure import Figure

    points = points_of(found)
    on = fronts(points)
    named = {id(point): point for members in on.values() for point in members}
    named |= {id(point): point for point in points if point.subject.name.startswith("fbnetv3_")}
    with charts.style():
        figure = Figure(figsize=(9.6, 6.2))
        axes = figure.subplots()
        for name, members in on.items():
            dashes, color = _STYLES[name]
            axes.step([p.milliseconds for p in members], [p.top1 for p in members], where="post", linestyle=dashes,
                      color=color, linewidth=1.4, label=f"front: {FRONTS[name][0]}", zorder=1)  # fmt: skip
        for group, label, color, marker in (
            ([p for p in points if p.subject.rival], "timm's networks", charts.FAINT, "s"),
            ([p for p in points if not p.subject.rival and not p.commercial], "ours, official weights (CC-BY-NC)",
             charts.FIRST, "o"),
            ([p for p in points if not p.subject.rival and p.commercial], "ours, Apache-2.0 weights",
             charts.SERIES[4], "D"),
        ):  # fmt: skip
            axes.scatter([p.milliseconds for p in group], [p.top1 for p in group], s=22, color=color, marker=marker,
                         label=label, zorder=2)  # fmt: skip
        axes.set(xscale="log", xlabel="ms for one image on ONNX Runtime, float32, one thread (log scale)",
                 ylabel="published ImageNet top-1 (%)")  # fmt: skip
        ticks = [t for t in (1, 1.5, 2, 3, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200)
                 if points[0].milliseconds / 1.2 < t < points[-1].milliseconds * 1.2]  # fmt: skip
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.margins(x=0.08, y=0.06)
        axes.legend(loc="lower right")
        figure.suptitle(f"{found.machine.processor}; {found.rounds} rounds in turn; "
                        "† distilled, ‡ trained on more than ImageNet-1k", fontsize=9)  # fmt: skip
        _label(figure, axes, list(named.values()), points)
        return charts.save_picture(figure, path, dpi=130)


_SIZE = 7.0
_OFFSETS = ((-4, 3, "right"), (4, -9, "left"), (4, 3, "left"), (-4, -9, "right"), (-4, 9, "right"), (4, -16, "left"))


def _label(figure: object, axes: object, named: Sequence[Point], points: Sequence[Point]) -> None:
    """Names beside points, each where it covers least of other names and points."""
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    spots = {id(p): axes.transData.transform((p.milliseconds, p.top1)) * scale for p in points}
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in spots.values()]
    left_edge = axes.bbox.x0 * scale
    for point in named:
        text = _short(point)
        x, y = spots[id(point)]
        wide, high = 0.56 * _SIZE * len(text), _SIZE + 1
        boxes = []
        for right, up, align in _OFFSETS:
            left = x + right - (wide if align == "right" else 0)
            boxes.append(((left, y + up, left + wide, y + up + high), (right, up), align))
        inside = [one for one in boxes if one[0][0] > left_edge] or boxes
        box, offset, align = min(inside, key=lambda one: sum(_covered(one[0], other) for other in taken))
        taken.append(box)
        color = charts.FAINT if point.subject.rival else charts.FIRST
        axes.annotate(text, (point.milliseconds, point.top1), offset, textcoords="offset points", fontsize=_SIZE,
                      ha=align, color=color, weight="normal" if point.subject.rival else "bold")  # fmt: skip


def _short(point: Point) -> str:
    """Its name in the picture: ours of FBNetV3 by their letters."""
    name = _named(point)
    if not point.subject.name.startswith("fbnetv3_"):
        return name
    letter, _, tag = name.removeprefix("fbnetv3_").partition(".")
    return letter.upper() + (" (Apache-2.0)" if tag else "")


def _covered(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    wide, high = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="only write the model files")
    parser.add_argument("--write", action="store_true", help="only write the page and the picture")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--only", nargs="*", default=[], help="names of weights (default: all)")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    try:
        if options.write:
            found = read_json(Choosing, options.record)
        else:
            names = known(options.only)
            prepare(names)
            if options.prepare:
                return
            found = measure(names, options.rounds, options.record)
    except ZooError as error:
        raise SystemExit(str(error)) from None
    print(tables(found))
    draw(found, options.picture)
    if not options.only:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
