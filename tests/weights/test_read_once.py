"""A file that changes while it is read: what was checked is what is used, wherever weights come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refusal
from safetensors.torch import save_file
from torch import Tensor

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.weights import fetch, hub, pretrained
from fbnetv3_zoo.weights import torch_checkpoint as foreign
from fbnetv3_zoo.weights.cache import WeightsCache
from fbnetv3_zoo.weights.fetch import read
from fbnetv3_zoo.weights.registry import Layout, WeightsEntry, WeightsSource
from fbnetv3_zoo.weights.serialization import load, save

State = dict[str, Tensor]


def _state(arch: Arch, seed: int) -> State:
    return FBNet(arch, generator=torch.Generator().manual_seed(seed)).state_dict()


def _same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def mine(tiny_arch: Arch) -> State:
    """The weights that are in the file first."""
    return _state(tiny_arch, 1)


@pytest.fixture
def theirs(tiny_arch: Arch, tmp_path: Path) -> dict[str, bytes]:
    """By ending, a file of other weights, which takes the first one's place."""
    state = _state(tiny_arch, 2)
    torch.save(state, tmp_path / "theirs.pth")
    save_file(state, tmp_path / "theirs.safetensors")
    return {path.suffix: path.read_bytes() for path in tmp_path.glob("theirs.*")}


def _write(path: Path, state: State) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)


def _before(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, act: Callable[[], object]) -> None:
    """Have ``act`` called before the function ``name`` of ``module`` is."""
    real = getattr(module, name)

    def hooked(*arguments: Any, **named: Any) -> Any:
        act()
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, hooked)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("moment", ["digest", "parse"])
def test_a_mirrors_file_that_changes_after_its_digest(
    tiny_arch: Arch, mine: State, theirs: dict[str, bytes], ending: str, moment: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = tmp_path / "mirror" / "tiny.test" / f"model{ending}"
    _write(path, mine)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = WeightsSource(f"https://a.test/model{ending}", digest)
    about = Preprocess.for_arch(tiny_arch)
    record = WeightsEntry(
        "test", tiny_arch, (source,), Layout.OWN, license=None, preprocess=about, imagenet_classes=False
    )
    place, name = (fetch, "sha256_of") if moment == "digest" else (fetch, "parse_any")
    _before(monkeypatch, place, name, lambda: path.write_bytes(theirs[ending]))
    cache = WeightsCache(tmp_path / "kept", offline=True, mirror=tmp_path / "mirror")
    assert _same(read(record, cache).tensors, mine)
    assert path.read_bytes() == theirs[ending]  # it did change
    path.unlink()
    assert _same(read(record, cache).tensors, mine)


@pytest.mark.parametrize("moment", ["sha256_of", "read_in_another"])
def test_a_checkpoint_that_changes_before_it_is_unpickled(
    tiny_arch: Arch, mine: State, theirs: dict[str, bytes], moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = tmp_path / "a.pth", WeightsCache(tmp_path / "kept")
    _write(path, mine)
    if moment == "sha256_of":
        _before(monkeypatch, pretrained, moment, lambda: path.write_bytes(theirs[".pth"]))
    else:
        _before(monkeypatch, foreign, "_read_in_another", lambda: path.write_bytes(theirs[".pth"]))
    assert _same(create(tiny_arch, pretrained=path, cache=cache).state_dict(), mine)
    monkeypatch.undo()
    assert _same(create(tiny_arch, pretrained=path, cache=cache).state_dict(), _state(tiny_arch, 2))
    _write(path, mine)
    assert _same(create(tiny_arch, pretrained=path, cache=cache).state_dict(), mine)


def test_a_file_of_the_hubs_cache_that_changes_after_its_digest(
    tiny_arch: Arch, mine: State, theirs: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = FBNet(tiny_arch)
    net.load_state_dict(mine)
    save(net, tmp_path / "model.safetensors")
    data = (tmp_path / "model.safetensors").read_bytes()
    blob = tmp_path / hashlib.sha256(data).hexdigest()
    blob.write_bytes(data)
    monkeypatch.setattr(hub, "_download", lambda *_, **__: str(blob))
    _before(monkeypatch, hub, "sha256", lambda: blob.write_bytes(theirs[".safetensors"]))
    assert _same(load("hf-hub:me/net").state_dict(), mine)
    assert blob.read_bytes() == theirs[".safetensors"]


def test_files_that_share_eight_digits_are_told_apart(
    tiny_arch: Arch, mine: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many digits as are in a kept file's name can be forged."""
    first, second = tmp_path / "a.pth", tmp_path / "b.pth"
    _write(first, mine)
    _write(second, _state(tiny_arch, 2))
    for module in (fetch, pretrained):
        real = module.sha256_of
        monkeypatch.setattr(module, "sha256_of", lambda data, real=real: "0" * 8 + real(data)[8:])
    cache = WeightsCache(tmp_path / "kept")
    for path, seed in ((first, 1), (second, 2), (first, 1), (second, 2)):
        assert _same(create(tiny_arch, pretrained=path, cache=cache).state_dict(), _state(tiny_arch, seed))
    assert len(cache.kept()) == 2


def test_nothing_is_left_of_a_checkpoint_in_the_folder_for_temporary_files(
    mine: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    seen: list[list[str]] = []
    _before(
        monkeypatch, foreign, "_read_in_another", lambda: seen.append(sorted(path.name for path in scratch.rglob("*")))
    )
    _write(tmp_path / "a.pth", mine)
    assert _same(foreign.read_any(tmp_path / "a.pth").tensors, mine)
    assert [names[1:] for names in seen] == [["lock", "new"]]  # nothing of the checkpoint has a name
    assert not list(scratch.iterdir())


def test_a_missing_folder_for_temporary_files_is_said(
    mine: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    _write(tmp_path / "a.pth", mine)
    reason = "cannot take temporary files (No such file or directory); make room, or set TMPDIR to another folder"
    text = f"{tmp_path / 'gone'}: {reason}"
    assert refusal(lambda: foreign.read_any(tmp_path / "a.pth")) == text
