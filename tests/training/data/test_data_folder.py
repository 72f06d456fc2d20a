"""Folders of class folders: listed, split by seed or as given, equal files together, whatever lies in them."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from PIL import Image
from refusals import refusal

from fbnetv3_zoo.images import FORMATS
from fbnetv3_zoo.images.formats import SUFFIXES
from fbnetv3_zoo.training.data import IMAGE_SUFFIXES, SPLITS, Dataset, Example, find_dataset, folder
from fbnetv3_zoo.training.data.folder_source import first_of_equal

CLASSES = ("cat", "dog")


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


OWN = "; put the images of each class into a folder of its own"


def _refusal(path: Path) -> str:
    return refusal(lambda: folder(path))


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


@pytest.mark.parametrize(("share", "train", "validation"), [(0.1, 7, 1), (0.3, 5, 3), (0.5, 3, 5), (0.99, 1, 7)])
def test_another_share_for_validation(photos: Path, share: float, train: int, validation: int) -> None:
    data, usual = find_dataset(photos, val_split=share), find_dataset(photos)
    assert {split: len(data[split]) for split in SPLITS} == {
        "train": 2 * train, "validation": 2 * validation, "test": 4,
    }  # fmt: skip
    assert _files(data, "test") == _files(usual, "test")
    assert len(set.union(*(_files(data, split) for split in SPLITS))) == 20


def test_a_share_for_validation_that_cannot_be(photos: Path, tmp_path: Path) -> None:
    for share in (0, 1, -0.1, math.nan, "half"):
        assert refusal(lambda share=share: find_dataset(photos, val_split=share)).startswith(f"val_split is {share!r}")
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for n in range(2):
                _write(tmp_path / "own" / split / name / f"{n}.png")
    expected = f"{tmp_path}/own: has validation images of its own; leave out --val-split (val_split)"
    assert refusal(lambda: find_dataset(tmp_path / "own", val_split=0.3)) == expected


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
    expected = f"{photos}/cat/3.jpg and {photos}/dog/what.jpg: the same image in two classes; remove one of the two"
    assert _refusal(photos) == expected


def test_a_class_with_too_few_different_images(photos: Path) -> None:
    _write(photos / "owl" / "1.png")
    _write(photos / "owl" / "2.png")
    shutil.copy(photos / "owl" / "2.png", photos / "owl" / "3.png")
    said = "has 2 different images; at least 3 are needed, one per split: add some, or leave the class out"
    assert _refusal(photos) == f"{photos}/owl: {said}"


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
    assert len(data["test"]) == 0
    assert len(data["validation"]) == 2


def test_without_a_validation_folder_a_fifth_of_the_training_images_is_held_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _given(tmp_path, "train", "test")
    for name in CLASSES:
        for n in range(9):
            _write(tmp_path / "train" / name / f"{name}{n}.png")
    shutil.copy(tmp_path / "train" / "cat" / "cat1.png", tmp_path / "train" / "cat" / "copy.png")
    _write(tmp_path / "train" / "owl" / "single.png")
    data = folder(tmp_path)
    assert {split: len(data[split]) for split in SPLITS} == {"train": 18, "validation": 4, "test": 2}
    assert [e.label for e in data["validation"]] == [0, 0, 1, 1]
    assert not {e.read().tobytes() for e in data["train"]} & {e.read().tobytes() for e in data["validation"]}
    assert {e.key for e in folder(tmp_path, seed=1)["validation"]} != {e.key for e in data["validation"]}
    assert caplog.messages[0] == (
        f"{tmp_path}: has no validation images; 4 of 22 training images, drawn by seed 0, are used instead"
    )


def test_a_split_may_not_have_a_class_of_its_own(tmp_path: Path) -> None:
    _given(tmp_path, "train", "val", "test")
    _write(tmp_path / "test" / "owl" / "1.png")
    expected = f"{tmp_path}/test/owl: class 'owl' is not among those of {tmp_path}/train"
    assert _refusal(tmp_path) == expected
    (tmp_path / "test" / "owl").rename(tmp_path / "test" / "dogs")
    assert _refusal(tmp_path).endswith(f"is not among those of {tmp_path}/train (did you mean 'dog'?)")


def test_labels_are_right_where_splits_lack_a_class(tmp_path: Path) -> None:
    _given(tmp_path, "train", "val")
    _write(tmp_path / "train" / "bee" / "1.png")
    data = folder(tmp_path)
    assert data.class_names == ("bee", "cat", "dog")
    assert [e.label for e in data["validation"]] == [1, 2]


def test_empty_class(photos: Path) -> None:
    (photos / "owl").mkdir()
    (photos / "owl" / "notes.txt").write_text("none yet")
    expected = f"{photos}/owl: has no image files, such as .jpg, .png or .webp; there are other files: 1 .txt"
    assert _refusal(photos) == expected


def test_one_class_or_none(tmp_path: Path) -> None:
    assert _refusal(tmp_path) == f"{tmp_path}: needs at least 2 class folders, has 0{OWN}"
    _write(tmp_path / "loose.png")
    assert _refusal(tmp_path).endswith(" (1 images lie directly in it); put the images of each class into a folder")
    _write(tmp_path / "cat" / "1.png")
    assert _refusal(tmp_path) == f"{tmp_path}: needs at least 2 class folders, has 1{OWN}"
    (tmp_path / "cat" / "tabby").mkdir()
    expected = f"{tmp_path}: needs at least 2 class folders, has 1 (cat); give it instead if the classes are in it"
    assert _refusal(tmp_path) == expected


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
    kinds = {suffix: kind for kind in FORMATS for suffix in SUFFIXES[kind]}
    suffixes = sorted([*kinds, *map(str.upper, kinds), ".Jpg"])
    for name in CLASSES:
        for n, suffix in enumerate(suffixes):
            file = _write(tmp_path / name / f"{name}{n}.png")
            kind = kinds[suffix.lower()]
            Image.open(file).resize((8, 8)).save(
                file.with_suffix(suffix), kind, **({"sizes": [(8, 8)]} if kind == "ICO" else {})
            )
            if suffix not in (".png", ".PNG"):
                file.unlink()
    data = folder(tmp_path)
    assert set(kinds) == IMAGE_SUFFIXES
    assert sum(len(data[split]) for split in SPLITS) >= 2 * len(suffixes)
    assert all(e.read().size == (8, 8) for split in SPLITS for e in data[split])


def test_a_damaged_file_is_named_when_read(photos: Path) -> None:
    (photos / "cat" / "3.jpg").write_bytes((photos / "cat" / "3.jpg").read_bytes()[:200])
    data = folder(photos)
    (broken,) = (e for split in SPLITS for e in data[split] if e.key == "cat/3.jpg")
    assert refusal(broken.read).startswith(f"{photos}/cat/3.jpg: cannot be read as an image (")


def _example(photos: Path, key: str) -> Example:
    data = folder(photos)
    (found,) = (e for split in SPLITS for e in data[split] if e.key == key)
    return found


def test_files_that_cannot_be_read_are_listed_and_refused_when_read(photos: Path, tmp_path: Path) -> None:
    """Whatever is named as an image counts: nothing is left out in silence, and nothing is waited for."""
    os.mkfifo(photos / "cat" / "pipe.jpg")
    (photos / "cat" / "gone.jpg").symlink_to(tmp_path / "absent")
    (photos / "cat" / "loop.jpg").symlink_to("loop.jpg")
    (photos / "dog" / "folder.jpg").mkdir()
    gone = "cannot be read (No such file or directory)"
    loop = "cannot be read (Too many levels of symbolic links)"
    for name, what in (("pipe", "is not a regular file; remove it"), ("gone", gone), ("loop", loop)):
        assert refusal(_example(photos, f"cat/{name}.jpg").read) == f"{photos}/cat/{name}.jpg: {what}"
    assert sum(len(folder(photos)[split]) for split in SPLITS) == 23
    example = _example(photos, "cat/1.jpg")
    (photos / "cat" / "1.jpg").unlink()
    assert refusal(example.read) == f"{photos}/cat/1.jpg: {gone}"


def test_files_too_large_to_be_an_image(photos: Path) -> None:
    with (photos / "cat" / "1.jpg").open("r+b") as file:
        file.truncate((1 << 30) + 1)
    expected = f"{photos}/cat/1.jpg: 1,073,741,825 bytes are over the limit of 1,073,741,824; shrink it"
    assert refusal(_example(photos, "cat/1.jpg").read) == expected


def test_empty_files_stand_for_themselves(photos: Path) -> None:
    for name in CLASSES:
        for n in range(4):
            (photos / name / f"empty{n}.jpg").write_bytes(b"")
    data = folder(photos)
    found = [e for split in SPLITS for e in data[split] if "empty" in e.key]
    assert len(found) == 8
    assert {e.label for e in found} == {0, 1}
    assert refusal(found[0].read).startswith(f"{photos}/{found[0].key}: cannot be read as an image (")


def test_equal_files_that_are_no_images_are_told_as_such(photos: Path) -> None:
    for name in ("cat/page.png", "dog/page.jpg"):
        (photos / name).write_text("<html>404</html>")
    names = ["cat/page.png", "dog/page.jpg"]
    assert first_of_equal(str(photos), names).tolist() == [0, 1]
    shutil.copy(photos / "cat" / "0.jpg", photos / "dog" / "same.jpg")
    assert "the same image in two classes" in refusal(lambda: find_dataset(photos))


def test_only_files_of_equal_size_are_read_and_never_whole(photos: Path) -> None:
    for name, last in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        with _write(photos / "cat" / f"{name}.png", np.zeros((8, 8, 3))).open("r+b") as file:
            file.seek(30_000_000)
            file.write(last)
    with (photos / "dog" / "other.png").open("wb") as file:
        file.truncate(90_000_000)
    names = [f"cat/{name}.png" for name in "abc"] + ["dog/other.png", "dog/absent.png"]
    before = _read()
    tracemalloc.start()
    first = first_of_equal(str(photos), names)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert first.tolist() == [0, 1, 0, 3, 4]
    assert peak < 5_000_000
    assert 90_000_000 < _read() - before < 91_000_000


def _read() -> int:
    """Bytes that this process has read so far, as Linux counts them."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


