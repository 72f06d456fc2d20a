"""What kind of file system a path is on."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
_OF_SEVERAL_MACHINES = frozenset((
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "glusterfs",
    "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "pvfs2", "smb3", "smbfs", "wekafs"
))  # fmt: skip


def network_file_system(path: Path) -> str:
    """The type of the file system that ``path`` is on, if machines share it, such as ``nfs4``; else an empty string.

    Known on Linux alone.
    """
    try:
        mounts, place = MOUNTS.read_text(errors="surrogateescape"), path.resolve()
    except OSError:
        return ""
    kinds = {}
    for line in mounts.splitlines():
        mounted, _, kind = line.partition(" - ")
        fields = mounted.split()
        if len(fields) >= 5 and kind:
            kinds[Path(_unescaped(fields[4]))] = kind.split()[0]  # a later mount hides an earlier one
    nearest = next((kinds[folder] for folder in (place, *place.parents) if folder in kinds), "")
    return nearest if nearest in _OF_SEVERAL_MACHINES else ""


def _unescaped(text: str) -> str:
    """The mount point that ``text`` stands for: spaces and others are octal numbers in the list of mounts."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
