"""Looking after the cache: what state each of its files is in, and removing what is of no use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ..utils.temporary_folder import NEW, is_abandoned, marked_in, take_over
from .cache import CachedWeights, WeightsCache
from .fetch import is_expected, whole_contents
from .registry import RECORDS


class FileState(Enum):
    """What a file of the cache is."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    SUPERSEDED = "superseded"
    LEFTOVER = "half-written"


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of the cache; ``name`` is that of the weights."""

    path: Path
    name: str
    state: FileState
    size: int


def survey(store: WeightsCache) -> list[CachedFile]:
    """Every file of the cache, read through, by name.

    Superseded are the files made from another source than the one now published or locked, and older twins. What only
    looks like a file of the cache, because no such weights were ever got here, is left out.
    """
    found, seen = [], set()
    for kept in filter(lambda kept: store.has_got(kept.name), store.kept()):
        state = _state(kept, store)
        if state is FileState.WHOLE and (kept.name, kept.source) in seen:
            state = FileState.SUPERSEDED
        if state is FileState.WHOLE:
            seen.add((kept.name, kept.source))
        found.append(CachedFile(kept.path, kept.name, state, _size(kept.path)))
    for path in filter(is_abandoned, marked_in(store.folder)):
        found.append(CachedFile(path, "", FileState.LEFTOVER, sum(map(_size, (path / NEW).glob("*")))))
    return sorted(found, key=lambda entry: (entry.name, entry.path))


def prune(store: WeightsCache, *, everything: bool = False, dry_run: bool = False) -> list[CachedFile]:
    """Remove from the cache what is damaged, superseded or half-written (or ``everything``); what was removed.

    The lock file stays. Weights that another process is getting at the moment are left to it.
    """
    found = [entry for entry in survey(store) if everything or entry.state is not FileState.WHOLE]
    return found if dry_run else [entry for entry in found if _removed(entry, store)]


def _removed(entry: CachedFile, store: WeightsCache) -> bool:
    if entry.state is FileState.LEFTOVER:
        return take_over(entry.path)
    with store.sole(entry.name):
        kept = CachedWeights.parse(entry.path)
        if kept is not None and entry.state is FileState.DAMAGED and whole_contents(kept) is not None:
            return False  # another process has got it anew
        store.discard(entry.path)
    return True


def _state(kept: CachedWeights, store: WeightsCache) -> FileState:
    if whole_contents(kept) is None:
        return FileState.DAMAGED
    record = RECORDS.get(kept.name)
    return FileState.WHOLE if record is None or is_expected(kept, record, store) else FileState.SUPERSEDED


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
