"""Files of other programs, read as a flat state dict. What is pickled is read by another process, under limits."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from fbnetv3_zoo.errors import ZooError, in_short
from fbnetv3_zoo.weights import unpickle
from fbnetv3_zoo.weights.convert import unwrap
from fbnetv3_zoo.weights.files import read_tensors

PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar")
"""Endings under which torch.save's files are found (.tar: a habit of naming only; tar files are refused)."""

_SECONDS = 120  # beside one second a MB: also enough on a slow disk


def read_any(path: str | Path, *, name: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict and the metadata of a ``.safetensors`` file or of a checkpoint of torch.save (no metadata).

    Names are as they are in the file, without the prefixes of wrappers. A checkpoint is unpickled by another process,
    with ``weights_only=True``, and gives dense tensors only. ``name`` is what errors call the file, and whose ending
    counts (default: the path). Raises :class:`ZooError`.
    """
    path, name = Path(path), str(path) if name is None else name
    suffix = Path(name).suffix.lower()
    if suffix == ".safetensors":
        tensors, metadata = read_tensors(path, name=name)
    elif suffix in PICKLED:
        tensors, metadata = _unpickled(path, name), {}
    else:
        raise ZooError(f"{name}: weights are read from .safetensors, .pth, .pt, .bin and .ckpt files only")
    try:
        return unwrap(tensors), metadata
    except ZooError as error:
        raise ZooError(f"{name}: {error}") from None


@contextmanager
def _scratch(name: str) -> Iterator[str]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="fbnetv3-zoo-")
    except OSError as error:
        reason = f"{error.strerror}; set TMPDIR to a folder that can be written"
        raise ZooError(f"{name}: cannot be converted, no room for temporary files ({reason})") from None
    with folder as path:
        yield path


def _unpickled(path: Path, name: str) -> dict[str, Tensor]:
    try:
        size = path.stat().st_size
        path.open("rb").close()
    except OSError as error:
        raise ZooError(f"{name}: cannot be read ({error.strerror})") from None
    with _scratch(name) as folder:
        target = Path(folder, "tensors.safetensors")
        paths = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", unpickle.__name__, str(path.absolute()), str(target), str(os.getpid())]
        try:
            process = subprocess.run(
                command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=_SECONDS + size / 1_000_000,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ZooError(f"{name}: takes too long to read for a checkpoint; refused") from None
        if process.returncode == 0:
            tensors, _ = read_tensors(target, name=name)
            return tensors
    reason = in_short((process.stderr.splitlines() or [""])[-1])
    if process.returncode == unpickle.REFUSED:
        raise ZooError(f"{name}: {reason}")
    ending = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
    raise ZooError(f"{name}: cannot be read; the process that tried ended with {ending} {reason}".rstrip())
