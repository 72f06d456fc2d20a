"""The folder of a web page: written whole or not at all, and known from other folders by its ``model.json``."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fbnetv3_zoo.errors import ZooError

FORMAT, VERSION = "fbnetv3_zoo.web", 1
CARD = "model.json"
"""The file that says what a page shows."""


def read_card(folder: Path) -> dict[str, Any]:
    """What ``model.json`` in ``folder`` says. Raises :class:`ZooError` where ``folder`` is not a page of ours."""
    if not folder.is_dir():
        raise ZooError(f"{folder}: {'is a file' if folder.exists() else 'no such folder'}; {_REMEDY}")
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        card = None
    if not isinstance(card, dict) or card.get("format") != FORMAT or not isinstance(card.get("files"), list):
        raise ZooError(f"{folder}: holds no page; {_REMEDY}")
    if card.get("format_version") != VERSION:
        raise ZooError(f"{folder}: holds a page of another release; write it again with `fbnetv3 export web`")
    return card


_REMEDY = "write one with `fbnetv3 export web MODEL --out FOLDER`"


def check_free(folder: Path) -> None:
    """Raise :class:`ZooError` unless ``folder`` is absent, empty, or holds a page of ours and nothing besides."""
    try:
        present = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
    except OSError as error:
        raise ZooError(f"{folder}: cannot be read ({error.strerror})") from None
    if not folder.is_dir():
        raise ZooError(f"{folder}: is a file; give a folder")
    try:
        own = set(read_card(folder)["files"])
    except ZooError:
        raise ZooError(f"{folder}: holds something else than a page of this command; give another folder") from None
    if others := [name for name in present if name not in own]:
        raise ZooError(f"{folder}: holds {others[0]}, which is not of the page; move it, or give another folder")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder``, moved into its place when the block ends well, and removed otherwise.

    An older page is moved aside first and removed after. What a killed process left beside ``folder`` is removed when
    the next one begins. Raises :class:`ZooError` where nothing can be written (no permission, full disk).
    """
    check_free(folder)
    folder = folder.resolve()
    new = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.partial"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _marked(new):
            _sweep(folder)
            new.mkdir()
            try:
                yield new
                _flush(new)
                check_free(folder)
                _move(new, folder)
            finally:
                shutil.rmtree(new, ignore_errors=True)
    except OSError as error:
        raise ZooError(f"{folder}: cannot be written ({error.strerror or error})") from None


def _move(new: Path, folder: Path) -> None:
    old = new.with_suffix(".old.partial")
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _marked(new: Path) -> Iterator[None]:
    """Hold a lock beside ``new`` that tells others that its writer is alive."""
    from filelock import FileLock

    lock = FileLock(_lock_path(new))
    with lock:
        try:
            yield
        finally:
            _lock_path(new).unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what killed writers of ``folder`` left: temporary folders whose lock nobody holds."""
    from filelock import FileLock, Timeout

    # Locks, too, may be left alone: their writer was killed before it made its folder, or after it moved it.
    left = {path.name.removesuffix(".lock") for path in folder.parent.iterdir() if _is_left(path.name, folder.name)}
    for name in left:
        path = folder.parent / name
        owner = path.with_name(name.replace(".old.partial", ".partial"))
        with suppress(Timeout), FileLock(_lock_path(owner), timeout=0):
            shutil.rmtree(path, ignore_errors=True)
            _lock_path(owner).unlink(missing_ok=True)


def _is_left(name: str, target: str) -> bool:
    begins = name.startswith(f".{target}.") and name.removesuffix(".lock").endswith(".partial")
    return begins and len(name.removeprefix(f".{target}.").split(".")[0]) == 8


def _lock_path(new: Path) -> Path:
    return new.with_name(f"{new.name}.lock")


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
