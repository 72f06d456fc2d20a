"""What lies below a folder: the image files, and what is left out, counted by ending."""

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
"""Usual endings of the kinds of file that Pillow may read (:data:`~fbnetv3_zoo.images.reading.FORMATS`)."""

IMAGE_SUFFIXES = frozenset(suffix for kind in FORMATS for suffix in SUFFIXES.get(kind, ()))

# What systems leave beside the user's files: Synology, QNAP, macOS, Windows, Linux. Hidden names are left out anyway.
_DEBRIS = frozenset(
    {
        "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx", "icon\r", "temporary items",
        "network trash folder", "$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db",
        "ehthumbs_vista.db", "desktop.ini", "lost+found", "__pycache__",
    }
)  # fmt: skip


def is_debris(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or something that systems leave behind."""
    return name.startswith(".") or name.lower() in _DEBRIS


def tell(text: str) -> None:
    """Have the logger say what was decided unasked, in one process of those that ``torchrun`` starts."""
    if os.environ.get("RANK", "0") == "0":
        LOG.warning("%s", text)


def tell_left_out(root: str | Path, endings: Mapping[str, int], *, loose: int = 0) -> None:
    """Say once which files below ``root`` were left out: those of other endings, and images that lie in no class."""
    if loose:
        tell(f"{printable(str(root))}: left out, as they lie in no class folder: {loose:,} images")
    if endings:
        told = [f"{count:,} {printable(ending)}" for ending, count in sorted(endings.items())]
        tell(f"{printable(str(root))}: left out, as no image that can be read: {first_few(told)}")


def unreadable(path: str | Path, error: OSError) -> ZooError:
    """The error for what the system does not let us read."""
    return ZooError(f"{printable(str(path))}: cannot be read ({error.strerror or error})")


def folders_in(root: Path) -> list[str]:
    """Names of the folders in ``root``, sorted; neither debris nor links to ``root`` or what it lies in.

    A link that leads nowhere may be a class whose disk is missing: it is refused.
    """
    try:
        with os.scandir(root) as entries:
            kept = [entry for entry in entries if not is_debris(entry.name)]
            found = [entry.name for entry in kept if _is_place(entry, root)]
    except OSError as error:
        raise unreadable(root, error) from None
    lost = [e.name for e in kept if e.is_symlink() and not is_image(e.name) and not os.path.exists(e.path)]
    if lost:
        raise ZooError(
            f"{printable(str(root))}: has links that lead nowhere: {first_few(sorted(lost))}; mend or remove them"
        )
    return sorted(found, key=composed)


def images_in(folder: Path, left_out: Counter[str] | None = None) -> list[str]:
    """Names of the image files below ``folder``, relative to it with ``/`` between, sorted.

    Whatever is named as an image counts, readable or not; other files are counted by ending in ``left_out``, debris is
    not. Links to folders are not followed.
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
                    left_out[ending_of(entry.name)] += 1
    except OSError as error:
        raise unreadable(folder, error) from None
    for name in below:
        yield from _images_in(os.path.join(folder, name), f"{prefix}{name}/", left_out)


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def ending_of(name: str) -> str:
    """``.txt`` of ``notes.TXT``; what to count a file by that has none."""
    return os.path.splitext(name)[1].lower() or "without ending"


@dataclass(frozen=True, slots=True)
class FolderContents:
    """What lies directly in a folder: its folders, and how many image files."""

    folders: tuple[str, ...]
    images: int


def look_into(folder: Path) -> FolderContents:
    """What lies directly in ``folder``."""
    folders = tuple(folders_in(folder))
    try:
        with os.scandir(folder) as entries:
            images = sum(is_image(e.name) and not is_debris(e.name) and not _is_folder(e) for e in entries)
    except OSError as error:
        raise unreadable(folder, error) from None
    return FolderContents(folders, images)


def is_run(folder: str | Path, *, deep: int = 2) -> bool:
    """Whether ``folder`` is what a command of ours left, or holds nothing but such folders."""
    if any(all(os.path.lexists(os.path.join(folder, name)) for name in ours) for ours in _OURS):
        return True
    found = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_debris(entry.name):
                    continue
                if not deep or not _is_folder(entry) or not is_run(entry.path, deep=deep - 1):
                    return False
                found = True
    except OSError:
        return False
    return found


_OURS = (("checkpoints", "metrics.jsonl"), ("model.safetensors", "metrics.jsonl"), ("checkpoints", ".lock"),
         ("checkpoints", ".fbnetv3-zoo.lock"), ("journal.sqlite",))  # fmt: skip
"""Files that together tell a folder of a run, a search or a supernet search."""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle
        return False


def _is_place(entry: os.DirEntry[str], root: Path) -> bool:
    """Whether ``entry`` of ``root`` is a folder, and no link back to where it lies."""
    if not _is_folder(entry):
        return False
    return not entry.is_symlink() or Path(entry.path).resolve() not in (root.resolve(), *root.resolve().parents)
