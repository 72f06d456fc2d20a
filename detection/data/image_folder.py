"""The image files of a dataset with untrusted names, confined to one folder."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path, PureWindowsPath

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.utils.paths import is_file


class ImageFolder:
    """Turns the file names of annotations into paths.

    A name is relative and stays inside ``folder``, even by ``..`` and links: downloaded annotations must not choose
    which files of this machine are read and shown. The folder itself may be a link. With ``follow_links``, links inside
    the folder may lead elsewhere.
    """

    def __init__(self, folder: str | Path, *, follow_links: bool = False) -> None:
        self.folder, self._follow_links = Path(folder), follow_links
        self._root = os.path.realpath(self.folder)
        self._within = lru_cache(maxsize=4096)(self._is_within)

    def leads_outside(self, name: str) -> bool:
        """Whether ``name`` is absolute or its file lies elsewhere."""
        path = Path(name)
        if path.is_absolute() or PureWindowsPath(name).is_absolute():
            return True
        climbs, path = ".." in path.parts, self.folder / path
        if self._follow_links and not climbs:
            return False
        if climbs or os.path.islink(path):
            return not self._is_within(path)
        return not self._within(path.parent)

    def file(self, name: str) -> Path | None:
        """The path of the file ``name``; None if there is no readable one."""
        path = self.folder / name
        try:
            return path if is_file(path) else None
        except ZooError:  # a name that is invalid on this system, or a folder that may not be read
            return None

    def _is_within(self, path: Path) -> bool:
        try:
            return Path(os.path.realpath(path)).is_relative_to(self._root)
        except ValueError:  # a NUL character: no such file can exist
            return True
