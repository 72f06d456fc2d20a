"""The files of a measurement: its figures as JSON, and pictures of latency, throughput, accuracy against latency."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from fbnetv3_zoo.errors import counted
from fbnetv3_zoo.report.charts import FAINT, FIRST, INK, PAPER, SECOND, SERIES, mixed, save_picture, style
from fbnetv3_zoo.utils.atomic_write import replacing
from fbnetv3_zoo.utils.serialization import to_json

from .results import Benchmark, Figures, Row, Subject, throughput
from .routes import Route

COLUMNS = 3
_CORNERS = ((True, True), (False, False), (False, True), (True, False))
"""Where a label may stand, the preferred one first: left of its point (else right), above it (else below)."""

_CAPTION = 130
"""Letters in a line of the caption."""

_CORNERS_OF_OTHERS = ((False, False), (False, True), (True, True), (True, False))
Box = tuple[float, float, float, float]
_LOOKS = {
    Route.EAGER: (FAINT, "x"),
    Route.COMPILED: (SERIES[5], "P"),
    Route.ONNXRUNTIME: (FIRST, "o"),
    Route.ONNXRUNTIME_INT8: (mixed(FIRST, PAPER, 0.45), "D"),
    Route.OPENVINO: (SECOND, "s"),
    Route.OPENVINO_BF16: (mixed(SECOND, PAPER, 0.35), "^"),
    Route.OPENVINO_INT8: (mixed(SECOND, PAPER, 0.65), "v"),
    Route.EXECUTORCH: (SERIES[2], "X"),
    Route.NCNN: (SERIES[3], "h"),
    Route.LITERT: (SERIES[4], "p"),
    Route.LITERT_INT8: (mixed(SERIES[4], PAPER, 0.45), "d"),
}
"""Color and marker of the lines of a route."""

_OTHER_LOOK = (INK, "*")
_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.")


FILES = ("benchmark.json", "latency.png", "throughput.png", "accuracy.png")
"""What :func:`write_benchmark` may write."""


def write_benchmark(result: Benchmark, folder: Path) -> tuple[Path, ...]:
    """Write ``benchmark.json`` and the pictures of :func:`draw_pictures` into ``folder``; returns what was written."""
    path = folder / FILES[0]
    with replacing(path) as temporary:
        temporary.write_text(to_json(result))
    return (path, *draw_pictures(result, folder))


def draw_pictures(result: Benchmark, folder: Path) -> tuple[Path, ...]:
    """Write ``latency.png``, ``throughput.png`` and, where accuracies are known, ``accuracy.png`` into ``folder``.

    Pictures that nothing was measured for are not written.
    """
    with style():
        return tuple(_drawn(result, folder))


def _drawn(result: Benchmark, folder: Path) -> Iterator[Path]:
    models = [subject.name for subject in result.subjects if not subject.rival]
    shown = [name for name in models if any(row.figures for row in result.rows if row.model == name)]
    for name, draw in (("latency", _latency), ("throughput", _throughput)):
        if shown:
            yield _panels(folder / f"{name}.png", result, shown, draw)
    if any(point.subject.top1 is not None and not point.subject.rival for point in _points(result)):
        yield _accuracy(folder / "accuracy.png", result)


def _panels(path: Path, result: Benchmark, models: Sequence[str], draw: Callable[[Any, list[Row], Any], None]) -> Path:
    """One panel a model, with a common legend below."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(models))
    lines = -(-len(models) // columns)
    bars = len({(row.route, row.threads) for row in result.rows})
    high = max(2.2 if draw is _latency else 3.2, 1.0 + 0.27 * bars)
    width = max(6.4, 5.2 * columns)
    figure = Figure(figsize=(width, high * lines + 0.8))
    handles: dict[str, Any] = {}
    titles = short_names(models)
    for n, axes in enumerate(figure.subplots(lines, columns, squeeze=False).flat):
        if n >= len(models):
            axes.set_axis_off()
            continue
        rows = [row for row in result.rows if row.model == models[n]]
        draw(axes, rows, handles)
        side = next(subject.resolution for subject in result.subjects if subject.name == models[n])
        axes.set_title(f"{titles[n]}, {side} px", fontsize=10)
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(len(handles), int(width / 1.3)),
    )
    _title(figure, result)
    return save_picture(figure, path, dpi=140)


def short_names(models: Sequence[str]) -> list[str]:
    """The names of models without the folders, but for as many as tell them apart: ``one/model.onnx``."""
    parts = [PurePath(name).parts for name in models]
    for length in range(1, max(map(len, parts), default=0)):
        names = ["/".join(words[-length:]) for words in parts]
        if len(set(names)) == len(set(models)):
            return names
    return [*models]


