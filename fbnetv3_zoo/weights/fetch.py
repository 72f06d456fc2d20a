"""Get published weights from the cache or, if they are missing or damaged there, from their publisher.

Whatever the layout of the published file, the cache contains our safetensors with a description.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes

from ..description import Description
from ..errors import ZooError, without_secrets
from ..utils.digest import short_digest
from ..utils.log import LOG
from ..utils.safetensors_order import in_order
from ..utils.temporary_folder import clear
from . import hub
from .cache import CachedWeights, CacheError, LockedFile, WeightsCache, sha256_of
from .convert import convert
from .download import Progress, download
from .registry import WeightsEntry, WeightsSource
from .serialization import WeightsFile, parse, read_weights
from .state_dict import refuse_non_finite
from .torch_checkpoint import parse_any

SOURCE_SHA256 = "source_sha256"
"""Metadata entry of a cached file: the SHA-256 of the file that it was converted from."""


def read(record: WeightsEntry, cache: WeightsCache, *, local: bytes | None = None) -> WeightsFile:
    """The cached file of ``record``, which is fetched first if necessary; a file of this package is read in place.

    Its digest is checked: a damaged file is reported, removed and fetched again. ``local`` is the content of the
    record's file if it is on this machine and has been read already. Raises :class:`ZooError` if the weights are
    unavailable.
    """
    if record.packaged is not None:
        return _packaged(record, record.packaged)
    return _kept(record, cache) or _fetch(record, cache, local)


def _packaged(record: WeightsEntry, path: Path) -> WeightsFile:
    data = read_weights(path)
    if sha256_of(data) != record.sources[0].sha256:
        raise ZooError(f"{path}: is damaged; install fbnetv3-zoo again")
    return replace(_converted(record, data, str(path), record.sources[0].sha256), name=record.name)


def fetch(record: WeightsEntry, cache: WeightsCache) -> CachedWeights:
    """Make sure that the weights of ``record`` are in the cache, undamaged. Raises :class:`ZooError` if that fails.

    Not for those of this package, which need no cache.
    """
    cached = CachedWeights.parse(Path(read(record, cache).name))
    assert cached is not None
    return cached


def _kept(record: WeightsEntry, cache: WeightsCache) -> WeightsFile | None:
    """An undamaged cached file of ``record``; None if there is none."""
    for cached in cache.kept(record.name):
        if (file := _opened(cached, record, cache)) is not None:
            clear(cache.folder)  # left by a writer that was killed after moving its file
            return file
    return None


def whole_contents(cached: CachedWeights) -> bytes | None:
    """The contents of the file; None if the digest is not that in its name, or if it cannot be read."""
    try:
        data = cached.path.read_bytes()
    except OSError:
        return None
    return data if short_digest(data) == cached.digest else None


def is_local(address: str) -> bool:
    """Whether ``address`` is a path."""
    return not address.startswith(("http://", "https://", "hf-hub:"))


def is_expected(cached: CachedWeights, record: WeightsEntry, cache: WeightsCache) -> bool:
    """Whether ``cached`` was converted from one of the record's files as published, or as first fetched."""
    known = [_known_digest(record, source, cache) for source in record.sources]
    return any(not digest or digest.startswith(cached.source) for digest in known)


def _opened(cached: CachedWeights, record: WeightsEntry, cache: WeightsCache) -> WeightsFile | None:
    """The file, if it is undamaged and was converted from one of the record's files, by the full digest.

    Its name has only eight digits of that digest, which can be forged.
    """
    if not is_expected(cached, record, cache) or (data := whole_contents(cached)) is None:
        return None
    file = parse(data, str(cached.path))
    origin = file.metadata.get(SOURCE_SHA256, "")
    known = [_known_digest(record, source, cache) for source in record.sources]
    return file if any(origin.startswith(digest) for digest in known) else None


def _known_digest(record: WeightsEntry, source: WeightsSource, cache: WeightsCache) -> str:
    """The digits of the file's SHA-256 that are known: as published, completed from the lock file."""
    locked = cache.known(record.key(source)) if len(source.sha256) < 64 else None
    return locked.sha256 if locked and locked.sha256.startswith(source.sha256) else source.sha256


def _fetch(record: WeightsEntry, cache: WeightsCache, local: bytes | None) -> WeightsFile:
    if not list(_places(record, cache)):
        cached = next((cached for cached in cache.kept(record.name) if is_expected(cached, record, cache)), None)
        state = "not in the cache" if cached is None else f"{cached.path} is damaged"
        raise ZooError(f"{record.name}: {state}, and offline; {_by_hand(record, cache)}")
    with cache.sole(record.name):
        if (file := _kept(record, cache)) is not None:  # another process was faster
            return file
        for cached in cache.kept(record.name):
            if is_expected(cached, record, cache) and (reason := _damage(cached)) is not None:
                LOG.warning("%s: damaged (%s); fetching it again", cached.path, reason)
                cache.discard(cached.path)
        return _fetch_from_any(record, cache, local)


def _damage(cached: CachedWeights) -> str | None:
    """What is wrong with a file; None if it is undamaged or has been removed."""
    try:
        data = cached.path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror
    return None if short_digest(data) == cached.digest else "does not have the digest in its name"


