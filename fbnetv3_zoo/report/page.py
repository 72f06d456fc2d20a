"""The parts of an HTML page: one file, no script, nothing fetched, light or dark as its reader has it.

Whatever is not :class:`Html` is escaped here, so that a class or a file may have any name.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..utils.atomic_write import replacing


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Html:
    """``value`` as HTML: as it is where it is HTML already, else escaped."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def name(value: str) -> Html:
    """A name from outside, whose direction of writing stays its own."""
    return Html(f"<bdi>{text(value)}</bdi>")


def section(title: str, *parts: Html) -> Html:
    """Parts under a heading."""
    return Html(f"<section><h2>{text(title)}</h2>\n{''.join(parts)}</section>\n")


def paragraph(content: object) -> Html:
    """A line or more of running text."""
    return Html(f"<p>{text(content)}</p>\n")


def entries(lines: Iterable[object]) -> Html:
    """Lines as a list."""
    return Html(f"<ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>\n")


def facts(pairs: Mapping[str, object]) -> Html:
    """Names with their values, one a line."""
    lines = "".join(f"<div><dt>{text(key)}</dt><dd>{text(value)}</dd></div>" for key, value in pairs.items())
    return Html(f"<dl>{lines}</dl>\n")


def tiles(pairs: Iterable[tuple[str, str, str]]) -> Html:
    """The figures that matter most, large: each a label, a value, and what is to be said of it."""
    shown = "".join(
        f'<div class="tile"><span>{text(label)}</span><strong>{text(value)}</strong><span>{text(remark)}</span></div>'
        for label, value, remark in pairs
    )
    return Html(f'<div class="tiles">{shown}</div>\n')


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: Iterable[int] = ()) -> Html:
    """A table; the columns ``numbers`` (from 0) hold figures. It scrolls by itself where the window is narrow."""
    marks = [' class="number"' if n in set(numbers) else "" for n in range(len(head))]
    titles = "".join(f'<th scope="col"{mark}>{text(title)}</th>' for mark, title in zip(marks, head, strict=True))
    lines = "".join(
        f"<tr>{''.join(f'<td{mark}>{text(cell)}</td>' for mark, cell in zip(marks, row, strict=True))}</tr>\n"
        for row in rows
    )
    return Html(f'<div class="wide"><table><thead><tr>{titles}</tr></thead>\n<tbody>{lines}</tbody></table></div>\n')


def figures(drawings: Iterable[tuple[str, object, object]], *beside: Html) -> Html:
    """Drawings (SVG elements) two by two where there is room, each with a title and what it shows; then other parts."""
    shown = "".join(
        f"<figure>{drawn}<figcaption><b>{text(title)}</b> {text(caption)}</figcaption></figure>\n"
        for drawn, title, caption in drawings
    )
    return Html(f'<div class="curves two">{shown}{"".join(beside)}</div>\n')


def page(title: str, *parts: Html) -> str:
    """The whole page."""
    head = f"{_META}<title>{text(title)}</title>\n<style>{_STYLE}</style>\n"
    body = f"<main>\n<h1>{text(title)}</h1>\n{''.join(parts)}</main>"
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}</head>\n<body>{body}</body>\n</html>\n'


