"""Move several files or folders into place together: all of them or none, even if the process is killed.

They are in the subfolder ``new`` of a temporary folder beside their targets. Before the first move, all moves and what
they replace are listed in the file ``moves``. Whoever finds moves that are only partly done completes them; if that is
impossible, the old files, kept in ``old``, are restored. If someone else has changed a target, nothing more is moved.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from .serialization import parse_json

_NEW, _OLD, _MOVES = "new", "old", "moves"
_LARGEST = 1 << 20  # bytes of the list of moves


@dataclass(frozen=True, slots=True)
class _Move:
    """A move: ``new`` and ``old`` identify what is moved and what it replaces (None: nothing)."""

    name: str
    new: str
    old: str | None


class _Next(Enum):
    """What to do about moves that were begun: complete them, undo them, nothing."""

    FORWARD = "forward"
    BACK = "back"
    NOTHING = "nothing"


def move_together(folder: Path, names: Sequence[str]) -> None:
    """Move ``new/NAME`` of ``folder`` to ``NAME`` beside ``folder``, for all ``names``.

    Raises OSError, with everything restored, if one cannot be moved.
    """
    target = folder.parent
    (folder / _OLD).mkdir()
    for name in names:
        with suppress(OSError, NotImplementedError):  # folders, and files on some file systems, are moved aside later
            os.link(target / name, folder / _OLD / name, follow_symlinks=False)
    moves = [_Move(name, _identity(folder / _NEW / name) or "", _identity(target / name)) for name in names]
    _write_down(folder, moves)
    try:
        for move in moves:
            _forward(folder, move)
        sync_folder(target)
    except BaseException:
        for move in moves:
            _back(folder, move)
        raise


def finish(folder: Path) -> None:
    """Complete or undo moves that were begun in ``folder``. Raises OSError if that is not permitted."""
    what, moves = _next(folder)
    for move in moves:
        if what is _Next.FORWARD:
            _forward(folder, move)
        elif what is _Next.BACK:
            _back(folder, move)
    if what is not _Next.NOTHING:
        sync_folder(folder.parent)
    with suppress(FileNotFoundError):
        (folder / _MOVES).unlink()


def moved_in(folder: Path) -> dict[str, Path]:
    """The current paths, by name, of files whose moves from ``folder`` have begun but not ended; usually none."""
    what, moves = _next(folder)
    paths = {}
    for move in moves:
        target = folder.parent / move.name
        waiting = folder / (_NEW if what is _Next.FORWARD else _OLD) / move.name
        there = _identity(target) == (move.new if what is _Next.FORWARD else move.old)
        paths[move.name] = target if there or what is _Next.NOTHING else waiting
    return paths


def sync_folder(folder: Path) -> None:
    """Flush the directory ``folder`` to disk."""
    with suppress(OSError):  # not every file system can
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _write_down(folder: Path, moves: Sequence[_Move]) -> None:
    draft = folder / f"{_MOVES}.draft"
    with draft.open("w", encoding="ascii") as file:
        json.dump([{**asdict(move), "name": os.fsencode(move.name).hex()} for move in moves], file)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder / _NEW)
    draft.rename(folder / _MOVES)
    sync_folder(folder)


def _read(folder: Path) -> list[_Move]:
    """The moves listed in ``folder``; none if the list cannot be read."""
    try:
        with (folder / _MOVES).open("rb") as file:
            entries = parse_json(file.read(_LARGEST), str(folder / _MOVES))
        return [_Move(os.fsdecode(bytes.fromhex(one["name"])), one["new"], one["old"]) for one in entries]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _next(folder: Path) -> tuple[_Next, list[_Move]]:
    """The moves listed in ``folder``, and what to do about them."""
    moves = _read(folder)
    now = {move: _identity(folder.parent / move.name) for move in moves}
    done = [move for move in moves if now[move] == move.new]
    if len(done) in (0, len(moves)) and not any(_is_aside(folder, move, now[move]) for move in moves):
        return _Next.NOTHING, moves
    rest = [move for move in moves if move not in done]
    if not all(now[move] == move.old or _is_aside(folder, move, now[move]) for move in rest):
        return _Next.NOTHING, moves  # someone else has changed a target
    if all(_identity(folder / _NEW / move.name) == move.new for move in rest):
        return _Next.FORWARD, moves
    return _Next.BACK, moves


def _is_aside(folder: Path, move: _Move, now: str | None) -> bool:
    """Whether the old file was moved away and nothing has replaced it yet."""
    return now is None and move.old is not None and _identity(folder / _OLD / move.name) == move.old


def _forward(folder: Path, move: _Move) -> None:
    target, old, new = folder.parent / move.name, folder / _OLD / move.name, folder / _NEW / move.name
    if _identity(target) == move.new:
        return
    if move.old is not None and not os.path.lexists(old) and target.is_dir() == new.is_dir():
        target.rename(old)
    os.replace(new, target)


def _back(folder: Path, move: _Move) -> None:
    target, old = folder.parent / move.name, folder / _OLD / move.name
    if _identity(target) == move.new:
        if move.old is None:
            _discard(target)
        elif target.is_dir():
            target.rename(folder / _NEW / move.name)
    if _identity(old) == move.old and _identity(target) != move.old:
        os.replace(old, target)


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _identity(path: Path) -> str | None:
    """Text that identifies this very file or folder; None if there is none."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    signs = (status.st_ino,) if stat.S_ISDIR(status.st_mode) else (status.st_ino, status.st_size, status.st_mtime_ns)
    return " ".join(map(str, signs))
