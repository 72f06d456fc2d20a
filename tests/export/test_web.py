"""The folder of a web page, and the server for it: everything but the browser."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import re
import shutil
import signal
import socket
import threading
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import onnx
import pytest
import torch
from browser import served
from disks import small_disk, without_privileges
from folders import ROOT
from killed import leave_half_a_file
from networks import SHORT
from PIL import Image
from shell import run, script, succeed
from waiting import PATIENCE

from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.cli.common import program
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export.web import SITE, WebReport, write_web
from fbnetv3_zoo.export.web.folder import PAGE
from fbnetv3_zoo.export.web.server import POLICY, page_server
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Interpolation, Preprocess
from fbnetv3_zoo.weights.serialization import save

OUTSIDE = re.compile(rb"""(?:src|href|from|import|fetch|url)\s*[=(]?\s*\(?["'](?:[a-z]+:)?//""")


class Written(NamedTuple):
    """A page, and what writing it said. The folder is only read."""

    report: WebReport
    card: dict[str, object]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("web")
    Image.new("RGB", (50, 40), "teal").save(home / "a sea.png")
    Image.new("L", (30, 60)).save(home / "Night.JPG")
    return home


@pytest.fixture(scope="module")
def network() -> FBNet:
    model = FBNet(SHORT, generator=torch.Generator().manual_seed(0))
    model.preprocess = Preprocess(40, 32, Interpolation.BICUBIC)
    return model


@pytest.fixture(scope="module")
def page(network: FBNet, home: Path) -> Written:
    report = write_web(network, home / "page", samples=[home / "a sea.png", home / "Night.JPG"])
    return Written(report, json.loads((home / "page" / "model.json").read_text()))


@pytest.fixture(scope="module")
def model(page: Written) -> Path:
    return page.report.folder / "model.onnx"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(ZooError) as caught:
        write_web(*arguments, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_the_folder(page: Written, home: Path) -> None:
    found = files(page.report.folder)
    runtime = ("LICENSE.txt", "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
    samples = ("samples/1.png", "samples/2.jpg")
    assert set(found) == {*SITE, "model.json", "model.onnx", *samples, *(f"runtime/{name}" for name in runtime)}
    assert found["samples/1.png"] == (home / "a sea.png").read_bytes()
    assert page.card["files"] == sorted(found)
    assert sum(map(len, found.values())) == page.report.size < 17e6
    assert page.report.runtime_size == sum(len(found[f"runtime/{name}"]) for name in runtime)
    assert page.report.model_size == len(found["model.onnx"])


def test_what_the_page_knows(page: Written, network: FBNet, model: Path) -> None:
    expected = {
        "format": "fbnetv3_zoo.web", "format_version": 1, "network": "short", "file": "model.onnx",
        "bytes": model.stat().st_size, "precision": "float32", "class_names": [str(n) for n in range(10)],
        "licence": None, "source": None,
        "samples": [{"file": "samples/1.png", "name": "a sea"}, {"file": "samples/2.jpg", "name": "Night"}],
        "runtime": {"folder": "runtime/", "script": "ort.wasm.min.mjs", "version": "1.30.0"},
        "preprocess": {
            "resize": 40, "resolution": 32, "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        },
    }  # fmt: skip
    assert {key: value for key, value in page.card.items() if key != "files"} == expected
    assert Classifier.open(model).description == network.description
    report = page.report
    assert (report.network, report.precision, report.classes, report.samples) == ("short", "float32", 10, 2)


def test_nothing_points_elsewhere(page: Written) -> None:
    found = files(page.report.folder)
    for name in SITE:
        assert not OUTSIDE.search(found[name]), name
    assert OUTSIDE.search(b'<script src="https://cdn.example/x.js">')
    assert OUTSIDE.search(b"import x from '//cdn.example/x.js'")
    policy = re.search(rb'Content-Security-Policy" content="([^"]*)"', found["index.html"])
    assert policy is not None
    assert policy[1].decode() == POLICY
    assert b"style=" not in found["index.html"]
    assert not re.search(rb"<script(?![^>]*\bsrc=)", found["index.html"])


def test_every_file_of_the_site_is_in_use(page: Written) -> None:
    found = files(page.report.folder)
    text = b"".join(found[name] for name in SITE)
    for name in SITE:
        assert name == "index.html" or name.encode() in text
    folder = ROOT / "export" / "site"
    assert sorted(path.name for path in folder.iterdir()) == sorted(SITE)


def test_a_weight_file_and_its_onnx_file(network: FBNet, model: Path, tmp_path: Path) -> None:
    save(network, tmp_path / "net.safetensors")
    one = write_web(tmp_path / "net.safetensors", tmp_path / "one")
    other = write_web(model, tmp_path / "other")
    assert (tmp_path / "other" / "model.onnx").read_bytes() == model.read_bytes()
    assert one.network == other.network == "short"
    opened = [Classifier.open(tmp_path / name / "model.onnx").description for name in ("one", "other")]
    assert opened[0] == opened[1]


def test_license_and_source(model: Path, tmp_path: Path) -> None:
    graph = onnx.load(model)
    graph.metadata_props.add(key="license", value="CC-BY-NC-4.0")
    graph.metadata_props.add(key="source", value="somewhere")
    onnx.save(graph, tmp_path / "net.onnx")
    told = write_web(tmp_path / "net.onnx", tmp_path / "page")
    assert (told.license, told.source) == ("CC-BY-NC-4.0", "somewhere")
    told = write_web(tmp_path / "net.onnx", tmp_path / "page", license="MIT", source="me")
    assert (told.license, told.source) == ("MIT", "me")


def test_a_page_replaces_a_page(model: Path, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()  # an empty folder will do
    write_web(model, folder, samples=[home / "a sea.png"])
    assert (folder / "samples").is_dir()
    write_web(model, folder)
    assert not (folder / "samples").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_anything_else_is_left_alone(model: Path, page: Written, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.md").write_text("years of work")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.json").write_text("{}")
    (tmp_path / "file").write_text("")
    mixed = shutil.copytree(page.report.folder, tmp_path / "mixed")
    (mixed / "samples" / "mine.png").write_bytes(b"")
    before = files(tmp_path)
    something = "has other files than a page of this command; give another folder"
    assert refusal(model, tmp_path / "thesis") == f"{tmp_path}/thesis: {something}"
    assert refusal(model, tmp_path / "other") == f"{tmp_path}/other: {something}"
    assert refusal(model, tmp_path / "file") == f"{tmp_path}/file: is a file; give a folder"
    own = "has samples/mine.png, which is not part of the page; move it, or give another folder"
    assert refusal(model, mixed) == f"{mixed}: {own}"
    assert files(tmp_path) == before


def test_wrong_input_leaves_nothing(network: FBNet, model: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no image")
    Image.new("L", (9, 9)).save(tmp_path / "scan.tiff")
    (tmp_path / "bad.onnx").write_bytes(b"garbage")
    endings = ".png, .jpg, .jpeg, .webp, .gif, .bmp"
    out = tmp_path / "out" / "page"
    for arguments, options, complaint in (
        ((tmp_path / "absent.onnx", out), {}, f"{tmp_path}/absent.onnx: no such file"),
        ((tmp_path / "bad.onnx", out), {}, f"{tmp_path}/bad.onnx: cannot be read as ONNX ("),
        ((tmp_path / "bad.txt", out), {}, f"{tmp_path}/bad.txt: is not a model file for a page; give a"),
        ((model, out), {"samples": [tmp_path / "absent.png"]}, f"{tmp_path}/absent.png: no such file"),
        ((model, out), {"samples": [tmp_path / "notes.png"]}, f"{tmp_path}/notes.png: cannot be read as an image"),
        ((model, out), {"samples": [tmp_path / "scan.tiff"]},
         f"{tmp_path}/scan.tiff: browsers do not read such files; give {endings}"),
        ((model, out), {"samples": "a.png"}, "samples is 'a.png'; give a list of image files"),
        ((model, out), {"runtime": tmp_path / "absent"}, f"{tmp_path}/absent: no such file; give the unpacked"),
    ):  # fmt: skip
        assert refusal(*arguments, **options).startswith(complaint)
    five = FBNet(replace(network.arch, in_channels=5), generator=torch.Generator().manual_seed(0))
    assert refusal(five, out) == "short: takes 5 channels; a page can fill 1 or 3"
    assert not out.exists()
    assert [path.name for path in tmp_path.glob("out/.*")] == []


def test_a_graph_that_prepares_images_itself(model: Path, tmp_path: Path) -> None:
    graph = onnx.load(model)
    (given,) = graph.graph.input
    cast = onnx.helper.make_node("Cast", ["pixels"], [given.name], to=onnx.TensorProto.FLOAT)
    graph.graph.node.insert(0, cast)
    shape = [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim]
    del graph.graph.input[:]
    graph.graph.input.append(onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, shape))
    onnx.save(graph, tmp_path / "net.onnx")
    assert refusal(tmp_path / "net.onnx", tmp_path / "page").startswith(f"{tmp_path}/net.onnx: ")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("older", [False, True])
def test_a_full_disk(older: bool, model: Path, tmp_path: Path) -> None:
    """There is room for the files of one page, at most, and not for the runtime of a second."""
    room = 24_000_000 if older else 9_000_000
    with small_disk(tmp_path / "disk", room):
        folder = tmp_path / "disk" / "page"
        if older:
            write_web(model, folder)
        before = files(folder)
        assert refusal(model, folder) == f"{folder}: cannot be written (No space left on device)"
        assert files(folder) == before
        assert [path.name for path in (tmp_path / "disk").iterdir()] == (["page"] if older else [])


def test_no_permission(model: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    with without_privileges(), pytest.raises(ZooError) as caught, PAGE.replacing(tmp_path / "locked" / "page"):
        pass
    assert str(caught.value) == f"{tmp_path}/locked/page: cannot be written (Permission denied)"


@pytest.mark.parametrize("older", [False, True])
def test_a_killed_writer(older: bool, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    if older:
        write_web(model, folder)
    before = files(folder)
    leave_half_a_file(tmp_path)
    assert files(folder) == before
    (tmp_path / ".page.0a1b2c3d.partial").write_text("not ours")
    write_web(model, folder)
    assert {path.name for path in tmp_path.iterdir()} == {"page", ".page.0a1b2c3d.partial"}


def test_two_writers_at_once(tmp_path: Path) -> None:
    """The second does not sweep away what the first is writing; the last to end is kept."""
    folder = tmp_path / "page"
    card = json.dumps({"format": "fbnetv3_zoo.web", "format_version": 1, "files": ["model.json", "name"]})
    with PAGE.replacing(folder) as first:
        (first / "model.json").write_text(card)
        with PAGE.replacing(folder) as second:
            assert first.is_dir()
            (second / "model.json").write_text(card)
            (second / "name").write_text("second")
        assert (folder / "name").read_text() == "second"
        (first / "name").write_text("first")
    assert (folder / "name").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


# The server


def ask(address: str, path: str, *, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request whose path is sent as it is."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE)
    try:
        connection.putrequest(method, path, skip_host=False)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_what_the_server_sends(page: Written) -> None:
    types = {
        "index.html": "text/html; charset=utf-8", "app.js": "text/javascript; charset=utf-8",
        "style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml", "model.json": "application/json",
        "model.onnx": "application/octet-stream", "runtime/ort-wasm-simd-threaded.wasm": "application/wasm",
        "runtime/ort.wasm.min.mjs": "text/javascript; charset=utf-8", "samples/1.png": "image/png",
        "samples/2.jpg": "image/jpeg", "runtime/LICENSE.txt": "text/plain; charset=utf-8",
    }  # fmt: skip
    found = files(page.report.folder)
    with served(page.report.folder) as address:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        for name, content in found.items():
            status, headers, body = ask(address, f"/{name}")
            assert (status, body) == (200, content)
            assert headers["Content-Type"] == types.get(name, headers["Content-Type"])
            assert headers["Content-Length"] == str(len(content))
            assert headers["Content-Security-Policy"] == f"{POLICY}; frame-ancestors 'none'"
            assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-cache"
        assert ask(address, "/")[2] == ask(address, "/index.html?x=1#y")[2] == found["index.html"]
        status, headers, body = ask(address, "/model.onnx", method="HEAD")
        assert (status, headers["Content-Length"], body) == (200, str(page.report.model_size), b"")


def test_what_is_known_is_not_sent_again(page: Written, tmp_path: Path) -> None:
    folder = shutil.copytree(page.report.folder, tmp_path / "page")
    with served(folder) as address:
        tag = ask(address, "/app.js")[1]["ETag"]
        status, headers, body = ask(address, "/app.js", If_None_Match=tag)
        assert (status, headers["ETag"], body) == (304, tag, b"")
        (folder / "app.js").write_text("// another")
        assert ask(address, "/app.js", If_None_Match=tag)[::2] == (200, b"// another")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "//secret.txt", "/samples/", "/samples",
        "/secret.txt", "/link.js", "/./app.js", "/samples/../../secret.txt", "/%00", "/app.js%00", "/runtime/",
        "/..\\secret.txt", "/etc/passwd", "http://elsewhere/secret.txt", "/mine.txt", "/nowhere",
    ],
)  # fmt: skip
def test_what_the_server_does_not_send(path: str, page: Written, tmp_path: Path) -> None:
    folder = shutil.copytree(page.report.folder, tmp_path / "page", copy_function=os.link)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "mine.txt").write_text("secret")  # beside the page's files, and not of them
    card = {**page.card, "files": [*page.card["files"], "link.js", "../secret.txt"]}  # type: ignore[misc]
    (folder / "model.json").unlink()
    (folder / "model.json").write_text(json.dumps(card))
    (folder / "link.js").symlink_to(tmp_path / "secret.txt")
    with served(folder) as address:
        status, headers, body = ask(address, path)
        assert status == 404
        assert b"secret" not in body
        assert "Content-Security-Policy" in headers
        assert ask(address, "/app.js", method="POST")[0] == 501


def test_500_at_once(page: Written) -> None:
    """All of them come before the first is answered: none is turned away."""
    server = page_server(page.report.folder, port=0)
    place = urlsplit(server.address)
    asked = f"GET /model.json HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n\r\n".encode()
    with ExitStack() as stack:
        connect = partial(socket.create_connection, (place.hostname, place.port), timeout=20)
        browsers = [stack.enter_context(connect()) for _ in range(450)]
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            browsers += [stack.enter_context(connect()) for _ in range(50)]
            for browser in browsers:
                browser.sendall(asked)
            answers = [b"".join(iter(partial(browser.recv, 1 << 16), b"")) for browser in browsers]
        finally:
            server.stop()
            thread.join()
    content = (page.report.folder / "model.json").read_bytes()
    assert [answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(content) for answer in answers] == [True] * 500


def test_a_port_that_is_taken(page: Written) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ZooError) as caught:
            page_server(page.report.folder, port=port)
    expected = f"port {port} of 127.0.0.1 is in use; give another, or 0 for any free one"
    assert str(caught.value) == expected
    with pytest.raises(ZooError, match=r"^port is 70000; it must be a whole number of at most 65535$"):
        page_server(page.report.folder, port=70_000)


def test_a_folder_without_a_page(tmp_path: Path) -> None:
    remedy = "write one with `fbnetv3 export web MODEL --out FOLDER`"
    for folder, what in ((tmp_path / "absent", "no such folder"), (tmp_path, "has no page")):
        with pytest.raises(ZooError) as caught:
            page_server(folder)
        assert str(caught.value) == f"{folder}: {what}; {remedy}"
    (tmp_path / "model.json").write_text('{"format": "fbnetv3_zoo.web", "format_version": 2, "files": []}')
    with pytest.raises(ZooError, match="has a page of another release; write it again"):
        page_server(tmp_path)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_stopped(stop: signal.Signals, page: Written) -> None:
    process = script("serve-demo", page.report.folder, "--port", 0, cwd=page.report.folder.parent)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"(http://127\.0\.0\.1:\d+/) \(Ctrl-C ends\)\n", line)
    assert found is not None, line
    assert ask(found[1], "/")[0] == 200
    process.send_signal(stop)
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    if stop is signal.SIGINT:
        assert (process.returncode, out, err) == (0, "ended\n", "")
    with pytest.raises(OSError):  # noqa: PT011
        ask(found[1], "/")


# The command that writes


def test_the_command(model: Path, home: Path, tmp_path: Path) -> None:
    text = succeed("export", "web", model, "--out", tmp_path / "page", "--sample", home / "a sea.png")
    size = sum(len(content) for content in files(tmp_path / "page").values())
    first, last = text.splitlines()
    assert first.startswith(f"{tmp_path}/page: short, 10 classes, float32; {size / 1e6:.1f} MB (model ")
    assert last == f"look at it: {program()} serve-demo {tmp_path}/page"
    told = json.loads(succeed("export", "web", model, "--output", tmp_path / "page", "--json"))
    report = asdict(write_web(model, tmp_path / "page")) | {"folder": str(tmp_path / "page")}
    assert told == {"licence": report.pop("license"), **report}


def test_the_command_with_a_name(tmp_path: Path) -> None:
    (tmp_path / "arch.json").write_text(SHORT.to_json())
    first, *_ = succeed("export", "web", tmp_path / "arch.json", "--out", tmp_path / "page").splitlines()
    assert first == "weights are random: good for timing, not for classifying"
    card = json.loads((tmp_path / "page" / "model.json").read_text())
    assert card["source"] == "random, its answers mean nothing"


def test_the_command_with_weights_from_elsewhere(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a repository are not random; a file has its own."""
    monkeypatch.setattr(
        importlib.import_module("fbnetv3_zoo.cli.export.web"), "open_network", lambda *_, **__: FBNet(SHORT).eval()
    )
    first, *_ = succeed("export", "web", "hf-hub:me/net", "--out", tmp_path / "page").splitlines()
    assert first.startswith(f"{tmp_path}/page: short")
    assert json.loads((tmp_path / "page" / "model.json").read_text())["source"] != "random, its answers mean nothing"
    ended = run("export", "web", model, "--pretrained", "--out", tmp_path / "other")
    told = f"error: {model}: is a file with its own weights; leave out --pretrained"
    assert (ended.code, ended.err.splitlines()[-1]) == (2, told)


def test_the_command_offline(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FBNETV3_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FBNETV3_ZOO_OFFLINE", "1")
    ended = run("export", "web", model, "--out", tmp_path / "page")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        f"error: onnxruntime-web 1.30.0 is not in {tmp_path}/cache, and FBNETV3_ZOO_OFFLINE forbids downloads; "
        "give the unpacked package or its .tgz (--runtime)\n"
    )
    assert not (tmp_path / "page").exists()
