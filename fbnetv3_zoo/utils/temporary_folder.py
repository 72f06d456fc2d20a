"""Temporary folders that cannot be mistaken for anything else and are locked while their writer is alive.

Such a folder is named ``.fbnetv3-zoo-`` plus 16 hexadecimal digits, the second half of which is derived from the first.
Its file ``lock`` contains a signature and is locked until the writer ends, killed or not; files are written to ``new``
under their final names. The next writer in the same parent folder removes what a killed one left, and only if name,
signature and lock all match.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from .move_together import finish

try:
    import fcntl
except ImportError:  # not POSIX: nothing can be locked, and so nothing is removed for others
    fcntl = None  # type: ignore[assignment]

LOCK, NEW = "lock", "new"
SIGNATURE = b"Temporary files of fbnetv3-zoo, to be removed once this file is no longer locked.\n"
_NAME = re.compile(r"\.fbnetv3-zoo-([0-9a-f]{8})([0-9a-f]{8})")


@contextmanager
def marked_folder(parent: Path, *, private: bool = False) -> Iterator[Path]:
    """A new folder in ``parent``, with an empty folder ``new`` in it; removed, with all it holds, when the block ends.

    What killed writers left in ``parent`` is removed first. ``private``: no other user may access it. Raises OSError
    if it cannot be created.
    """
    clear(parent)
    folder, lock = _made(parent, 0o700 if private else 0o777)
    try:
        (folder / NEW).mkdir()
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def clear(parent: Path) -> None:
    """Finish and remove what killed writers left in ``parent``, as far as permissions allow."""
    for folder in marked_in(parent):
        take_over(folder)


def marked_in(parent: Path) -> list[Path]:
    """The folders in ``parent`` with a name of this module, whether or not their writers are alive."""
    try:
        with os.scandir(parent) as entries:
            return [parent / e.name for e in entries if _is_name(e.name) and e.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def is_abandoned(folder: Path) -> bool:
    """Whether the writer of ``folder`` is gone."""
    if (lock := _abandoned(folder)) is None:
        return False
    os.close(lock)
    return True


def take_over(folder: Path, *, patience: float = 0.0) -> bool:
    """Finish and remove ``folder`` if its writer ends within ``patience`` seconds. Returns whether it is gone."""
    deadline = time.monotonic() + patience
    while (lock := _abandoned(folder)) is None and time.monotonic() < deadline and folder.exists():
        time.sleep(0.005)
    if lock is not None:
        _remove(folder)
        os.close(lock)
    with suppress(OSError):
        folder.rmdir()  # empty: its writer was killed before it created the lock, or after it removed it
    return not folder.exists()


def _made(parent: Path, mode: int) -> tuple[Path, int]:
    """A new folder and its lock, which is held."""
    while True:
        folder = parent / _new_name()
        folder.mkdir(mode)
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileNotFoundError:  # until it is locked, another writer may take it for a leftover
            continue
        try:
            if _locked(lock) is not False and os.fstat(lock).st_nlink:
                os.write(lock, SIGNATURE)
                return folder, lock
        except BaseException:
            _remove(folder)
            os.close(lock)
            raise
        os.close(lock)


def _new_name() -> str:
    drawn = secrets.token_hex(4)
    return f".fbnetv3-zoo-{drawn}{_follows(drawn)}"


def _is_name(name: str) -> bool:
    match = _NAME.fullmatch(name)
    return match is not None and match[2] == _follows(match[1])


def _follows(drawn: str) -> str:
    return blake2b(drawn.encode(), digest_size=4, key=b"fbnetv3-zoo").hexdigest()


def _abandoned(folder: Path) -> int | None:
    """The lock of ``folder``, now held by this process; None if another holds it, or if it is not ours."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        if _locked(lock) is True and _is_ours(folder, lock):
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


def _is_ours(folder: Path, lock: int) -> bool:
    status = os.fstat(lock)
    if not stat.S_ISREG(status.st_mode) or not status.st_nlink:
        return False
    begun = os.read(lock, len(SIGNATURE) + 1)
    return begun == SIGNATURE or (not begun and os.listdir(folder) == [LOCK])  # killed before it wrote the signature


def _locked(lock: int) -> bool | None:
    """Lock an open file. False if another process holds the lock, None if the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove(folder: Path) -> None:
    """Remove ``folder``, whose lock is held. The lock is removed last, in case the process is killed."""
    try:
        finish(folder)
    except OSError:
        return  # files that belong together could not be moved into place
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink()
        if os.listdir(folder) == [LOCK]:
            (folder / LOCK).unlink()
        folder.rmdir()