def _latency(axes: Any, rows: list[Row], handles: dict[str, Any]) -> None:
    """Median of the smallest batch by route, whiskers from quartile to quartile; a bar for each number of threads."""
    batch = min(row.batch for row in rows)
    routes = [route for route in Route if any(row.route is route for row in rows)]
    threads = sorted({row.threads for row in rows})
    thick = 0.8 / len(threads)
    for n, number in enumerate(threads):
        measured = [
            (row.route, row.figures) for row in rows if (row.threads, row.batch) == (number, batch) and row.figures
        ]
        positions = [routes.index(route) + thick * (n - (len(threads) - 1) / 2) for route, _ in measured]
        middle = [figures.p50_ms for _, figures in measured]
        whiskers = [[abs(f.p50_ms - f.quartiles_ms[side]) for _, f in measured] for side in (0, 1)]
        bars = axes.barh(
            positions, middle, thick * 0.92, xerr=whiskers, color=SERIES[n % len(SERIES)],
            error_kw={"elinewidth": 1.1, "capsize": 2.5, "ecolor": INK},
        )  # fmt: skip
        handles.setdefault(counted(number, "thread"), bars)
        for position, (_, figures) in zip(positions, measured, strict=True):
            text = f"{figures.p50_ms:.0f}" if figures.p50_ms >= 100 else f"{figures.p50_ms:.3g}"
            spot = (figures.quartiles_ms[1], position)
            axes.annotate(text, spot, (5, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_yticks(range(len(routes)), [route.value for route in routes], fontsize=8)
    axes.set_ylim(len(routes) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"ms for a batch of {batch} (median, quartiles)", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(visible=False, axis="y")


def _throughput(axes: Any, rows: list[Row], handles: dict[str, Any]) -> None:
    """Images a second over the batch: a line for each route, dashed by the number of threads."""
    batches, threads = sorted({row.batch for row in rows}), sorted({row.threads for row in rows})
    for route in Route:
        color, marker = _LOOKS.get(route, _OTHER_LOOK)
        for n, number in enumerate(threads):
            measured = [row for row in rows if (row.route, row.threads) == (route, number) and row.figures]
            if not measured:
                continue
            line = sorted((row.batch, throughput(row)) for row in measured)
            axes.plot(
                *zip(*line, strict=True), color=color, marker=marker, markersize=4.5,
                linewidth=1.4, linestyle=_DASHES[n % len(_DASHES)], markerfacecolor="white" if n else None,
            )  # fmt: skip
            handles.setdefault(route.value, _legend_line(color, marker, "-"))
    for n, number in enumerate(threads):
        handles.setdefault(counted(number, "thread"), _legend_line(INK, "o", _DASHES[n % len(_DASHES)], n > 0))
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches], fontsize=8)
    axes.minorticks_off()
    axes.margins(x=0.08)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("batch", fontsize=8)
    axes.set_ylabel("images a second", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)


def _legend_line(color: str, marker: str, style: Any, hollow: bool = False) -> Any:
    from matplotlib.lines import Line2D

    face = "white" if hollow else color
    return Line2D(
        [], [], color=color, marker=marker, markersize=4.5, linewidth=1.4, linestyle=style, markerfacecolor=face
    )


@dataclass(frozen=True, slots=True)
class _Point:
    """A network in the picture of accuracy: its fastest row on ONNX Runtime at the smallest batch."""

    subject: Subject
    row: Row
    figures: Figures


def _points(result: Benchmark) -> list[_Point]:
    """The networks whose accuracy is known, the fastest first."""
    points = []
    for subject in result.subjects:
        rows = [r for r in result.rows if (r.model, r.route) == (subject.name, Route.ONNXRUNTIME) and r.figures]
        if subject.top1 is not None and rows:
            batch = min(row.batch for row in rows)
            best = min((r for r in rows if r.batch == batch), key=lambda r: r.figures.p50_ms if r.figures else 0.0)
            assert best.figures is not None
            points.append(_Point(subject, best, best.figures))
    return sorted(points, key=lambda point: point.figures.p50_ms)


def _accuracy(path: Path, result: Benchmark) -> Path:
    """Published top-1 over latency: a line through each family, ours in color, those of others in gray."""
    from matplotlib.figure import Figure

    points = _points(result)
    figure = Figure(figsize=(7.6, 5.8))
    axes = figure.subplots()
    labels = []
    ours = _families([point for point in points if not point.subject.rival])
    for n, (family, members) in enumerate(ours.items()):
        color = SERIES[n % len(SERIES)]
        _line(axes, members, family, color=color, style="-", marker="o")
        labels += [
            _Label(point, _mark(point, point.subject.name.partition(".")[0].rpartition("_")[2].upper()), 8, color)
            for point in members
        ]
    for members in _families([point for point in points if point.subject.rival]).values():
        _line(axes, members, "", color=FAINT, style=":", marker="s")
        labels += [_Label(point, _mark(point, point.subject.name), 7, FAINT) for point in members]
    axes.set_xscale("log")
    _plain_ticks(axes, [point.figures.p50_ms for point in points])
    axes.margins(x=0.16, y=0.1)
    batch, threads = points[0].row.batch, sorted({point.row.threads for point in points})
    used = " or ".join(counted(number, "thread") for number in threads)
    axes.set_xlabel(f"ms for a batch of {batch} on ONNX Runtime, float32, {used} (median, quartiles; log scale)")
    axes.set_ylabel("published ImageNet top-1 (%)")
    axes.legend(loc="lower right")
    _title(figure, result)
    figure.supxlabel("\n".join(caption(result)), fontsize=7, x=0.01, ha="left")
    _put(figure, axes, labels)
    return save_picture(figure, path, dpi=140)


def _mark(point: _Point, name: str) -> str:
    """``name`` with a sign for weights that saw more than ImageNet's labels."""
    return name + "†" * point.subject.distilled + "‡" * bool(point.subject.extra_data)


def caption(result: Benchmark) -> list[str]:
    """What the picture of accuracy compares: whose figures, of which weights; signs and licenses where there are."""
    points = _points(result)
    subjects = [point.subject for point in points]
    lines = ["Time: measured here, each network at the image size of its accuracy, training branches merged."]
    for rival, whose in ((False, "color"), (True, "gray")):
        sources = dict.fromkeys(one.source.rpartition(": ")[2] for one in subjects if one.rival is rival)
        if sources:
            lines += textwrap.wrap(f"Top-1, {whose}: {'; '.join(sources)}.", _CAPTION)
    signs = {
        "†": ("distilled", any(one.distilled for one in subjects)),
        "‡": ("trained on more than ImageNet-1k", any(one.extra_data for one in subjects)),
    }
    if used := [f"{sign} {meaning}" for sign, (meaning, there) in signs.items() if there]:
        lines.append(f"{', '.join(used)}; all others: on ImageNet-1k alone, or not stated.")
    families = {**_families([p for p in points if not p.subject.rival]), "gray": [p for p in points if p.subject.rival]}
    licenses = {family: sorted({p.subject.license for p in members} - {""}) for family, members in families.items()}
    if named := [f"{family}: {', '.join(names)}" for family, names in licenses.items() if names]:
        lines += textwrap.wrap(f"License of the weights: {'; '.join(named)}.", _CAPTION)
    return lines


def _families(points: Sequence[_Point]) -> dict[str, list[_Point]]:
    """``points`` by what their names have before the last underline, and by the weights named; least accurate first."""
    families: dict[str, list[_Point]] = {}
    for point in sorted(points, key=lambda point: point.subject.top1 or 0.0):
        name, dot, weights = point.subject.name.partition(".")
        families.setdefault((name.rpartition("_")[0] or name) + dot + weights, []).append(point)
    return families


def _line(axes: Any, members: list[_Point], label: str, *, color: str, style: str, marker: str) -> None:
    whiskers = [[abs(p.figures.p50_ms - p.figures.quartiles_ms[side]) for p in members] for side in (0, 1)]
    axes.errorbar(
        [point.figures.p50_ms for point in members], [point.subject.top1 for point in members], xerr=whiskers,
        color=color, linestyle=style, marker=marker, markersize=5, linewidth=1.5, elinewidth=0.9, capsize=2,
        label=label or None,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Label:
    """The name beside a point, in points (1/72 inch)."""

    point: _Point
    text: str
    size: float
    color: str


def _put(figure: Any, axes: Any, labels: Sequence[_Label]) -> None:
    """Write the labels, each on the side of its point where it covers the least of other labels and points."""
    figure.draw_without_rendering()  # settles where the axes lie
    scale = 72 / figure.dpi
    spots = [axes.transData.transform((one.point.figures.p50_ms, one.point.subject.top1)) * scale for one in labels]
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in spots]
    edge = axes.bbox.x0 * scale, axes.bbox.x1 * scale
    for label, (x, y) in zip(labels, spots, strict=True):
        wide, high = 0.62 * label.size * len(label.text), label.size
        boxes = []
        for left, up in _CORNERS if label.color != FAINT else _CORNERS_OF_OTHERS:
            start, base = x - 4 - wide if left else x + 4, y + 3 if up else y - 3 - high
            boxes.append(((start, base, start + wide, base + high), (start - x, base - y)))
        inside = [pair for pair in boxes if edge[0] < pair[0][0] and pair[0][2] < edge[1]] or boxes
        box, offset = min(inside, key=lambda pair: sum(_covered(pair[0], other) for other in taken))
        taken.append(box)
        axes.annotate(
            label.text, (label.point.figures.p50_ms, label.point.subject.top1), offset, textcoords="offset points",
            fontsize=label.size, color=label.color, weight="normal" if label.color == FAINT else "bold",
        )  # fmt: skip


def _covered(one: Box, other: Box) -> float:
    """The area that both boxes have."""
    wide, high = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def _plain_ticks(axes: Any, values: Sequence[float]) -> None:
    """Numbers such as 5, 10, 20 on a logarithmic axis, not powers of ten."""
    from matplotlib.ticker import FixedLocator, NullLocator

    steps = [factor * 10.0**power for power in range(-3, 6) for factor in (1, 1.5, 2, 3, 4, 5, 7)]
    ticks = [step for step in steps if min(values) / 1.5 <= step <= max(values) * 1.5]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _title(figure: Any, result: Benchmark) -> None:
    machine = result.machine
    figure.suptitle(
        f"{machine.processor}, {counted(machine.cores, 'core')}; {result.rounds} rounds in turn", fontsize=9
    )
