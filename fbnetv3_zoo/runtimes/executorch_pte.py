"""ExecuTorch programs (``.pte``).

The runtime does not validate its input: a damaged program can crash the process. Our programs therefore contain a
digest, and a file that does not match it is never passed to the runtime.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ZooError
from ..utils.paths import read_file
from ..utils.serialization import parse_json
from . import sandbox
from .base import Floats, OpenModel, check_shape, checked, described, missing_extra, silence, unreadable
from .seal import has_seal, is_whole

if TYPE_CHECKING:
    from executorch.runtime import Program

KIND = "ExecuTorch program"
ENTRIES = "fbnetv3_zoo"
"""Method of a program that returns its metadata as JSON."""

SEAL = "fbnetv3_zoo_seal"
"""Method that returns the seal (:mod:`fbnetv3_zoo.runtimes.seal`)."""

FREE_BATCH = "free_batch"
"""Metadata entry: "true" if the batch size of a program is a maximum, "false" if it is exact."""

_IDENTIFIER, _HEADER = b"ET12", b"eh00"


def open_executorch(path: Path, *, threads: int | None = None) -> OpenModel:
    """The model in ``path``, run by ``threads`` threads (default: ExecuTorch's choice; applies to the whole process).

    Raises :class:`~fbnetv3_zoo.errors.ZooError` for a file that is missing, damaged or not of this project.
    """
    data = read_file(path, "a model file", at_most=sandbox.LARGEST_MODEL)
    check_whole_program(path, data)
    if not sandbox.known(".pte", (data,)):
        sandbox.try_out(path, KIND, (data,))
    program = _loaded(path, data, threads)
    with silence():
        program.load_method("forward")
        text = program.load_method(ENTRIES).execute([])[0]
    try:
        entries = entries_in(text)
    except ZooError as error:
        raise unreadable(path, KIND, error) from None
    description = described(entries, path, "executorch")

    def run(images: Floats) -> Floats:
        import torch

        forward = program.load_method("forward")  # loaded for each call, as the program must outlive its method
        logits: Floats = forward.execute([torch.from_numpy(images)])[0].numpy()
        return logits

    sizes = program.metadata("forward").input_tensor_meta(0).sizes()
    return checked(path, description, sizes, run, up_to=entries.get(FREE_BATCH) == "true")


def entries_in(text: object) -> dict[str, str]:
    """The metadata of a program, from its JSON ``text``. Raises :class:`ZooError` for anything but a map of texts."""
    entries = parse_json(text if isinstance(text, str) else "", "its description")
    if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
        raise ZooError("its description is not a map of texts")
    return entries


def prepare() -> None:
    """Import what :func:`try_out` needs."""
    with quiet_import():
        from executorch.extension.pybindings import portable_lib  # noqa: F401
        from executorch.runtime import Runtime  # noqa: F401


def try_out(parts: Sequence[bytes]) -> None:
    """Load a program and run its smallest batch, of zeros."""
    import torch

    program = _loaded(Path("program.pte"), parts[0], 1)
    with silence():
        entries = entries_in(program.load_method(ENTRIES).execute([])[0])
        sizes = list(program.metadata("forward").input_tensor_meta(0).sizes())
        check_shape(sizes)
        sizes[0] = 1 if entries.get(FREE_BATCH) == "true" else sizes[0]
        program.load_method("forward").execute([torch.zeros(sizes)])


def check_whole_program(path: Path, data: bytes) -> None:
    """Raise :class:`ZooError` unless ``data``, the content of ``path``, is an undamaged program of this project."""
    if len(data) < 40 or data[4:8] != _IDENTIFIER:
        raise unreadable(path, KIND, "it does not begin as one")
    if data[8:12] == _HEADER:
        program, base, segments = struct.unpack_from("<QQQ", data, 16)
        if len(data) != (expected := max(program, base + segments)):
            raise unreadable(path, KIND, f"it has {len(data)} bytes, and says that there are {expected}")
    if not has_seal(data):
        described({}, path, "executorch")
    if not is_whole(data):
        raise unreadable(path, KIND, "it is damaged: its digest is another")


def _loaded(path: Path, data: bytes, threads: int | None) -> Program:
    try:
        with quiet_import():
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime
    except ImportError:
        raise missing_extra(path, "ExecuTorch", "executorch") from None
    try:
        with silence():
            if threads is not None:
                portable_lib._unsafe_reset_threadpool(threads)
            portable_lib._threadpool_get_thread_count()  # starts the threads, which prints the processor
            return Runtime.get().load_program(data)
    except Exception as error:
        raise unreadable(path, KIND, error) from None


@contextmanager
def quiet_import() -> Iterator[None]:
    """Hide the warnings and messages that importing ExecuTorch produces."""
    import warnings

    logger = logging.getLogger("torch.utils._pytree")
    disabled = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings(), silence():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled
