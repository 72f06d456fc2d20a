"""Folders that a command writes as a whole, replaces if they are its own, and never if they have anything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.utils.atomic_write import replacing_folder, settled
from fbnetv3_zoo.utils.paths import exists, is_folder, read_file
from fbnetv3_zoo.utils.serialization import parse_json


@dataclass(frozen=True, slots=True)
class FolderKind:
    """A kind of folder, recognized by the JSON file ``card`` in it, which has ``format`` and lists all ``files``.

    Errors call it a ``name``, written by ``command``, whose option for the folder is ``option``.
    """

    card: str
    format: str
    version: int
    name: str
    command: str
    option: str
    version_key: str = "version"

    def read(self, folder: Path) -> dict[str, Any]:
        """The card of ``folder``. Raises :class:`ZooError` if it is not of this kind."""
        remedy = f"write one with `{self.command} MODEL {self.option} FOLDER`"
        if not is_folder(folder):
            raise ZooError(f"{folder}: {'is a file' if exists(folder) else 'no such folder'}; {remedy}")
        try:
            card = parse_json(read_file(folder / self.card, f"a {self.name}'s card"), self.card)
        except ZooError:
            card = None
        files = card.get("files") if isinstance(card, dict) and card.get("format") == self.format else None
        if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
            raise ZooError(f"{folder}: has no {self.name}; {remedy}")
        if card.get(self.version_key) != self.version:
            raise ZooError(f"{folder}: has a {self.name} of another release; write it again with `{self.command}`")
        return dict(card)

    def check_free(self, folder: Path) -> None:
        """Raise :class:`ZooError` unless ``folder`` is missing, empty, or of this kind with nothing else in it."""
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
            own = set(self.read(folder)["files"])
        except ZooError:
            article = "an" if self.name[0] in "aeiou" else "a"
            raise ZooError(
                f"{folder}: has other files than {article} {self.name} of this command; give another folder"
            ) from None
        if others := [name for name in present if name not in own]:
            raise ZooError(
                f"{folder}: has {others[0]}, which is not part of the {self.name}; move it, or give another folder"
            )

    @contextmanager
    def replacing(self, folder: Path) -> Iterator[Path]:
        """A temporary folder, which replaces ``folder`` if the block succeeds.

        Raises :class:`ZooError` if ``folder`` has anything else, or cannot be written.
        """
        self.check_free(folder)
        folder = folder.resolve()
        with replacing_folder(folder) as new:
            yield new
            self.check_free(folder)


def files_in(folder: Path) -> list[str]:
    """All files in and below ``folder``, as a card lists them."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
