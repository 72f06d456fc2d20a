"""Downloads from a server that fails as servers do: the right bytes in the end, or one line that says why."""

from __future__ import annotations

import gzip
import io
import os
import random
import re
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from disks import small_disk, without_privileges
from faulty_server import CERTIFICATE, DATE, Fault, FaultyServer, File, closed_port, proxying, serving
from published import record_of, weight_file
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.weights import download as module
from fbnetv3_zoo.weights.cache import WeightsCache
from fbnetv3_zoo.weights.download import download
from fbnetv3_zoo.weights.fetch import fetch
from fbnetv3_zoo.weights.registry import WeightsEntry

SIZE, CUT, LOST = 999_424, 300_000, 8192  # LOST: what an attempt may throw away when it is cut
CONTENT, OTHER = (random.Random(seed).randbytes(SIZE) for seed in (0, 1))
PATH = "/models/net.bin"
ENDED = rf"the connection ended after 29\d{{4}} of {SIZE} bytes"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the machine."""
    for name in list(os.environ):
        if name.startswith("FBNETV3_ZOO_") or name.lower().endswith("_proxy") or name == "REQUESTS_CA_BUNDLE":
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving({PATH: CONTENT}) as server:
        yield server


def got(server: FaultyServer, *, attempts: int = 5, timeout: float = 60.0) -> bytes:
    """What a download from ``server`` writes."""
    file = io.BytesIO()
    download(server.address(PATH), file, timeout=timeout, attempts=attempts, pause=0.001)
    return file.getvalue()


def refusal(address: str, *, attempts: int = 2, timeout: float = 60.0) -> str:
    with pytest.raises(ZooError) as caught:
        download(address, io.BytesIO(), timeout=timeout, attempts=attempts, pause=0.001)
    return str(caught.value)


def cut(**more: object) -> Fault:
    return Fault(cut=CUT, **more)  # type: ignore[arg-type]


WEAK, DATED, BARE = File(CONTENT, 'W/"first"'), File(CONTENT, 'W/"first"', DATE), File(CONTENT, None)
LATER = File(OTHER, '"second"')


@pytest.mark.parametrize(
    ("file", "faults", "statuses"),
    [
        pytest.param(File(CONTENT), [], [200], id="no fault"),
        pytest.param(File(CONTENT), [cut()], [200, 206], id="cut"),
        pytest.param(File(CONTENT), [cut()] * 3, [200, 206, 206, 206], id="cut three times"),
        pytest.param(File(CONTENT), [Fault(cut=0)], [200, 200], id="cut before the first byte"),
        pytest.param(File(CONTENT), [cut(ending="reset")], [200, 206], id="reset"),
        pytest.param(File(CONTENT), [cut(ending="stall")], [200, 206], id="stall"),
        pytest.param(File(CONTENT), [Fault(500)] * 3, [500, 500, 500, 200], id="500 three times"),
        pytest.param(File(CONTENT), [Fault(503)], [503, 200], id="503"),
        pytest.param(File(CONTENT), [Fault(429)], [429, 200], id="429"),
        pytest.param(File(CONTENT), [cut(), Fault(503)], [200, 503, 206], id="cut, then 503"),
        pytest.param(File(CONTENT), [Fault(302, {"Location": PATH})], [302, 200], id="redirect"),
        pytest.param(File(CONTENT), [Fault(length_error=1000)], [200, 416, 200], id="length too large"),
        pytest.param(File(CONTENT), [cut(), Fault(ignores=("Range",))], [200, 200], id="range ignored"),
        pytest.param(File(CONTENT), [cut(), Fault(shift=99)], [200, 206, 200], id="part begins too late"),
        pytest.param(File(CONTENT), [cut(), Fault(shift=-99)], [200, 206, 200], id="part begins too early"),
        pytest.param(
            File(CONTENT), [cut(), Fault(headers={"Content-Range": "bytes */*"})], [200, 206, 200], id="which part?"
        ),
        pytest.param(File(CONTENT), [cut(), Fault(416)], [200, 416, 200], id="416"),
        pytest.param(File(CONTENT), [cut(), Fault(becomes=File(OTHER[:CUT // 2]))], [200, 416, 200], id="shorter"),
        pytest.param(File(CONTENT), [cut(), Fault(becomes=LATER)], [200, 200], id="changed"),
        pytest.param(
            File(CONTENT), [cut(), Fault(becomes=LATER, ignores=("If-Range",))], [200, 206, 200], id="changed, unsaid"
        ),
        pytest.param(
            File(CONTENT), [cut(), Fault(becomes=File(OTHER + b"longer"), ignores=("If-Range",))], [200, 206, 200],
            id="changed length",
        ),
        pytest.param(File(CONTENT), [Fault(chunked=True)], [200], id="chunked"),
        pytest.param(File(CONTENT), [cut(chunked=True)], [200, 206], id="chunked and cut"),
        pytest.param(File(CONTENT), [cut(chunked=True), cut(), cut()], [200, 206, 206, 206], id="chunked, cut often"),
        pytest.param(File(CONTENT), [cut(), Fault(at_most=99_999)], [200, 206, 206], id="less than asked for"),
        pytest.param(
            File(CONTENT), [cut(chunked=True), Fault(at_most=99_999)], [200, 206, 206], id="chunked, then less"
        ),
        pytest.param(WEAK, [cut()], [200, 200], id="weak tag only"),
        pytest.param(BARE, [cut()], [200, 200], id="nothing to tell versions apart"),
        pytest.param(DATED, [cut()], [200, 206], id="weak tag and date"),
        pytest.param(
            DATED, [cut(), Fault(becomes=File(OTHER, 'W/"second"', DATE))], [200, 206, 200], id="weak tag changed"
        ),
        pytest.param(File(CONTENT, None, DATE), [cut()], [200, 206], id="date only"),
        pytest.param(
            File(CONTENT, None, DATE), [cut(), Fault(becomes=File(OTHER, None, "Thu, 02 Jan 2020 00:00:00 GMT"))],
            [200, 200], id="date changed",
        ),
    ],
)  # fmt: skip
def test_the_right_bytes_in_the_end(server: FaultyServer, file: File, faults: list[Fault], statuses: list[int]) -> None:
    server.files[PATH], server.faults = file, faults
    stalls = any(fault.ending == "stall" for fault in faults)
    content = got(server, timeout=2.0 if stalls else 60.0)
    assert content == server.files[PATH].content
    assert [seen.status for seen in server.seen] == statuses


def test_an_attempt_goes_on_where_the_last_one_ended(server: FaultyServer) -> None:
    server.faults = [cut(), cut(ending="stall"), cut(chunked=True)]
    assert got(server, timeout=2.0) == CONTENT
    starts = [int(re.fullmatch(r"bytes=(\d+)-", text or "bytes=0-")[1]) for text in server.ranges]  # type: ignore[index]
    for before, after in pairwise(starts):
        assert before + CUT - LOST < after <= before + CUT
    assert server.sent == [CUT, CUT, CUT, SIZE - starts[-1]]
    assert [seen.headers["If-Range"] for seen in server.seen] == [None, '"first"', '"first"', '"first"']
    assert {seen.headers["Accept-Encoding"] for seen in server.seen} == {"identity"}


@pytest.mark.parametrize(
    ("fault", "attempts", "text", "requests"),
    [
        (Fault(cut=0), 2, "the connection ended (after 2 attempts)", 2),
        (cut(), 1, ENDED + r" \(at the only attempt\)", 1),
        (Fault(cut=10, ending="reset"), 3, "Connection reset by peer (after 3 attempts)", 3),
        (Fault(cut=10, ending="stall"), 2, "no answer in time (after 2 attempts)", 2),
        (cut(ending="stall"), 1, rf"no answer in time after 29\d{{4}} of {SIZE} bytes \(at the only attempt\)", 1),
        (Fault(length_error=1), 1, f"the connection ended after {SIZE} of {SIZE + 1} bytes (at the only attempt)", 1),
        (Fault(404), 5, "the server answered 404 Not Found", 1),
        (Fault(403), 5, "the server answered 403 Forbidden", 1),
        (Fault(410), 5, "the server answered 410 Gone", 1),
        (Fault(500), 3, "the server answered 500 Internal Server Error (after 3 attempts)", 3),
        (Fault(503), 4, "the server answered 503 Service Unavailable (after 4 attempts)", 4),
        (Fault(302, {"Location": PATH}), 5, "the server redirects in a circle", 11),
        (Fault(302), 5, "the server answered 302 Found", 1),
        (Fault(206), 5, "the server answered 206 Partial Content", 1),
        (Fault(416), 5, "the server answered 416 Requested Range Not Satisfiable", 1),
        (Fault(length_error=9 << 30), 5, "has more than 8 GiB; given up", 1),
    ],
)
def test_what_stays_wrong_is_said(server: FaultyServer, fault: Fault, attempts: int, text: str, requests: int) -> None:
    server.faults = [fault] * 50
    address = server.address(PATH)
    found = refusal(address, attempts=attempts, timeout=2.0 if fault.ending == "stall" else 60.0)
    if "\\d" in text:
        assert re.fullmatch(re.escape(f"{address}: ") + text, found), found
    else:
        assert found.replace("416 Range Not", "416 Requested Range Not") == f"{address}: {text}"
    assert len(server.seen) == requests


def test_a_server_that_does_not_say_how_much_comes_is_stopped(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_FILE", SIZE - 1)
    server.faults = [Fault(chunked=True)]
    assert refusal(server.address(PATH)) == f"{server.address(PATH)}: has more than 0 GiB; given up"


def test_a_body_that_is_packed_unasked_is_unpacked(server: FaultyServer) -> None:
    packed = Fault(headers={"Content-Encoding": "gzip"})
    server.files[PATH] = File(gzip.compress(CONTENT))
    server.faults = [Fault(cut=CUT, headers=packed.headers), packed]
    assert got(server) == CONTENT
    assert server.ranges == [None, None]  # a part of what is packed is no part of the file
    server.files[PATH], server.faults = File(CONTENT), [packed]
    address = server.address(PATH)
    why = "Error -3 while decompressing data: incorrect header check"
    assert refusal(address) == f"{address}: cannot be had ({why})"


def test_pauses_grow_and_are_bounded(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=pauses.append))
    asked = ["", "7", "3600", "Wed, 01 Jan 2020 00:00:00 GMT", "9" * 5000, "-1"]
    server.faults = [Fault(503, {"Retry-After": text}) for text in asked] + [Fault(503)] * 3
    download(server.address(PATH), io.BytesIO(), attempts=10, pause=0.5)
    assert pauses == [0.5, 7, 60, 4, 8, 16, 32, 60, 60]
    pauses.clear()
    refusal(f"http://127.0.0.1:{closed_port()}/x", attempts=1100)
    assert len(pauses) == 1099
    assert max(pauses) == 60


def test_progress_is_told(server: FaultyServer) -> None:
    server.faults = [cut()]
    told: list[tuple[int, int | None]] = []
    download(server.address(PATH), io.BytesIO(), pause=0, on_progress=lambda *now: told.append(now))
    assert (told[0], told[-1]) == ((0, SIZE), (SIZE, SIZE))
    assert told == sorted(told)  # the second attempt begins where the first ended
    server.faults = [Fault(chunked=True)]
    told.clear()
    download(server.address(PATH), io.BytesIO(), on_progress=lambda *now: told.append(now))
    assert (told[0], told[-1]) == ((0, None), (SIZE, None))


def test_no_server(server: FaultyServer) -> None:
    address = f"http://127.0.0.1:{closed_port()}/x"
    assert refusal(address) == f"{address}: Connection refused (after 2 attempts)"
    assert refusal("http://weights.invalid/x").startswith("http://weights.invalid/x: ")


@pytest.mark.parametrize(
    "address",
    ["http://", "http://[::1", "http://.invalid/x", f"http://{'a' * 70}.invalid/x", "http://127.0.0.1:99999/"],
)
def test_odd_addresses(address: str) -> None:
    text = refusal(address)
    assert text.startswith(f"{address}: cannot be had (")
    assert text.count("\n") == 0


def test_proxies_are_honored(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxying() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.address)
        assert got(server) == CONTENT
        assert proxy.asked == [server.address(PATH)]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert got(server) == CONTENT
        assert len(proxy.asked) == 1
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
    assert refusal(server.address(PATH)) == f"{server.address(PATH)}: Connection refused (after 2 attempts)"


def test_encrypted(server: FaultyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving({PATH: CONTENT}, encrypted=True) as safe:
        address = safe.address(PATH)
        why = "its certificate is not trusted (self-signed certificate)"
        remedy = "set REQUESTS_CA_BUNDLE to a file with its issuer's"
        assert refusal(address).replace("self signed", "self-signed") == f"{address}: {why}; {remedy}"
        assert not safe.seen
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
        safe.faults = [cut()]
        assert got(safe) == CONTENT
        assert [seen.status for seen in safe.seen] == [200, 206]
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "gone"))
        missing = f"Could not find a suitable TLS CA certificate bundle, invalid path: {tmp_path / 'gone'}"
        assert refusal(address) == f"{address}: cannot be had ({missing})"


def test_encryption_is_not_given_up_on_the_way(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    with serving({PATH: CONTENT}, encrypted=True) as safe:
        plain = server.address(PATH)
        safe.faults = [Fault(302, {"Location": plain})]
        text = f"{safe.address(PATH)}: redirects to an address without encryption, {plain}"
        assert refusal(safe.address(PATH)) == text
        safe.faults, server.faults = [Fault(302, {"Location": plain})], [Fault(302, {"Location": safe.address(PATH)})]
        assert refusal(safe.address(PATH)) == text  # not even for a moment
        server.faults = [Fault(302, {"Location": safe.address(PATH)})]
        assert got(server) == CONTENT  # the other way is welcome


NET = "/models/model.safetensors"


@pytest.fixture(scope="module")
def weights(tiny_arch: Arch) -> bytes:
    return weight_file(tiny_arch)


@pytest.fixture
def published(server: FaultyServer, tiny_arch: Arch, weights: bytes) -> WeightsEntry:
    """A record of weights that the server has."""
    server.files[NET] = File(weights)
    return record_of(tiny_arch, server.address(NET))


def cache_in(folder: Path, *, attempts: int = 2) -> WeightsCache:
    return WeightsCache(folder, timeout=60.0, attempts=attempts, pause=0.001)


def entries(folder: Path) -> list[str]:
    """The files in a cache, without those that locks are held on."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return sorted(str(path.relative_to(folder)) for path in files)


