"""Draw ``docs/architecture.svg``: the parts of the package and which of them import which (``make architecture``).

A part is a folder of a room with all its contents, or a file beside the core's folders; the files beside the folders of
another room are one part. An arrow points from a part to one that it imports; arrows that follow from others are left
out, inside a room and between rooms. With ``--check`` nothing is written, and the exit status is 1 if the drawing
is out of date.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).parents[1]
DRAWING = Path(__file__).with_suffix(".svg")
FOLDERS = {"fbnetv3_zoo": ROOT / "fbnetv3_zoo", **{name: ROOT / name for name in ("search", "detection", "export")}}
ROWS = (("cli",), ("search", "detection", "export"), ("core",))


WIDTH, HEIGHT = 124, 30  # of a part
GAP, RISE = 20, 38  # between parts, and between rows
MARGIN = 24
THREAD = 12  # width left for an arrow that passes a row


def _modules() -> dict[str, Path]:
    """Every file by its module's name, and every public name of a room by the file that its stub takes it from."""
    modules: dict[str, Path] = {}
    public: dict[str, str] = {}
    for room, folder in FOLDERS.items():
        package = "fbnetv3_zoo" if room == "fbnetv3_zoo" else f"fbnetv3_zoo.{room}"
        for path in folder.rglob("*.py"):
            names = [name for name in path.relative_to(folder).with_suffix("").parts if name != "__init__"]
            if names:
                modules[".".join([package, *names])] = path
        for node in ast.parse((folder / "__init__.pyi").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                public |= {f"{package}.{alias.name}": f"{package}.{node.module}" for alias in node.names}
    return modules | {name: modules[home] for name, home in public.items() if home in modules}


def part_of(path: Path) -> str:
    """The room and the part that the file at ``path`` belongs to, such as ``search/space``."""
    room, *inside = path.relative_to(ROOT).parts
    if room == "fbnetv3_zoo":
        command_line = inside[0] in ("cli", "__main__.py")
        return "cli/cli" if command_line else f"core/{inside[0].removesuffix('.py')}"
    return f"{room}/{inside[0]}" if len(inside) > 1 else f"{room}/*.py"


def _imported(module: str, path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """The modules of this package that ``module`` imports, wherever in its code."""
    package = module.split(".")[: None if path.name == "__init__.py" else -1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else base for name in names if name in modules or base in modules)


def read_parts() -> nx.DiGraph:
    """A graph with an edge from each part to those that it imports."""
    modules = _modules()
    graph = nx.DiGraph()
    for module, path in sorted(modules.items()):
        graph.add_node(part_of(path))
        imported = {part_of(modules[name]) for name in _imported(module, path, modules)}
        graph.add_edges_from((part_of(path), part) for part in imported - {part_of(path)})
    return graph


def reduced(graph: nx.DiGraph) -> nx.DiGraph:
    """``graph`` without the edges that follow from others; parts that import each other keep both of theirs."""
    whole = nx.condensation(graph)
    smaller = nx.transitive_reduction(whole)
    result = nx.DiGraph()
    result.add_nodes_from(sorted(graph))
    for start, end in sorted(graph.edges):
        one, other = whole.graph["mapping"][start], whole.graph["mapping"][end]
        if one == other or smaller.has_edge(one, other):
            result.add_edge(start, end)
    return result


@dataclass
class Group:
    """The rows of a room from bottom to top, and its arrows.

    An arrow is a chain of what it leads past: where it passes a row, a thread stands for it there. ``x`` and ``y`` are
    the centers of parts and threads, ``left`` and ``top`` the room's corner.
    """

    rows: list[list[str]]
    chains: list[list[str]] = field(default_factory=list)
    x: dict[str, float] = field(default_factory=dict)
    y: dict[str, float] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0
    left: float = 0.0
    top: float = 0.0

    @property
    def head(self) -> tuple[float, float]:
        """The middle of the upper edge."""
        return self.left + self.width / 2, self.top

    @property
    def foot(self) -> tuple[float, float]:
        """The middle of the lower edge."""
        return self.left + self.width / 2, self.top + self.height

    def move(self, left: float, top: float) -> None:
        """Put the upper left corner there."""
        self.left, self.top = left, top
        self.x = {node: x + left for node, x in self.x.items()}
        self.y = {node: y + top for node, y in self.y.items()}


def _rows(graph: nx.DiGraph) -> list[list[str]]:
    """The parts in rows, each one above the highest that it imports."""
    whole = nx.condensation(graph)
    level: dict[int, int] = {}
    for component in reversed(list(nx.topological_sort(whole))):
        level[component] = max((level[other] + 1 for other in whole.successors(component)), default=0)
    rows: list[list[str]] = [[] for _ in range(max(level.values()) + 1)]
    for node in sorted(graph):
        rows[level[whole.graph["mapping"][node]]].append(node)
    return rows


def lay_out(graph: nx.DiGraph, gates: Sequence[str], entering: nx.DiGraph) -> Group:
    """The room of the parts in ``graph``; edges of ``entering`` come in from ``gates`` at its top."""
    edges = reduced(graph).edges
    group = Group(_rows(graph))
    if gates:
        group.rows.append(list(gates))
    row_of = {node: number for number, row in enumerate(group.rows) for node in row}
    for start, end in sorted([*edges, *entering.edges]):
        threads = [f"{start}>{end}>{number}" for number in range(row_of[start] - 1, row_of[end], -1)]
        for number, thread in zip(range(row_of[start] - 1, row_of[end], -1), threads, strict=True):
            group.rows[number].append(thread)
        group.chains.append([start, *threads, end])
    _place(group, gates)
    left = min(x - _width(node) / 2 for node, x in group.x.items()) - MARGIN
    group.x = {node: x - left for node, x in group.x.items()}
    group.width = max(x + _width(node) / 2 for node, x in group.x.items()) + MARGIN
    group.height = len(group.rows) * (HEIGHT + RISE) + MARGIN - (HEIGHT if gates else 0)
    for number, row in enumerate(group.rows):
        group.y |= dict.fromkeys(row, group.height - MARGIN - HEIGHT / 2 - number * (HEIGHT + RISE))
    group.y |= dict.fromkeys(gates, 0.0)
    return group


def _width(node: str) -> float:
    return THREAD if ">" in node or "/" not in node else WIDTH


def _place(group: Group, gates: Sequence[str]) -> None:
    """Few crossings: each row is sorted by the mean place of its neighbors, up and down in turn; gates keep theirs."""
    near: dict[str, list[str]] = {node: [] for row in group.rows for node in row}
    for chain in group.chains:
        for one, other in pairwise(chain):
            near[one].append(other)
            near[other].append(one)
    for row in group.rows:
        group.x |= {node: number * (WIDTH + GAP) for number, node in enumerate(row)}
    for turn in range(40):
        for row in group.rows if turn % 2 else group.rows[::-1]:
            around = {node: [group.x[other] for other in near[node]] or [group.x[node]] for node in row}
            wish = {node: sum(values) / len(values) for node, values in around.items()}
            if not set(row) & set(gates):
                row.sort(key=lambda node: (wish[node], node))
            x = float("-inf")
            for node in row:
                group.x[node] = max(wish[node], x + _width(node) / 2)
                x = group.x[node] + _width(node) / 2 + GAP
            shift = sum(wish[node] - group.x[node] for node in row) / len(row)
            group.x |= {node: group.x[node] + shift for node in row}


def _gates(graph: nx.DiGraph) -> nx.DiGraph:
    """Edges between rooms, and from rooms to parts of the core, without those that follow from others."""
    folded = nx.DiGraph()
    for ends in graph.edges:
        start, end = (part if part.startswith("core/") else part.split("/")[0] for part in ends)
        if start != end:
            folded.add_edge(start, end)
    smaller = reduced(folded)
    return smaller.edge_subgraph([edge for edge in smaller.edges if not edge[0].startswith("core/")])


def draw(graph: nx.DiGraph) -> str:
    """The drawing as SVG."""
    gates = _gates(graph)
    into_core = gates.edge_subgraph([edge for edge in gates.edges if edge[1].startswith("core/")])
    groups: dict[str, Group] = {}
    for row in ROWS:
        for room in row:
            parts = graph.subgraph([part for part in graph if part.startswith(f"{room}/")])
            entering = into_core if room == "core" else nx.DiGraph()
            groups[room] = lay_out(parts, [name for name in groups if name in entering], entering)
    width, height = _arrange(groups)
    body = [line for room, group in groups.items() for line in _frame(room, group)]
    for start, end in sorted(gates.edges - into_core.edges):
        body.append(_arrow([groups[start].foot, groups[end].head]))
    for group in groups.values():
        for chain in group.chains:
            body.append(_chain(group, chain, [groups[chain[0]].foot] if "/" not in chain[0] else []))
        body += [line for part in sorted(group.x) if part in graph for line in _box(group, part)]
    return "\n".join([_HEAD.format(width=f"{width:.0f}", height=f"{height:.0f}"), *body, "</svg>"]) + "\n"


def _arrange(groups: Mapping[str, Group]) -> tuple[float, float]:
    """Move the rooms to where they are drawn, in rows. Returns the size of the whole."""
    widths = [sum(groups[room].width for room in row) + 2 * GAP * (len(row) - 1) for row in ROWS]
    total, y = max(widths) + 2 * MARGIN, float(MARGIN)
    for row, width in zip(ROWS, widths, strict=True):
        x, tallest = (total - width) / 2, max(groups[room].height for room in row)
        for room in row:
            groups[room].move(x, y + tallest - groups[room].height)
            x += groups[room].width + 2 * GAP
        y += tallest + 1.5 * RISE
    return total, y - 1.5 * RISE + MARGIN


_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"
 font-family="Helvetica, Arial, sans-serif" text-anchor="middle">
<title>Parts of fbnetv3-zoo. An arrow points to what is imported; those that follow from others are left out.</title>
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto-start-reverse">
<path d="M0 0L8 4L0 8z" fill="#456"/></marker></defs>
<rect width="100%" height="100%" fill="#fff"/>"""
_TITLES = {"core": "fbnetv3_zoo/", "cli": "fbnetv3_zoo/"}


def _frame(room: str, group: Group) -> Iterator[str]:
    yield (
        f'<rect x="{group.left:.0f}" y="{group.top:.0f}" width="{group.width:.0f}" height="{group.height:.0f}" rx="10" '
        'fill="#f1f5f9" stroke="#9ab"/>'
    )
    yield (
        f'<text x="{group.left + 12:.0f}" y="{group.top + 20:.0f}" text-anchor="start" font-size="15" fill="#456">'
        f"{_TITLES.get(room, f'{room}/')}</text>"
    )


def _box(group: Group, part: str) -> Iterator[str]:
    x, y = group.x[part], group.y[part]
    yield (
        f'<rect x="{x - WIDTH / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#fff" '
        'stroke="#456"/>'
    )
    yield f'<text x="{x:.0f}" y="{y + 5:.0f}" font-size="14">{part.split("/")[1]}</text>'


def _chain(group: Group, chain: Sequence[str], before: list[tuple[float, float]]) -> str:
    """The arrow along ``chain``, which comes from ``before`` where it begins at a gate."""
    points = [(group.x[node], group.y[node]) for node in chain]
    (x, y), (end_x, end_y) = points[0], points[-1]
    if y == end_y:  # parts that import each other: one arrow with two heads
        side = WIDTH / 2 if x < end_x else -WIDTH / 2
        return _arrow([(x + side, y), (end_x - side, y)])
    first = [*before, (x, y)] if before else [(x, y + HEIGHT / 2)]
    threads = [(x, y + side) for x, y in points[1:-1] for side in (-HEIGHT / 2, HEIGHT / 2)]
    return _arrow([*first, *threads, (end_x, end_y - HEIGHT / 2)])


def _arrow(points: Sequence[tuple[float, float]]) -> str:
    path = "M{:.0f} {:.0f}".format(*points[0])
    for (x, y), (to_x, to_y) in pairwise(points):
        middle = (y + to_y) / 2
        path += f"C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}"
    return f'<path d="{path}" fill="none" stroke="#456" stroke-width="1.2" marker-end="url(#tip)"/>'


def main() -> int:
    """Write the drawing, or with ``--check`` compare it."""
    drawing = draw(read_parts())
    if "--check" not in sys.argv:
        DRAWING.write_text(drawing, encoding="utf-8")
        return 0
    if DRAWING.exists() and DRAWING.read_text(encoding="utf-8") == drawing:
        return 0
    print(f"{DRAWING.relative_to(ROOT)} is out of date; run `make architecture`")
    return 1


if __name__ == "__main__":
    sys.exit(main())
