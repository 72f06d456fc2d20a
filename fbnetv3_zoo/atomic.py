"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import os
import secrets
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
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode & 0o777
    except OSError as error:
        raise _refusal(path, error) from None
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(mode)  # who wrote it may have put another, private file in its place
        temporary.replace(path)
    except OSError as error:
        raise _refusal(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def _flush(temporary: Path) -> None:
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())


def _refusal(path: Path, error: OSError) -> ZooError:
    return ZooError(f"{path}: cannot be written ({error.strerror or error})")
