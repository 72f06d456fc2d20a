"""The folder of a web page, written as a whole or not at all, and identified by its ``model.json``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.utils.atomic_write import replacing_folder, settled
from fbnetv3_zoo.utils.paths import exists, is_folder, read_file
from fbnetv3_zoo.utils.serialization import parse_json

FORMAT, VERSION = "fbnetv3_zoo.web", 1
CARD = "model.json"
"""The file that describes a page."""


def read_card(folder: Path) -> dict[str, Any]:
    """The contents of ``model.json`` in ``folder``. Raises :class:`ZooError` if ``folder`` is not a page of ours."""
    if not is_folder(folder):
        raise ZooError(f"{folder}: {'is a file' if exists(folder) else 'no such folder'}; {_REMEDY}")
    try:
        card = parse_json(read_file(folder / CARD, "a page's card"), CARD)
    except ZooError:
        card = None
    files = card.get("files") if isinstance(card, dict) and card.get("format") == FORMAT else None
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise ZooError(f"{folder}: has no page; {_REMEDY}")
    if card.get("format_version") != VERSION:
        raise ZooError(f"{folder}: has a page of another release; write it again with `fbnetv3 export web`")
    return dict(card)


_REMEDY = "write one with `fbnetv3 export web MODEL --out FOLDER`"


def check_free(folder: Path) -> None:
    """Raise :class:`ZooError` unless ``folder`` is missing, empty, or has a page of ours and nothing else."""
    settled(folder)
    try:
        present = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
        if not exists(folder) or (is_folder(folder) and not any(folder.iterdir())):
            return
    except OSError as error:
        raise ZooError(f"{folder}: cannot be read ({error.strerror})") from None
    if not is_folder(folder):
        raise ZooError(f"{folder}: is a file; give a folder")
    try:
        own = set(read_card(folder)["files"])
    except ZooError:
        raise ZooError(f"{folder}: has other files than a page of this command; give another folder") from None
    if others := [name for name in present if name not in own]:
        raise ZooError(f"{folder}: has {others[0]}, which is not part of the page; move it, or give another folder")


@contextmanager
def replacing_page(folder: Path) -> Iterator[Path]:
    """A temporary folder for a page, which replaces ``folder`` if the block succeeds.

    Raises :class:`ZooError` if ``folder`` has anything else, or cannot be written.
    """
    check_free(folder)
    folder = folder.resolve()
    with replacing_folder(folder) as new:
        yield new
        check_free(folder)
