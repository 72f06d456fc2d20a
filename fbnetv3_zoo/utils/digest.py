"""BLAKE3 digests, six times as fast as SHA-256, which would slow down every load."""

from __future__ import annotations


def digest_of(data: bytes) -> str:
    """The full digest of ``data``, 64 hexadecimal digits."""
    from blake3 import blake3

    return blake3(data).hexdigest()


def short_digest(data: bytes) -> str:
    """The first 16 digits of the digest of ``data``, for file names."""
    return digest_of(data)[:16]
