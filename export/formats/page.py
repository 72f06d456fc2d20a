"""The page of an export: what was written, how it compares, how long it takes here, and what was not possible."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fbnetv3_zoo.errors import counted
from fbnetv3_zoo.report import page
from fbnetv3_zoo.report.charts import FAINT, FIRST, INK, SERIES, chart
from fbnetv3_zoo.utils.tables import size_text

from .results import ExportedFile, FormatsReport

_WHISKERS = {"elinewidth": 1, "capsize": 2, "ecolor": INK}
_BAR = 0.8
"""Height of the bars of one file, of 1."""


def write_page(report: FormatsReport, path: Path) -> None:
    """Write the page of ``report``: one file, nothing fetched. The same report gives the same bytes."""
    threads = report.threads
    page.write_page(
        path, __package__, "export.html.jinja", title=f"{report.network} in {counted(len(report.exports), 'format')}",
        report=report, tiles=_tiles(report), notes=_notes(report), head=_head(threads),
        rows=[_row(one, threads) for one in report.exports], numbers=tuple(range(2, 5 + 2 * len(threads))),
        charts=[_times_chart(report, threads)] if threads else [],
        unavailable=[(one.format, one.device, one.reason) for one in report.unavailable], facts=_facts(report),
    )  # fmt: skip


def same_text(one: ExportedFile) -> str:
    """On how many images the top class is the same."""
    return f"{one.same_class} of {one.images}"


def _head(threads: Sequence[int]) -> list[str]:
    times = [title for number in threads for title in (f"ms, {counted(number, 'thread')}", "to model.onnx")]
    return ["file", "for", "size", "largest difference", "same class", *times, "remarks"]


def _row(one: ExportedFile, threads: Sequence[int]) -> list[object]:
    link = f"{one.file}/index.html" if one.format == "web" else one.file
    cells: list[object] = [Markup('<a href="{}">{}</a>').format(link, one.file), one.device, size_text(one.size),
                           f"{one.difference:.1e}", same_text(one)]  # fmt: skip
    for number in threads:
        timing = one.timing(number)
        if timing is None:
            cells += ["", ""]
            continue
        low, high = timing.ratio_quartiles
        cells += [f"{timing.milliseconds:.2f}", f"{timing.ratio:.2f} ({low:.2f} to {high:.2f})"]
    untimed = f"not timed here: {one.untimed}" if one.untimed and threads else ""
    return [*cells, "; ".join(filter(None, (one.note, untimed)))]


def _tiles(report: FormatsReport) -> list[tuple[str, str, str]]:
    exact = [one for one in report.exports if not one.int8]
    smallest = min(report.exports, key=lambda one: one.size)
    tiles = [
        ("Written", f"{len(report.exports)}", f"of {len(report.exports) + len(report.unavailable)} formats"),
        ("Smallest", size_text(smallest.size), smallest.file),
    ]
    if exact:
        same = sum(one.same_class == one.images for one in exact)
        tiles.append(("Same class as PyTorch", f"{same} of {len(exact)}", "files in floats, on all images"))
    for number in report.threads:
        timed = [(t.milliseconds, one.file) for one in report.exports for t in one.times if t.threads == number]
        best, file = min(timed)
        tiles.append(("Fastest here", f"{best:.2f} ms", f"{file}, {counted(number, 'thread')}"))
    return tiles


def _notes(report: FormatsReport) -> list[str]:
    notes = [f"{line}." for line in report.slow_int8]
    if report.random:
        notes.append("The weights are random: times and differences are those of any weights, classes mean nothing.")
    if not report.held_out and any(one.int8 for one in report.exports):
        notes.append("int8 was compared on the images that it was calibrated with, which makes it look better.")
    return [*notes, *(f"Warning: {line}." for line in report.warnings)]


def _facts(report: FormatsReport) -> dict[str, str]:
    machine = report.machine
    images = counted(report.compared_on, "image")
    kind = "others than those of the calibration" if report.held_out else "those of the calibration"
    facts = {
        "Network": f"{report.network}, {report.resolution} pixels",
        "Compared on": f"{images}, {kind}, with PyTorch in float32. Difference: the largest of a logit, relative to "
        "the largest logit",
        "int8": f"calibrated with {counted(report.calibrated_on, 'image')}",
        "Machine": f"{machine.processor}, {counted(machine.cores, 'core')}; {', '.join(machine.instructions)}",
        "Software": ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
    }
    if report.rounds:
        facts["Times"] = (
            f"one image, {counted(report.rounds, 'round')}; each file in a process of its own, in turn. Medians; "
            "ratios round by round, with quartiles"
        )
    return facts


def _times_chart(report: FormatsReport, threads: Sequence[int]) -> tuple[Markup, str, str]:
    timed = [one for one in report.exports if one.times]
    size = (6.4, 0.9 + 0.3 * len(timed) * max(1.0, 0.75 * len(threads)))
    title = "Milliseconds for one image"
    return chart(title, _draw_times, timed, threads, size=size), title, "Medians, with quartiles; lighter: in int8."


def _draw_times(axes: Any, timed: Sequence[ExportedFile], threads: Sequence[int]) -> None:
    from matplotlib.patches import Patch

    thick = _BAR / len(threads)
    for n, number in enumerate(threads):
        for place, one in enumerate(timed):
            timing = one.timing(number)
            if timing is None:
                continue
            at = place + thick * (n - (len(threads) - 1) / 2)
            middle, (low, high) = timing.milliseconds, timing.quartiles
            axes.barh(at, middle, thick * 0.9, xerr=[[middle - low], [high - middle]], color=_color(n),
                      alpha=0.55 if one.int8 else 1, error_kw=_WHISKERS)  # fmt: skip
            axes.annotate(f"{middle:.3g}", (high, at), (5, 0), textcoords="offset points", va="center", fontsize=7,
                          color=FAINT)  # fmt: skip
    axes.set_yticks(range(len(timed)), [one.file for one in timed])
    axes.set_ylim(len(timed) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.margins(x=0.12)
    axes.set_xlabel("ms")
    axes.grid(visible=False, axis="y")
    if len(threads) > 1:
        patches = [Patch(color=_color(n), label=counted(number, "thread")) for n, number in enumerate(threads)]
        axes.legend(handles=patches, ncols=len(threads), loc="lower left", bbox_to_anchor=(0, 1))


def _color(number: int) -> str:
    return FIRST if number == 0 else SERIES[number % len(SERIES)]
