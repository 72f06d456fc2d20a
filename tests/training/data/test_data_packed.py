"""Datasets whose images are decoded once: the pixels of the folder, the same splits, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refusal
from shell import run, succeed

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.training import find_dataset
from fbnetv3_zoo.training.data import SPLITS, digits
from fbnetv3_zoo.training.data.rendered import DatasetFile, packed
from fbnetv3_zoo.training.execution import OnBadImage

SIDE = 24


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two classes in two splits: images of several sizes and forms."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name in ("cats", "dogs"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for n in range(count):
                image = Image.fromarray(rng.integers(256, size=(30 + 7 * n, 50, 3), dtype=np.uint8))
                image.convert("L" if n % 2 else "RGB").save(folder / f"{n}.{('jpg', 'png')[n % 2]}")
    return tmp_path / "photos"


def test_pixels_labels_and_splits_are_the_folders(photos: Path, tmp_path: Path) -> None:
    told = succeed("data", "pack", photos, "--size", str(SIDE), "--output", tmp_path / "p.safetensors")
    assert told.startswith("photos, 2 classes: 12 images for train, 6 images for validation, 0 images for test")
    before, after = find_dataset(photos), find_dataset(tmp_path / "p.safetensors")
    assert (before.name, before.class_names, before.mean, before.std) == (
        after.name, after.class_names, after.mean, after.std,
    )  # fmt: skip
    crop = Preprocess(SIDE, SIDE, mean=before.mean, std=before.std).crop
    for split in SPLITS:
        for one, other in zip(before[split], after[split], strict=True):
            assert (one.key, one.label) == (other.key, other.label)
            assert (np.asarray(crop(one.read())) == np.asarray(other.read())).all()


def test_the_digits_stay_as_they_are(tmp_path: Path) -> None:
    output = tmp_path / "d.safetensors"
    found = json.loads(succeed("data", "pack", "digits", "--size", "32", "--output", output, "--json"))
    assert (found["classes"], found["train"]["images"]) == (10, len(digits()["train"]))
    after = DatasetFile.load(output).dataset()
    example, same = digits()["test"][5], after["test"][5]
    assert np.array_equal(
        np.asarray(Preprocess(32, 32, mean=(0.5,), std=(0.5,)).crop(example.read())), np.asarray(same.read())
    )


def test_odd_spaces_in_names_are_escaped(photos: Path) -> None:
    """As macOS names pictures of its screen, with a narrow space."""
    (photos / "train" / "cats" / "0.jpg").rename(photos / "train" / "cats" / "at 9.41\u202fAM.jpg")
    assert [key for key in packed(find_dataset(photos), side=SIDE).keys if "AM" in key] == [
        "train/cats/at 9.41\\u202fAM.jpg"
    ]


def test_unreadable_images(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "train" / "dogs" / "2.jpg").write_bytes(b"no image")
    data = find_dataset(photos)
    told = refusal(lambda: packed(data, side=SIDE))
    assert "2.jpg: cannot be read as an image" in told
    assert told.endswith("; with --on-bad-image skip (on_bad_image=OnBadImage.SKIP) such images are left out")
    assert packed(data, side=SIDE, on_bad_image=OnBadImage.SKIP).sizes == (11, 6, 0)
    assert "left out 1 images that cannot be read" in caplog.text


def test_what_does_not_fit(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run("data", "pack", photos, "--size", "2000", "--output", tmp_path / "p.safetensors")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "side is 2000; it must be a whole number of at most 1024" in ended.err
    monkeypatch.setitem(packed.__globals__, "LARGEST_IMAGES", 18 * 3 * 20**2)
    with pytest.raises(ZooError, match="choose at most 20 pixels, or a part of the data"):
        packed(find_dataset(photos), side=21)
    assert packed(find_dataset(photos), side=20).sizes == (12, 6, 0)
