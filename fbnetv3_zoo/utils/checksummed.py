"""Arrays in a safetensors file that carries a digest of all it holds: damage is told, not read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ZooError, in_short
from .atomic_write import replacing
from .paths import read_file
from .safetensors_order import in_order
from .serialization import parse_json

Arrays = Mapping[str, npt.NDArray[Any]]
LARGEST = 1 << 30
"""Bytes of the largest file that is read."""

_UNREADABLE = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class ChecksummedFormat:
    """A kind of file: ``name`` with its article, the ``format`` it bears, who writes it, and how to get it anew."""

    name: str
    format: str
    writer: str
    remedy: str

    def write(self, path: str | Path, arrays: Arrays, metadata: Mapping[str, str]) -> None:
        """Write a whole file, or none."""
        from safetensors.numpy import save

        told = {"format": self.format, **metadata}
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        with replacing(path) as temporary:
            temporary.write_bytes(in_order(save(whole, {**told, "sha256": _digest(whole, told)})))

    def read(self, path: str | Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
        """Arrays and metadata. Raises :class:`ZooError` where the file is damaged or another kind."""
        arrays, metadata = self._parsed(Path(path))
        written = metadata.pop("sha256", None)
        if metadata.get("format") != self.format:
            kind = self.name.partition(" ")[2]
            raise ZooError(f"{path}: is no {kind} (format {self.format!r}); {self.writer} writes such files")
        if written != _digest(arrays, metadata):
            raise ZooError(f"{path}: is damaged (its contents do not fit the digest in it); {self.remedy}")
        return arrays, metadata

    def _parsed(self, path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        data = read_file(path, self.name, at_most=LARGEST)
        try:
            arrays = load(data)
            header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")], "its header")
        except (SafetensorError, *_UNREADABLE) as error:
            raise ZooError(f"{path}: cannot be read as {self.name} ({in_short(error)}); {self.remedy}") from None
        return arrays, header.get("__metadata__") or {}


def _digest(arrays: Arrays, metadata: Mapping[str, str]) -> str:
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(json.dumps([name, array.dtype.str, array.shape]).encode() + array.tobytes())
    return found.hexdigest()