def test_files_that_must_not_be_opened_are_equal_to_none(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A superuser may open all files, so the refusal is played."""
    for name in CLASSES:
        _write(photos / name / "secret.jpg", np.zeros((8, 8, 3)))

    def refuse(path: str, mode: str) -> BinaryIO:
        if "secret" in path:
            raise PermissionError(13, "Permission denied")
        return open(path, "rb")

    for module in ("images.reading", "training.data.folder_source"):
        monkeypatch.setattr(f"fbnetv3_zoo.{module}.open", refuse, raising=False)
    example = _example(photos, "dog/secret.jpg")
    assert refusal(example.read) == f"{photos}/dog/secret.jpg: cannot be read (Permission denied)"
    monkeypatch.undo()
    expected = (
        f"{photos}/cat/secret.jpg and {photos}/dog/secret.jpg: the same image in two classes; remove one of the two"
    )
    assert _refusal(photos) == expected


def test_links_to_folders(photos: Path, tmp_path: Path) -> None:
    """A class may lie elsewhere; links within a class are not followed, as they could lead in circles."""
    shutil.move(photos / "dog", tmp_path / "elsewhere")
    (photos / "dog").symlink_to(tmp_path / "elsewhere")
    (photos / "cat" / "back").symlink_to(photos)
    data = folder(photos)
    assert sum(len(data[split]) for split in SPLITS) == 20
    assert data["train"][-1].read().size == (16, 12)


def test_names_that_are_no_utf8(photos: Path) -> None:
    strange = os.fsdecode(b"caf\xe9.jpg")
    shutil.move(photos / "cat" / "1.jpg", photos / "cat" / strange)
    assert _example(photos, f"cat/{strange}").read().size == (16, 12)
    assert folder(photos).fingerprint == folder(photos).fingerprint


def test_imagenet_as_it_is_unpacked(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "imagenet"
    for split, numbers in (("train", "01234"), ("val", "56")):
        for number, name in enumerate(CLASSES):
            (root / split / f"n0{number}").mkdir(parents=True)
            for n in numbers:
                shutil.copy(photos / name / f"{n}.jpg", root / split / f"n0{number}" / f"n0{number}_{n}.JPEG")
    data = find_dataset(root)
    assert data.class_names == ("n00", "n01")
    assert [e.key for e in data["validation"]] == [f"val/n0{c}/n0{c}_{n}.JPEG" for c in (0, 1) for n in (5, 6)]
    assert data["train"][0].read(lambda size: (4, 4)).size == (8, 6)


def test_find_dataset_takes_other_folders_for_class_folders(photos: Path) -> None:
    assert find_dataset(str(photos), seed=3).fingerprint == folder(photos, seed=3).fingerprint
    (photos / "photos.tar").write_bytes(b"what it came in")
    (photos / "train").write_text("not a folder")
    assert find_dataset(photos).fingerprint == folder(photos).fingerprint
