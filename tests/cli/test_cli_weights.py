"""``fbnetv3 weights``, and the commands that take ``--pretrained``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from folders import ROOT
from golden import official_checkpoint, official_state_dict
from killed import leave_half_a_file
from PIL import Image
from shell import Ended, run, script, succeed
from waiting import PATIENCE

from fbnetv3_zoo import create, load
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.training.data import find_dataset
from fbnetv3_zoo.weights.cache import WeightsCache
from fbnetv3_zoo.weights.card import record_card
from fbnetv3_zoo.weights.convert import from_official
from fbnetv3_zoo.weights.registry import RECORDS
from fbnetv3_zoo.weights.serialization import save
from fbnetv3_zoo.zoo import ARCHS

NAME = "fbnetv2_f1.fb_in1k"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the official file of one network."""
    folder = tmp_path_factory.mktemp("mirror")
    (folder / NAME).mkdir()
    torch.save(official_checkpoint("fbnetv2_f1"), folder / NAME / "model.pth")
    return folder


@pytest.fixture(scope="module")
def fetched(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A cache into which that file was fetched, and what fetching it printed."""
    cache = tmp_path_factory.mktemp("cache")
    return cache, run("weights", "fetch", "fbnetv2_f1", "--cache", cache, "--mirror", mirror, "--json")


@pytest.fixture
def cache(fetched: tuple[Path, Ended], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cache in force, without a network; put right again after a test."""
    (kept,) = fetched[0].glob("*.safetensors")
    content = kept.read_bytes()
    monkeypatch.setenv("FBNETV3_ZOO_CACHE", str(fetched[0]))
    monkeypatch.setenv("FBNETV3_ZOO_OFFLINE", "1")
    yield fetched[0]
    kept.write_bytes(content)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for n, name in enumerate(("bright", "dark")):
        (folder / name).mkdir()
        for m in range(12):
            Image.new("RGB", (40, 36), (240 - 200 * n - m,) * 3).save(folder / name / f"{m}.png")
    return folder


def test_fetch(fetched: tuple[Path, Ended], mirror: Path) -> None:
    cache, ended = fetched
    assert (ended.code, ended.err) == (0, "")
    (row,) = json.loads(ended.out)
    published = hashlib.sha256((mirror / NAME / "model.pth").read_bytes()).hexdigest()
    (kept,) = cache.glob("*.safetensors")
    assert row == {
        "name": NAME,
        "path": str(kept),
        "source_sha256": published[:8],
        "blake3": blake3(kept.read_bytes()).hexdigest()[:16],
    }
    (locked,) = json.loads((cache / "weights.lock.json").read_text())["files"]
    assert (locked["key"], locked["sha256"]) == (f"{NAME}/model.pth", published)


def test_fetch_says_what_it_recorded_and_the_license(mirror: Path, tmp_path: Path) -> None:
    options = ("--cache", tmp_path / "cache", "--mirror", mirror, "--lock", tmp_path / "team.lock")
    out, err = script("weights", "fetch", NAME, *options, cwd=tmp_path).communicate(timeout=PATIENCE)
    (kept,) = (tmp_path / "cache").glob("*.safetensors")
    assert out.startswith(f"{kept} (24.2 MB)")
    recorded, license = err.splitlines()
    digest = hashlib.sha256((mirror / NAME / "model.pth").read_bytes()).hexdigest()
    lock = tmp_path / "team.lock"
    assert recorded == f"{mirror / NAME / 'model.pth'}: no digest is published; recorded SHA-256 {digest} in {lock}"
    assert license == f"{NAME}: license CC-BY-NC-4.0 (name the authors, no commercial use)"
    assert not (tmp_path / "cache" / "weights.lock.json").exists()


def test_list(cache: Path) -> None:
    lines = succeed("weights", "list").splitlines()
    assert lines[0].split() == ["name", "MB", "top-1", "%", "pixels", "license", "commercial", "cache"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1 : 1 + len(RECORDS)]}
    assert list(rows) == list(RECORDS)
    assert rows[NAME] == ["24.1", "68.28", "128", "CC-BY-NC-4.0", "no", "kept"]
    assert rows["fbnetv3_b.ra2_in1k"] == ["34.4", "79.15", "256", "Apache-2.0", "yes", "-"]
    assert lines[-1].endswith(f"Cache: {cache}")


