"""The cache of weights, and the lock file with the digests of the published files.

A cached file is named ``NAME-SOURCE-DIGEST.safetensors``: the name of the weights (``fbnetv3_e.fb_in1k``), the first 8
digits of the SHA-256 of the file they were converted from, and the first 16 digits of its own BLAKE3 (as printed by
``b3sum``). A file whose digest is not that in its name is damaged.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ZooError, check_flag, check_number, check_whole
from ..utils.atomic_write import replacing
from ..utils.cache_folder import cache_folder
from ..utils.digest import short_digest
from ..utils.log import LOG
from ..utils.serialization import from_json, to_json
from ..utils.temporary_folder import NEW, clear, marked_folder

if TYPE_CHECKING:
    from filelock import FileLock

LARGEST_FILE = 8 << 30
"""Largest weight file in bytes; no file of this family comes near."""

_KEPT = re.compile(r"(?P<name>.+)-(?P<source>[0-9a-f]{8})-(?P<digest>[0-9a-f]{16})\.safetensors")
_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
_PATIENCE = 5.0  # seconds of waiting for another process before saying so


def _default_offline() -> bool:
    given = os.environ.get("FBNETV3_ZOO_OFFLINE", "").strip().lower()
    if given not in (*_YES, *_NO):
        raise ZooError(f"FBNETV3_ZOO_OFFLINE is {given!r}; set it to 1 or 0")
    return given in _YES


def _default_lock() -> Path | None:
    given = os.environ.get("FBNETV3_ZOO_LOCK")
    return Path(given) if given else None


class CacheError(ZooError):
    """The cache folder cannot be used, so that trying another source is useless."""


@dataclass(frozen=True, slots=True)
class CachedWeights:
    """A file in the cache, as described by its name."""

    path: Path
    name: str
    source: str
    digest: str

    @classmethod
    def parse(cls, path: Path) -> CachedWeights | None:
        """The cached file at ``path``; None if its name does not have that form."""
        match = _KEPT.fullmatch(path.name)
        return cls(path, match["name"], match["source"], match["digest"]) if match else None


@dataclass(frozen=True, slots=True)
class LockedFile:
    """An entry of the lock file: name, full SHA-256 and size in bytes of a published file when it was first fetched."""

    key: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ZooError(f"{self.key}: sha256 is {self.sha256!r}; it must be 64 hexadecimal digits")
        check_whole(f"{self.key}: size", self.size, at_least=0, at_most=1 << 50)


@dataclass(frozen=True, slots=True)
class WeightsLock:
    """The contents of a lock file."""

    files: tuple[LockedFile, ...] = ()


@dataclass(frozen=True, slots=True)
class WeightsCache:
    """The cache of weights, and how weights are fetched. Defaults come from the environment.

    Args:
        folder: the cache folder (``FBNETV3_ZOO_CACHE``, or the platform's cache folder).
        offline: never use the network (``FBNETV3_ZOO_OFFLINE``).
        mirror: address or folder with the published files as ``MIRROR/NAME/FILE``, such as
            ``MIRROR/fbnetv3_e.fb_in1k/model.pth``, used instead of the publishers (``FBNETV3_ZOO_MIRROR``).
        lock: lock file with digests of files whose publisher states none (``FBNETV3_ZOO_LOCK``, or in ``folder``).
        timeout: seconds without data after which an attempt fails.
        attempts: maximum number of attempts; each resumes where the previous one ended.
        pause: seconds before the second attempt, doubled before each further one.
        progress: show a progress bar on a terminal.
    """

    folder: Path = field(default_factory=cache_folder)
    offline: bool = field(default_factory=_default_offline)
    mirror: str | Path | None = field(default_factory=lambda: os.environ.get("FBNETV3_ZOO_MIRROR") or None)
    lock: Path | None = field(default_factory=_default_lock)
    timeout: float = 30.0
    attempts: int = 5
    pause: float = 0.5
    progress: bool = True

    def __post_init__(self) -> None:
        for name, remedy in (
            ("folder", "a path"),
            ("lock", "a path"),
            ("mirror", "an address or the path of a folder"),
        ):
            value = getattr(self, name)
            if (value is not None or name == "folder") and not (isinstance(value, (str, Path)) and str(value)):
                raise ZooError(f"WeightsCache.{name} is {value!r}; it must be {remedy}")
        object.__setattr__(self, "folder", Path(self.folder).expanduser())
        if self.lock is not None:
            object.__setattr__(self, "lock", Path(self.lock).expanduser())
        check_flag("WeightsCache.offline", self.offline)
        check_flag("WeightsCache.progress", self.progress)
        check_number("WeightsCache.timeout", self.timeout, above=0)
        check_whole("WeightsCache.attempts", self.attempts)
        check_number("WeightsCache.pause", self.pause, at_least=0)

    @property
    def lock_path(self) -> Path:
        """The lock file in use."""
        return self.folder / "weights.lock.json" if self.lock is None else self.lock

    def kept(self, name: str | None = None) -> list[CachedWeights]:
        """The cached files (of the weights ``name``, if given), newest first; empty if the folder does not exist."""
        try:
            files = [file for path in self.folder.iterdir() if (file := CachedWeights.parse(path)) is not None]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._refusal(error) from None
        return sorted((file for file in files if name in (None, file.name)), key=_age)

    @contextmanager
    def temporary(self, name: str) -> Iterator[Path]:
        """A path for a download of ``name``; removed when the block ends, like the remains of killed processes."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with marked_folder(self.folder) as folder:
                yield folder / NEW / f"{name}.download"
        except OSError as error:
            raise self._refusal(error) from None

    def keep(self, name: str, source_sha256: str, data: bytes) -> CachedWeights:
        """Write ``data`` to the cache atomically and return the file."""
        digest = short_digest(data)
        path = self.folder / f"{name}-{source_sha256[:8]}-{digest}.safetensors"
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        return CachedWeights(path, name, source_sha256[:8], digest)

    def discard(self, path: Path) -> None:
        """Remove a damaged file."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise self._refusal(error) from None

    def has_got(self, name: str) -> bool:
        """Whether weights ``name`` were ever fetched to this folder; otherwise files of that name are the user's."""
        return self._lock_of(name).exists()

    def _lock_of(self, name: str) -> Path:
        return self.folder / ".locks" / f"{name}.lock"

    @contextmanager
    def sole(self, name: str) -> Iterator[None]:
        """Hold the lock of ``name``, so that only one process at a time fetches it."""
        try:
            lock = _acquired(self._lock_of(name), f"{name}: waiting for another process to get it")
        except (OSError, NotImplementedError) as error:
            raise self._refusal(error) from None
        try:
            yield
        finally:
            lock.release()

    def known(self, key: str) -> LockedFile | None:
        """The entry of the published file ``key`` in the lock file; None if there is none."""
        return next((entry for entry in self._read_lock().files if entry.key == key), None)

    def record(self, entry: LockedFile) -> LockedFile:
        """Add ``entry`` to the lock file unless its key exists. Returns the entry that is then in the file.

        Caches with other folders may share the lock file, so its writers use a lock beside it.
        """
        path = self.lock_path
        try:
            lock = _acquired(
                path.with_name(f".fbnetv3-zoo-{path.name}.lock"), f"{path}: waiting for another process to write it"
            )
        except (OSError, NotImplementedError) as error:
            raise ZooError(f"{path}: cannot be written ({_reason(error)})") from None
        try:
            if (known := self.known(entry.key)) is not None:
                clear(path.parent)  # of a writer that was killed once its entry was in place
                return known
            files = sorted((*self._read_lock().files, entry), key=lambda file: file.key)
            with replacing(path) as temporary:
                temporary.write_text(to_json(WeightsLock(tuple(files))) + "\n", encoding="utf-8")
            return entry
        finally:
            lock.release()

    def _read_lock(self) -> WeightsLock:
        try:
            text = self.lock_path.read_bytes()
        except FileNotFoundError:
            return WeightsLock()
        except OSError as error:
            raise ZooError(f"{self.lock_path}: cannot be read ({error.strerror})") from None
        try:
            return from_json(WeightsLock, text)
        except ZooError as error:
            raise ZooError(f"{self.lock_path}: {error}; mend the file, or delete it to trust anew") from None

    def _refusal(self, error: Exception) -> CacheError:
        problem = f"{self.folder}: cannot be used as cache ({_reason(error)})"
        return CacheError(f"{problem}; set FBNETV3_ZOO_CACHE to another folder")


def sha256_of(data: bytes) -> str:
    """The SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _acquired(path: Path, waiting: str) -> FileLock:
    """The lock of the file at ``path``, acquired; ``waiting`` is logged if that takes long."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        LOG.warning(waiting)
        lock.acquire()
    return lock


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _age(file: CachedWeights) -> float:
    try:
        return -file.path.stat().st_mtime
    except OSError:  # another process has just removed it
        return 0.0