def refused_fetch(record: WeightsEntry, cache: WeightsCache) -> str:
    with pytest.raises(ZooError) as caught:
        fetch(record, cache)
    return str(caught.value)


def by_hand(record: WeightsEntry, folder: Path, digest: str = "no digest is published") -> str:
    source = record.sources[0]
    return f"get {source.address} elsewhere ({digest}) and put it at {folder / record.name / source.file_name}"


@pytest.mark.parametrize(
    ("fault", "text", "requests"),
    [
        (Fault(404), "the server answered 404 Not Found", 1),
        (Fault(403), "the server answered 403 Forbidden", 1),
        (Fault(500), "the server answered 500 Internal Server Error (after 2 attempts)", 2),
        (Fault(cut=0), "the connection ended (after 2 attempts)", 2),
        (Fault(cut=0, ending="reset"), "Connection reset by peer (after 2 attempts)", 2),
        (Fault(302, {"Location": NET}), "the server redirects in a circle", 11),
        (Fault(headers={"Content-Encoding": "gzip"}), None, 1),
        (Fault(length_error=-1000), None, 1),
        (Fault(200), None, 1),  # a page instead of the file
    ],
)
def test_a_failed_fetch_leaves_nothing(
    server: FaultyServer, published: WeightsEntry, tmp_path: Path, fault: Fault, text: str | None, requests: int
) -> None:
    server.faults = [fault] * 50
    found = refused_fetch(published, cache_in(tmp_path / "cache"))
    address = server.address(NET)
    start, end = f"tiny.test: cannot be fetched: {address}: ", f"; {by_hand(published, tmp_path / 'cache')}"
    assert found.startswith(start)
    assert found.endswith(end)
    assert "\n" not in found
    reason = found[len(start) : -len(end)]
    assert reason == text if text else reason.startswith(("cannot be read as safetensors (", "cannot be had ("))
    assert len(server.seen) == requests
    assert entries(tmp_path / "cache") == []
    server.faults = []
    assert fetch(published, cache_in(tmp_path / "cache")).path.is_file()  # and hinders nothing


