"""``.onnx`` files and their mobile form ``.ort`` on ONNX Runtime, without torch."""

from __future__ import annotations

import contextlib
import io
import logging
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import ZooError, printable
from ..utils.onnx_io import check_graph, parse_graph
from ..utils.paths import read_file
from . import sandbox
from .bare_network import network_inside
from .base import Floats, OpenModel, check_shape, checked, described, unreadable

if TYPE_CHECKING:
    import onnxruntime

KINDS = {".onnx": "ONNX", ".ort": "ORT"}
LAID_OUT_FOR = "laid_out_for"
"""Metadata entry of a .ort file: the processors for which its weights are laid out, arm or amd64."""

LOG = logging.getLogger("fbnetv3_zoo")
FORMS = {".onnx": "onnx", ".ort": "mobile"}


def session_options(threads: int | None = None) -> onnxruntime.SessionOptions:
    """Session options: ``threads`` threads (default: one per core), no messages from ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    return options


def open_onnx(
    path: Path, *, threads: int | None = None, inside: bool = False, data: bytes | None = None
) -> OpenModel:  # fmt: skip
    """The model in ``path``, run by ``threads`` threads (default: one per core).

    With ``inside``, an ``.onnx`` file with built-in preprocessing gives the network inside; otherwise it is refused.
    ``data`` is the content of ``path`` if it has been read already: the file is not opened again.

    Raises :class:`~fbnetv3_zoo.errors.ZooError` for a file that is missing, damaged or not of this project.
    """
    kind = KINDS[path.suffix]
    data = read_file(path, "a model file", at_most=sandbox.LARGEST_MODEL) if data is None else data
    session, entries = open_session(path, data, threads=threads)
    description = described(entries, path, FORMS[path.suffix])
    if inside and path.suffix == ".onnx" and [one.type for one in session.get_inputs()] == ["tensor(uint8)"]:
        session = _session(network_inside(data, path), threads)
    given, answered = session.get_inputs(), session.get_outputs()
    if len(given) != 1 or given[0].type != "tensor(float)":
        raise unreadable(path, kind, "it takes something else than a batch of prepared images; export it without that")
    if not sandbox.written_here(path.suffix, (data,)):
        _tell_of_layout(path, entries)
    name, output = given[0].name, answered[0].name

    def run(images: Floats) -> Floats:
        logits: Floats = session.run([output], {name: images})[0]
        return logits

    return checked(path, description, given[0].shape, run)


def open_session(
    path: Path, data: bytes, *, threads: int | None = None, work: int = 1
) -> tuple[onnxruntime.InferenceSession, Mapping[str, str]]:
    """A session of the content ``data`` of ``path``, which another process tried out, and the file's metadata.

    ``work`` is as in :func:`~fbnetv3_zoo.runtimes.sandbox.try_out`. Raises :class:`ZooError` if the file is refused.
    """
    kind = KINDS[path.suffix]
    if not sandbox.known(path.suffix, (data,)):
        _look(path, kind, data)
        sandbox.try_out(path, kind, (data,), work=work)
    try:
        session = _session(data, threads)
        return session, session.get_modelmeta().custom_metadata_map
    except Exception as error:  # onnxruntime's own exception classes share no public base
        raise unreadable(path, kind, error) from None


def _look(path: Path, kind: str, data: bytes) -> None:
    """Raise :class:`ZooError` if ``data`` cannot be one of our networks, before it is tried out."""
    if path.suffix == ".onnx":
        try:
            check_graph(parse_graph(data))
        except ZooError as error:
            raise unreadable(path, kind, error) from None
    elif data[4:8] != b"ORTM":
        raise unreadable(path, kind, "it does not begin as one")


def _session(data: bytes, threads: int | None) -> onnxruntime.InferenceSession:
    import onnxruntime

    with contextlib.redirect_stdout(io.StringIO()):  # it reports a second attempt, which fails as the first did
        return onnxruntime.InferenceSession(data, session_options(threads), providers=["CPUExecutionProvider"])


def _tell_of_layout(path: Path, entries: Mapping[str, str]) -> None:
    """Warn if the weights of the file are laid out for another kind of processor, which makes it slow here."""
    intended, here = entries.get(LAID_OUT_FOR), platform.machine().lower()
    if intended == "arm" and here in ("x86_64", "amd64", "i686"):
        advice = "open the .onnx file here, or export it again with --platform amd64"
        LOG.warning(f"{printable(str(path))} is laid out for ARM processors and slow on this one ({here}); {advice}")


def prepare() -> None:
    """Import what :func:`try_out` needs."""
    import onnxruntime  # noqa: F401


def try_out(parts: Sequence[bytes]) -> None:
    """Open a file's content and run its smallest batch, of zeros."""
    session = _session(parts[0], 1)
    zeros = {value.name: _zeros(value.type, value.shape) for value in session.get_inputs()}
    session.run(None, zeros)


_TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}


def _zeros(kind: str, shape: Sequence[object]) -> npt.NDArray[Any]:
    sizes = [size if isinstance(size, int) else 1 if n == 0 and len(shape) == 4 else 64 for n, size in enumerate(shape)]
    if kind not in _TYPES or any(size < 0 for size in sizes):
        raise ZooError(f"it takes {kind} of shape {shape}")
    check_shape(sizes)
    return np.zeros(sizes, _TYPES[kind])
