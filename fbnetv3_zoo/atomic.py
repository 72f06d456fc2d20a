"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fbnetv3_zoo.errors import ZooError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``, moved over it when the block ends well and removed otherwise.

    The bytes reach the disk before the move: a reader sees the old file or the whole new one, whatever happens.
    Raises :class:`ZooError` where the file cannot be written (no permission, full disk, a folder in its place).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _refusal(path, error) from None
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    except OSError as error:
        raise _refusal(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def _flush(temporary: Path) -> None:
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    umask = os.umask(0)  # mkstemp made the file private; give it the mode that open() would have
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)


def _refusal(path: Path, error: OSError) -> ZooError:
    return ZooError(f"{path}: cannot be written ({error.strerror or error})")
