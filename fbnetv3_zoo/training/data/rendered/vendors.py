"""Vendors' drawings of emoji, as vector graphics in the JSON form of Iconify's packages.

A folder has ``icons.json`` (bodies of SVG by name), ``chars.json`` (names by the characters' code points),
``metadata.json`` (names by group), and optionally ``info.json`` and ``package.json`` (author, license, version).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....errors import ZooError, printable
from ....utils.paths import exists, is_folder, read_file
from ....utils.serialization import parse_json

LARGEST_FILE = 1 << 27
_VARIATION = "fe0f"  # asks for a picture instead of a character
_SKIN = range(0x1F3FB, 0x1F400)
_MEANING = re.compile(r"[0-9a-f]{1,6}(-[0-9a-f]{1,6}){0,15}")


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawing: its group, the body of its SVG, and the width and height of the drawn area."""

    group: str
    body: str
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Vendor:
    """The drawings of a vendor by meaning (code points such as ``1f600``), with its origin for the provenance."""

    name: str
    drawings: Mapping[str, Drawing]
    origin: Mapping[str, Any]


def read_vendor(name: str, folder: str | Path) -> Vendor:
    """The drawings in ``folder``, without those that differ in the color of skin only.

    Raises :class:`ZooError`, which names the file, if one is missing, damaged or of another form.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise ZooError(f"{printable(str(folder))}: no such folder; give that of an unpacked package of drawings")
    digest = hashlib.sha256()
    icons, names, metadata = (_read(folder / f"{part}.json", digest) for part in ("icons", "chars", "metadata"))
    bodies = _object(icons.get("icons"), folder / "icons.json", "icons")
    groups = _groups(_object(metadata.get("categories"), folder / "metadata.json", "categories"))
    drawings = {}
    for meaning, icon in sorted(names.items()):
        parts = [part for part in meaning.split("-") if part != _VARIATION]
        if not _MEANING.fullmatch(meaning) or any(int(part, 16) in _SKIN for part in parts):
            continue
        if isinstance(icon, str) and icon in groups and isinstance(body := bodies.get(icon), dict):
            sizes = (body.get(side, icons.get(side, 16)) for side in ("width", "height"))
            drawings["-".join(parts)] = Drawing(groups[icon], str(body.get("body")), *map(_size, sizes))
    return Vendor(name, drawings, {"vendor": name, **_origin(folder), "sha256": digest.hexdigest()})


def _read(path: Path, digest: Any) -> dict[str, Any]:
    data = read_file(path, "a JSON file of drawings", at_most=LARGEST_FILE)
    digest.update(hashlib.sha256(data).digest())
    return _object(parse_json(data, str(path)), path, "object")


def _object(value: Any, path: Path, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ZooError(f"{path}: has no {what}; give the folder of a package of drawings in Iconify's form")
    return value


def _groups(categories: Mapping[str, Any]) -> dict[str, str]:
    """The group of every name, without punctuation ("Food & Drink", "Food Drink")."""
    groups: dict[str, str] = {}
    for category, names in categories.items():
        if isinstance(names, list):
            words = " ".join(re.findall(r"\w+", category))
            groups |= {name: words for name in names if isinstance(name, str)}
    return groups


def _size(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and 0 < value <= 1e4 else 16.0


def _origin(folder: Path) -> dict[str, Any]:
    """Name, version, author and license, as far as the package says so."""
    origin: dict[str, Any] = {}
    for name, keys in (("package", ("name", "version")), ("info", ("author", "license"))):
        if exists(path := folder / f"{name}.json"):
            found = parse_json(read_file(path, "a JSON file"), str(path))
            if isinstance(found, dict):
                origin |= {key: found[key] for key in keys if key in found}
    return origin
