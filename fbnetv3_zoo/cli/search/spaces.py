"""Finding and printing the spaces of joint searches and of supernets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ZooError, nearest
from ...utils.paths import read_file

if TYPE_CHECKING:
    from fbnetv3_zoo.search.space import SearchSpace


def find_any_space(source: str) -> SearchSpace:
    """The space of that name, or of a JSON file that holds either kind."""
    from fbnetv3_zoo.search.space import SPACES, find_space
    from fbnetv3_zoo.search.supernet import LAYER_SPACES, find_layer_space

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