@pytest.mark.parametrize(
    "fault", [Fault(cut=20_000), Fault(cut=20_000, ending="reset"), Fault(503), Fault(length_error=9)]
)
def test_a_fetch_survives(server: FaultyServer, published: WeightsEntry, tmp_path: Path, fault: Fault) -> None:
    server.faults = [fault]
    kept = fetch(published, cache_in(tmp_path, attempts=3))
    assert entries(tmp_path) == [kept.path.name, "weights.lock.json"]


def test_a_short_length_is_found_by_the_digest(server: FaultyServer, published: WeightsEntry, tmp_path: Path) -> None:
    fetch(published, cache_in(tmp_path / "first"))
    os.rename(tmp_path / "first" / "weights.lock.json", tmp_path / "weights.lock.json")
    server.faults = [Fault(length_error=-1000)]
    cache = WeightsCache(tmp_path / "cache", lock=tmp_path / "weights.lock.json")
    digest = sha256(server.files[NET].content).hexdigest()
    other = sha256(server.files[NET].content[:-1000]).hexdigest()
    assert refused_fetch(published, cache) == (
        f"tiny.test: cannot be fetched: {server.address(NET)}: has SHA-256 {other}, not {digest} "
        f"as in {cache.lock_path}; refused; {by_hand(published, cache.folder, f'SHA-256 {digest}')}"
    )
    assert entries(cache.folder) == []


