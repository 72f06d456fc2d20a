"""Folders and files that are splits, however they are spelled, and those that only look so."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import images, labeled, picture, samples, tar
from refusals import refusal

from fbnetv3_zoo.training.data import SPLITS, Dataset, find_dataset
from fbnetv3_zoo.training.data.split_names import SPELLINGS


def _counts(data: Dataset) -> list[int]:
    return [len(data[split]) for split in SPLITS]


@pytest.mark.parametrize(
    "names",
    [
        ("TRAIN", "VAL", "TEST"),
        ("Training", "Validation", "Testing"),
        ("trainset", "devset", "testset"),
        ("train-images", "eval-images", "test-images"),
        ("images_train", "images_valid", "images_test"),
        ("TrainData", "ValData", "TestData"),
        ("train2017", "val2017", "test2017"),
        ("1 train", "2 val", "3 test"),
        ("ILSVRC2012_img_train", "ILSVRC2012_img_val", "ILSVRC2012_img_test"),
    ],
)
def test_usual_spellings(names: tuple[str, str, str], tmp_path: Path) -> None:
    data = find_dataset(labeled(tmp_path, *names))
    assert data.class_names == ("cat", "dog")
    for split, name in zip(SPLITS, names, strict=True):
        assert {example.key.split("/")[0] for example in data[split]} == {name}


def test_every_word_is_known_beside_the_others(tmp_path: Path) -> None:
    for split, words in SPELLINGS.items():
        for word in words:
            names = {**{other: others[0] for other, others in SPELLINGS.items()}, split: word.title()}
            assert _counts(find_dataset(labeled(tmp_path / word, *names.values()))) == [10, 10, 10]


def test_classes_called_as_splits_are(tmp_path: Path) -> None:
    assert find_dataset(images(tmp_path / "a", "bus", "car", "train")).class_names == ("bus", "car", "train")
    assert find_dataset(images(tmp_path / "b", "invalid", "valid")).class_names == ("invalid", "valid")
    root = images(tmp_path / "c", "train", "bus", "car", "test")
    assert find_dataset(root).class_names == ("bus", "car", "test", "train")
    assert find_dataset(images(tmp_path / "d", "bullet_train", "steam_train")).class_names == (
        "bullet_train", "steam_train",
    )  # fmt: skip


def test_folders_within_classes_are_no_splits(tmp_path: Path) -> None:
    data = find_dataset(images(tmp_path, "cat/2023", "cat/may", "dog/2024", "dog"))
    assert data.class_names == ("cat", "dog")


@pytest.mark.parametrize("place", ["test", "Test_Images", "testing/unknown", "test/0"])
def test_a_test_split_without_labels_is_left_out(place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images(labeled(tmp_path, "train", "val"), place)
    assert _counts(find_dataset(tmp_path)) == [10, 10, 0]
    top = place.split("/")[0]
    assert caplog.messages == [f"{tmp_path}/{top}: left out, since its images have no labels (5 images)"]


def test_data_of_one_split(tmp_path: Path) -> None:
    assert _counts(find_dataset(labeled(tmp_path / "a", "val"))) == [0, 10, 0]
    assert _counts(find_dataset(labeled(tmp_path / "b", "Testing"))) == [0, 0, 10]
    assert _counts(find_dataset(labeled(tmp_path / "c", "train"))) == [8, 2, 0]


def test_what_cannot_be_told_is_refused(tmp_path: Path) -> None:
    def said(root: Path) -> str:
        return refusal(lambda: find_dataset(root)).removeprefix(str(root))

    remedy = "call the splits train, val and test, or, if they are classes, rename the folders in them"
    assert said(labeled(tmp_path / "a", "fold1", "fold2")) == (
        ": fold1, fold2 look like splits, with the same folders in each (cat, dog), but their names do not say which; "
        + remedy
    )
    assert said(labeled(tmp_path / "b", "train", "valdation")).startswith(": train, valdation look like splits, ")
    assert said(images(tmp_path / "c", "train", "test")) == (
        ": test, train have images, but no class folders; put the images of each split into a folder per class, "
        "or, if these are classes, rename them"
    )
    root = images(labeled(tmp_path / "d", "train"), "val")
    assert said(root) == (
        "/val: has 5 images, but no class folders like other splits; sort them into folders, one per class"
    )
    assert said(labeled(tmp_path / "e", "train", "val", "valid")) == (
        ": val, valid are all named like the validation split; keep only one there"
    )
    assert said(images(tmp_path / "f", "bus", "car", "train/2023")) == (
        "/train: has folders like a split, but bus, car beside it have images like classes; move one or the other away"
    )


def test_a_folder_beside_the_splits_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images(labeled(tmp_path, "train", "val"), "samples", "extra/cat", "extra/dog")
    assert _counts(find_dataset(tmp_path)) == [10, 10, 0]
    assert caplog.messages == [f"{tmp_path}: folders left out that are not splits: extra, samples"]


def test_classes_that_only_one_split_has_are_told_at_once(tmp_path: Path) -> None:
    labeled(tmp_path, "train", "val")
    images(tmp_path, *(f"val/x{n}" for n in range(7)))
    assert refusal(lambda: find_dataset(tmp_path)) == (
        f"{tmp_path}/val: 7 classes are not among those of {tmp_path}/train: x0, x1, x2, x3, x4 and 2 more"
    )


@pytest.mark.parametrize(
    "names",
    [("x-Train-0.tar", "x-Val-0.tar", "x-Test-0.tar"), ("Training/a.tar", "valid/a.tar", "TESTING/a.tar"),
     ("trainset.tar", "devset.tar", "testset.tar")],
)  # fmt: skip
def test_shards(names: tuple[str, ...], tmp_path: Path) -> None:
    for n, name in enumerate(names):
        tar(tmp_path / name, samples(9 * n, 9 - n))
    assert _counts(find_dataset(tmp_path)) == [9, 8, 7]


def test_shards_without_some_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tar(tmp_path / "a" / "train.tar", samples(0, 30))
    tar(tmp_path / "a" / "test.tar", {f"{n}.png": picture(n) for n in range(4)})
    assert _counts(find_dataset(tmp_path / "a")) == [24, 6, 0]
    assert caplog.messages == [
        f"{tmp_path}/a/test.tar: left out, since its images have no labels (4 images)",
        f"{tmp_path}/a: has no validation images; 6 of 30 training images, drawn by seed 0, are used instead",
    ]
    tar(tmp_path / "b" / "validation.tar", samples(0, 30))
    assert _counts(find_dataset(tmp_path / "b")) == [0, 30, 0]


def test_classes_without_validation_images_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images(tmp_path, "train/a", "train/b", "train/c", "val/b")
    find_dataset(tmp_path)
    assert caplog.messages == [
        f"{tmp_path.name}: classes without validation images, of which its accuracy says nothing: a, c"
    ]
