"""The state of each file in the cache, and removal of those that are of no use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ..utils.temporary_folder import NEW, is_abandoned, marked_in, take_over
from .cache import CachedWeights, WeightsCache
from .fetch import is_expected, whole_contents
from .registry import RECORDS


class FileState(Enum):
    """State of a file in the cache."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    SUPERSEDED = "superseded"
    LEFTOVER = "half-written"


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file in the cache; ``name`` is that of the weights, ``size`` in bytes."""

    path: Path
    name: str
    state: FileState
    size: int


def survey(cache: WeightsCache) -> list[CachedFile]:
    """Every file in the cache, verified, sorted by name.

    Superseded files were converted from another source than the one now published or locked, or are older duplicates.
    Files of weights that were never fetched to this folder are left out: they are the user's.
    """
    files, whole = [], set()
    for file in filter(lambda file: cache.has_got(file.name), cache.kept()):
        state = _state(file, cache)
        if state is FileState.WHOLE and (file.name, file.source) in whole:
            state = FileState.SUPERSEDED
        if state is FileState.WHOLE:
            whole.add((file.name, file.source))
        files.append(CachedFile(file.path, file.name, state, _size(file.path)))
    for path in filter(is_abandoned, marked_in(cache.folder)):
        files.append(CachedFile(path, "", FileState.LEFTOVER, sum(map(_size, (path / NEW).glob("*")))))
    return sorted(files, key=lambda entry: (entry.name, entry.path))


def prune(cache: WeightsCache, *, everything: bool = False, dry_run: bool = False) -> list[CachedFile]:
    """Remove damaged, superseded and half-written files, or ``everything``. Returns the files that were removed.

    The lock file is kept, and so are weights that another process is fetching.
    """
    files = [entry for entry in survey(cache) if everything or entry.state is not FileState.WHOLE]
    return files if dry_run else [entry for entry in files if _removed(entry, cache)]


def _removed(entry: CachedFile, cache: WeightsCache) -> bool:
    if entry.state is FileState.LEFTOVER:
        return take_over(entry.path)
    with cache.sole(entry.name):
        file = CachedWeights.parse(entry.path)
        if file is not None and entry.state is FileState.DAMAGED and whole_contents(file) is not None:
            return False  # another process has got it anew
        cache.discard(entry.path)
    return True


def _state(file: CachedWeights, cache: WeightsCache) -> FileState:
    if whole_contents(file) is None:
        return FileState.DAMAGED
    record = RECORDS.get(file.name)
    return FileState.WHOLE if record is None or is_expected(file, record, cache) else FileState.SUPERSEDED


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
