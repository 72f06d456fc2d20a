"""Check paths and read files from outside; any problem is a :class:`ZooError` of one line."""

from __future__ import annotations

import errno
import mmap
import os
import re
import stat
import unicodedata
from pathlib import Path

from ..errors import ZooError, check_type, printable

LARGEST_TEXT = 16 << 20
"""Largest JSON or other text file, in bytes."""


def reason_of(error: OSError) -> str:
    """The system's message without the path, such as "Permission denied"."""
    return printable(error.strerror or str(error) or type(error).__name__)


def composed(name: str) -> str:
    r"""``name`` with composed accents (NFC), since some systems store ``é`` as two characters.

    Bytes that are not UTF-8 are escaped (``\udce9``), so that model files can store the name.
    """
    whole = name.encode("utf-8", "backslashreplace").decode()
    return whole if whole.isascii() else unicodedata.normalize("NFC", whole)


def to_path(name: str, value: object, remedy: str = "the path of a file") -> Path:
    """``value`` as a path. Raises :class:`ZooError` for what is none; ``remedy`` completes "it must be ..."."""
    check_type(name, value, str | os.PathLike, remedy)
    return Path(value)  # type: ignore[arg-type]


def is_file(path: str | Path) -> bool:
    """Whether ``path`` is a regular file. Raises :class:`ZooError` if it cannot be accessed."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: str | Path) -> bool:
    """Whether ``path`` is a folder. Raises :class:`ZooError` if it cannot be accessed."""
    return stat.S_ISDIR(_mode(path))


def exists(path: str | Path) -> bool:
    """Whether ``path`` exists. Raises :class:`ZooError` if it cannot be accessed."""
    return _mode(path) != 0


LOCK = ".fbnetv3-zoo.lock"
"""The file by which a training run or a search locks its folder."""

JOURNAL = "journal.sqlite"
"""The file in which a search keeps everything, in its folder."""

CONFIG = "config.json"
"""The file of a command's options in its output folder, which is written when it has ended."""

FOREIGN = "already exists, and was not written by this program"
"""Why a file is not overwritten."""

_MARK = b"fbnetv3_zoo"
"""Contained in every model, picture and JSON file that this program writes: in its metadata, section or methods."""


def is_ours(path: str | Path) -> bool:
    """Whether the file at ``path`` has the mark of this program."""
    path = Path(path)
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_MARK) >= 0


def check_ours(*places: str | Path) -> None:
    """Raise :class:`ZooError` if a file that this program did not write is at one of ``places``."""
    for place in places:
        if is_file(place) and not is_ours(place):
            raise ZooError(f"{place}: {FOREIGN}; give another folder as --output, or move that file")


def check_outside(output: str | Path, folder: str | Path | None) -> None:
    """Raise :class:`ZooError` if ``output`` is the data's ``folder`` or in it, links resolved.

    A later run would take it for a class of the data.
    """
    if folder is None:
        return
    real = Path(os.path.realpath(output))
    for parent in (real, *real.parents):
        try:
            inside = os.path.samefile(parent, folder)
        except (OSError, ValueError):
            continue
        if inside:
            raise ZooError(f"{output}: is in the data folder, {folder}; give one outside of it")


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
            data = file.read(size + 1) if size <= at_most else b""  # allocates no more than the file has
            if len(data) > size:  # it grows, or has no size, like files in /proc
                data += file.read(at_most + 1 - len(data))
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({reason_of(error)})") from None
    if max(size, len(data)) > at_most:
        raise ZooError(f"{path}: is larger than {at_most:,} bytes, too large for {what}")
    return data


def is_web_page(start: bytes) -> bool:
    """Whether a file with this beginning is a web page, as browsers save it of a link that is no download."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html"))


WEB_PAGE = "is a web page, not {}; get the file itself (on a model's page, the link that says download)"


def make_folder(path: str | Path) -> None:
    """Create the folder ``path`` and its parents if missing. Raises :class:`ZooError` if that fails."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"{path}: cannot be created ({reason_of(error)})") from None


def read_lines(path: str | Path, what: str) -> list[str]:
    """The lines of a UTF-8 text file, stripped, without a byte order mark and trailing blank lines.

    Text is normalized to NFC. Raises :class:`ZooError` as :func:`read_file` does.
    """
    try:
        text = read_file(path, what).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ZooError(f"{path}: cannot be read (is not UTF-8 text)") from None
    return [line.strip() for line in re.split(r"\r\n|\r|\n", unicodedata.normalize("NFC", text).rstrip())]


def check_place(path: str | Path) -> None:
    """Raise :class:`ZooError` if no file can be written to ``path``; called before the work. Changes nothing."""
    if is_folder(path):
        raise ZooError(f"{path}: is a folder; name a file")
    if exists(path) and not is_file(path):
        raise ZooError(f"{path}: cannot be written (Is a device or pipe)")
    if reason := _no_room_in(Path(path).parent):
        raise ZooError(f"{path}: cannot be written ({reason})")


def check_folder(path: str | Path, *, replaced: bool = False) -> None:
    """Raise :class:`ZooError` if the folder ``path`` cannot be created or written to. Changes nothing.

    ``replaced``: the folder will be replaced as a whole.
    """
    if exists(path) and not is_folder(path):
        raise ZooError(f"{path}: is {'a file' if is_file(path) else 'a device or pipe'}; give the path of a folder")
    if reason := _no_room_in(Path(path).parent if replaced else Path(path)):
        how = "written to" if exists(path) else "created"
        raise ZooError(f"{path}: cannot be {how} ({reason})")


def _no_room_in(folder: Path) -> str | None:
    """Why ``folder``, which need not exist yet, cannot be written to; None if it can."""
    nearest = next((nearest for nearest in (folder, *folder.parents) if exists(nearest)), Path())
    if not is_folder(nearest):
        return f"{nearest} is {'a file' if is_file(nearest) else 'a device or pipe'}, not a folder"
    if os.access(nearest, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return None
    read_only = hasattr(os, "statvfs") and os.statvfs(nearest).f_flag & os.ST_RDONLY
    return os.strerror(errno.EROFS if read_only else errno.EACCES)


def _mode(path: str | Path) -> int:
    """The ``st_mode`` of ``path``; 0 if it does not exist."""
    try:
        return Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:  # no permission, a name that is too long, a loop of links
        raise ZooError(f"{path}: cannot be read ({reason_of(error)})") from None
    except ValueError as error:  # a NUL, or text that cannot be a name on this system
        raise ZooError(f"{printable(str(path))}: cannot be a path ({error})") from None
