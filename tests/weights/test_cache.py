"""Where weights are kept: settings, lock files, mirrors, offline use, and files that rot."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from faulty_server import FaultyServer, File, closed_port, serving
from killed import leave_half_a_file
from published import record_of, weight_file

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.weights import cache as cache_module
from fbnetv3_zoo.weights import fetch as module
from fbnetv3_zoo.weights.cache import CachedWeights, LockedFile, WeightsCache
from fbnetv3_zoo.weights.cache_prune import prune
from fbnetv3_zoo.weights.fetch import fetch, read, whole_contents
from fbnetv3_zoo.weights.registry import WeightsEntry, WeightsSource
from fbnetv3_zoo.weights.serialization import WeightsFile, load, parse

NET = "/models/model.safetensors"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the machine."""
    for name in list(os.environ):
        if name.startswith("FBNETV3_ZOO_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def weights(tiny_arch: Arch) -> bytes:
    return weight_file(tiny_arch)


@pytest.fixture(scope="module")
def others(tiny_arch: Arch) -> bytes:
    """Other weights of the same network, in a file of the same size."""
    return weight_file(tiny_arch, seed=1)


@pytest.fixture
def server(weights: bytes) -> Iterator[FaultyServer]:
    with serving({NET: weights}) as server:
        yield server


@pytest.fixture
def record(server: FaultyServer, tiny_arch: Arch) -> WeightsEntry:
    return record_of(tiny_arch, server.address(NET))


@pytest.fixture
def cache(tmp_path: Path) -> WeightsCache:
    return WeightsCache(tmp_path / "cache", timeout=60.0, attempts=1)


def refusal(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(ZooError) as caught:
        call(*arguments, **named)
    return str(caught.value)


def tensors_of(data: bytes) -> dict[str, torch.Tensor]:
    return parse(data, "x.safetensors").tensors


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def pinned(record: WeightsEntry, digits: str) -> WeightsEntry:
    return replace(record, sources=(WeightsSource(record.sources[0].address, digits),))


def by_hand(record: WeightsEntry, cache: WeightsCache, known: str = "no digest is published") -> str:
    source = record.sources[0]
    return f"get {source.address} elsewhere ({known}) and put it at {cache.folder / record.name / source.file_name}"


def entries(cache: WeightsCache) -> list[str]:
    paths = [path for path in cache.folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return sorted(str(path.relative_to(cache.folder)) for path in paths)


# Settings


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cache = WeightsCache()
    assert (cache.offline, cache.mirror, cache.lock) == (False, None, None)
    if sys.platform == "linux":
        assert cache.folder == tmp_path / "xdg" / "fbnetv3-zoo"
    assert cache.lock_path == cache.folder / "weights.lock.json"
    for name in ("CACHE", "MIRROR", "LOCK"):
        monkeypatch.setenv(f"FBNETV3_ZOO_{name}", f"~/{name}")
    monkeypatch.setenv("FBNETV3_ZOO_OFFLINE", "1")
    cache, home = WeightsCache(), tmp_path / "home"
    assert (cache.folder, cache.lock_path, cache.mirror) == (home / "CACHE", home / "LOCK", "~/MIRROR")
    assert cache.offline


def test_arguments_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CACHE", "MIRROR", "LOCK"):
        monkeypatch.setenv(f"FBNETV3_ZOO_{name}", "/elsewhere")
    monkeypatch.setenv("FBNETV3_ZOO_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    cache = WeightsCache("~/cache", offline=False, mirror=Path("/mirror"), lock="~/lock.json")  # type: ignore[arg-type]
    assert (cache.folder, cache.lock_path) == (tmp_path / "cache", tmp_path / "lock.json")
    assert (cache.offline, cache.mirror) == (False, Path("/mirror"))
    assert WeightsCache(mirror=None, lock=None).lock_path == Path("/elsewhere/weights.lock.json")


@pytest.mark.parametrize(
    ("text", "offline"),
    [("1", True), ("true", True), (" Yes", True), ("ON", True)]
    + [(no, False) for no in ("", "0", "False", "no", "off")],
)
def test_offline_from_the_environment(monkeypatch: pytest.MonkeyPatch, text: str, offline: bool) -> None:
    monkeypatch.setenv("FBNETV3_ZOO_OFFLINE", text)
    assert WeightsCache().offline is offline


def test_a_wrong_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FBNETV3_ZOO_OFFLINE", "maybe")
    assert refusal(WeightsCache) == "FBNETV3_ZOO_OFFLINE is 'maybe'; set it to 1 or 0"
    assert WeightsCache(offline=True).offline  # the argument wins


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"folder": 5}, "WeightsCache.folder is 5; it must be a path"),
        ({"folder": ""}, "WeightsCache.folder is ''; it must be a path"),
        ({"folder": None}, "WeightsCache.folder is None; it must be a path"),
        ({"lock": 5}, "WeightsCache.lock is 5; it must be a path"),
        ({"lock": ""}, "WeightsCache.lock is ''; it must be a path"),
        ({"mirror": 5}, "WeightsCache.mirror is 5; it must be an address or the path of a folder"),
        ({"mirror": ""}, "WeightsCache.mirror is ''; it must be an address or the path of a folder"),
        ({"offline": 1}, "WeightsCache.offline is 1; it must be True or False"),
        ({"progress": "no"}, "WeightsCache.progress is 'no'; it must be True or False"),
        ({"timeout": 0}, "WeightsCache.timeout is 0; it must be a number above 0"),
        ({"timeout": float("nan")}, "WeightsCache.timeout is nan; it must be a number above 0"),
        ({"attempts": 0}, "WeightsCache.attempts is 0; it must be a whole number of at least 1"),
        ({"attempts": 1.5}, "WeightsCache.attempts is 1.5; it must be a whole number of at least 1"),
        ({"pause": -1}, "WeightsCache.pause is -1; it must be a number at least 0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], text: str) -> None:
    assert refusal(WeightsCache, **settings) == text


# What is kept


def test_a_fetched_file_is_kept_whole_and_asked_for_once(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache, weights: bytes
) -> None:
    kept = fetch(record, cache)
    assert fetch(record, cache) == kept
    file, data = read(record, cache), kept.path.read_bytes()
    assert file.name == str(kept.path)
    assert len(server.seen) == 1
    assert equal(file.tensors, tensors_of(weights))
    assert kept.path.name == f"tiny.test-{digest(weights)[:8]}-{blake3(data).hexdigest()[:16]}.safetensors"
    assert cache.kept() == cache.kept("tiny.test") == [kept] == [CachedWeights.parse(kept.path)]
    assert cache.kept("tiny") == []
    metadata = file.metadata
    assert metadata["weights"] == "tiny.test"
    assert (metadata["source"], metadata["source_sha256"]) == (server.address(NET), digest(weights))
    assert load(kept.path).arch == record.arch


def test_files_of_one_name_do_not_mix(
    server: FaultyServer, tiny_arch: Arch, cache: WeightsCache, weights: bytes, others: bytes
) -> None:
    server.files = {"/a/model.safetensors": File(weights), "/b/model.safetensors": File(others)}
    records = [record_of(tiny_arch, server.address(f"/{tag}/model.safetensors"), tag=tag) for tag in ("a", "b")]
    for _ in range(2):
        for record, expected in zip(records, (weights, others), strict=True):
            assert equal(read(record, cache).tensors, tensors_of(expected))
    assert len(server.seen) == 2
    assert len(cache.kept()) == 2
    assert [len(cache.kept(record.name)) for record in records] == [1, 1]


def test_pickled_files_of_one_name_do_not_mix(
    server: FaultyServer, tiny_arch: Arch, cache: WeightsCache, tmp_path: Path
) -> None:
    models = [FBNet(replace(tiny_arch, name=name)).eval() for name in ("one", "two")]
    for model in models:
        torch.save({"state_dict": model.state_dict()}, tmp_path / "model.pth")
        server.files[f"/{model.arch.name}/model.pth"] = File((tmp_path / "model.pth").read_bytes())
    for _ in range(2):
        for model in models:
            address = server.address(f"/{model.arch.name}/model.pth")
            assert equal(create(model.arch, pretrained=address, cache=cache).state_dict(), model.state_dict())
    assert len(server.seen) == 2


def test_half_written_files_are_removed_by_the_next_download(
    record: WeightsEntry, cache: WeightsCache, tmp_path: Path
) -> None:
    cache = replace(cache, lock=tmp_path / "lock.json")
    kept = fetch(record, cache)
    mine = [".tiny.test.abcd1234.download", f".{kept.path.name}.a_cd1234.safetensors", ".hidden", ".a.safetensors"]
    for name in mine:
        (cache.folder / name).touch()
    (tmp_path / ".lock.json.abcd1234.json").touch()
    left = [leave_half_a_file(folder) for folder in (cache.folder, tmp_path)]
    assert cache.kept() == [kept]
    kept.path.unlink()
    (tmp_path / "lock.json").unlink()
    fetch(record, cache)
    assert not any(path.exists() for path in left)
    assert sorted(os.listdir(cache.folder)) == sorted([*mine, ".locks", kept.path.name])
    assert sorted(os.listdir(tmp_path)) == [
        ".fbnetv3-zoo-lock.json.lock",
        ".lock.json.abcd1234.json",
        "cache",
        "lock.json",
    ]


def test_nothing_is_pruned_that_was_not_got_here(record: WeightsEntry, cache: WeightsCache) -> None:
    kept = fetch(record, cache)
    mine = cache.folder / "thesis-20251231-0123456789abcdef.safetensors"
    mine.write_bytes(b"mine")
    assert [entry.path for entry in prune(cache, everything=True)] == [kept.path]
    assert mine.read_bytes() == b"mine"


def test_no_folder_holds_nothing(cache: WeightsCache) -> None:
    assert cache.kept() == []
    assert not cache.folder.exists()


def test_waiting_for_another_is_said(
    server: FaultyServer,
    record: WeightsEntry,
    cache: WeightsCache,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cache_module, "_PATIENCE", 0.05)
    with ThreadPoolExecutor(8) as pool:
        with cache.sole(record.name):
            waiting = [pool.submit(fetch, record, cache) for _ in range(8)]
            while len(caplog.messages) < 8:
                assert not any(each.done() for each in waiting)
                time.sleep(0.01)
            assert set(caplog.messages) == {"tiny.test: waiting for another process to get it"}
            assert not server.seen
        assert {each.result() for each in waiting} == set(cache.kept())
    assert len(server.seen) == 1


# Digests and the lock file


def test_the_first_fetch_is_written_down(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache, weights: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    address = server.address(NET)
    kept = fetch(record, cache)
    said = f"{address}: no digest is published; recorded SHA-256 {digest(weights)} in {cache.lock_path}"
    assert caplog.messages == [said]
    assert cache.known("tiny.test/model.safetensors") == LockedFile(
        "tiny.test/model.safetensors", digest(weights), len(weights)
    )
    written = cache.lock_path.read_bytes()
    kept.path.unlink()
    fetch(record, cache)
    assert cache.lock_path.read_bytes() == written
    assert caplog.messages == [said]  # not said again


def test_a_later_difference_is_refused(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache, weights: bytes, others: bytes
) -> None:
    kept = fetch(record, cache)
    written = cache.lock_path.read_bytes()
    kept.path.unlink()
    server.files[NET] = File(others, '"second"')
    assert refusal(fetch, record, cache) == (
        f"tiny.test: cannot be fetched: {server.address(NET)}: has SHA-256 {digest(others)}, not {digest(weights)} "
        f"as in {cache.lock_path}; refused; {by_hand(record, cache, f'SHA-256 {digest(weights)}')}"
    )
    assert cache.lock_path.read_bytes() == written
    assert entries(cache) == ["weights.lock.json"]


def test_a_lock_file_is_shared(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache, others: bytes, tiny_arch: Arch, tmp_path: Path
) -> None:
    lock = tmp_path / "shared" / "lock.json"
    one, two = (replace(cache, folder=tmp_path / name, lock=lock) for name in ("one", "two"))
    fetch(record, one)
    server.files[NET] = File(others)
    assert f" as in {lock}; refused; " in refusal(fetch, record, two)
    server.files["/more/model.safetensors"] = File(others)
    fetch(record_of(tiny_arch, server.address("/more/model.safetensors"), tag="more"), two)
    for each in (one, two):
        assert each.known("tiny.test/model.safetensors") is not None
        assert each.known("tiny.more/model.safetensors") is not None
    assert not (tmp_path / "one" / "weights.lock.json").exists()


def test_what_a_killed_writer_of_the_lock_file_left_is_cleared(tmp_path: Path) -> None:
    cache = WeightsCache(tmp_path / "kept", lock=tmp_path / "lock.json")
    entry = LockedFile("a/model.pth", "1" * 64, 5)
    assert cache.record(entry) == entry
    left = leave_half_a_file(tmp_path)
    assert cache.record(entry) == entry
    assert not left.exists()


def test_records_made_at_once_are_all_kept(tmp_path: Path) -> None:
    stores = [WeightsCache(tmp_path / str(number), lock=tmp_path / "lock.json") for number in range(4)]
    files = [LockedFile(f"net.test/{number}.pth", f"{number:064x}", number) for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(WeightsCache.record, stores * 10, files)) == files
    assert [stores[0].known(file.key) for file in files] == files


def test_the_first_of_two_records_holds(cache: WeightsCache) -> None:
    first, second = (LockedFile("a/model.pth", digit * 64, 5) for digit in "12")
    assert cache.record(first) == first
    assert cache.record(second) == first
    assert cache.known("a/model.pth") == first


def test_a_file_locked_meanwhile_is_refused(
    server: FaultyServer,
    record: WeightsEntry,
    cache: WeightsCache,
    weights: bytes,
    others: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two caches with one lock file get different files at the same time: only one is accepted."""

    def late(*arguments: Any) -> WeightsFile:
        cache.record(LockedFile("tiny.test/model.safetensors", digest(others), len(others)))
        return convert(*arguments)

    convert = module._converted
    monkeypatch.setattr(module, "_converted", late)
    assert refusal(fetch, record, cache) == (
        f"{server.address(NET)}: has SHA-256 {digest(weights)}, not {digest(others)} as in {cache.lock_path}; refused"
    )
    assert cache.kept() == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "weights_lock JSON cannot be read: "),
        ("", "weights_lock JSON cannot be read: it is empty"),
        ("{}", 'weights_lock JSON lacks "format": "fbnetv3_zoo.weights_lock"; write such files with to_json()'),
        (
            '{"format": "fbnetv3_zoo.weights_lock", "version": 1, "files": [{"op": "locked_file", "key": "a/b", '
            '"sha256": "12", "size": 5}]}',
            "a/b: sha256 is '12'; it must be 64 hexadecimal digits",
        ),
    ],
)
def test_a_damaged_lock_file_is_refused(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache, content: str, text: str
) -> None:
    cache.folder.mkdir()
    cache.lock_path.write_text(content)
    remedy = "mend the file, or delete it to trust anew"
    found = refusal(fetch, record, cache)
    assert f"{cache.lock_path}: " in found
    assert text in found
    assert remedy in found
    assert "\n" not in found
    assert cache.lock_path.read_text() == content
    assert cache.kept() == []


def test_a_folder_for_a_lock_file_is_refused(record: WeightsEntry, cache: WeightsCache, tmp_path: Path) -> None:
    found = refusal(fetch, record, replace(cache, lock=tmp_path))
    assert f"{tmp_path}: cannot be read (Is a directory)" in found


@pytest.mark.parametrize("digits", [8, 64], ids=["prefix", "pin"])
def test_a_wrong_digest_is_refused(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache, weights: bytes, others: bytes, digits: int
) -> None:
    right, found = digest(weights)[:digits], digest(others)
    published = pinned(record, right)
    fetch(published, cache).path.unlink()
    cache.lock_path.unlink(missing_ok=True)
    server.files[NET] = File(others)
    origin, known = ("..., as published", "...") if digits < 64 else ("", "")
    assert refusal(fetch, published, cache) == (
        f"tiny.test: cannot be fetched: {server.address(NET)}: has SHA-256 {found}, not {right}{origin}; refused; "
        f"{by_hand(published, cache, f'SHA-256 {right}{known}')}"
    )
    assert entries(cache) == []


def test_a_published_prefix_is_made_complete(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache, weights: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    fetch(pinned(record, digest(weights)[:8]), cache)
    known = cache.known("tiny.test/model.safetensors")
    assert known is not None
    assert known.sha256 == digest(weights)
    assert not caplog.messages  # nothing was taken on trust
    cache.lock_path.unlink()
    cache.record(LockedFile(known.key, known.sha256[:8] + "0" * 56, 5))  # another file with the same prefix was first
    cache.kept()[0].path.unlink()
    found = refusal(fetch, pinned(record, digest(weights)[:8]), cache)
    assert f"not {known.sha256[:8]}{'0' * 56} as in {cache.lock_path}; refused" in found


@pytest.mark.parametrize("digits", [8, 64], ids=["prefix", "pin"])
def test_a_pin_holds_whatever_was_recorded(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache, weights: bytes, others: bytes, digits: int
) -> None:
    fetch(record, cache)
    later = pinned(record, digest(others)[:digits])
    found = refusal(fetch, later, cache)
    assert f"has SHA-256 {digest(weights)}, not {digest(others)[:digits]}" in found
    server.files[NET] = File(others)
    assert equal(read(later, cache).tensors, tensors_of(others))
    assert equal(read(later, cache).tensors, tensors_of(others))
    assert len(server.seen) == 3


def test_a_kept_file_of_another_source_is_not_used(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache, weights: bytes, others: bytes
) -> None:
    fetch(record, cache)
    cache.lock_path.unlink()
    cache.record(LockedFile("tiny.test/model.safetensors", digest(others), len(others)))
    server.files[NET] = File(others)
    assert equal(read(record, cache).tensors, tensors_of(others))
    assert len(server.seen) == 2
    offline = replace(cache, offline=True)
    assert equal(read(record, offline).tensors, tensors_of(others))
    [kept] = [kept for kept in cache.kept() if kept.source == digest(others)[:8]]
    kept.path.unlink()
    known = f"SHA-256 {digest(others)}"
    assert refusal(fetch, record, offline) == (
        f"tiny.test: not in the cache, and offline; {by_hand(record, cache, known)}"
    )


# Mirrors, files put by hand, offline


def test_a_mirror_is_asked_instead(server: FaultyServer, tiny_arch: Arch, cache: WeightsCache, weights: bytes) -> None:
    record = record_of(tiny_arch, f"http://127.0.0.1:{closed_port()}/x/model.safetensors")
    server.files["/weights/tiny.test/model.safetensors"] = File(weights)
    for slash in ("", "/"):
        kept = fetch(record, replace(cache, mirror=server.address(f"/weights{slash}")))
        kept.path.unlink()
    assert [seen.path for seen in server.seen] == ["/weights/tiny.test/model.safetensors"] * 2
    missing = replace(cache, mirror=server.address("/nothing"))
    address = server.address("/nothing/tiny.test/model.safetensors")
    known = f"SHA-256 {digest(weights)}"
    assert refusal(fetch, record, missing) == (
        f"tiny.test: cannot be fetched: {address}: the server answered 404 Not Found; {by_hand(record, cache, known)}"
    )


@pytest.mark.parametrize("kind", [str, Path])
def test_a_mirror_may_be_a_folder(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache, weights: bytes, tmp_path: Path, kind: Any
) -> None:
    place = tmp_path / "mirror" / "tiny.test" / "model.safetensors"
    mirrored = replace(cache, mirror=kind(tmp_path / "mirror"), offline=True)
    assert refusal(fetch, record, mirrored) == (
        f"tiny.test: cannot be fetched: {place}: no such file; {by_hand(record, cache)}"
    )
    place.parent.mkdir(parents=True)
    place.write_bytes(weights)
    assert equal(read(record, mirrored).tensors, tensors_of(weights))
    assert not server.seen
    assert place.read_bytes() == weights


def test_a_file_put_by_hand_is_used(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache, weights: bytes, others: bytes
) -> None:
    place = cache.folder / "tiny.test" / "model.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(others)
    published = pinned(record, digest(weights))
    assert f"{place}: has SHA-256 {digest(others)}, not {digest(weights)}; refused" in refusal(fetch, published, cache)
    place.write_bytes(weights)
    for offline in (True, False):
        kept = fetch(published, replace(cache, offline=offline))
        assert equal(tensors_of(kept.path.read_bytes()), tensors_of(weights))
        kept.path.unlink()
    assert not server.seen


def test_offline(server: FaultyServer, record: WeightsEntry, cache: WeightsCache, weights: bytes) -> None:
    offline = replace(cache, offline=True)
    text = f"tiny.test: not in the cache, and offline; {by_hand(record, cache)}"
    for each in (offline, replace(offline, mirror=server.address("/mirror"))):
        assert refusal(fetch, record, each) == text
        assert refusal(read, record, each) == text
    assert not cache.folder.exists()
    assert not server.seen
    known = pinned(record, digest(weights)[:8])
    place = by_hand(record, cache, f"SHA-256 {digest(weights)[:8]}...")
    assert refusal(fetch, known, offline) == f"tiny.test: not in the cache, and offline; {place}"
    fetch(record, cache)
    assert equal(read(record, offline).tensors, tensors_of(weights))
    assert len(server.seen) == 1


UNPLUGGED = """
import socket, sys
from pathlib import Path

def refuse(*arguments, **named):
    raise AssertionError("the network was touched")

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.weights.cache import WeightsCache

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
arch = Arch.from_json(sys.argv[2])
for offline in (True, False):
    cache = WeightsCache(Path(sys.argv[3]), offline=offline)
    print(create(arch, pretrained=sys.argv[1], cache=cache).arch.name)
    try:
        create(arch, pretrained=sys.argv[1] + ".other.safetensors", cache=cache)
    except (ZooError, AssertionError) as error:
        print(str(error).split(";")[0])
"""


def test_offline_touches_no_network(server: FaultyServer, tiny_arch: Arch, cache: WeightsCache) -> None:
    address = server.address(NET)
    create(tiny_arch, pretrained=address, cache=cache)
    name = f"tiny.at_{digest(f'{address}.other.safetensors'.encode())[:16]}"
    command = [sys.executable, "-c", UNPLUGGED, address, tiny_arch.to_json(), str(cache.folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    offline, online = f"{name}: not in the cache, and offline", "the network was touched"
    assert done.stdout.splitlines() == ["tiny", offline, "tiny", online], done.stderr
    assert len(server.seen) == 1


def test_a_repository_of_the_hub_is_a_source(
    record: WeightsEntry,
    tiny_arch: Arch,
    cache: WeightsCache,
    weights: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hub's client is tested elsewhere; here a folder stands for its cache."""
    place = tmp_path / "model.safetensors"
    place.write_bytes(weights)
    monkeypatch.setattr(module.hub, "contents_of", lambda address, *, offline: place.read_bytes())
    hosted = record_of(tiny_arch, "hf-hub:owner/tiny.test")
    assert equal(read(hosted, cache).tensors, tensors_of(weights))
    assert entries(cache) == sorted([cache.kept()[0].path.name, "weights.lock.json"])
    known = cache.known("tiny.test/model.safetensors")
    assert known is not None
    assert known.sha256 == digest(weights)


# Files that rot


def test_a_rotten_file_is_reported_and_fetched_again(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache, weights: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for call in (fetch, read):
        for damage in (lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data[:100], lambda data: b""):
            kept = fetch(record, cache)
            kept.path.write_bytes(damage(kept.path.read_bytes()))
            assert not whole_contents(kept)
            caplog.clear()
            requests = len(server.seen)
            call(record, cache)
            text = "damaged (does not have the digest in its name); fetching it again"
            assert caplog.messages == [f"{kept.path}: {text}"]
            assert len(server.seen) == requests + 1
            [new] = cache.kept()
            assert whole_contents(new)
            assert equal(tensors_of(new.path.read_bytes()), tensors_of(weights))


def test_a_rotten_file_that_cannot_be_fetched_again_is_removed(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache
) -> None:
    kept = fetch(record, cache)
    kept.path.write_bytes(b"rotten")
    server.files.clear()
    assert "the server answered 404 Not Found" in refusal(read, record, cache)
    assert cache.kept() == []


def test_a_rotten_file_offline_is_named_and_left(record: WeightsEntry, cache: WeightsCache, weights: bytes) -> None:
    kept = fetch(record, cache)
    kept.path.write_bytes(b"rotten")
    offline = replace(cache, offline=True)
    place = by_hand(record, cache, f"SHA-256 {digest(weights)}")
    for call in (lambda: fetch(record, offline), lambda: read(record, offline)):
        assert refusal(call) == f"tiny.test: {kept.path} is damaged, and offline; {place}"
    assert kept.path.read_bytes() == b"rotten"


def test_a_file_moved_under_another_name_is_refused(
    server: FaultyServer, record: WeightsEntry, cache: WeightsCache, others: bytes, tiny_arch: Arch
) -> None:
    """Bytes that are right somewhere else are wrong here."""
    kept = fetch(record, cache)
    server.files["/other.safetensors"] = File(others)
    other = fetch(record_of(tiny_arch, server.address("/other.safetensors"), tag="other"), cache)
    os.replace(other.path, kept.path)
    assert "is damaged, and offline" in refusal(read, record, replace(cache, offline=True))


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.long)])
def test_a_single_flipped_bit_is_always_refused(
    count: int, server: FaultyServer, record: WeightsEntry, cache: WeightsCache, weights: bytes
) -> None:
    """Many of them: every bit of the first 64 bytes, the others at random."""
    record = pinned(record, digest(weights))
    kept, offline = fetch(record, cache), replace(cache, offline=True)
    right = kept.path.read_bytes()
    draw = random.Random(0)
    bits = [*range(512), *(draw.randrange(512, 8 * len(right)) for _ in range(count - 512))]
    text = f"tiny.test: {kept.path} is damaged, and offline; {by_hand(record, cache, f'SHA-256 {digest(weights)}')}"
    with kept.path.open("rb+", buffering=0) as file:
        for bit in bits:
            byte, mask = bit // 8, 1 << bit % 8
            os.pwrite(file.fileno(), bytes([right[byte] ^ mask]), byte)
            assert refusal(read, record, offline) == text, bit
            os.pwrite(file.fileno(), right[byte : byte + 1], byte)
    assert equal(read(record, offline).tensors, tensors_of(right))
