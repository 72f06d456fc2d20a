"""Lists the image files of a folder, and counts the files left out by extension."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...errors import ZooError, first_few, printable
from ...images import FORMATS
from ...utils.log import LOG
from .dataset import composed

SUFFIXES = {
    "AVIF": (".avif",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "ICO": (".ico",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""Usual extensions of the formats in :data:`~fbnetv3_zoo.images.reading.FORMATS`."""

IMAGE_SUFFIXES = frozenset(suffix for kind in FORMATS for suffix in SUFFIXES.get(kind, ()))

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


def unreadable(path: str | Path, error: OSError) -> ZooError:
    """The error for a file or folder that the system cannot read."""
    return ZooError(f"{printable(str(path))}: cannot be read ({error.strerror or error})")


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
                elif _is_folder(entry):
                    continue
                elif is_image(entry.name):
                    yield prefix + entry.name
                else:
                    left_out[extension_of(entry.name)] += 1
    except OSError as error:
        raise unreadable(folder, error) from None
    for name in below:
        yield from _images_in(os.path.join(folder, name), f"{prefix}{name}/", left_out)


def is_image(name: str) -> bool:
    """Whether a file of this name counts as an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def extension_of(name: str) -> str:
    """``.txt`` for ``notes.TXT``, ``without extension`` if there is none."""
    return os.path.splitext(name)[1].lower() or "without extension"


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
            images = sum(is_image(e.name) and not is_debris(e.name) and not _is_folder(e) for e in entries)
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
                if not deep or not _is_folder(entry) or not is_run(entry.path, deep=deep - 1):
                    return False
                has_runs = True
    except OSError:
        return False
    return has_runs


_RUN_FILES = (("checkpoints", "metrics.jsonl"), ("model.safetensors", "metrics.jsonl"), ("checkpoints", ".lock"),
              ("checkpoints", ".fbnetv3-zoo.lock"), ("journal.sqlite",))  # fmt: skip
"""Sets of files that identify the folder of a run, a search or a supernet search."""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link
        return False


def _is_own_folder(entry: os.DirEntry[str], root: Path) -> bool:
    """Whether ``entry`` of ``root`` is a folder, but not a link to ``root`` or its parents."""
    if not _is_folder(entry):
        return False
    return not entry.is_symlink() or Path(entry.path).resolve() not in (root.resolve(), *root.resolve().parents)
