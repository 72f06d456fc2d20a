"""Font files: those that matplotlib ships, and changed copies of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fontTools.ttLib import TTFont
from matplotlib import get_data_path

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of the shipped fonts' dates
SHIPPED = Path(get_data_path(), "fonts", "ttf")


def changed(name: str, place: Path, change: Callable[[Any], object] = lambda font: None, **names: str) -> Path:
    """A copy of the shipped font ``name`` at ``place``, changed, with other entries of its name table."""
    font = TTFont(SHIPPED / name)
    for number, text in names.items():
        for platform in ((1, 0, 0), (3, 1, 0x409)):
            font["name"].setName(text, int(number.removeprefix("n")), *platform)
    change(font)
    place.parent.mkdir(parents=True, exist_ok=True)
    font.save(place)
    return place


def mapped(characters: dict[str, str | None]) -> Callable[[Any], object]:
    """A change that draws each of ``characters`` as another one; None removes it."""

    def change(font: Any) -> None:
        for table in font["cmap"].tables:
            old = dict(table.cmap)
            for character, other in characters.items():
                if other is None:
                    table.cmap.pop(ord(character), None)
                elif ord(other) in old:
                    table.cmap[ord(character)] = old[ord(other)]

    return change
