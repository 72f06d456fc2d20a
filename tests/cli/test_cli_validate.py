"""``fbnetv3 validate``: what it prints, against PyTorch's own answers to the same images."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import binomtest
from shell import run, succeed
from torchvision.models import MobileNet_V2_Weights

from fbnetv3_zoo import training
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.description import Description
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.training.data import Dataset, choose_subset, digits
from fbnetv3_zoo.training.data.seen import sample_of
from fbnetv3_zoo.weights.serialization import load, save

WEIGHT = np.random.default_rng(0).normal(size=(3 * 32 * 32, 10)).astype(np.float32)


@pytest.fixture(scope="module")
def model(tiny_arch: Arch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that knows little of ten digits but answers with all of them; beside it an ONNX file of another."""
    network = FBNet(tiny_arch, generator=torch.Generator().manual_seed(0))
    data = digits()
    images = network.preprocess([example.read() for example in data["train"][:256]])
    with torch.no_grad():
        for _ in range(20):
            network(images)  # the norms' statistics
        network.eval().classifier.bias -= network(images).mean(0)
    network.class_names = data.class_names
    path = tmp_path_factory.mktemp("model") / "net.safetensors"
    save(network, path)
    onnx.save_model(_linear(images.shape[1:], network.description), path.with_suffix(".onnx"))
    return path


