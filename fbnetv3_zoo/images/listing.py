"""Lists the image files of a folder: for training, calibration and the commands that take images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..errors import ZooError, printable
from ..utils.paths import composed
from .formats import is_image

# What systems leave beside the user's files: Synology, QNAP, macOS, Windows, Linux. Hidden files are always left out.
_DEBRIS = frozenset(
    {
        "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx", "icon\r", "temporary items",
        "network trash folder", "$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db",
        "ehthumbs_vista.db", "desktop.ini", "lost+found", "__pycache__",
    }
)  # fmt: skip


def is_debris(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by the system."""
    return name.startswith(".") or name.lower() in _DEBRIS


def images_in(folder: Path, left_out: Counter[str] | None = None) -> list[str]:
    """Sorted names of the image files in ``folder`` and its subfolders, relative to it and separated by ``/``.

    Every file named as an image counts, readable or not. Other files, except debris, are counted by extension in
    ``left_out``. Links to folders are not followed.
    """
    return sorted(_images_in(str(folder), "", Counter() if left_out is None else left_out), key=composed)


def _images_in(folder: str, prefix: str, left_out: Counter[str]) -> Iterator[str]:
    below = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_debris(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                elif is_folder_entry(entry):
                    continue
                elif is_image(entry.name):
                    yield prefix + entry.name
                else:
                    left_out[extension_of(entry.name)] += 1
    except OSError as error:
        raise unreadable(folder, error) from None
    for name in below:
        yield from _images_in(os.path.join(folder, name), f"{prefix}{name}/", left_out)


def extension_of(name: str) -> str:
    """``.txt`` for ``notes.TXT``, ``without extension`` if there is none."""
    return os.path.splitext(name)[1].lower() or "without extension"


def is_folder_entry(entry: os.DirEntry[str]) -> bool:
    """Whether ``entry`` is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a circular link
        return False


def unreadable(path: str | Path, error: OSError) -> ZooError:
    """The error for a file or folder that the system cannot read."""
    return ZooError(f"{printable(str(path))}: cannot be read ({error.strerror or error})")
