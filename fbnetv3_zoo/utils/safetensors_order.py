"""Reproducible safetensors files: the same contents give the same bytes."""

from __future__ import annotations

import json

_ALIGNED = 8  # bytes: safetensors aligns its data, so that it can be mapped


def in_order(data: bytes) -> bytes:
    """The safetensors file ``data`` with its metadata sorted by name.

    The library writes them in the order of a hash table, which varies.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(data)[8 + length :]])
