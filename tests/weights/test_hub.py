"""Repositories of the Hugging Face Hub, through the real client, against a hub on the loopback interface."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from fake_hub import COMMIT, FakeHub
from loopback import running
from waiting import PATIENCE

from fbnetv3_zoo import save_pretrained
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.weights.card import model_card, neighbors_section, record_card
from fbnetv3_zoo.weights.registry import RECORDS
from fbnetv3_zoo.weights.serialization import load, save


@pytest.fixture
def model(tiny_arch: Arch) -> FBNet:
    network = FBNet(tiny_arch, generator=torch.Generator().manual_seed(1)).eval()
    network.class_names = tuple("abcdefghij")
    return network


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running(FakeHub()) as found:
        yield found


def _python(hub: FakeHub, folder: Path, code: str) -> str:
    """What ``code`` prints, run with the client pointed at ``hub`` and at caches in ``folder``; errors one a line."""
    given = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(folder / "hf"),
        "HF_TOKEN": "hf_none",
        "HF_HUB_DISABLE_XET": "1",
    }
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
    lines = (
        "import fbnetv3_zoo as zoo, torch",
        "def refusal(call):",
        "    try: call()",
        "    except zoo.ZooError as error: print(error)",
        "    else: print('no error')",
        f"cache = lambda offline=False: zoo.WeightsCache(folder={str(folder / 'cache')!r}, offline=offline)",
        code,
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], env={**os.environ, **given, **quiet}, cwd=folder, text=True,
        capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pushed_and_loaded(model: FBNet, hub: FakeHub, tmp_path: Path) -> None:
    save(model, tmp_path / "mine.safetensors")
    code = """
mine = zoo.load("mine.safetensors")
print(zoo.push_to_hub(mine, "me/net", license="Apache-2.0"))
back = zoo.load("hf-hub:me/net")
images = torch.randn(2, 3, 32, 32)
print(torch.equal(back(images), mine(images)), back.class_names == mine.class_names)
again = zoo.create(mine.arch, pretrained="hf-hub:me/net", cache=cache(offline=True)).eval()
print(torch.equal(again(images), mine(images)))
refusal(lambda: zoo.load("hf-hub:me/other"))
refusal(lambda: zoo.create("fbnetv3_a", pretrained="hf-hub:me/net"))
refusal(lambda: zoo.create("fbnetv3_a", pretrained="hf-hub:me/other", cache=cache(offline=True)))
"""
    address, same, again, absent, wrong, offline = _python(hub, tmp_path, code).splitlines()
    assert address == f"{hub.address}/me/net/commit/{COMMIT}"
    assert (same, again) == ("True True", "True")
    assert absent.startswith("hf-hub:me/other: model.safetensors cannot be had (404 Client Error. ")
    assert wrong == "hf-hub:me/net: holds tiny, not fbnetv3_a; load() the file alone (--model FILE)"
    assert offline.startswith("hf-hub:me/other: model.safetensors cannot be had (Cannot find")
    card = model_card(load(tmp_path / "mine.safetensors"), license="Apache-2.0")
    assert hub.files["me/net/README.md"].decode() == card + neighbors_section(own=True)
    files = ("README.md", "config.json", "model.safetensors", "onnx/model.onnx", "preprocessor_config.json")
    assert sorted(hub.files) == [f"me/net/{name}" for name in files]


def test_a_damaged_file_of_the_hubs_cache(model: FBNet, hub: FakeHub, tmp_path: Path) -> None:
    save(model, tmp_path / "mine.safetensors")
    hub.files["me/net/model.safetensors"] = (tmp_path / "mine.safetensors").read_bytes()
    code = """
from huggingface_hub import hf_hub_download
from pathlib import Path
blob = Path(hf_hub_download("me/net", "model.safetensors")).resolve()
def flip():
    content = bytearray(blob.read_bytes()); content[-9] ^= 1; blob.write_bytes(content)
