"""Packages of drawings in Iconify's form, of discs and rectangles."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

GROUPS = {
    "Round things": range(0x1F600, 0x1F616),
    "Square & flat": range(0x1F400, 0x1F415),
    "Few": range(0x2190, 0x2193),
}
COLORS = {"ours": "#f00", "theirs": "#0a0", "others": "#00f"}


def _body(group: str, color: str, meaning: int) -> str:
    size = 8 + meaning % 5
    if group == "Round things":
        return f'<circle cx="16" cy="16" r="{size}" fill="{color}"/>'
    return f'<g fill="{color}"><path d="M4 4h{2 * size}v{size}H4z"/></g>'


def write_vendor(place: Path, color: str, change: Callable[[dict[str, Any]], object] = lambda files: None) -> Path:
    """A package of drawings, changed."""
    meanings = {f"{n:x}": (f"icon-{n:x}", group) for group, numbers in GROUPS.items() for n in numbers}
    files: dict[str, Any] = {
        "icons": {
            "width": 32, "height": 32,
            "icons": {icon: {"body": _body(group, color, int(n, 16))} for n, (icon, group) in meanings.items()},
        },
        "chars": {n: icon for n, (icon, _) in meanings.items()} | {"1f600-1f3fb": "icon-1f600"},
        "metadata": {"categories": {g: [i for i, own in meanings.values() if own == g] for g in GROUPS}},
        "info": {"author": {"name": "someone"}, "license": {"spdx": "CC-BY-4.0"}, "height": 16},
        "package": {"name": "some-drawings", "version": "1.2.3"},
    }  # fmt: skip
    change(files)
    place.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (place / f"{name}.json").write_text(json.dumps(content))
    return place
