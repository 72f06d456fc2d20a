"""What a folder holds: class folders and images, or a run; and warnings about what is left out of a dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import ZooError, first_few, printable
from ...images import is_image
from ...images.listing import is_debris, is_folder_entry, unreadable
from ...utils.log import LOG
from ...utils.paths import composed


def warn(text: str) -> None:
    """Log a warning, in only one of the processes started by ``torchrun``."""
    if os.environ.get("RANK", "0") == "0":
        LOG.warning("%s", text)


def warn_left_out(root: str | Path, extensions: Mapping[str, int], *, loose: int = 0) -> None:
    """Log which files in ``root`` were left out: those with other extensions, and images outside class folders."""
    if loose:
        warn(f"{printable(str(root))}: images outside class folders left out: {loose:,}")
    if extensions:
        counts = [f"{count:,} {printable(extension)}" for extension, count in sorted(extensions.items())]
        warn(f"{printable(str(root))}: files left out, of kinds that are not read: {first_few(counts)}")


def folders_in(root: Path) -> list[str]:
    """Sorted names of the folders in ``root``, without debris and links to ``root`` or its parents.

    Raises :class:`ZooError` for a broken link, which may be a class on a missing disk.
    """
    try:
        with os.scandir(root) as entries:
            visible = [entry for entry in entries if not is_debris(entry.name)]
            folders = [entry.name for entry in visible if _is_own_folder(entry, root)]
    except OSError as error:
        raise unreadable(root, error) from None
    broken = [e.name for e in visible if e.is_symlink() and not is_image(e.name) and not os.path.exists(e.path)]
    if broken:
        raise ZooError(f"{printable(str(root))}: has broken links: {first_few(sorted(broken))}; repair or remove them")
    return sorted(folders, key=composed)


@dataclass(frozen=True, slots=True)
class FolderContents:
    """The folders directly in a folder, and the number of images directly in it."""

    folders: tuple[str, ...]
    images: int


def look_into(folder: Path) -> FolderContents:
    """The direct contents of ``folder``."""
    folders = tuple(folders_in(folder))
    try:
        with os.scandir(folder) as entries:
            images = sum(is_image(e.name) and not is_debris(e.name) and not is_folder_entry(e) for e in entries)
    except OSError as error:
        raise unreadable(folder, error) from None
    return FolderContents(folders, images)


def is_run(folder: str | Path, *, deep: int = 2) -> bool:
    """Whether ``folder`` was written by a command of ours, or has only such folders in it."""
    if any(all(os.path.lexists(os.path.join(folder, name)) for name in names) for names in _RUN_FILES):
        return True
    has_runs = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_debris(entry.name):
                    continue
                if not deep or not is_folder_entry(entry) or not is_run(entry.path, deep=deep - 1):
                    return False
                has_runs = True
    except OSError:
        return False
    return has_runs


_RUN_FILES = (("checkpoints", "metrics.jsonl"), ("model.safetensors", "metrics.jsonl"), ("checkpoints", ".lock"),
              ("checkpoints", ".fbnetv3-zoo.lock"), ("journal.sqlite",))  # fmt: skip
"""Sets of files that identify the folder of a run, a search or a supernet search."""


def _is_own_folder(entry: os.DirEntry[str], root: Path) -> bool:
    """Whether ``entry`` of ``root`` is a folder, but not a link to ``root`` or its parents."""
    if not is_folder_entry(entry):
        return False
    return not entry.is_symlink() or Path(entry.path).resolve() not in (root.resolve(), *root.resolve().parents)