def test_list_as_json(cache: Path) -> None:
    rows = json.loads(succeed("weights", "list", "fbnetv3_b", "--json"))
    assert [row["name"] for row in rows] == ["fbnetv3_b.fb_in1k", "fbnetv3_b.ra2_in1k"]
    assert [(row["licence"], row["commercial"]) for row in rows] == [("CC-BY-NC-4.0", False), ("Apache-2.0", True)]
    assert rows[1]["sha256"] == ["ead5d2a1", ""]
    assert rows[1]["accuracy"] == [{"top1": 79.15, "top5": None, "resolution": 256, "evidence": "publisher's record"}]
    (row,) = json.loads(succeed("weights", "list", NAME, "--json"))
    assert row["kept"] == str(next(cache.glob("*.safetensors")))


def test_fetching_what_is_there_clears_what_a_killed_writer_left(cache: Path) -> None:
    for fetch in (lambda: succeed("weights", "fetch", NAME), lambda: create("fbnetv2_f1", pretrained=NAME)):
        leftover = leave_half_a_file(cache)
        fetch()
        assert not leftover.exists()
    assert list(cache.glob("*.safetensors"))


def test_verify_and_prune(cache: Path) -> None:
    (kept,) = cache.glob("*.safetensors")
    assert succeed("weights", "verify") == f"whole           24.2 MB  {kept}\n"
    leftover = leave_half_a_file(cache)
    mine = cache / f".{NAME}.abc12345.download"
    mine.write_bytes(b"mine")
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 4
    kept.write_bytes(content)
    ended = run("weights", "verify", "fbnetv2_f1")
    assert (ended.code, ended.out) == (1, f"damaged         24.2 MB  {kept}\n")
    shown = succeed("weights", "prune", "--dry-run")
    assert shown == f"half-written     0.0 MB  {leftover}\ndamaged         24.2 MB  {kept}\n"
    assert kept.exists()
    assert leftover.exists()
    assert succeed("weights", "prune") == shown
    assert not leftover.exists()
    assert not list(cache.glob("*.safetensors"))
    assert mine.read_bytes() == b"mine"
    assert (cache / "weights.lock.json").exists()
    assert succeed("weights", "prune") == "nothing to remove\n"
    assert succeed("weights", "verify") == "the cache is empty\n"


def test_prune_what_is_superseded(cache: Path) -> None:
    (kept,) = cache.glob("*.safetensors")
    other = kept.with_name(kept.name.replace(kept.name.split("-")[1], "00000000"))
    other.write_bytes(kept.read_bytes())
    assert succeed("weights", "prune") == f"superseded      24.2 MB  {other}\n"
    assert kept.exists()
    assert succeed("weights", "prune", "--all") == f"whole           24.2 MB  {kept}\n"
    assert not kept.exists()


def test_the_license_in_info() -> None:
    text = succeed("info", "fbnetv3_b")
    assert "weights fbnetv3_b.fb_in1k (license CC-BY-NC-4.0)\n    top-1 80.21 %, top-5 94.94 % at 248 px" in text
    assert "weights fbnetv3_b.ra2_in1k (license Apache-2.0)\n    top-1 79.15 % at 256 px" in text
    weights = json.loads(succeed("info", "fbnetv3_b", "--json"))["weights"]
    assert [entry["licence"] for entry in weights] == ["CC-BY-NC-4.0", "Apache-2.0"]
    assert succeed("info", "fbnetv3_b.ra2_in1k").startswith("fbnetv3_b, 256 x 256 pixels\n")


def test_convert(mirror: Path, tmp_path: Path) -> None:
    checkpoint = mirror / NAME / "model.pth"
    output = tmp_path / "mine.safetensors"
    text = succeed("weights", "convert", checkpoint, "--model", "fbnetv2_f1", "--output", output)
    assert text.splitlines()[0] == f"fbnetv2_f1, 1000 classes: {output} (24.2 MB)"
    assert text.splitlines()[1].startswith("images: resized to ")
    assert text.splitlines()[1].endswith("(assumed; if it was trained with others, give --mean, --std and --resize)")
    wanted = from_official(ARCHS["fbnetv2_f1"], official_state_dict("fbnetv2_f1"))
    state = load(output).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())