def write_page(path: str | Path, content: str) -> None:
    """Write ``content`` as the file ``path``, whole or not at all; names of files in it need not be Unicode."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode("utf-8", "backslashreplace"))


_META = """<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
"""

_STYLE = """
:root { --paper: #fcfcfb; --ink: #1d2125; --faint: #646b73; --line: #dfe2e5; --tile: #f3f4f4;
  --right: 38 110 190; --wrong: 214 84 46; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181b; --ink: #e4e6e8; --faint: #98a0a9; --line: #2f353b;
  --tile: #1e2327; --right: 84 155 235; --wrong: 236 112 76; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  -webkit-text-size-adjust: 100%; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { margin: 0 0 .25rem; font-size: 1.75rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 3rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); font-size: 1.2rem; }
p, ul { max-width: 44rem; margin: .5rem 0; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; }
.faint, .tile span, dt, th, figcaption { color: var(--faint); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .75rem; margin: 1.5rem 0; }
.tile { display: flex; flex-direction: column; padding: .8rem 1rem; border-radius: .5rem; background: var(--tile); }
.tile span { font-size: .85rem; }
.tile strong { font-size: 1.6rem; line-height: 1.4; font-weight: 600; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 1rem; }
.curves svg { width: 100%; height: auto; }
.wide { overflow-x: auto; margin: 1rem 0; }
h3 { margin: 1.5rem 0 .25rem; font-size: 1rem; font-weight: 600; overflow-wrap: anywhere; }
.two { grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem 2rem; }
.two > * { min-width: 0; max-width: 33rem; }
.few { grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); }
.networks { display: flex; flex-wrap: wrap; gap: 0 3rem; }
.networks > * { min-width: 0; max-width: 100%; }
.network { display: block; font-size: 11px; fill: var(--ink); }
.network text.faint { fill: var(--faint); }
.network rect { fill: rgb(var(--right) / .45); }
.network rect.wider { fill: rgb(var(--right)); }
.network line { stroke: var(--line); }
.network .cut { stroke: var(--paper); stroke-width: 4; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { font-weight: 500; text-align: left; vertical-align: bottom; }
th, td { padding: .25rem .9rem .25rem 0; }
tbody tr { border-top: 1px solid var(--line); }
td { vertical-align: top; max-width: 26rem; overflow-wrap: break-word; }
.number { text-align: right; white-space: nowrap; }
.bar { display: block; width: 10rem; height: .7rem; margin-top: .4rem; background: var(--tile); }
.bar rect { fill: rgb(var(--right) / .4); }
.bar .alone { fill: rgb(var(--right)); }
.bar line { stroke: rgb(var(--right)); stroke-width: 2; vector-effect: non-scaling-stroke; }
.confusion th, .confusion td { padding: 0; border: 1px solid var(--paper); }
.confusion td { min-width: 2.2rem; height: 2rem; text-align: center; vertical-align: middle;
  background: rgb(var(--wrong) / calc(var(--share, 0) * .75)); }
.confusion td.right { background: rgb(var(--right) / calc(var(--share, 0) * .6)); }
.confusion thead th { padding: .3rem 0; writing-mode: vertical-rl; transform: rotate(180deg); vertical-align: middle; }
.confusion th bdi { display: block; max-inline-size: 11rem; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; }
.confusion tbody th { padding-right: .6rem; text-align: right; vertical-align: middle; }
.confusion tbody tr { border: 0; }
.confusion.upright thead th { writing-mode: horizontal-tb; transform: none; text-align: center; }
.confusion.dense td { min-width: .85rem; height: .85rem; }
.confusion.dense th { font-size: .7rem; line-height: 1; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: 1.25rem .9rem; }
figure { margin: 0; min-width: 0; }
figure img, .missing { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--tile); }
.missing { display: grid; place-items: center; color: var(--faint); font-size: .85rem; }
.small { image-rendering: pixelated; }
figcaption { margin-top: .35rem; font-size: .8rem; line-height: 1.4; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 600; }
dl { margin: .5rem 0; font-size: .9rem; }
dl div { display: grid; grid-template-columns: 11rem 1fr; gap: 1rem; padding: .25rem 0;
  border-top: 1px solid var(--line); }
dl div:first-child { border-top: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 34rem) { main { padding-top: 1.25rem; } dl div { grid-template-columns: 8rem 1fr; }
  table { font-size: .78rem; } th, td { padding-right: .5rem; } td { overflow-wrap: anywhere; }
  :not(.confusion) > tbody td:first-child { min-width: 6rem; }
  .confusion th bdi { max-inline-size: 6rem; }
  .confusion td { min-width: 1.6rem; height: 1.6rem; }
  .bar { width: 5rem; }
  .pictures { grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)); } }
@media print { section, figure, tr, .network { break-inside: avoid-page; } h2, h3 { break-after: avoid-page; }
  section:has(.networks, .few) { break-inside: auto; } .wide { overflow: visible; }
  table { font-size: .75rem; } th, td { padding-right: .5rem; } .bar { width: 7rem; }
  .two { grid-template-columns: 1fr 1fr; } .few { grid-template-columns: 1fr 1fr 1fr; }
  .network { max-width: 100%; height: auto; } }
"""
