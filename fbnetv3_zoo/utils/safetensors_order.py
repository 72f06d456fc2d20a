"""Files that are the same, byte for byte, whenever and wherever the same is written."""

from __future__ import annotations

import json

_ALIGNED = 8  # bytes: where safetensors begins its data, so that it can be used as it lies


def in_order(data: bytes) -> bytes:
    """``data``, a safetensors file as its library writes it, with the metadata in the order of their names.

    The library takes the order of a hash table, another one every time.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(data)[8 + length :]])
