"""``fbnetv3 data``: the files it writes, what it says, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from drawings import COLORS, write_vendor
from fonts import SHIPPED
from shell import run, succeed

from fbnetv3_zoo.training import find_dataset


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fonts")
    for name in ("cmr10.ttf", "cmss10.ttf", "cmtt10.ttf"):
        shutil.copy(SHIPPED / name, folder / name)
    return folder


def test_letters(fonts: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "letters.safetensors"
    first, second, third = succeed("data", "letters", "--fonts", fonts, "--output", file, "--size", 16).splitlines()
    images = "34 images of 1 family"
    assert first == f"letters, 34 classes: {images} for train, {images} for validation, {images} for test"
    assert second.startswith(f"{file} (")
    assert third.startswith("next: ")
    assert third.endswith(f"train {file} --output runs/letters")
    assert find_dataset(file)["train"][0].read().size == (16, 16)
    before = file.read_bytes()
    told = json.loads(succeed("data", "letters", "--fonts", fonts, "--output", file, "--size", 16, "--json"))
    part = {"images": 34, "groups": 1}
    assert told == {
        "file": str(file), "name": "letters", "classes": 34, "train": part, "validation": part, "test": part,
    }  # fmt: skip
    assert file.read_bytes() == before


def test_options_of_letters(fonts: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    more = ("--classes", "ABab", "--faces", 1, "--seed", 5, "--fonts", SHIPPED, "--without", "DejaVu Serif")
    succeed("data", "letters", "--fonts", fonts, *more, "--output", file, "--json")
    data = find_dataset(file)
    assert data.class_names == ("A", "B", "a", "b")
    assert not any(example.key.startswith("dejavuserif/") for split in data.splits for example in data[split])


def test_emoji(tmp_path: Path) -> None:
    given = [f"{name}={write_vendor(tmp_path / name, color)}" for name, color in COLORS.items()]
    options = [word for text in given for word in ("--drawings", text)]
    file = tmp_path / "emoji.safetensors"
    ended = run("data", "emoji", *options, "--held-out", "ours", "--output", file)
    assert ended.code == 0
    images = "43 images of 1 vendor"
    assert ended.out.startswith(f"emoji, 2 classes: {images} for train, {images} for validation, {images} for test\n")
    assert find_dataset(file)["test"][0].key == "ours/1f400"
    ended = run("data", "emoji", "--drawings", "ours", "--held-out", "ours", "--output", file)
    assert ended.err == "error: --drawings is 'ours'; give VENDOR=FOLDER, such as noto=package\n"


def test_what_it_refuses(fonts: Path, tmp_path: Path) -> None:
    (tmp_path / "letters.safetensors").mkdir()
    for options, told in (
        (("--output", tmp_path / "a.zip"), f"{tmp_path}/a.zip: data sets are written as .safetensors; change the ext"),
        (("--output", tmp_path), f"{tmp_path}: is a folder; name a file"),
        (("--output", tmp_path / "a.safetensors", "--faces", 0), "faces is 0; it must be a whole number of at least 1"),
    ):
        ended = run("data", "letters", "--fonts", fonts, *options)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"error: {told}")
