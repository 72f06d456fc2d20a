"""What is secret in an address, a password or a signature, is neither shown nor kept."""

from __future__ import annotations

import functools
import http.server
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loopback import running
from refusals import refusal

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError, without_secrets
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.weights.cache import WeightsCache
from fbnetv3_zoo.weights.registry import WeightsSource
from fbnetv3_zoo.weights.url import identity_of, without_signature


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://me:SECRET@a.b:80/c/d.pth?X-Amz-Signature=SECRET#x", "https://a.b:80/c/d.pth"),
        ("https://a.b/c.pth?sig=SECRET: cannot be had", "https://a.b/c.pth: cannot be had"),
        ("get 'http://SECRET@a/b' (or HTTP://a/b?SECRET)", "get 'http://a/b' (or HTTP://a/b)"),
        ("http://me:SEC/RET@a/b", "http://a/b"),
        ("http://me:SEC RET@a/b", "http://... RET@a/b"),
        ("http://SECRET@[::1]:8080/@scope/b", "http://[::1]:8080/@scope/b"),
        ("proxy http://me:SECRET@a:1; see https://a.b", "proxy http://a:1; see https://a.b"),
        ("/a/b?c#d: no such file", "/a/b?c#d: no such file"),
    ],
)
def test_addresses_are_shown_without_secrets(text: str, told: str) -> None:
    assert without_secrets(text) == told
    assert str(ZooError(text)) == told


def test_what_tells_one_file_from_another() -> None:
    signed = "https://a.b/c.pth?versionId=3&X-Amz-Date={0}&X-Amz-Signature={0}&X-Amz-Security-Token={0}"
    assert identity_of(signed.format(1)) == identity_of(signed.format(2)) == "https://a.b/c.pth?versionId=3"
    assert identity_of("https://me:1@a/b#f") == identity_of("https://me:2@a/b") == "https://a/b"
    for name in ("id", "sku", "policy", "st", "sp", "skip", "expires", "token"):
        assert identity_of(f"https://a/b?{name}=1") != identity_of(f"https://a/b?{name}=2")
    azure = "https://a/b.pth?sv=1&st={0}&se={0}&sp=r&skoid={0}&sig={0}"
    assert identity_of(azure.format(1)) == identity_of(azure.format(2)) == "https://a/b.pth"
    google = "https://a/b?id=7&Expires={0}&Policy={0}&Signature={0}"
    assert identity_of(google.format(1)) == identity_of(google.format(2)) == "https://a/b?id=7"
    for rest in ("b.pth?", "b?x=1&y=2&"):
        assert identity_of(f"https://a/{rest}token=1") == identity_of(f"https://a/{rest}token=2")
    assert identity_of("https://a/b?a=%2F&b") == "https://a/b?a=%2F&b"
    assert without_signature("https://me:SECRET@a/b?token=SECRET&id=1#sha256=0a") == "https://a/b?id=1#sha256=0a"
    assert without_signature("runs/b?token=1") == "runs/b?token=1"
    assert without_signature("https://a/b?c=%2F&d") == "https://a/b?c=%2F&d"
    names = {"http://me:SECRET@a": "", "http://a/b.pth?c=/d.pth": "b.pth", "/x/y#z.pth": "y#z.pth"}
    assert {address: WeightsSource(address).file_name for address in names} == names


@pytest.fixture
def site(tiny_arch: Arch, tmp_path: Path) -> Iterator[str]:
    """The address of a server, without scheme; it has ``model.pth``."""
    torch.save(FBNet(tiny_arch).state_dict(), tmp_path / "model.pth")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *values: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield f"127.0.0.1:{server.server_port}"


def _written(folder: Path) -> bytes:
    return b"".join(bytes(path) + path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_nothing_secret_is_kept_or_logged(
    tiny_arch: Arch, site: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, logger="fbnetv3_zoo")
    cache = WeightsCache(tmp_path / "kept", offline=False, lock=tmp_path / "kept" / "lock.json", attempts=2, pause=0.0)
    address = f"http://me:SECRET@{site}/model.pth?X-Amz-Signature=SECRET"
    create(tiny_arch, pretrained=address, cache=cache)
    unplugged = WeightsCache(cache.folder, offline=True, lock=cache.lock)
    create(tiny_arch, pretrained=address.replace("SECRET", "OTHER"), cache=unplugged)  # signed anew: the same file
    said = [
        refusal(lambda: create(tiny_arch, pretrained=f"{address}&id=2", cache=unplugged)),
        refusal(lambda: create(tiny_arch, pretrained=address.replace("model", "gone"), cache=cache)),
        refusal(lambda: create(tiny_arch, pretrained=f"http://me:SECRET@{site}/model.txt?SECRET", cache=cache)),
        refusal(lambda: create(tiny_arch, pretrained=f"http://me:SECRET@{site}.:x/model.pth?SECRET", cache=cache)),
        refusal(lambda: create(tiny_arch, pretrained="http://me:SECRET@127.0.0.1:9/model.pth?SECRET", cache=cache)),
        refusal(lambda: create(tiny_arch, pretrained=f"{address}#sha256=SECRET", cache=cache)),
    ]
    assert "SECRET" not in "\n".join([*said, *caplog.messages, *capfd.readouterr()])
    assert b"SECRET" not in _written(cache.folder)
    assert site.encode() in _written(cache.folder)  # where a file is from is kept


def test_a_proxys_password_is_not_shown(
    tiny_arch: Arch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="fbnetv3_zoo")
    for proxy in ("http://me:SECRET@127.0.0.1:9", "http://me:SECRET@127.0.0.1:x", "SECRET://me:SECRET@a"):
        monkeypatch.setenv("http_proxy", proxy)
        cache = WeightsCache(tmp_path / "kept", offline=False, attempts=2, pause=0.0)
        said = refusal(lambda cache=cache: create(tiny_arch, pretrained="http://a.test/model.pth", cache=cache))
        assert "me:SECRET" not in "\n".join([said, *caplog.messages])