def _places(record: WeightsEntry, cache: WeightsCache) -> Iterator[tuple[WeightsSource, str]]:
    """Each source with its address, in order of preference; offline, only local ones."""
    for source in record.sources:
        if is_local(source.address):
            yield source, source.address
        elif (placed := cache.folder / record.key(source)).is_file():
            yield source, str(placed)
        elif cache.mirror is not None and record.layout is not None:  # a user's own address stands for itself
            address = f"{str(cache.mirror).rstrip('/')}/{record.key(source)}"
            if is_local(address) or not cache.offline:
                yield source, address
        elif not cache.offline:
            yield source, source.address


def _fetch_from_any(record: WeightsEntry, cache: WeightsCache, local: bytes | None) -> WeightsFile:
    failures = []
    for source, address in _places(record, cache):
        try:
            data = _obtained(record, address, cache) if local is None else local
            origin = LockedFile(record.key(source), sha256_of(data), len(data))
            _refuse_other(origin, _known_digest(record, source, cache), source, address, cache)
            file = _converted(record, data, address, origin.sha256)
        except CacheError:
            raise
        except ZooError as error:
            if is_local(source.address):
                raise
            failures.append(str(error))
        else:
            _lock(origin, source, address, cache)
            cached = cache.keep(record.name, origin.sha256, in_order(to_bytes(file.tensors, dict(file.metadata))))
            if record.license is not None:
                LOG.warning("%s: license %s (%s)", record.name, record.license.value, record.license.terms)
            return replace(file, name=str(cached.path))
    raise ZooError(f"{record.name}: cannot be fetched: {'; '.join(failures)}; {_by_hand(record, cache)}")


def _lock(file: LockedFile, source: WeightsSource, address: str, cache: WeightsCache) -> None:
    """Record the digest of a file whose publisher states none, or only a part."""
    if len(source.sha256) == 64:
        return
    first = cache.known(file.key) is None
    locked = cache.record(file)
    if locked.sha256.startswith(source.sha256):  # another process may have been faster, and have got another file
        _refuse_other(file, locked.sha256, source, address, cache)
    if first and not source.sha256:
        shown = without_secrets(address)
        LOG.warning("%s: no digest is published; recorded SHA-256 %s in %s", shown, file.sha256, cache.lock_path)


def _refuse_other(file: LockedFile, digest: str, source: WeightsSource, address: str, cache: WeightsCache) -> None:
    if not file.sha256.startswith(digest):
        origin = (
            f" as in {cache.lock_path}" if digest != source.sha256 else "" if len(digest) == 64 else "..., as published"
        )
        raise ZooError(f"{address}: has SHA-256 {file.sha256}, not {digest}{origin}; refused")


def _obtained(record: WeightsEntry, address: str, cache: WeightsCache) -> bytes:
    """The contents of the file at ``address``; downloads use a temporary file in the cache."""
    if address.startswith("hf-hub:"):
        return hub.contents_of(address, offline=cache.offline)
    if is_local(address):
        return read_weights(Path(address).expanduser())
    with cache.temporary(record.name) as path:
        try:
            with path.open("w+b") as file, _bar(record.name, shown=cache.progress) as on_progress:
                download(
                    address, file, timeout=cache.timeout, attempts=cache.attempts, pause=cache.pause,
                    on_progress=on_progress,
                )  # fmt: skip
                file.seek(0)
                return file.read()
        except OSError as error:
            reason = f"{error.strerror or error}, {shutil.disk_usage(cache.folder).free / 1e6:.0f} MB free"
            raise CacheError(
                f"{cache.folder}: cannot be written ({reason}); set FBNETV3_ZOO_CACHE to another folder"
            ) from None


def _converted(record: WeightsEntry, data: bytes, address: str, sha256: str) -> WeightsFile:
    """The content of the cached file for a file with the bytes ``data``, strictly for the record's network.

    A file of the user's that says nothing of itself stays as it is: what it is for, the caller says each time.
    """
    # The name's ending tells the format: not that of a query, nor of a repository's name.
    hosted = address.startswith("hf-hub:")
    file = parse_any(data, f"{address}/{hub.FILE_NAME}" if hosted else without_secrets(address))
    tensors, given = file.tensors, None
    origin = {"source": without_secrets(address), SOURCE_SHA256: sha256}
    try:
        description = Description.from_metadata(file.metadata)
        if description is None:
            given, (arch, tensors) = tensors, convert(record.arch, tensors)
            names = record.class_names if arch.num_classes == 1000 else None
            description = Description(arch, record.preprocess.for_channels(arch.in_channels), names)
    except ZooError as error:
        raise ZooError(f"{address}: {error}") from None
    refuse_non_finite(tensors, address)
    if given is not None and record.layout is None:
        whole = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in given.items()}
        return WeightsFile(address, whole, origin)
    if description.arch != record.arch and record.layout is not None:
        raise ZooError(f"{address}: holds {description.arch.name} in another form than {record.name}; refused")
    license = record.license.value if record.license else description.license
    description = replace(description, weights=record.name, license=license)
    floats = {name: (t.float() if t.is_floating_point() else t).contiguous() for name, t in tensors.items()}
    return WeightsFile(address, floats, {**description.to_metadata(), **origin})


def _by_hand(record: WeightsEntry, cache: WeightsCache) -> str:
    """Instructions for providing the file by hand: address, digest, path."""
    source = record.sources[0]
    known = _known_digest(record, source, cache)
    digest = f"SHA-256 {known}{'...' if len(known) < 64 else ''}" if known else "no digest is published"
    return f"get {source.address} elsewhere ({digest}) and put it at {cache.folder / record.key(source)}"


@contextmanager
def _bar(name: str, *, shown: bool) -> Iterator[Progress]:
    """A progress bar on standard error if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, size: bar.update(task, completed=done, total=size)
