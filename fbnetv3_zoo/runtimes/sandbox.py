"""Try a model file out in a process that may crash, before this process opens the same bytes.

Files that passed are remembered by digest: in this process, and as an empty file in the cache folder, which is trusted
only if nobody else can write there.
"""

from __future__ import annotations

import importlib.metadata
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..utils.cache_folder import cache_folder
from ..utils.processes import last_line
from . import sandbox_process
from .base import missing_extra, unreadable

LARGEST_MODEL = 1 << 31
"""Largest model file, in bytes."""

_PACKAGES = {
    ".onnx": "onnxruntime", ".ort": "onnxruntime", ".xml": "openvino", ".pte": "executorch", ".param": "ncnn",
    ".tflite": "ai-edge-litert", ".mlpackage": "coremltools",
}  # fmt: skip
_NAMES = {
    "openvino": "OpenVINO",
    "executorch": "ExecuTorch",
    "onnxruntime": "ONNX Runtime",
    "ncnn": "ncnn",
    "ai-edge-litert": "LiteRT",
    "coremltools": "coremltools",
}
_EXTRAS = {"ai-edge-litert": "litert", "coremltools": "coreml"}
"""The extras that are not called like their package."""

_SECONDS = 60  # plus a second for 5 MB: enough on a slow disk, too
_good: set[str] = set()
_own: set[str] = set()


def known(suffix: str, parts: Sequence[bytes]) -> bool:
    """Whether a file with these ``parts`` was tried out before, or written by this process."""
    digest = _digest(suffix, parts)
    if digest not in _good and _marked(digest):
        _good.add(digest)
    return digest in _good


def written_here(suffix: str, parts: Sequence[bytes]) -> bool:
    """Whether this process wrote the file (:func:`remember`)."""
    return _digest(suffix, parts) in _own


def remember(suffix: str, parts: Sequence[bytes]) -> None:
    """Remember that this process wrote a file with these ``parts``: it need not be tried out."""
    digest = _digest(suffix, parts)
    _good.add(digest)
    _own.add(digest)
    _mark(digest)


def try_out(path: Path, kind: str, parts: Sequence[bytes], *, work: int = 1) -> None:
    """Open and run the file with these ``parts`` in another process. Raises :class:`ZooError` if that fails.

    Errors name ``path``, whose suffix selects the runtime, and ``kind``, what the file should be. ``work``: how many
    times the memory and time of a classifier it may take.
    """
    if (fault := fault_of(path, parts, work=work)) is not None:
        raise unreadable(path, kind, fault)
    digest = _digest(path.suffix, parts)
    _good.add(digest)
    _mark(digest)


def fault_of(path: Path, parts: Sequence[bytes], *, work: int = 1) -> str | None:
    """Why the file with these ``parts`` cannot be opened and run in another process; None if it can.

    The arguments are those of :func:`try_out`. Raises :class:`ZooError` if the runtime is not installed.
    """
    suffix = path.suffix
    ended = _run(suffix, parts, work)
    package = _PACKAGES[suffix]
    if ended is None:
        return "it takes longer than a network of its size should"
    if ended.returncode == sandbox_process.MISSING:
        raise missing_extra(path, _NAMES[package], _EXTRAS.get(package, package))
    reason = last_line(ended.stderr)
    if ended.returncode == sandbox_process.REFUSED:
        memory = "bad_alloc" in reason or "allocat" in reason or "MemoryError" in reason
        return "it needs more memory than a network of its size should" if memory else reason
    return f"the process that tried it ended by {ending(ended.returncode)}" if ended.returncode != 0 else None


def ending(code: int) -> str:
    """How a process with the exit code ``code`` ended, to be quoted in an error."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _run(suffix: str, parts: Sequence[bytes], work: int) -> subprocess.CompletedProcess[str] | None:
    """The finished process; None if it took too long."""
    paths = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONPATH": paths, "MALLOC_ARENA_MAX": "2"}
    content = b"".join(piece for part in parts for piece in (struct.pack("<Q", len(part)), part))
    command = [sys.executable, "-m", sandbox_process.__name__, suffix, str(os.getpid()), str(work)]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with process:
        try:
            _, output = process.communicate(content, timeout=work * _SECONDS + len(content) / 5_000_000)
        except subprocess.TimeoutExpired:
            process.kill()
            return None
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, "", output.decode(errors="replace"))


def _digest(suffix: str, parts: Sequence[bytes]) -> str:
    import blake3

    with suppress(importlib.metadata.PackageNotFoundError):
        suffix += importlib.metadata.version(_PACKAGES[suffix])
    digest = blake3.blake3(suffix.encode())
    for part in parts:
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)
    return digest.hexdigest()


def _folder() -> Path:
    return cache_folder() / "tried"


def _is_own(path: Path) -> bool:
    """Whether ``path`` belongs to this user and nobody else may write to it; False on systems without users."""
    if not hasattr(os, "getuid"):
        return False
    status = os.lstat(path)
    return status.st_uid == os.getuid() and not status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode)


def _marked(digest: str) -> bool:
    try:
        folder = _folder()
        return _is_own(folder) and _is_own(folder / digest)
    except (OSError, ValueError):
        return False


def _mark(digest: str) -> None:
    with suppress(OSError, ValueError):
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / digest).touch(mode=0o600)