def test_convert_with_other_preprocessing(tiny_arch: Arch, tmp_path: Path) -> None:
    (tmp_path / "arch.json").write_text(tiny_arch.to_json())
    torch.save(create(tiny_arch).state_dict(), tmp_path / "a.pth")
    command = (
        "weights",
        "convert",
        tmp_path / "a.pth",
        "--model",
        tmp_path / "arch.json",
        "--output",
        tmp_path / "b.safetensors",
    )
    text = succeed(*command, "--mean", "0.5,0.25,0", "--std", "0.5, 0.25, 1", "--resize", 40)
    assert text.splitlines()[1] == "images: resized to 40, cropped to 32, mean 0.5, 0.25, 0, std 0.5, 0.25, 1"
    found = load(tmp_path / "b.safetensors").preprocess
    assert (found.resize, found.mean, found.std) == (40, (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    for options, told in (
        (("--mean", "0.5", "--std", "0.5"), "--mean and --std: give 3 numbers, one per channel"),
        (("--mean", "half"), "--mean is 'half'; give comma-separated numbers, such as 0.5,0.5,0.5"),
        (("--std", "1,0,1"), "--std is 0"),
        (("--resize", 8), "--resize is 8; it must be at least the resolution, 32"),
    ):
        assert told in run(*command, *options).err


def test_convert_names_classes(tiny_arch: Arch, tmp_path: Path) -> None:
    (tmp_path / "arch.json").write_text(tiny_arch.to_json())
    (tmp_path / "names.txt").write_bytes("\r\n".join("abcdefg").encode("utf-8-sig"))
    save(create(tiny_arch, num_classes=7), tmp_path / "seven.safetensors")
    names = ("--class-names", tmp_path / "names.txt")
    options = (tmp_path / "seven.safetensors", "--model", tmp_path / "arch.json", *names)
    target = tmp_path / "out.safetensors"
    assert json.loads(succeed("weights", "convert", *options, "--output", target, "--json"))["classes"] == 7
    assert load(target).class_names == tuple("abcdefg")
    ended = run("weights", "convert", *options)
    assert ended.err == f"error: {options[0]}: would be overwritten by its conversion; give another --output\n"
    (tmp_path / "names.txt").write_text("a\nb\n")
    ended = run("weights", "convert", *options, "--output", tmp_path / "two.safetensors")
    assert (ended.code, ended.err) == (2, "error: class_names has 2 names; tiny has 7 classes\n")
    assert not (tmp_path / "two.safetensors").exists()


def test_fetching_what_the_package_brings_is_told_in_json_too() -> None:
    assert succeed("weights", "fetch", "fbnetv3_nano").startswith("fbnetv3_nano.zoo_v1: comes with the package")
    assert json.loads(succeed("weights", "fetch", "fbnetv3_nano", "--json")) == []


def test_card(tiny_arch: Arch, tmp_path: Path) -> None:
    assert succeed("weights", "card", "fbnetv3_b.ra2_in1k") == record_card(RECORDS["fbnetv3_b.ra2_in1k"])
    save(FBNet(tiny_arch), tmp_path / "net.safetensors")
    card = tmp_path / "card.md"
    succeed("weights", "card", tmp_path / "net.safetensors", "--license", "MIT", "--output", card)
    assert "license: mit\n" in card.read_text()


def test_classify_and_export(cache: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = photos / "dark" / "0.png"
    (answer,) = json.loads(succeed("classify", image, "--model", "fbnetv2_f1", "--pretrained", "--json"))
    model = create("fbnetv2_f1", pretrained=True, cache=WeightsCache(folder=cache, offline=True)).eval()
    ((first, *_),) = Classifier.of(model)([Image.open(image)])
    assert answer["predictions"][0] == {"name": first.name, "probability": pytest.approx(first.probability)}
    assert first.name in (RECORDS[NAME].class_names or ())
    text = succeed("export", "onnx", "fbnetv2_f1", "--pretrained")
    assert text.startswith("fbnetv2_f1.onnx: opset 18")
    (same,) = json.loads(succeed("classify", image, "--model", "fbnetv2_f1.onnx", "--json"))
    assert same["predictions"][0]["name"] == first.name
    assert same["predictions"][0]["probability"] == pytest.approx(first.probability, rel=1e-3)


def test_training_begins_with_published_weights(cache: Path, photos: Path, tmp_path: Path) -> None:
    options = ("train", "--model", "fbnetv2_f1", "--data", photos, "--epochs", 1, "--batch-size", 4, "--resolution", 64)
    still = ("--learning-rate", 1e-9)
    for n, begun in enumerate((("--pretrained",), ("--weights", "fb_in1k"), ())):
        assert run(*options, *still, *begun, "--output", tmp_path / str(n), "--json").code == 0
        state = load(tmp_path / str(n) / "model.safetensors").state_dict()
        wanted = from_official(ARCHS["fbnetv2_f1"], official_state_dict("fbnetv2_f1"))["stages.0.0.conv.weight"]
        assert torch.allclose(state["stages.0.0.conv.weight"], wanted, atol=1e-5) == bool(begun)
    assert find_dataset(str(photos), seed=0).class_names == load(tmp_path / "0" / "model.safetensors").class_names


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("weights fetch", "give the names of weights, or --all; `fbnetv3 weights list` shows them"),
        ("weights fetch x --all", "give the names of weights, or --all; `fbnetv3 weights list` shows them"),
        ("weights list resnet", "no weights match 'resnet'; `fbnetv3 weights list` shows all"),
        ("weights verify fbnetv3_e", "fbnetv3_e.fb_in1k: not in the cache; `fbnetv3 weights fetch` gets them"),
        ("weights card fbnetv3_e --license MIT",
         "fbnetv3_e: the license of published weights is its publisher's; leave --license out"),
        ("weights convert x.pth --model fbnetv3_q",
         "unknown model 'fbnetv3_q' (did you mean 'fbnetv3_g'?); `fbnetv3 list` shows all"),
        ("weights convert x.pth --model fbnetv3_a", "x.pth: no such file"),
        ("weights convert x.jpg --model fbnetv3_a",
         "x.jpg: weights are read from .safetensors, .pth, .pt, .bin and .ckpt files only"),
        ("classify x.png --model fbnetv3_e",
         "fbnetv3_e: is a name, not a file; add --pretrained to use its published weights"),
        ("validate fbnetv3_b.ra2_in1k",
         "fbnetv3_b.ra2_in1k: is a name, not a file; add --pretrained to use its published weights"),
        ("export onnx fbnetv3_20g --pretrained",
         "fbnetv3_20g: no weights are published for this network; `fbnetv3 weights list` shows all"),
        ("train --output new --pretrained --weights x.pth",
         "--pretrained and --weights both give weights to start from; give only one"),
    ],
)  # fmt: skip
def test_wrong_commands(command: str, text: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(*command.split())
    assert (ended.code, ended.out, ended.err) == (2, "", f"error: {text}\n")
    assert not list(tmp_path.iterdir())


def test_offline_and_not_in_the_cache(cache: Path, tmp_path: Path) -> None:
    ended = run("classify", tmp_path / "x.png", "--model", "fbnetv3_e", "--pretrained")
    assert ended.code == 2
    assert ended.err == (
        "error: fbnetv3_e.fb_in1k: not in the cache, and offline; get "
        "https://dl.fbaipublicfiles.com/fbnet/models/20201201/GtOtfw/FBNetV3_E_f230158956/model.pth elsewhere "
        f"(no digest is published) and put it at {cache}/fbnetv3_e.fb_in1k/model.pth\n"
    )


def test_help_of_the_group() -> None:
    text = succeed("weights")
    assert all(f" {name} " in text for name in ("list", "fetch", "verify", "convert", "card", "prune"))


def test_torch_hub(cache: Path) -> None:
    root = str(ROOT)
    model = torch.hub.load(root, "fbnetv2_f1", source="local", pretrained=True, num_classes=3)
    assert isinstance(model, FBNet)
    assert model.arch.num_classes == 3
    wanted = from_official(ARCHS["fbnetv2_f1"], official_state_dict("fbnetv2_f1"))["stages.0.0.conv.weight"]
    assert torch.equal(model.state_dict()["stages.0.0.conv.weight"], wanted)
