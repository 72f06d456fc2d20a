"""Looking at paths and reading files that come from outside: one line for whatever is wrong with them."""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from pathlib import Path

from ..errors import ZooError, printable

LARGEST_TEXT = 16 << 20
"""Upper bound, in bytes, of JSON and other text files that a person or a command of ours writes."""


def reason_of(error: OSError) -> str:
    """What the system says, without the path: "Permission denied"."""
    return printable(error.strerror or str(error) or type(error).__name__)


def is_file(path: str | Path) -> bool:
    """Whether ``path`` is a regular file. Raises :class:`ZooError` where that cannot be told (no permission)."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: str | Path) -> bool:
    """Whether ``path`` is a folder. Raises :class:`ZooError` where that cannot be told (no permission)."""
    return stat.S_ISDIR(_mode(path))


def exists(path: str | Path) -> bool:
    """Whether there is anything at ``path``. Raises :class:`ZooError` where that cannot be told (no permission)."""
    return _mode(path) != 0


def check_outside(output: str | Path, folder: str | Path | None) -> None:
    """Raise :class:`ZooError` where ``output`` lies in the data's ``folder``, or is it, through links as well.

    What is written there would be taken for a class of the data afterwards.
    """
    if folder is None:
        return
    real = Path(os.path.realpath(output))
    for place in (real, *real.parents):
        try:
            inside = os.path.samefile(place, folder)
        except (OSError, ValueError):
            continue
        if inside:
            raise ZooError(f"{output}: lies in the folder of the data, {folder}; give one outside of it")


def check_file(path: str | Path, what: str) -> None:
    """Raise :class:`ZooError` unless ``path`` is a regular file; ``what`` names it: "an ONNX file"."""
    mode = _mode(path)
    if stat.S_ISREG(mode):
        return
    if mode == 0:
        raise ZooError(f"{path}: no such file")
    raise ZooError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'a device or pipe'}, not {what}")


def read_file(path: str | Path, what: str, *, at_most: int = LARGEST_TEXT) -> bytes:
    """The contents of a regular file of ``at_most`` bytes; ``what`` names it: "an arch JSON file".

    Raises :class:`ZooError` for a path that is missing, a folder, a device or pipe, too large or not readable.
    """
    check_file(path, what)
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size + 1) if size <= at_most else b""  # takes as much memory as there are bytes
            if len(data) > size:  # it grows, or tells no size, as files of /proc do
                data += file.read(at_most + 1 - len(data))
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({reason_of(error)})") from None
    if max(size, len(data)) > at_most:
        raise ZooError(f"{path}: is larger than {at_most:,} bytes, too large for {what}")
    return data


def make_folder(path: str | Path) -> None:
    """Make the folder ``path`` and those above it where they are missing; raise :class:`ZooError` where that fails."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"{path}: cannot be made a folder ({reason_of(error)})") from None


def read_lines(path: str | Path, what: str) -> list[str]:
    """The lines of a UTF-8 text file, without white space around them and without a byte order mark.

    Blank lines at the end are none. Accents come composed (NFC). Raises :class:`ZooError` as :func:`read_file` does.
    """
    try:
        text = read_file(path, what).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ZooError(f"{path}: cannot be read (is no UTF-8 text)") from None
    return [line.strip() for line in re.split(r"\r\n|\r|\n", unicodedata.normalize("NFC", text).rstrip())]


def check_place(path: str | Path) -> None:
    """Raise :class:`ZooError` where no file can be written at ``path``, before the work that is to fill it.

    Nothing is made or changed.
    """
    if is_folder(path):
        raise ZooError(f"{path}: is a folder; name a file")
    if exists(path) and not is_file(path):
        raise ZooError(f"{path}: cannot be written (Is a device or pipe)")
    if reason := _no_room_in(Path(path).parent):
        raise ZooError(f"{path}: cannot be written ({reason})")


def check_folder(path: str | Path, *, replaced: bool = False) -> None:
    """Raise :class:`ZooError` where no files can be written to the folder ``path``, or it cannot be made.

    ``replaced``: another one is to take its place. Nothing is made or changed.
    """
    if exists(path) and not is_folder(path):
        raise ZooError(f"{path}: cannot be made a folder (File exists)")
    if reason := _no_room_in(Path(path).parent if replaced else Path(path)):
        how = "written to" if exists(path) else "made a folder"
        raise ZooError(f"{path}: cannot be {how} ({reason})")


def _no_room_in(folder: Path) -> str | None:
    """Why nothing can be put into ``folder``, which may be still to make; None where it can."""
    place = next((place for place in (folder, *folder.parents) if exists(place)), Path())
    if not is_folder(place):
        return os.strerror(errno.ENOTDIR)
    if os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return None
    sealed = hasattr(os, "statvfs") and os.statvfs(place).f_flag & os.ST_RDONLY
    return os.strerror(errno.EROFS if sealed else errno.EACCES)


def _mode(path: str | Path) -> int:
    """What ``path`` is (``st_mode``); 0 where there is nothing."""
    try:
        return Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:  # no permission, a name that is too long, links in a circle
        raise ZooError(f"{path}: cannot be read ({reason_of(error)})") from None
    except ValueError as error:  # a NUL, or text that is no name on this system
        raise ZooError(f"{printable(str(path))}: cannot be a path ({error})") from None
