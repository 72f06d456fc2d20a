"""Datasets of torchvision, of `datasets`, and of one's own, trained on without a step in between."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from runs import RECIPE, few_digits
from sklearn.datasets import load_digits
from torch.utils.data import Subset, TensorDataset

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.training import as_dataset, train
from fbnetv3_zoo.training.data import SPLITS

IMAGES = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
LABELS = load_digits().target


class Pairs:
    """The first digits as a class of one's own, which lists no labels."""

    def __init__(self, images: Any = IMAGES[:60], labels: Any = LABELS[:60]) -> None:
        self.images, self.labels_ = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, n: int) -> tuple[Any, Any]:
        return self.images[n], self.labels_[n]


def pixels(data: Any, split: Any = "train") -> list[np.ndarray]:
    """The images of a split as arrays."""
    return [np.asarray(example.read()) for example in data[split]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of five digits each, as PNG."""
    for label in range(3):
        (tmp_path / "images" / f"digit {label}").mkdir(parents=True)
        for n, image in enumerate(IMAGES[label == LABELS][:5]):
            Image.fromarray(image).save(tmp_path / "images" / f"digit {label}" / f"{n}.png")
    return tmp_path / "images"


def test_a_dataset_of_torchvision_brings_its_names_and_labels(folder: Path) -> None:
    source = torchvision.datasets.ImageFolder(str(folder))
    data = as_dataset({"train": source, "test": Subset(source, [7, 1])}, name="digits of mine")
    assert data.class_names == ("digit 0", "digit 1", "digit 2")
    assert [len(data[split]) for split in SPLITS] == [12, 3, 2]  # a fifth of each class is held out
    assert [example.label for example in data["test"]] == [1, 0]
    assert data["test"][0].key == "digits of mine, test, item 0"
    np.testing.assert_array_equal(pixels(data, "test")[0], np.asarray(source[7][0]))
    assert (
        data.fingerprint
        == as_dataset({"train": source, "test": Subset(source, [7, 1])}, name="digits of mine").fingerprint
    )


def test_a_dataset_of_the_library_datasets(tmp_path: Path) -> None:
    features = datasets.Features(img=datasets.Image(), fine_label=datasets.ClassLabel(names=["zero", "one"]))
    rows = [int(n) for n in np.flatnonzero(LABELS < 2)[:30]]
    of = {"img": [Image.fromarray(IMAGES[n]) for n in rows], "fine_label": [int(LABELS[n]) for n in rows]}
    whole = datasets.Dataset.from_dict(of, features=features)
    splits = datasets.DatasetDict(whole.train_test_split(0.4, seed=0))
    data = as_dataset(splits)
    assert data.class_names == ("zero", "one")
    assert len(data["test"]) == 12
    assert [example.label for example in data["test"]] == splits["test"]["fine_label"][:]
    np.testing.assert_array_equal(pixels(data, "test")[3], np.asarray(splits["test"][3]["img"]))
    renamed = splits.rename_columns({"img": "scan", "fine_label": "what"})
    with pytest.raises(
        ZooError,
        match=re.escape("dataset, train: has the columns scan, what; say which to use, columns=(IMAGE, LABEL)"),
    ):
        as_dataset(renamed)
    assert as_dataset(renamed, columns=("scan", "what")).fingerprint == data.fingerprint


def test_labels_that_are_not_listed_are_read_once() -> None:
    class Counted(Pairs):
        reads = 0

        def __getitem__(self, n: int) -> tuple[Any, Any]:
            self.reads += 1
            return super().__getitem__(n)

    source = Counted()
    assert len(as_dataset({"train": source, "validation": Pairs()})["train"]) == 60
    assert source.reads == 60 + 1  # the first one also tells what items are


@pytest.mark.parametrize(
    "images",
    [IMAGES[:60], torch.tensor(IMAGES[:60]), torch.tensor(IMAGES[:60])[:, None].repeat(1, 3, 1, 1),
     np.repeat(IMAGES[:60, :, :, None], 3, 3), [Image.fromarray(image) for image in IMAGES[:60]]],
    ids=["gray arrays", "gray tensors", "RGB tensors", "RGB arrays", "images"],
)  # fmt: skip
def test_images_of_every_form_are_the_same_pixels(images: Any) -> None:
    data = as_dataset({"train": Pairs(images), "validation": Pairs(images)})
    assert data.class_names == tuple("0123456789")
    for found, image in zip(pixels(data), IMAGES, strict=False):
        np.testing.assert_array_equal(found if found.ndim == 2 else found[:, :, 1], image)


def test_one_dataset_alone_is_divided_into_three_splits() -> None:
    data = as_dataset(TensorDataset(torch.tensor(IMAGES[:200]), torch.tensor(LABELS[:200])), seed=3)
    keys = [example.key for split in SPLITS for example in data[split]]
    assert len(set(keys)) == len(keys) == 200
    assert all((data.counts(split) > 0).all() for split in SPLITS)
    other = as_dataset(Pairs(IMAGES[:200], LABELS[:200]), seed=4)
    assert [one.key for one in other["test"]] != [one.key for one in data["test"]]


INDICES = "dataset, train: labels must be class indices, whole numbers from 0; the first is"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"validation": Pairs()}, "dataset: has no 'train'; give 'train' and, if any, 'validation' and 'test'"),
        ({"train": Pairs(), "dev": Pairs()}, "dataset: has dev; give 'train' and, if any, 'validation' and 'test'"),
        ({"train": iter(())}, "dataset, train: is of tuple_iterator, without a length or items by number"),
        (Pairs(labels=["seven"] * 60), f"{INDICES} seven"),
        (Pairs(labels=[0.5] * 60), f"{INDICES} 0.5"),
        (Pairs(labels=[0] * 59 + [-1]), "dataset, train, item 59: has the label -1; there are 1 classes"),
    ],
)
def test_what_is_no_dataset_is_refused(data: Any, said: str) -> None:
    with pytest.raises(ZooError, match=f"^{re.escape(said)}$"):
        as_dataset(data)


def test_items_that_are_no_images_are_refused_where_they_are_read() -> None:
    data = as_dataset({"train": Pairs(torch.rand(60, 3, 8, 8)), "validation": Pairs(), "test": Pairs([None] * 60)})
    transformed = (
        "dataset, train, item 0: is no image of Pillow or uint8 but Tensor of float32, (8, 8, 3); leave out the "
        "dataset's transforms, training has its own"
    )
    with pytest.raises(ZooError, match=f"^{re.escape(transformed)}$"):
        data["train"][0].read()
    with pytest.raises(ZooError, match=r"^dataset, test, item 5: is no image .* but NoneType"):
        data["test"][5].read()

    class Missing(Pairs):
        targets = LABELS[:60]

        def __getitem__(self, n: int) -> tuple[Any, Any]:
            if n == 1:
                raise FileNotFoundError(2, "No such file or directory", "scan.png")
            return super().__getitem__(n)

    data = as_dataset({"train": Missing(), "validation": Pairs()})
    read = {example.key: example.read for example in data["train"]}
    with pytest.raises(ZooError, match=r"^dataset, train, item 1: cannot be read \(.*scan\.png.*\)$"):
        read["dataset, train, item 1"]()
    with pytest.raises(ZooError, match=r"^dataset, train, item 0: is ndarray, not \(image, label\) or a mapping$"):
        as_dataset({"train": IMAGES})


def test_training_takes_them_and_gives_what_it_gives_for_the_same_images(smallest_arch: Arch, tmp_path: Path) -> None:
    ours = few_digits()
    recipe = replace(RECIPE, epochs=1)
    splits = {split: Pairs(pixels(ours, split), [example.label for example in ours[split]]) for split in SPLITS}
    same = as_dataset(splits, mean=ours.mean, std=ours.std, resize_ratio=ours.resize_ratio)
    one_by_one = replace(ours, splits={split: tuple(ours[split]) for split in SPLITS})
    runs = [
        train(smallest_arch, data, recipe, tmp_path / str(n), report=False)
        for n, data in enumerate((one_by_one, same, splits))
    ]
    assert runs[0].test is not None
    assert runs[1].test is not None
    assert runs[0].test.loss == runs[1].test.loss
    assert runs[0].epochs[0].train_loss == runs[1].epochs[0].train_loss
    assert runs[2].model.arch.in_channels == 3  # as of photographs, where nothing else is said