def test_an_address_with_a_query(
    server: FaultyServer, published: WeightsEntry, tiny_arch: Arch, tmp_path: Path
) -> None:
    record = record_of(tiny_arch, f"{server.address(NET)}?download=true")
    assert fetch(record, cache_in(tmp_path)).path.is_file()


def test_the_next_source_is_asked(
    server: FaultyServer, published: WeightsEntry, tiny_arch: Arch, tmp_path: Path
) -> None:
    record = record_of(tiny_arch, server.address("/gone.safetensors"), server.address(NET))
    assert fetch(record, cache_in(tmp_path)).path.is_file()
    gone = record_of(tiny_arch, server.address("/gone.safetensors"), server.address("/lost.safetensors"))
    text = "the server answered 404 Not Found"
    places = "; ".join(f"{source.address}: {text}" for source in gone.sources)
    found = refused_fetch(gone, cache_in(tmp_path / "other"))
    assert found == f"tiny.test: cannot be fetched: {places}; {by_hand(gone, tmp_path / 'other')}"


@pytest.mark.parametrize(("kilobytes", "half"), [(32, False), (40, True)], ids=["downloading", "keeping"])
def test_a_full_disk(
    server: FaultyServer,
    published: WeightsEntry,
    tiny_arch: Arch,
    weights: bytes,
    tmp_path: Path,
    kilobytes: int,
    half: bool,
) -> None:
    if half:  # what is kept takes twice the room
        tensors = {name: tensor.half() for name, tensor in from_bytes(weights).items() if tensor.is_floating_point()}
        server.files[NET] = File(to_bytes(from_bytes(weights) | tensors))
    record = record_of(tiny_arch, server.address(NET), server.address(NET))
    cache = cache_in(tmp_path / "disk")
    with small_disk(cache.folder, kilobytes << 10):
        text = refused_fetch(record, cache)
        assert entries(cache.folder) == (["weights.lock.json"] if half else [])
    free = (
        re.escape(f"{cache.folder}: cannot be written (")
        + r"[\w ]+, \d+ MB free\); set FBNETV3_ZOO_CACHE to another folder"
    )
    kept = re.escape(f"{cache.folder}/tiny.test-") + r"[\w.-]+: cannot be written \([\w ]+\)"
    assert re.fullmatch(kept if half else free, text), text
    assert len(server.seen) == 1  # another source would not help
    assert fetch(record, cache).path.is_file()


