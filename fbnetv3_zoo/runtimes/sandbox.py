"""Trying a model file out in a process that may die, before this one opens the same bytes.

What went well is remembered by its digest: in this process, and by an empty file in the cache folder, which counts
where that folder is this user's alone.
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

from ..errors import in_short
from ..utils.cache_folder import cache_folder
from . import sandbox_process as probe
from .base import missing_extra, unreadable

LARGEST_MODEL = 1 << 31
"""Upper bound of a model file, in bytes."""

_PACKAGES = {".onnx": "onnxruntime", ".ort": "onnxruntime", ".xml": "openvino", ".pte": "executorch"}
_NAMES = {"openvino": "OpenVINO", "executorch": "ExecuTorch", "onnxruntime": "ONNX Runtime"}
_SECONDS = 60  # beside a second for 5 MB: also enough on a slow disk
_good: set[str] = set()
_own: set[str] = set()


def known(suffix: str, parts: Sequence[bytes]) -> bool:
    """Whether a file of these ``parts`` was tried out already, or written by this process."""
    digest = _digest(suffix, parts)
    if digest not in _good and _marked(digest):
        _good.add(digest)
    return digest in _good


def written_here(suffix: str, parts: Sequence[bytes]) -> bool:
    """Whether this process wrote the file (:func:`remember`)."""
    return _digest(suffix, parts) in _own


def remember(suffix: str, parts: Sequence[bytes]) -> None:
    """This process has just written a file of these ``parts``: it need not be tried out."""
    digest = _digest(suffix, parts)
    _good.add(digest)
    _own.add(digest)
    _mark(digest)


def try_out(path: Path, kind: str, parts: Sequence[bytes]) -> None:
    """Open and compute the file of these ``parts`` in another process. Raises :class:`ZooError` where that ends badly.

    ``path`` is what errors call it; its ending says which runtime is meant, ``kind`` what it should be.
    """
    suffix = path.suffix
    ended = _run(suffix, parts)
    package = _PACKAGES[suffix]
    if ended is None:
        raise unreadable(path, kind, "it takes longer than a network of its size should")
    if ended.returncode == probe.MISSING:
        raise missing_extra(path, _NAMES[package], package)
    told = in_short((ended.stderr.splitlines() or [""])[-1])
    if ended.returncode == probe.REFUSED:
        memory = "bad_alloc" in told or "allocat" in told or "MemoryError" in told
        raise unreadable(path, kind, "it needs more memory than a network of its size should" if memory else told)
    if ended.returncode != 0:
        raise unreadable(path, kind, f"the process that tried it ended by {_ending(ended.returncode)}")
    digest = _digest(suffix, parts)
    _good.add(digest)
    _mark(digest)


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _run(suffix: str, parts: Sequence[bytes]) -> subprocess.CompletedProcess[str] | None:
    """How the process ended; None where it took too long."""
    paths = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONPATH": paths, "MALLOC_ARENA_MAX": "2"}
    content = b"".join(piece for part in parts for piece in (struct.pack("<Q", len(part)), part))
    command = [sys.executable, "-m", probe.__name__, suffix, str(os.getpid())]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with process:
        try:
            _, told = process.communicate(content, timeout=_SECONDS + len(content) / 5_000_000)
        except subprocess.TimeoutExpired:
            process.kill()
            return None
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, "", told.decode(errors="replace"))


def _digest(suffix: str, parts: Sequence[bytes]) -> str:
    import blake3

    with suppress(importlib.metadata.PackageNotFoundError):
        suffix += importlib.metadata.version(_PACKAGES[suffix])
    found = blake3.blake3(suffix.encode())
    for part in parts:
        found.update(struct.pack("<Q", len(part)))
        found.update(part)
    return found.hexdigest()


def _folder() -> Path:
    return cache_folder() / "tried"


def _is_own(path: Path) -> bool:
    """Whether ``path`` is this user's, and nobody else may write there; never where a system has no users."""
    if not hasattr(os, "getuid"):
        return False
    told = os.lstat(path)
    return told.st_uid == os.getuid() and not told.st_mode & 0o022 and not stat.S_ISLNK(told.st_mode)


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
