"""The seal of files for runtimes that trust their input: a digest in the file, which covers the whole file."""

from __future__ import annotations

import re

from ..utils.digest import digest_of

MARK = "fbnetv3_zoo blake3 "
"""What a seal begins with; the digest of the file with zeros in its place follows, in hexadecimal."""

EMPTY = MARK + "0" * 64
"""An empty seal, to be filled in by :func:`sealed`."""

_SEAL = re.compile(re.escape(MARK.encode()) + rb"([0-9a-f]{64})")


def sealed(data: bytes) -> bytes:
    """The file ``data``, whose seal is empty (zeros), with its digest filled in."""
    if (empty := data.count(EMPTY.encode())) != 1:
        raise AssertionError(f"the file holds {empty} empty seals")
    return data.replace(EMPTY.encode(), MARK.encode() + digest_of(data).encode())


def unsealed(data: bytes) -> bytes:
    """The file ``data`` with zeros instead of the digest of each of its seals."""
    return _SEAL.sub(EMPTY.encode(), data)


def has_seal(data: bytes) -> bool:
    """Whether the file ``data`` has a seal, whatever it says."""
    return _SEAL.search(data) is not None


def is_whole(data: bytes) -> bool:
    """Whether the file ``data`` has one seal, and its digest is that of the file."""
    seals = _SEAL.findall(data)
    return len(seals) == 1 and bool(seals[0].decode() == digest_of(unsealed(data)))
