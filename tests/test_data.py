"""Datasets: digits and folders of images; no image in two splits, the same split for the same seed."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.training.data import IMAGE_SUFFIXES, SPLITS, Dataset, digits, find_dataset, folder

CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def numbers() -> Dataset:
    """The digits as split by seed 0."""
    return digits()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes with ten different small JPEG files each."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        for n in range(10):
            _write(tmp_path / "photos" / name / f"{n}.jpg", rng.integers(0, 256, (12, 16, 3)))
    return tmp_path / "photos"


def _write(path: Path, pixels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = hashlib.sha256(path.name.encode()).digest()[:4]
    rng = np.random.default_rng(list(seed))
    Image.fromarray((rng.integers(0, 256, (8, 8, 3)) if pixels is None else pixels).astype(np.uint8)).save(path)
    return path


def _contents(data: Dataset, split: str) -> list[bytes]:
    return [example.read().tobytes() for example in data[split]]  # type: ignore[index]


def _files(data: Dataset, split: str) -> set[str]:
    return {example.key for example in data[split]}  # type: ignore[index]


def _refusal(path: Path) -> str:
    with pytest.raises(ZooError) as caught:
        folder(path)
    return str(caught.value)


def test_digits_are_all_there(numbers: Dataset) -> None:
    assert {split: len(numbers[split]) for split in SPLITS} == {"train": 1069, "validation": 364, "test": 364}
    assert sum(len(numbers[split]) for split in SPLITS) == 1797
    assert numbers.class_names == tuple("0123456789")
    image = numbers["test"][0].read()
    assert (image.mode, image.size) == ("L", (8, 8))


def test_digits_are_the_originals(numbers: Dataset) -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    pixels = [np.rint(image / 16 * 255).astype(np.uint8).tobytes() for image in source.images]
    originals = Counter(zip(pixels, source.target, strict=True))
    found = Counter((e.read().tobytes(), e.label) for split in SPLITS for e in numbers[split])
    assert found == originals


def test_digits_have_the_stated_statistics(numbers: Dataset) -> None:
    pixels = np.stack([np.asarray(example.read()) for example in numbers["train"]]) / 255
    assert pixels.mean() == pytest.approx(numbers.mean[0], abs=0.005)
    assert pixels.std() == pytest.approx(numbers.std[0], abs=0.005)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_no_digit_is_in_two_splits(seed: int) -> None:
    data = digits(seed=seed)
    train, validation, test = (set(_contents(data, split)) for split in SPLITS)
    assert not train & validation
    assert not train & test
    assert not validation & test


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_digits_are_stratified(seed: int) -> None:
    data = digits(seed=seed)
    total = Counter(e.label for split in SPLITS for e in data[split])
    for split, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        count = Counter(e.label for e in data[split])  # type: ignore[index]
        assert all(abs(count[label] - share * total[label]) <= 2 for label in range(10)), split


def test_the_seed_decides_the_split(numbers: Dataset) -> None:
    again, other = digits(), digits(seed=1)
    for split in SPLITS:
        assert _contents(again, split) == _contents(numbers, split)
        assert _contents(other, split) != _contents(numbers, split)
        assert set(_contents(other, split)) != set(_contents(numbers, split))


def test_fingerprints_tell_data_apart(numbers: Dataset) -> None:
    assert digits().fingerprint == numbers.fingerprint
    others = [
        digits(seed=1),  # the same labels in the same order, other images
        replace(numbers, name="mine"),
        replace(numbers, class_names=tuple("abcdefghij")),
        replace(numbers, splits={**numbers.splits, "test": numbers["test"][:-1]}),
    ]
    assert len({numbers.fingerprint, *(other.fingerprint for other in others)}) == 5


@pytest.mark.parametrize(("seed", "bound"), [(-1, "at least 0"), (1.5, "at least 0"), (2**32, "at most 4294967295")])
def test_wrong_seeds(seed: object, bound: str) -> None:
    with pytest.raises(ZooError) as caught:
        digits(seed=seed)  # type: ignore[arg-type]
    assert str(caught.value) == f"seed is {seed!r}; it must be a whole number of {bound}"


def test_find_dataset(photos: Path, numbers: Dataset) -> None:
    assert find_dataset("digits").fingerprint == numbers.fingerprint
    assert find_dataset(str(photos), seed=3).fingerprint == folder(photos, seed=3).fingerprint
    with pytest.raises(ZooError) as caught:
        find_dataset(photos / "absent")
    assert str(caught.value) == f"{photos / 'absent'}: no such folder; give 'digits' or a folder of class folders"


def test_a_folder_is_split_by_seed(photos: Path) -> None:
    data = folder(photos)
    assert data.name == "photos"
    assert data.class_names == CLASSES
    assert {split: len(data[split]) for split in SPLITS} == {"train": 12, "validation": 4, "test": 4}
    for split, count in (("train", 6), ("validation", 2), ("test", 2)):
        assert Counter(e.label for e in data[split]) == {0: count, 1: count}  # type: ignore[index]
    assert len(set.union(*(_files(data, split) for split in SPLITS))) == 20
    assert folder(photos).fingerprint == data.fingerprint
    assert folder(photos, seed=1).fingerprint != data.fingerprint
    assert _files(folder(photos, seed=1), "test") != _files(data, "test")


def test_labels_and_pixels_are_those_of_the_files(photos: Path) -> None:
    data = folder(photos)
    for example in (e for split in SPLITS for e in data[split]):
        file = photos / example.key
        assert data.class_names[example.label] == file.parent.name
        assert example.read().tobytes() == Image.open(file).tobytes()


def test_a_folder_that_moved_is_the_same_data(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = folder(photos)
    shutil.copytree(photos, tmp_path / "elsewhere" / "photos")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert folder("photos").fingerprint == before.fingerprint


@pytest.mark.parametrize("seed", range(5))
def test_copies_stay_together(photos: Path, seed: int) -> None:
    for n in range(10):
        for copy in range(n % 3):
            shutil.copy(photos / "cat" / f"{n}.jpg", photos / "cat" / f"{n}_copy_{copy}.jpg")
    data = folder(photos, seed=seed)
    assert sum(len(data[split]) for split in SPLITS) == 29
    train, validation, test = (set(_contents(data, split)) for split in SPLITS)
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_one_image_in_two_classes(photos: Path) -> None:
    shutil.copy(photos / "cat" / "3.jpg", photos / "dog" / "what.jpg")
    expected = f"{photos}/cat/3.jpg and {photos}/dog/what.jpg: one image in two classes; remove one of the two"
    assert _refusal(photos) == expected


def test_a_class_with_too_few_different_images(photos: Path) -> None:
    _write(photos / "owl" / "1.png")
    _write(photos / "owl" / "2.png")
    shutil.copy(photos / "owl" / "2.png", photos / "owl" / "3.png")
    assert _refusal(photos) == f"{photos}/owl: has 2 different images; at least 3 are needed, one a split"


def test_three_images_are_enough(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for n in range(3):
            _write(tmp_path / name / f"{name}{n}.png")
    assert {split: len(folder(tmp_path)[split]) for split in SPLITS} == {"train": 2, "validation": 2, "test": 2}


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_given_splits_are_used_as_they_are(photos: Path, tmp_path: Path, validation: str) -> None:
    root = tmp_path / "given"
    for split, numbers in (("train", "01234"), (validation, "56"), ("test", "789")):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for n in numbers:
                shutil.copy(photos / name / f"{n}.jpg", root / split / name)
    for seed in (0, 1):
        data = folder(root, seed=seed)
        assert data.class_names == CLASSES
        assert _files(data, "train") == {f"train/{name}/{n}.jpg" for name in CLASSES for n in "01234"}
        assert _files(data, "validation") == {f"{validation}/{name}/{n}.jpg" for name in CLASSES for n in "56"}
        assert _files(data, "test") == {f"test/{name}/{n}.jpg" for name in CLASSES for n in "789"}
        assert [e.label for e in data["test"]] == [0, 0, 0, 1, 1, 1]


def _given(root: Path, *splits: str) -> Path:
    for split in splits:
        for name in CLASSES:
            _write(root / split / name / f"{split}_{name}.png")
    return root


def test_without_a_test_folder_the_split_is_empty(tmp_path: Path) -> None:
    data = folder(_given(tmp_path, "train", "val"))
    assert data["test"] == ()
    assert len(data["validation"]) == 2


def test_without_a_validation_folder(tmp_path: Path) -> None:
    expected = f"{tmp_path}: has a train folder but no validation (or val) folder beside it"
    assert _refusal(_given(tmp_path, "train", "test")) == expected


def test_a_split_may_not_have_a_class_of_its_own(tmp_path: Path) -> None:
    _given(tmp_path, "train", "val", "test")
    _write(tmp_path / "test" / "owl" / "1.png")
    expected = f"{tmp_path}/test/owl: class 'owl' is not among those of {tmp_path}/train"
    assert _refusal(tmp_path) == expected


def test_labels_are_right_where_splits_lack_a_class(tmp_path: Path) -> None:
    _given(tmp_path, "train", "val")
    _write(tmp_path / "train" / "bee" / "1.png")
    data = folder(tmp_path)
    assert data.class_names == ("bee", "cat", "dog")
    assert [e.label for e in data["validation"]] == [1, 2]


def test_empty_class(photos: Path) -> None:
    (photos / "owl").mkdir()
    (photos / "owl" / "notes.txt").write_text("none yet")
    expected = f"{photos}/owl: has no image files (.bmp, .jpeg, .jpg, .png, .tif, .tiff, .webp)"
    assert _refusal(photos) == expected


def test_one_class_or_none(tmp_path: Path) -> None:
    assert _refusal(tmp_path) == f"{tmp_path}: needs at least 2 class folders, has 0"
    _write(tmp_path / "cat" / "1.png")
    _write(tmp_path / "loose.png")
    assert _refusal(tmp_path) == f"{tmp_path}: needs at least 2 class folders, has 1"


def test_nested_folders_belong_to_their_class(photos: Path) -> None:
    _write(photos / "cat" / "2024" / "may" / "x.png")
    found = set.union(*(_files(folder(photos), split) for split in SPLITS))
    assert "cat/2024/may/x.png" in found
    assert len(found) == 21


def test_hidden_files_and_folders_are_left_out(photos: Path) -> None:
    before = folder(photos).fingerprint
    _write(photos / ".thumbnails" / "cat.png")
    _write(photos / "cat" / ".ipynb_checkpoints" / "x.png")
    (photos / "cat" / "._1.jpg").write_bytes(b"what macOS leaves beside files")
    assert folder(photos).fingerprint == before


def test_a_hidden_parent_is_no_matter(tmp_path: Path, photos: Path) -> None:
    shutil.copytree(photos, tmp_path / ".cache" / "photos")
    assert len(folder(tmp_path / ".cache" / "photos")["train"]) == 12


def test_suffixes_of_any_case(tmp_path: Path) -> None:
    suffixes = sorted(IMAGE_SUFFIXES | {suffix.upper() for suffix in IMAGE_SUFFIXES} | {".Jpg"})
    for name in CLASSES:
        for n, suffix in enumerate(suffixes):
            _write(tmp_path / name / f"{name}{n}{suffix}")
    data = folder(tmp_path)
    assert sum(len(data[split]) for split in SPLITS) == 2 * len(suffixes)
    assert all(e.read().size == (8, 8) for split in SPLITS for e in data[split])


def test_a_damaged_file_is_named_when_read(photos: Path) -> None:
    (photos / "cat" / "3.jpg").write_bytes((photos / "cat" / "3.jpg").read_bytes()[:200])
    data = folder(photos)
    (broken,) = (e for split in SPLITS for e in data[split] if e.key == "cat/3.jpg")
    with pytest.raises(ZooError, match=r"^/.*/photos/cat/3\.jpg: cannot be read as an image \(.+\)$"):
        broken.read()
