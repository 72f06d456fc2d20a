"""Weight files of other programs, read as a flat state dict; pickled ones by another process, under limits."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from ..description import other_kind
from ..errors import ZooError
from ..utils.atomic_write import scratch
from ..utils.processes import last_line
from . import unpickle
from .convert import find_state_dict
from .serialization import WeightsFile, parse, read_weights

PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar")
"""Suffixes of files written by torch.save (.tar is only a naming habit; tar files are refused)."""

_SECONDS = 120  # beside one second a MB: also enough on a slow disk


def read_any(path: str | Path) -> WeightsFile:
    """The state dict and the metadata of a ``.safetensors`` file or of a checkpoint of torch.save; see
    :func:`parse_any`.
    """
    _check_ending(str(path))
    return parse_any(read_weights(path), str(path))


def parse_any(data: bytes, name: str) -> WeightsFile:
    """The state dict and the metadata of a file's contents ``data``; a checkpoint of torch.save has no metadata.

    Names are those in the file without the prefixes of wrappers. A checkpoint is unpickled by another process, with
    ``weights_only=True``, and gives dense tensors only. Errors name the file ``name``, whose suffix tells its format.
    Raises :class:`ZooError` if it cannot be read.
    """
    file = parse(data, name) if _check_ending(name) == ".safetensors" else _unpickled(data, name)
    if file.metadata.get("format", "").startswith("fbnetv3_zoo.images"):
        raise ZooError(f"{name}: {other_kind(file.metadata)}")
    try:
        return replace(file, tensors=find_state_dict(file.tensors))
    except ZooError as error:
        raise ZooError(f"{name}: {error}") from None


def _check_ending(name: str) -> str:
    suffix = Path(name).suffix.lower()
    if suffix not in (".safetensors", *PICKLED):
        raise ZooError(f"{name}: weights are read from .safetensors, .pth, .pt, .bin and .ckpt files only")
    return suffix


def _unpickled(data: bytes, name: str) -> WeightsFile:
    # The files have no names: no other process can change them, and nothing is left behind.
    with scratch() as folder, TemporaryFile(dir=folder) as given, TemporaryFile(dir=folder) as answer:
        given.write(data)
        given.flush()
        given.seek(0)
        process = _read_in_another(given, answer, name, seconds=_SECONDS + len(data) / 1_000_000)
        if process.returncode == 0:
            answer.seek(0)
            return parse(answer.read(), name)
        reason = last_line(process.stderr)
        if process.returncode == unpickle.REFUSED:
            raise ZooError(f"{name}: {reason}")
        ending = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        raise ZooError(f"{name}: cannot be read; the process that tried ended with {ending} {reason}".rstrip())


_RUN = f"""
import sys
del sys.path[0]  # the current folder, whose modules are not ours (-P, but for Python 3.10, too)
import runpy
runpy.run_module({unpickle.__name__!r}, run_name="__main__", alter_sys=True)
"""


def _read_in_another(
    given: IO[bytes], answer: IO[bytes], name: str, *, seconds: float
) -> subprocess.CompletedProcess[str]:
    """How the process ended that reads ``given`` and writes ``answer``."""
    paths = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _RUN, str(os.getpid())]
    try:
        return subprocess.run(
            command, env=environment, stdin=given, stdout=answer, stderr=subprocess.PIPE, text=True, errors="replace",
            timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ZooError(f"{name}: takes too long to read for a checkpoint; refused") from None
