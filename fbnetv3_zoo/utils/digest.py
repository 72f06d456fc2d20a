"""BLAKE3 digests, by which contents are known again: six times as fast as SHA-256, which every load would feel."""

from __future__ import annotations


def digest_of(data: bytes) -> str:
    """The whole digest of ``data``, 64 hexadecimal digits."""
    from blake3 import blake3

    return blake3(data).hexdigest()


def short_digest(data: bytes) -> str:
    """The first 16 digits of it, for the name of a file."""
    return digest_of(data)[:16]
