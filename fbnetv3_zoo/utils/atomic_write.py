"""Write files atomically, one or several together, and use temporary files that are always cleaned up.

Everything is first written in a folder of :mod:`fbnetv3_zoo.utils.temporary_folder`.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ZooError
from . import paths
from .move_together import move_together, moved_in, sync_folder
from .temporary_folder import NEW, marked_folder, marked_in, take_over

_PATIENCE = 5.0  # seconds to wait for a living writer to move its files, which takes milliseconds
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_LITTLE = 1 << 16  # free bytes of a disk that is practically full
_SAYS_FULL = ("No space left on device", "Disk quota exceeded", "Read-only file system")


class WriteError(ZooError):
    """The file ``path`` cannot be written."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path}: cannot be written ({paths.reason_of(error)})")
        self.path = path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to, with the same name; it replaces ``path`` when the block ends without an error.

    The bytes reach the disk first: a reader sees the old file or the complete new one, whatever happens. Raises
    :class:`ZooError` if the file cannot be written (no permission, full disk, ``path`` is a folder).
    """
    path = Path(path)
    with _explained(path), _beside(path) as folder:
        new = folder / NEW / path.name
        mode = _touched(new)
        yield new
        _flush(new, mode)
        os.replace(new, path)
        sync_folder(path.parent)


@contextmanager
def replacing_together(*places: str | Path) -> Iterator[tuple[Path, ...]]:
    """Temporary paths for several files, as with :func:`replacing`: all of them are moved to ``places``, or none.

    ``places`` are in the same folder. Readers that must not see an old file beside a new one use :func:`settled`.
    """
    targets = [Path(target) for target in places]
    with _explained(targets[0]), _beside(*targets) as folder:
        new = tuple(folder / NEW / path.name for path in targets)
        modes = [_touched(path) for path in new]
        yield new
        for path, mode in zip(new, modes, strict=True):
            _flush(path, mode)
        move_together(folder, [path.name for path in targets])


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """An empty temporary folder to write to, which replaces the folder ``path`` and all its contents."""
    path = Path(path)
    with _explained(path), _beside(path, folders=True) as folder:
        new = folder / NEW / path.name
        new.mkdir()
        yield new
        for file in new.rglob("*"):
            sync_folder(file) if file.is_dir() else _flush(file)
        move_together(folder, [path.name])


@contextmanager
def replacing_in(folder: str | Path, *names: str) -> Iterator[Path]:
    """An empty temporary folder to write files and folders of these ``names`` to, which are moved to ``folder``.

    All of them are moved, or none, as with :func:`replacing_together`; an older folder is replaced with all its
    contents. What else is in ``folder`` stays.
    """
    folder = Path(folder)
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with marked_folder(folder) as temporary:
            new = temporary / NEW
            yield new
            for file in new.rglob("*"):
                sync_folder(file) if file.is_dir() else _flush(file)
            move_together(temporary, names)


def settled(*places: str | Path) -> tuple[Path, ...]:
    """The paths from which to read ``places`` if :func:`replacing_together` writes them; usually ``places``.

    If a writer was killed while moving files, its work is finished first; if that is not permitted, the paths are where
    the writer left them.
    """
    targets = [Path(target) for target in places]
    current = {path.name: path for path in targets}
    for folder in marked_in(targets[0].parent):
        if not current.keys() & moved_in(folder).keys() or take_over(folder, patience=_PATIENCE):
            continue
        current |= {name: path for name, path in moved_in(folder).items() if name in current}
    return tuple(current[path.name] for path in targets)


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder in the system's folder for temporary files; removed when the block ends.

    What killed processes left there is removed first. Raises :class:`ZooError` if there is no space, also for errors in
    the block that result from that.
    """
    try:
        parent = Path(tempfile.gettempdir())
    except OSError:
        raise ZooError("no folder for temporary files can be written; set TMPDIR to one that can") from None
    new: Path | None = None
    try:
        with marked_folder(parent, private=True) as folder:
            new = folder / NEW
            try:
                yield new
            except Exception as error:  # before the folder, and with it what fills the disk, is removed
                if (reason := _want_of_room(error, new)) is not None:
                    raise _no_room(parent, reason) from None
                raise
    except OSError as error:
        raise error if new is not None else _no_room(parent, error) from None


def _no_room(folder: Path, error: OSError) -> ZooError:
    reason = paths.reason_of(error)
    return ZooError(f"{folder}: cannot take temporary files ({reason}); make room, or set TMPDIR to another folder")


def _want_of_room(error: Exception, folder: Path) -> OSError | None:
    """The reason why ``folder`` cannot be written, if that caused ``error``; otherwise None."""
    chain = list(_chain(error))
    if elsewhere := [one for one in chain if isinstance(one, WriteError)]:
        if not any(one.path.is_relative_to(folder) for one in elsewhere):
            return None
        return next((one for one in chain if isinstance(one, OSError)), _full())
    for one in chain:
        if isinstance(one, OSError) and one.errno in _FULL and _may_be_in(folder, one.filename):
            return one
    says_full = any(text in str(one) for one in chain for text in _SAYS_FULL)
    return _full() if says_full or shutil.disk_usage(folder).free < _LITTLE else None


def _may_be_in(folder: Path, name: object) -> bool:
    return not isinstance(name, (str, Path)) or Path(name).is_relative_to(folder)


def _full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and its causes and contexts, suppressed ones included."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteError(path, error) from None


@contextmanager
def _beside(*targets: Path, folders: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``targets``. Raises if one of them must not be replaced."""
    parent = targets[0].parent
    parent.mkdir(parents=True, exist_ok=True)
    for target in targets:
        _check_target(target, folder=folders)
    with marked_folder(parent) as folder:
        yield folder


def _check_target(target: Path, *, folder: bool) -> None:
    """Raise :class:`WriteError` if ``target`` exists and is no file, or with ``folder`` no folder."""
    if not target.exists():
        return
    if target.is_dir() != folder:
        number = errno.ENOTDIR if folder else errno.EISDIR
        raise WriteError(target, OSError(number, os.strerror(number)))
    if not folder and not target.is_file():
        raise WriteError(target, OSError(errno.EINVAL, "Is a device or pipe"))


def _touched(path: Path) -> int:
    """Create an empty file and return its permissions."""
    path.touch(exist_ok=False)
    return path.stat().st_mode & 0o777


def _flush(path: Path, mode: int | None = None) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    if mode is not None:
        path.chmod(mode)  # the writer may have replaced it by a private file
