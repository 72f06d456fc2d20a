"""Arrays in a safetensors file with a digest of its contents: a damaged file is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ZooError, in_short, shown
from .atomic_write import replacing
from .paths import read_file
from .safetensors_order import in_order
from .serialization import parse_json

Arrays = Mapping[str, npt.NDArray[Any]]
LARGEST = 1 << 30
"""Largest file, in bytes."""

KINDS = {
    "fbnetv3_zoo": "a model",
    "fbnetv3_zoo.checkpoint": "a checkpoint of a run",
    "fbnetv3_zoo.detector": "a detector",
    "fbnetv3_zoo.encoder": "an encoder of a search",
    "fbnetv3_zoo.images": "a data set",
    "fbnetv3_zoo.recording": "a recording of a search",
}
"""The kinds of our safetensors files, by their entry ``format`` without the version."""

_UNREADABLE = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class ChecksummedFormat:
    """A kind of file: its ``name`` with an article, its ``format`` entry, its ``writer``, and how to get another.

    ``arrays`` are the arrays of every file by name, each with the ``dtype.kind`` that it may have ("iu", "f");
    ``others`` are the kinds of all further arrays, "" if there must be none. Every file has the entries ``metadata``.
    """

    name: str
    format: str
    writer: str
    remedy: str
    arrays: Mapping[str, str]
    metadata: tuple[str, ...]
    others: str = ""

    def write(self, path: str | Path, arrays: Arrays, metadata: Mapping[str, str]) -> None:
        """Write the file atomically."""
        from safetensors.numpy import save

        entries = {"format": self.format, **metadata}
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        with replacing(path) as temporary:
            temporary.write_bytes(in_order(save(contiguous, {**entries, "sha256": digest(contiguous, entries)})))

    def read(self, path: str | Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
        """Arrays and metadata. Raises :class:`ZooError` if the file is damaged, incomplete or of another kind.

        The entry ``sha256`` is the digest of all contents.
        """
        arrays, metadata = self.parse(Path(path))
        written = metadata.pop("sha256", "")
        if metadata.get("format") != self.format:
            kind = KINDS.get(metadata.get("format", "").partition(" ")[0])
            unknown = f"is no {self.name.partition(' ')[2]} (format {self.format!r})"
            other = unknown if kind is None else f"is {kind}, not {self.name}"
            raise ZooError(f"{path}: {other}; {self.writer} writes such files")
        if written != digest(arrays, metadata):
            raise ZooError(f"{path}: is damaged (its contents do not fit the digest in it); {self.remedy}")
        if lacking := [*(self.arrays.keys() - arrays.keys()), *({*self.metadata} - metadata.keys())]:
            raise ZooError(f"{path}: lacks {', '.join(sorted(lacking))}; {self.remedy}")
        for name, array in arrays.items():
            if array.dtype.kind not in self.arrays.get(name, self.others):
                raise ZooError(f"{path}: has {shown(name)} of type {array.dtype}, unlike {self.name}; {self.remedy}")
        return arrays, {**metadata, "sha256": written}

    def parse(self, path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
        """Arrays and metadata of any safetensors file, unchecked."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        data = read_file(path, self.name, at_most=LARGEST)
        try:
            arrays = load(data)
            header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")], "its header")
        except (SafetensorError, *_UNREADABLE) as error:
            reason = in_short(error) if data else "the file is empty"
            raise ZooError(f"{path}: cannot be read as {self.name} ({reason}); {self.remedy}") from None
        return arrays, header.get("__metadata__") or {}


def digest(arrays: Arrays, metadata: Mapping[str, str]) -> str:
    """The SHA-256 of names, types, shapes and values of ``arrays``, and of ``metadata``."""
    state = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        state.update(array.reshape(-1).view(np.uint8).data)
    return state.hexdigest()
