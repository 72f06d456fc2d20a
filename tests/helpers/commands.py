"""All commands of the command line, walked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def commands(command: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, (*names, name))
    if not hasattr(command, "commands"):
        yield names, command


def needed_value(parameter: Any) -> str:
    """A value for what has to be given besides; it is not looked at first, or is refused. ``{folder}``: the test's."""
    return "fbnetv3_a" if parameter.name in ("model", "models", "weights") else "{folder}/there.json"