def _linear(shape: Sequence[int], description: Description) -> onnx.ModelProto:
    """Logits that are products of the pixels with :data:`WEIGHT`."""
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    nodes = [
        onnx.helper.make_node("Flatten", ["images"], ["pixels"]),
        onnx.helper.make_node("MatMul", ["pixels", "weight"], ["logits"]),
    ]
    given, answer = value("images", kind, ["n", *shape]), value("logits", kind, ["n", 10])
    graph = onnx.helper.make_graph(nodes, "g", [given], [answer], [onnx.numpy_helper.from_array(WEIGHT, "weight")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.helper.set_model_props(model, description.to_metadata())
    return model


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of two classes: 2 and 4 to train on, 1 and 1 to validate on, 3 and 9 to test, most of them broken."""
    folder = tmp_path_factory.mktemp("photos")
    for split, counts in (("train", (2, 4)), ("val", (1, 1)), ("test", (3, 9))):
        for name, count in zip(("猫", "dog"), counts, strict=True):
            (folder / split / name).mkdir(parents=True)
            for n in range(count):
                Image.new("RGB", (40, 36), (20 * n, 90, 200)).save(folder / split / name / f"{n}.png")
    for n in range(7):
        (folder / "test" / "dog" / f"{n}.png").write_bytes(b"")
    (folder / "test" / "dog" / "6.png").rename(folder / "test" / "dog" / os.fsdecode(b"6\n\xff.png"))
    return folder


@pytest.fixture(scope="module")
def pets(tiny_arch: Arch, model: Path) -> Path:
    network = FBNet(replace(tiny_arch, num_classes=2), generator=torch.Generator().manual_seed(1))
    network.class_names = ("dog", "猫")
    save(network, model.with_name("pets.safetensors"))
    return model.with_name("pets.safetensors")


def _expected(model: Path, split: str, data: Dataset) -> dict[str, Any]:
    network, examples = load(model.with_suffix(".safetensors")), data[split]  # type: ignore[index]
    labels = torch.tensor([example.label for example in examples])
    images = network.preprocess([example.read() for example in examples])
    with torch.inference_mode():
        logits = images.flatten(1) @ torch.from_numpy(WEIGHT) if model.suffix == ".onnx" else network(images)
    first = logits.topk(5).indices
    return {
        "top1": int((first[:, 0] == labels).sum()),
        "top5": int((first == labels[:, None]).any(1).sum()),
        "total": len(examples),
        "loss": pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=1e-5),
        "per_class": [
            (name, int((labels == n).sum()), int(((labels == n) & (first[:, 0] == n)).sum()))
            for n, name in enumerate(data.class_names)
        ],
    }


def _told(*arguments: object) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(succeed("validate", *arguments, "--json"))
    return told


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_for_scripts(suffix: str, model: Path) -> None:
    path = model.with_suffix(suffix)
    found, expected = _told(path), _expected(path, "test", digits())
    assert list(found) == [
        "model", "data", "split", "images", "accuracy", "interval", "top5_accuracy", "top5_interval", "top1", "top5",
        "total", "loss", "skipped", "seconds", "images_per_second", "skipped_images", "per_class",
        "seen_in_training",
    ]  # fmt: skip
    assert (found["model"], found["data"], found["split"]) == (str(path), "digits", "test")
    assert {key: found[key] for key in ("top1", "top5", "total", "loss")} == {
        key: expected[key] for key in ("top1", "top5", "total", "loss")
    }
    assert (found["accuracy"], found["top5_accuracy"]) == (found["top1"] / 364, found["top5"] / 364)
    assert found["interval"] == pytest.approx(list(binomtest(found["top1"], 364).proportion_ci(method="wilson")))
    assert found["images_per_second"] == pytest.approx(364 / found["seconds"])
    assert (found["skipped"], found["skipped_images"]) == (0, [])
    assert [(row["name"], row["images"], row["right"]) for row in found["per_class"]] == expected["per_class"]
    row = found["per_class"][3]
    assert row["accuracy"] == row["right"] / row["images"]
    assert row["interval"] == pytest.approx(list(binomtest(row["right"], row["images"]).proportion_ci(method="wilson")))


def test_images_as_an_argument(model: Path, pets: Path) -> None:
    assert run("validate", model, "digits").out.splitlines()[:2] == run("validate", model).out.splitlines()[:2]
    two = run("validate", model, "digits", "--data", pets)
    assert (two.code, two.err) == (2, f"error: digits and --data {pets} both give images; give only one\n")


def test_for_readers(model: Path) -> None:
    found = _told(model)
    first, *lines = succeed("validate", model).splitlines()
    assert first == "364 of 1,797 images of digits (test)"
    low, high = found["interval"]
    interval = f"95 % interval {low:.2%} to {high:.2%}"
    assert lines[0] == f"test accuracy {found['accuracy']:.2%} ({found['top1']} of 364; {interval})"
    assert lines[1] == f"loss {found['loss']:.4f}"
    speed = r"([\d,.]+) images/s over the whole evaluation \((\d+\.\d) s: reading, preprocessing, inference\)"
    told = re.fullmatch(speed, lines[2])
    assert told is not None
    assert float(told[1].replace(",", "")) > 0
    assert len(lines) == 3  # no top-5 of ten classes


def test_a_bar_on_the_terminal(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    ended = run("validate", model, "--json")
    assert "364/364" in re.sub(r"\x1b\[[\d;?]*\w", "", ended.err)
    assert json.loads(ended.out)["total"] == 364


def test_neither_batches_nor_processes_change_the_figures(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def evaluate(*arguments: Any, **options: Any) -> training.Evaluation:
        asked.append((options["batch_size"], options["workers"]))
        return training_evaluate(*arguments, **options)

    training_evaluate = training.evaluate
    monkeypatch.setattr(training, "evaluate", evaluate)
    first, *others = (_told(model, *more) for more in ((), ("--batch-size", 7), ("--workers", 2)))
    for other in others:
        assert {key: other[key] for key in ("top1", "top5", "per_class")} == {
            key: first[key] for key in ("top1", "top5", "per_class")
        }
        assert other["loss"] == pytest.approx(first["loss"], rel=1e-6)
    assert asked == [(64, 0), (7, 0), (64, 2)]


def test_split_and_seed(model: Path) -> None:
    for split, seed in (("validation", 0), ("test", 1)):
        found, expected = _told(model, "--split", split, "--seed", seed), _expected(model, split, digits(seed=seed))
        assert (found["split"], found["top1"], found["loss"]) == (split, expected["top1"], expected["loss"])


def test_classes_the_worst_first(model: Path) -> None:
    rows = _told(model)["per_class"]
    text = succeed("validate", model, "--per-class")
    blank, head, *lines = text.splitlines()[4:]
    assert (blank, head) == ("", "class  images  right  accuracy  95 % interval")
    worst = sorted(rows, key=lambda row: (row["accuracy"], -row["images"]))
    assert len({row["accuracy"] for row in rows}) > 2
    for row, line in zip(worst, lines, strict=True):
        low, high = row["interval"]
        cells = f"{row['name']:5}  {row['images']:6}  {row['right']:5}  {row['accuracy']:>8.2%}"
        assert line == f"{cells}  {low:.2%} to {high:.2%}"


def test_images_that_cannot_be_read(pets: Path, photos: Path) -> None:
    ended = run("validate", pets, "--data", photos)
    first = photos / "test" / "dog" / "0.png"
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {first}: ")
    assert ended.err.endswith(
        "; with --on-bad-image skip (on_bad_image=OnBadImage.SKIP) such images are left out and counted\n"
    )
    lines = succeed("validate", pets, "--data", photos, "--on-bad-image", "skip").splitlines()[1:]
    assert re.match(r"test accuracy [\d.]+% \(\d of 5; ", lines[0])
    keys = ", ".join(f"test/dog/{n}.png" for n in range(5))
    assert lines[3] == f"unreadable images left out: 7 ({keys} and 2 more)"
    found = _told(pets, "--data", photos, "--on-bad-image", "skip")
    assert (found["skipped"], found["total"], len(found["skipped_images"])) == (7, 5, 7)
    assert set(found["skipped_images"]) == {
        *(f"test/dog/{n}.png" for n in range(6)),
        "test/dog/6\n\\udcff.png",  # valid JSON has no lone surrogates
    }


def test_names_that_are_wide_or_no_text(pets: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    for n in range(6):
        (tmp_path / "photos" / "test" / "dog" / f"{n}.png").unlink()
    text = succeed("validate", pets, "--data", tmp_path / "photos", "--on-bad-image", "skip", "--per-class")
    lines = text.splitlines()[1:]
    assert lines[3] == "unreadable images left out: 1 (test/dog/6\\n\\udcff.png)"
    head, *rows = lines[5:]
    starts = ("dog         2 ", "猫          3 ")  # the sign is two columns wide
    assert [sum(row.startswith(start) for row in rows) for start in starts] == [1, 1]
    assert head.startswith("class  ")


def test_a_class_without_images(pets: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    for path in (tmp_path / "photos" / "test" / "dog").iterdir():
        path.write_bytes(b"")
    lines = succeed("validate", pets, "--data", tmp_path / "photos", "--on-bad-image", "skip", "--per-class")
    assert lines.splitlines()[-1] == "dog         0      0         -  0.00% to 100.00%"


def test_a_subset(model: Path, tmp_path: Path) -> None:
    part = choose_subset(digits(seed=2), classes=10, held_out=50, seed=2)
    (tmp_path / "subset.json").write_text(part.to_json())
    for split in ("test", "validation"):
        found = _told(model, "--subset", tmp_path / "subset.json", "--split", split)
        expected = _expected(model, split, part.apply(digits(seed=2)))
        assert (found["total"], found["top1"]) == (expected["total"], expected["top1"])


@pytest.mark.parametrize(
    ("folders", "right"),
    [
        ([f"n{n:08}" for n in range(1000)], True),
        ([f"m{n:08}" for n in range(1000)], False),
        ([f"n{n:08}" for n in range(999)], False),
    ],
)
def test_imagenet_by_its_folders(folders: list[str], right: bool, tiny_arch: Arch, tmp_path: Path) -> None:
    """Published networks tell classes by name, the folders of ImageNet by number; the order is one."""
    names = tuple(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])
    network = FBNet(replace(tiny_arch, num_classes=1000))
    network.class_names = names
    save(network, tmp_path / "net.safetensors")
    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    data = tmp_path / "data"
    for name in folders:
        (data / "train" / name).mkdir(parents=True)
        (data / "train" / name / "image.png").hardlink_to(tmp_path / "image.png")
    for name in folders[5:8]:
        (data / "val" / name).mkdir(parents=True)
        (data / "val" / name / "image.png").hardlink_to(tmp_path / "image.png")
    ended = run("validate", tmp_path / "net.safetensors", "--data", data, "--split", "validation", "--json")
    if not right:
        told = f"its classes differ from those of {data}; class 0 is 'tench', but {folders[0]!r} in {data}"
        told = told if len(folders) == 1000 else f"has 1000 classes, but {data} has {len(folders)}"
        assert ended.err == f"error: {tmp_path}/net.safetensors: {told}\n"
        return
    rows = json.loads(ended.out)["per_class"]
    assert [row["name"] for row in rows] == list(names)
    assert [n for n, row in enumerate(rows) if row["images"]] == [5, 6, 7]


def test_published_names_and_repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FBNETV3_ZOO_CACHE", str(tmp_path))
    monkeypatch.setenv("FBNETV3_ZOO_OFFLINE", "1")
    absent = run("validate", "fbnetv3_e", "--pretrained")
    assert absent.err.startswith("error: fbnetv3_e.fb_in1k: not in the cache, and offline; get ")
    absent = run("validate", "hf-hub:me/net")
    assert absent.err.startswith("error: hf-hub:me/net: model.safetensors cannot be had (")


def test_without_a_test_split_validation_is_measured(pets: Path, photos: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(photos / split, tmp_path / split)
    for options, line in (
        ((), f"2 of 8 images of {tmp_path.name} (validation)"),
        (("--split", "all"), f"8 of 8 images of {tmp_path.name} (all)"),
        (("--split", "train"), f"6 of 8 images of {tmp_path.name} (train)"),
    ):
        assert succeed("validate", pets, "--data", tmp_path, *options).splitlines()[0] == line
    ended = run("validate", pets, "--data", tmp_path, "--split", "test")
    assert (ended.code, ended.err) == (2, "error: this split has no images to evaluate on; choose another split\n")


def test_a_folder_without_splits_is_measured_whole(pets: Path, tmp_path: Path) -> None:
    """Classes of one image, and one image in two classes, are no matter where nothing is split."""
    for name, count in (("dog", 11), ("猫", 1)):
        (tmp_path / name).mkdir()
        for n in range(count):
            Image.new("RGB", (40, 36), (20 * n, 90, 200)).save(tmp_path / name / f"{n}.png")
    found = _told(pets, "--data", tmp_path)
    assert (found["split"], found["total"], found["images"]) == ("all", 12, 12)
    assert [row["images"] for row in found["per_class"]] == [11, 1]
    for n in (1, 2, 3):
        Image.new("RGB", (40, 36), (20 * n, 10, 200)).save(tmp_path / "猫" / f"{n}.png")
    (tmp_path / "猫" / "0.png").unlink()
    for split, count in (("train", 8), ("validation", 4), ("test", 4)):
        ended = succeed("validate", pets, "--data", tmp_path, "--split", split).splitlines()[0]
        assert re.fullmatch(rf"\d of 14 images of {tmp_path.name} \({split}\)", ended), (ended, count)
    assert _told(pets, "--data", tmp_path, "--seed", 3)["split"] == "test"
    short = _told(pets, "--data", tmp_path, "--split", "val")
    assert (short["split"], short["total"], short["images"]) == ("validation", 4, 14)


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_images_of_the_training_are_told_of(suffix: str, model: Path, tmp_path: Path) -> None:
    network = load(model)
    network.trained_on = sample_of(digits(seed=3)["train"])
    path = tmp_path / f"net{suffix}"
    if suffix == ".onnx":
        onnx.save_model(
            _linear((1, 32, 32) if network.arch.in_channels == 1 else (3, 32, 32), network.description), path
        )
    else:
        save(network, path)
    assert _told(model)["seen_in_training"] is None
    assert _told(path, "--seed", 3)["seen_in_training"] == 0  # and nothing on standard error
    for options, least, most in ((("--split", "train", "--seed", 3), 32, 32), (("--seed", 4), 1, 31)):
        ended = run("validate", path, *options, "--json")
        told = json.loads(ended.out)
        assert least <= told["seen_in_training"] <= most
        assert ended.err == (
            f"warning: of 32 images that {path} was trained on, {told['seen_in_training']} are among these "
            f"{told['total']:,}, so that accuracy may be too good; measure on others (--split test, with the "
            "training's --seed)\n"
        )