def test_a_read_only_cache(server: FaultyServer, published: WeightsEntry) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name), cache_in(Path(name))
        kept = fetch(published, cache)
        content = kept.path.read_bytes()
        for rights in (0o555, 0o777):  # of the folder of locks
            (folder / ".locks").chmod(rights)
            for path in (folder / ".locks").iterdir():
                path.chmod(0o666)
            folder.chmod(0o555)
            with without_privileges():
                assert fetch(published, cache) == kept  # reading is enough for what is there
            for damage in (lambda: kept.path.write_bytes(content[:-1]), kept.path.unlink):
                damage()
                with without_privileges():
                    refused = refused_fetch(published, cache)
                remedy = "set FBNETV3_ZOO_CACHE to another folder"
                assert refused == f"{folder}: cannot be used as cache (Permission denied); {remedy}"
            kept.path.write_bytes(content)
        folder.chmod(0o755)


def test_a_cache_that_is_a_file(server: FaultyServer, published: WeightsEntry, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    for folder in (tmp_path / "cache", tmp_path / "cache" / "below"):
        remedy = "set FBNETV3_ZOO_CACHE to another folder"
        text = f"{folder}: cannot be used as cache (Not a directory); {remedy}"
        assert refused_fetch(published, cache_in(folder)) == text
    assert not server.seen


def test_a_cache_in_a_folder_that_is_not_there(published: WeightsEntry, tmp_path: Path) -> None:
    assert fetch(published, cache_in(tmp_path / "a" / "b" / "c")).path.parent == tmp_path / "a" / "b" / "c"
