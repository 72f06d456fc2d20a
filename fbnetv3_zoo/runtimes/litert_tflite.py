"""LiteRT (TensorFlow Lite) files: ``.tflite``.

Our files have their metadata in the entry ``fbnetv3_zoo``, and a seal (:mod:`fbnetv3_zoo.runtimes.seal`). LiteRT trusts
what it reads: a file without a seal that fits is never passed to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ZooError
from ..utils.paths import read_file
from ..utils.serialization import parse_json
from . import sandbox
from .base import Floats, OpenModel, check_shape, checked, described, missing_extra, silence, unreadable
from .seal import EMPTY, has_seal, is_whole

KIND = "LiteRT"
ENTRIES, SEAL = "fbnetv3_zoo", "fbnetv3_zoo_seal"
"""Names of the metadata entries with the description, as JSON, and with the seal."""

_IDENTIFIER = b"TFL3"
_MOST_ENTRIES = 64


def open_litert(path: Path, *, threads: int | None = None) -> OpenModel:
    """The model in ``path``, run by ``threads`` threads (default: LiteRT's choice).

    Raises :class:`ZooError` for a file that is missing, damaged or not of this project.
    """
    data = read_file(path, "a model file", at_most=sandbox.LARGEST_MODEL)
    check_whole_file(path, data)
    try:
        entries = entries_in(data)
    except ImportError:
        raise missing_extra(path, "LiteRT", "litert") from None
    except Exception as error:  # of the parser, which finds what is not there
        raise unreadable(path, KIND, error) from None
    description = described(entries, path, "litert")
    if not sandbox.known(".tflite", (data,)):
        sandbox.try_out(path, KIND, (data,))
    run = Runner(path, data, threads)
    batch, *sides, channels = run.sizes
    return checked(path, description, (batch, channels, *sides), run)


def metadata_of(entries: dict[str, str]) -> dict[str, bytes]:
    """The metadata of a file, by name, with ``entries`` and an empty seal."""
    return {ENTRIES: json.dumps(entries).encode(), SEAL: EMPTY.encode()}


def entries_in(data: bytes) -> dict[str, str]:
    """The metadata in the content of a file; empty if there is none. Raises anything for a damaged file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(data)
    for number in range(min(model.MetadataLength(), _MOST_ENTRIES)):
        entry = model.Metadata(number)
        if entry.Name() == ENTRIES.encode():
            entries = parse_json(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes().decode(), "its description")
            if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
                raise ZooError("its description is not a map of texts")
            return entries
    return {}


def check_whole_file(path: Path, data: bytes) -> None:
    """Raise :class:`ZooError` unless ``data``, the content of ``path``, is an undamaged file of this project."""
    if data[4:8] != _IDENTIFIER:
        raise unreadable(path, KIND, "it does not begin as one")
    if not has_seal(data) and ENTRIES.encode() not in data:
        described({}, path, "litert")
    if not is_whole(data):
        raise unreadable(path, KIND, "it is damaged: its digest is another")


def prepare() -> None:
    """Import what :func:`try_out` needs."""
    from ai_edge_litert import interpreter  # noqa: F401


def try_out(parts: Sequence[bytes]) -> None:
    """Open a file's content and run its smallest batch, of zeros."""
    import numpy as np

    run = Runner(Path("network.tflite"), parts[0], 1)
    batch, high, wide, channels = (size or 1 for size in run.sizes)
    check_shape((batch, high, wide, channels))
    run(np.zeros((batch, channels, high, wide), np.float32))


class Runner:
    """An interpreter of one file; called with images (batch, channels, height, width), it returns logits.

    ``sizes`` are batch, height, width and channels of what it takes; None: any.
    """

    def __init__(self, path: Path, data: bytes, threads: int | None) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise missing_extra(path, "LiteRT", "litert") from None
        try:
            with silence():  # it reports that it computes on XNNPACK
                self._interpreter: Any = Interpreter(model_content=data, num_threads=threads)
                (self._given,), (self._answered,) = (
                    self._interpreter.get_input_details(), self._interpreter.get_output_details(),
                )  # fmt: skip
        except Exception as error:
            raise unreadable(path, KIND, error) from None
        self.sizes = tuple(size if size > 0 else None for size in map(int, self._given["shape_signature"]))
        if len(self.sizes) != 4 or self._given["dtype"].__name__ != "float32":
            raise unreadable(path, KIND, "it does not take one batch of float32 images")
        self._batch: int | None = None

    def __call__(self, images: Floats) -> Floats:
        """The logits of a batch."""
        import numpy as np

        if len(images) != self._batch:
            self._batch = None
            with silence():
                if self.sizes[0] is None:
                    self._interpreter.resize_tensor_input(self._given["index"], (len(images), *self.sizes[1:]))
                self._interpreter.allocate_tensors()
            self._batch = len(images)
        self._interpreter.set_tensor(self._given["index"], np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
        self._interpreter.invoke()
        logits: Floats = self._interpreter.get_tensor(self._answered["index"])
        return logits
