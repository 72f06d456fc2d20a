"""Writing files so that nobody ever sees half of one, or one of two; and temporary files that leave no trace.

Everything is written in folders of :mod:`fbnetv3_zoo.utils.temporary_folder` first.
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

_PATIENCE = 5.0  # seconds in which a living writer has moved its files together: it takes milliseconds
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_LITTLE = 1 << 16  # bytes free on a disk that is as good as full
_SAYS_FULL = ("No space left on device", "Disk quota exceeded", "Read-only file system")


class WriteError(ZooError):
    """A file cannot be written: ``path``."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path}: cannot be written ({paths.reason_of(error)})")
        self.path = path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write to, of the same name in a folder of its own; moved over ``path`` when the block ends well.

    The bytes reach the disk before the move: a reader sees the old file or the whole new one, whatever happens.
    Raises :class:`ZooError` where the file cannot be written (no permission, full disk, a folder in its place).
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
    """Paths to write several files to, as :func:`replacing` gives one: all of them are moved into place, or none.

    ``places`` are in the same folder. Readers that must not see an old file beside a new one ask :func:`settled`.
    """
    targets = [Path(place) for place in places]
    with _explained(targets[0]), _beside(*targets) as folder:
        new = tuple(folder / NEW / path.name for path in targets)
        modes = [_touched(path) for path in new]
        yield new
        for path, mode in zip(new, modes, strict=True):
            _flush(path, mode)
        move_together(folder, [path.name for path in targets])


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder to write to, which takes the place of the folder ``path``, if there is one, as a whole.

    What is in the old one is lost: see to it that nothing is.
    """
    path = Path(path)
    with _explained(path), _beside(path, folders=True) as folder:
        new = folder / NEW / path.name
        new.mkdir()
        yield new
        for file in new.rglob("*"):
            sync_folder(file) if file.is_dir() else _flush(file)
        move_together(folder, [path.name])


def settled(*places: str | Path) -> tuple[Path, ...]:
    """Where files are to be read that :func:`replacing_together` writes: at ``places``.

    Where a writer was killed while it moved them, its work is finished first; where that may not be done, some are read
    from where the writer left them.
    """
    wanted = [Path(place) for place in places]
    found = {path.name: path for path in wanted}
    for folder in marked_in(wanted[0].parent):
        if not found.keys() & moved_in(folder).keys() or take_over(folder, patience=_PATIENCE):
            continue
        found |= {name: path for name, path in moved_in(folder).items() if name in found}
    return tuple(found[path.name] for path in wanted)


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for temporary files, in the system's place for them; removed when the block ends.

    What killed processes left there is removed first. Raises :class:`ZooError` where there is no room, also where what
    goes wrong in the block comes of that.
    """
    try:
        place = Path(tempfile.gettempdir())
    except OSError:
        raise ZooError("no folder for temporary files can be written; set TMPDIR to one that can") from None
    made: Path | None = None
    try:
        with marked_folder(place, private=True) as folder:
            made = folder / NEW
            try:
                yield made
            except Exception as error:  # before the folder, and with it what fills the disk, is removed
                if (reason := _want_of_room(error, made)) is not None:
                    raise _no_room(place, reason) from None
                raise
    except OSError as error:
        raise error if made is not None else _no_room(place, error) from None


def _no_room(place: Path, error: OSError) -> ZooError:
    reason = paths.reason_of(error)
    return ZooError(f"{place}: cannot take temporary files ({reason}); make room, or set TMPDIR to another folder")


def _want_of_room(error: Exception, folder: Path) -> OSError | None:
    """Why nothing more can be written to ``folder``, where ``error`` comes of that; None where it does not."""
    chain = list(_chain(error))
    if elsewhere := [one for one in chain if isinstance(one, WriteError)]:
        if not any(one.path.is_relative_to(folder) for one in elsewhere):
            return None
        return next((one for one in chain if isinstance(one, OSError)), _full())
    for one in chain:
        if isinstance(one, OSError) and one.errno in _FULL and _may_be_in(folder, one.filename):
            return one
    told = any(text in str(one) for one in chain for text in _SAYS_FULL)
    return _full() if told or shutil.disk_usage(folder).free < _LITTLE else None


def _may_be_in(folder: Path, name: object) -> bool:
    return not isinstance(name, (str, Path)) or Path(name).is_relative_to(folder)


def _full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and what it was raised from, also where that is not shown."""
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
    """A folder for temporary files beside ``targets``, none of which is anything that must not be replaced."""
    parent = targets[0].parent
    parent.mkdir(parents=True, exist_ok=True)
    for target in targets:
        _check_target(target, folder=folders)
    with marked_folder(parent) as folder:
        yield folder


def _check_target(target: Path, *, folder: bool) -> None:
    """Raise where something else is at ``target`` than a file, or a ``folder``."""
    if not target.exists():
        return
    if target.is_dir() != folder:
        number = errno.ENOTDIR if folder else errno.EISDIR
        raise WriteError(target, OSError(number, os.strerror(number)))
    if not folder and not target.is_file():
        raise WriteError(target, OSError(errno.EINVAL, "Is a device or pipe"))


def _touched(path: Path) -> int:
    """Make an empty file; the permissions it has."""
    path.touch(exist_ok=False)
    return path.stat().st_mode & 0o777


def _flush(path: Path, mode: int | None = None) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    if mode is not None:
        path.chmod(mode)  # who wrote it may have put another, private file in its place
