"""The weights that the package brings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from refusals import refusal
from shell import succeed

from fbnetv3_zoo import create, load
from fbnetv3_zoo.weights.cache import WeightsCache
from fbnetv3_zoo.weights.registry import RECORDS

RECORD = RECORDS["fbnetv3_nano.zoo_v1"]


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightsCache:
    """A cache that cannot be written, offline."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("FBNETV3_ZOO_CACHE", str(tmp_path / "file" / "cache"))
    return WeightsCache(offline=True)


@pytest.mark.parametrize("pretrained", [True, "commercial"])
@pytest.mark.parametrize("name", ["fbnetv3_nano", "fbnetv3_nano.zoo_v1"])
def test_they_need_neither_connection_nor_cache(name: str, pretrained: bool | str, nowhere: WeightsCache) -> None:
    network = create(name, pretrained=pretrained, cache=nowhere).eval()
    assert (network.weights, network.license) == ("fbnetv3_nano.zoo_v1", "Apache-2.0")
    assert network.class_names is not None
    assert len(network.class_names) == network.num_classes == 39
    assert RECORD.packaged is not None
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32, torch.int64}
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(network(images), load(RECORD.packaged)(images))


def test_they_are_small() -> None:
    assert RECORD.packaged is not None
    assert os.path.getsize(RECORD.packaged) < 400_000


def test_a_damaged_file_is_refused(nowhere: WeightsCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert RECORD.packaged is not None
    data = bytearray(RECORD.packaged.read_bytes())
    data[-5] ^= 1
    path = tmp_path / RECORD.packaged.name
    path.write_bytes(data)
    monkeypatch.setattr("fbnetv3_zoo.weights.registry._FILES", tmp_path)
    expected = f"{path}: is damaged; install fbnetv3-zoo again"
    assert refusal(lambda: create("fbnetv3_nano", pretrained=True, cache=nowhere)) == expected


def test_commands_say_that_they_are_there(tmp_path: Path) -> None:
    line = succeed("weights", "list", "fbnetv3_nano", "--cache", tmp_path).splitlines()[1]
    assert line.split() == ["fbnetv3_nano.zoo_v1", "0.6", "-", "32", "Apache-2.0", "yes", "in", "the", "package"]
    told = succeed("weights", "fetch", "fbnetv3_nano", "--cache", tmp_path)
    assert told == "fbnetv3_nano.zoo_v1: comes with the package\n"
