"""Spaces by name or file, those of the joint search and those of supernets alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ZooError, nearest
from ...utils.paths import read_file
from ..output import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fbnetv3_zoo.search.space import Dimension, Space
    from fbnetv3_zoo.search.supernet.space import LayerSpace


def find_any_space(source: str) -> Space | LayerSpace:
    """The space of that name, or of a JSON file that holds either kind."""
    from fbnetv3_zoo.search.space import SPACES, find_space
    from fbnetv3_zoo.search.supernet.presets import LAYER_SPACES, find_layer_space

    names = [*SPACES, *LAYER_SPACES]
    if source not in names and not source.endswith(".json"):
        raise ZooError(
            f"unknown space {source!r}{nearest(source, names)}; shipped are {', '.join(names)}, others are JSON files"
        )
    if source in LAYER_SPACES or (source not in SPACES and _holds_layers(Path(source))):
        return find_layer_space(source)
    return find_space(source)


def _holds_layers(path: Path) -> bool:
    """Whether a file says that it is the space of a supernet; whatever else is wrong with it is said later."""
    return b'"fbnetv3_zoo.layer_space"' in read_file(path, "a JSON file of a space")


def print_dimensions(dimensions: Sequence[Dimension]) -> None:
    """What there is to choose, a line a dimension."""
    width = 2 + max((len(d.name) for d in dimensions), default=0)
    for dimension in dimensions:
        say(f"{dimension.name:{width}}{', '.join(map(str, dimension.options.values))}")


def whether_inside(space: LayerSpace, source: str) -> str:
    """A line that says whether the network ``source`` is one of ``space``, or what lies outside."""
    from ...zoo import find_arch

    arch = find_arch(source)
    try:
        code = space.code(arch)
    except ZooError as error:
        return str(error)
    return f"{source} is a network of space {space.name}: {', '.join(map(str, space.values(code).values()))}"