flip()
refusal(lambda: zoo.create("fbnetv3_a", pretrained="hf-hub:me/net", cache=cache(offline=True)))
print(blob)
state = zoo.load("hf-hub:me/net").state_dict()
print(all(torch.equal(state[name], tensor) for name, tensor in zoo.load("mine.safetensors").state_dict().items()))
"""
    refused, blob, whole = _python(hub, tmp_path, code).splitlines()
    remedy = "delete it and load again with a network"
    assert refused == f"hf-hub:me/net: {blob} is damaged, and offline; {remedy}"
    assert whole == "True"
    assert hub.requests.count("GET /me/net/resolve/main/model.safetensors") == 2


def test_a_hub_that_refuses(model: FBNet, hub: FakeHub, tmp_path: Path) -> None:
    save(model, tmp_path / "mine.safetensors")
    hub.refuse = True
    code = "refusal(lambda: zoo.push_to_hub(zoo.load('mine.safetensors'), 'me/net'))"
    assert _python(hub, tmp_path, code).startswith("hf-hub:me/net: cannot be written (403 Forbidden")
    assert not hub.files


def test_graphs_of_older_weights_do_not_stay(model: FBNet, hub: FakeHub, tmp_path: Path) -> None:
    save(model, tmp_path / "mine.safetensors")
    hub.files |= {f"me/net/{name}": b"older" for name in ("onnx/model_quantized.onnx", "onnx/mine.onnx", "notes.txt")}
    _python(hub, tmp_path, "zoo.push_to_hub(zoo.load('mine.safetensors'), 'me/net')")
    assert "me/net/onnx/model_quantized.onnx" not in hub.files
    assert [hub.files[f"me/net/{name}"] for name in ("onnx/mine.onnx", "notes.txt")] == [b"older"] * 2


def test_a_hub_that_cannot_be_reached(model: FBNet, hub: FakeHub, tmp_path: Path) -> None:
    save(model, tmp_path / "mine.safetensors")
    hub.shutdown()
    hub.server_close()
    code = "refusal(lambda: zoo.push_to_hub(zoo.load('mine.safetensors'), 'me/net', onnx=False))"
    assert _python(hub, tmp_path, code).startswith("hf-hub:me/net: cannot be written (")
    offline = f"import os; os.environ['FBNETV3_ZOO_OFFLINE'] = '1'\n{code}"
    said = "hf-hub:me/net: cannot be written, since FBNETV3_ZOO_OFFLINE is set\n"
    assert _python(hub, tmp_path, offline) == said


@pytest.mark.parametrize("address", ["hf-hub:me", "hf-hub:a/b/c", "hf-hub:me/net@", "hf-hub:../x/y"])
def test_addresses_that_name_no_repository(address: str) -> None:
    with pytest.raises(ZooError) as caught:
        load(address)
    assert str(caught.value) == f"{address}: is no repository; write hf-hub:owner/name or hf-hub:owner/name@revision"


def test_saved_as_a_repository(model: FBNet, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "net", license="MIT", onnx=False)
    files = ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == files
    card = (tmp_path / "net" / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "mit"
    assert "- Classes: 10: a, b, c, d, e and 5 more." in body
    back = load(tmp_path / "net" / "model.safetensors")
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(back(images), model(images))


def test_the_code_of_a_card_runs(model: FBNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    save_pretrained(model, tmp_path, onnx=False)
    Image.new("RGB", (50, 40), "red").save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    code = (tmp_path / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert "cat.jpg" in code
    exec(compile(code, "README.md", "exec"), {})


def test_the_card_of_the_packaged_weights() -> None:
    card = record_card(RECORDS["fbnetv3_nano.zoo_v1"])
    assert "imagenet" not in card.lower()
    assert "Published at" not in card
    assert "An image classifier of this project, in the style of FBNetV3" in card
    assert "- Comes with the package; trained on characters" in card


@pytest.mark.parametrize("name", [name for name, record in RECORDS.items() if record.packaged is None])
def test_cards_of_published_weights(name: str) -> None:
    record, card = RECORDS[name], record_card(RECORDS[name])
    _, head, body = card.split("---\n", 2)
    data = yaml.safe_load(head)
    assert record.license is not None
    assert data["license"] == record.license.value.lower()
    assert data["datasets"] == ["imagenet-1k"]
    for fact in (
        f"# {name}\n",
        str(record.accuracy[0]),
        record.sources[0].address,
        f"crop of {record.preprocess.resolution} px",
    ):
        assert fact in body
    assert f"shorter side to {record.preprocess.resize} px" in body
