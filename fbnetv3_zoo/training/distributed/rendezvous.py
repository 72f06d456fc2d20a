"""How the processes of a run find each other, however often some of them were started anew.

A launcher's store outlives the processes, and holds what earlier ones wrote: those of a run before in the same
processes, or those that a restart replaced. Nothing that the launcher tells each process separates them: torchrun
counts restarts for each agent alone. So every process introduces itself by a name of its own, and the leading one
invites those it sees, until all have accepted.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from ...errors import ZooError

PATIENCE = timedelta(minutes=10)
"""How long processes wait for each other."""
_PREFIX, _SHORTEST, _LONGEST = "fbnetv3_zoo rendezvous", 0.01, 0.25  # seconds between looks


def agree(store: Store, rank: int, size: int, *, patience: timedelta = PATIENCE) -> str:
    """A name for this run that its ``size`` processes agree on, and that no others have had.

    Raises :class:`ZooError` if some of them do not come.
    """
    own, ours = uuid.uuid4().hex, PrefixStore(_PREFIX, store)
    ours.set(f"here {rank}", json.dumps([own]))
    deadline, pause = time.monotonic() + patience.total_seconds(), _SHORTEST
    invited: list[str] = []
    while time.monotonic() < deadline:
        if rank:
            invited = _read(ours, "invitation")
            name = invited[0] if own in invited[1:] else ""
        else:
            present = [own, *(name for other in range(1, size) for name in _read(ours, f"here {other}"))]
            if len(present) == size and present != invited[1:]:
                invited = [uuid.uuid4().hex, *present]
                ours.set("invitation", json.dumps(invited))
            name = invited[0] if invited else ""
        if name and _accepted(ours, name, rank, size):
            return name
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
    raise ZooError(
        f"process {rank} of {size} waited {patience.total_seconds() / 60:g} minutes for the others to join; see what "
        "they say, and start all of them again"
    )


def _accepted(store: Store, name: str, rank: int, size: int) -> bool:
    """Accept the invitation ``name``; whether the leading process has seen that all have."""
    if rank:
        store.set(f"{name} {rank}", "accepted")
    elif all(_has(store, f"{name} {other}") for other in range(1, size)):
        store.set(name, "complete")
    return _has(store, name)


def _read(store: Store, key: str) -> list[str]:
    """The names under ``key``; none if it has not been written."""
    if not _has(store, key):
        return []
    names: list[str] = json.loads(store.get(key))
    return names


def _has(store: Store, key: str) -> bool:
    there: bool = store.check([key])
    return there
