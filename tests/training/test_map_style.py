"""Datasets of torchvision, of `datasets`, and of one's own, trained on without a step in between."""

from __future__ import annotations

import io
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
from refusals import refusal
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


def test_an_image_that_ends_early_is_told_with_its_item() -> None:
    """Pillow opens a file without reading its pixels."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(256, size=(64, 64), dtype=np.uint8)).save(file, "JPEG")
    items = [(Image.open(io.BytesIO(file.getvalue()[:1500])), 0), *((Image.fromarray(IMAGES[n]), 1) for n in range(9))]
    data = as_dataset({"train": items, "validation": Pairs(labels=LABELS[:60] % 2)})
    with pytest.raises(ZooError, match=r"^dataset, train, item 0: cannot be read \("):
        data["train"][0].read()


def test_so_is_one_that_is_in_a_mapping_alone() -> None:
    alone = Pairs(IMAGES[:200], LABELS[:200])
    sizes = [len(as_dataset(alone)[split]) for split in SPLITS]
    for data in ({"train": alone}, {"train": alone, "test": []}):
        assert [len(as_dataset(data)[split]) for split in SPLITS] == sizes


INDICES = "dataset, train: labels must be class indices, whole numbers from 0; the first is"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"validation": Pairs()}, "dataset: has no 'train'; give 'train' and, if any, 'validation' and 'test'"),
        ({"train": Pairs(), "more": Pairs()}, "dataset: has more; give 'train' and, if any, 'validation' and 'test'"),
        ({"train": Pairs(), "validation": Pairs(), "val": Pairs()},
         "dataset: has two validation splits, one of them 'val'; leave one out"),
        ({"train": iter(())},
         "dataset, train: is of tuple_iterator, without a length or items by number; give a list of its items"),
        ({"train": datasets.Dataset.from_dict({"image": [None], "label": [0]}).to_iterable_dataset()},
         "dataset, train: is of IterableDataset, without a length or items by number; load it without streaming=True"),
        ({"train": "photos/train"},
         "dataset, train: is a path; give the folder that has all splits alone, as find_dataset() takes it"),
        (Subset(Pairs(), []), "dataset, train: is empty; give at least one item"),
        ({"train": Pairs(), "validation": []}, "dataset, validation: is empty; give at least one item"),
        (Subset(TensorDataset(torch.tensor(IMAGES[:9]), torch.tensor(LABELS[:9])), [0, 9]),
         "dataset, train, item 1: cannot be read (index 9 is out of bounds for dimension 0 with size 9)"),
        ([{"image": IMAGES[0], "label": 0}, {"image": IMAGES[1]}],
         "dataset, train, item 1: has no 'label', unlike others; give all items both"),
        (Pairs(labels=["seven"] * 60), f"{INDICES} seven; number the classes, and give these names as class_names"),
        (datasets.Dataset.from_dict({"image": [None] * 3, "label": ["seven"] * 3}),
         f"{INDICES} seven; number them by class_encode_column('label')"),
        (Pairs(labels=[[0]] * 60), f"{INDICES} [0]"),
        ([(IMAGES[0], [0] * n) for n in range(3)], f"{INDICES} []"),
        ({"train": Pairs(labels=[0] * 59 + [10**9])},
         "dataset, train, item 59: has the label 1000000000, which makes 1,000,000,001 classes for 60 items; number "
         "the labels from 0, or give class_names"),
        (Pairs(labels=[-1] * 60), "dataset, train, item 0: has the label -1; labels count from 0; change it, or leave "
         "such items out"),
        (Pairs(labels=[0.5] * 60), f"{INDICES} 0.5"),
        (Pairs(labels=[0] * 59 + [-1]),
         "dataset, train, item 59: has the label -1; labels count from 0; change it, or leave such items out"),
        ([(IMAGES[n], int(n == 0)) for n in range(4)],
         "dataset: class '1': has one image; at least 3 are needed, one per split: add some, or leave the class out"),
    ],
)  # fmt: skip
def test_what_is_no_dataset_is_refused(data: Any, said: str) -> None:
    with pytest.raises(ZooError, match=f"^{re.escape(said)}$"):
        as_dataset(data)


ROWS = [{"image": IMAGES[n], "label": LABELS[n]} for n in range(60)]


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (ROWS, {"columns": ("foto", "kind")}, "dataset, train: has no column 'foto'; there are image, label"),
        (ROWS, {"columns": ("image", "lable")},
         "dataset, train: has no column 'lable' (did you mean 'label'?); there are image, label"),
        (datasets.Dataset.from_dict({"image": [None], "label": [0]}), {"columns": ("foto", "label")},
         "dataset, train: has no column 'foto'; there are image, label"),
        (ROWS, {"columns": "image"}, "columns is 'image'; it must be two names, such as columns=('image', 'label')"),
        (ROWS, {"columns": ("image",)},
         "columns is ('image',); it must be two names, such as columns=('image', 'label')"),
        (Pairs(), {"columns": ("image", "label")},
         "dataset, train, item 0: is tuple, without columns; leave out columns"),
        (Pairs(), {"resize_ratio": "x"}, "resize_ratio is 'x'; it must be a number at least 1"),
        (Pairs(), {"resize_ratio": 0.5}, "resize_ratio is 0.5; it must be a number at least 1"),
        (Pairs(), {"mean": 0.5}, "mean is 0.5; it must be three numbers, one per channel, or one for gray images"),
        (Pairs(), {"std": (0.5, 0.5)},
         "std is (0.5, 0.5); it must be three numbers, one per channel, or one for gray images"),
        (Pairs(), {"mean": (0.5,)}, "Preprocess.mean has 1 values and std 3; give one per channel"),
        (Pairs(), {"name": None}, "name is None; it must be text"),
        (Pairs(), {"class_names": ["x", "x"]}, "class_names has 'x' more than once; give each class a name of its own"),
        (Pairs(), {"class_names": "ab"}, "class_names is 'ab'; it must be a list of names, one per class"),
        (Pairs(), {"class_names": [0, 1]}, "class_names is [0, 1]; it must be a list of names, one per class"),
        (Pairs(), {"class_names": []}, "class_names is []; it must be a list of names, one per class"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(data: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ZooError, match=f"^{re.escape(said)}$"):
        as_dataset(data, **options)


@pytest.mark.parametrize(
    ("labels", "unseen"),
    [([1, 2], "0"), ([0, 7], "1, 2, 3, 4, 5 and 1 more"), ([0, 999], "1, 2, 3, 4, 5 and 993 more")],
)
def test_classes_without_training_images_are_told(
    labels: list[int], unseen: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = as_dataset(Pairs(labels=labels * 30))
    assert len(data.class_names) == labels[-1] + 1
    assert caplog.messages == [f"dataset: classes without training images, which are not learned: {unseen}"]


class Named(Pairs):
    """As torchvision's ImageNet, which lists synonyms, and some of them for two classes."""

    classes = (("zero", "nought"), "one", "one", *"345678", "one")


def test_classes_of_the_same_name_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    assert as_dataset(Named()).class_names == ("zero, nought", "one", "one (2)", *"345678", "one (9)")
    assert caplog.messages == [
        "dataset, train: classes 1 and 2 are both called 'one'; the second is now 'one (2)', and so on (2 classes)"
    ]


def test_one_class_is_not_enough() -> None:
    said = "dataset: has one class, '0'; give images of at least two"
    assert refusal(lambda: as_dataset(Pairs(labels=np.zeros(60, int)))) == said


def test_more_classes_than_a_thousand_where_there_are_as_many_items() -> None:
    images, labels = [IMAGES[0]] * 1200, list(range(1200))
    assert len(as_dataset({"train": Pairs(images, labels), "validation": Pairs()}).class_names) == 1200


@pytest.mark.parametrize("label", [-1, None])
def test_a_test_split_without_labels_is_left_out(label: int | None, caplog: pytest.LogCaptureFixture) -> None:
    columns = {"image": [Image.fromarray(image) for image in IMAGES[:60]]}
    labeled, unlabeled = (
        datasets.Dataset.from_dict({**columns, "label": labels}) for labels in (LABELS[:60], [label] * 60)
    )
    data = as_dataset(datasets.DatasetDict(train=labeled, validation=labeled, test=unlabeled))
    assert [len(data[split]) for split in SPLITS] == [60, 60, 0]
    assert caplog.messages == ["dataset, test: left out, since its images have no labels (60 images)"]
    half = Pairs(labels=[0] * 30 + [-1] * 30)
    with pytest.raises(ZooError, match=r"^dataset, test, item 30: has the label -1; labels count from 0;"):
        as_dataset({"train": labeled, "validation": labeled, "test": half})


def test_the_usual_spellings_of_splits_are_known() -> None:
    data = as_dataset({"Training": Pairs(), "val": Pairs(IMAGES[:9], LABELS[:9]), "testing": []})
    assert [len(data[split]) for split in SPLITS] == [60, 9, 0]


def test_a_transform_that_fails_is_told_with_its_item() -> None:
    def broken(row: object) -> object:
        raise RuntimeError("no such operation")

    whole = datasets.Dataset.from_dict({"image": [Image.fromarray(IMAGES[0])] * 6, "label": [0, 1] * 3})
    with pytest.raises(ZooError, match=r"^dataset, train, item 0: cannot be read \(no such operation\)$"):
        as_dataset(whole.with_transform(broken))


NO_IMAGE = "dataset, train, item 0: is no image of Pillow or uint8 but"
TRANSFORMED = "leave out the dataset's transforms, training has its own"
OPEN = "open it, as PIL.Image.open() does"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"PNG", f"bytes; {OPEN}"),
        ("a.png", f"str; {OPEN}"),
        (Path("a.png"), f"{type(Path()).__name__}; {OPEN}"),
        ({"bytes": b"PNG", "path": None}, f"dict; {OPEN}"),
        ([[0, 1], [2, 3]], "list; make it an array of uint8"),
        ([[0, 1], [2]], "list; make it an array of uint8"),
        (None, "NoneType; drop the item"),
        (object(), f"object; {TRANSFORMED}"),
        (torch.zeros(3, 32, 16), f"Tensor of float32, (3, 32, 16); {TRANSFORMED}"),
        (torch.zeros(32, 16, 3, dtype=torch.uint8), "Tensor of uint8, (32, 16, 3); give 1 or 3 channels, first"),
        (np.zeros((3, 32, 16), np.uint8), "ndarray of uint8, (3, 32, 16); give 1 or 3 channels, last"),
        (np.zeros((0, 3), np.uint8), "ndarray of uint8, (0, 3); drop the item"),
        (np.zeros((8, 8), np.int64), f"ndarray of int64, (8, 8); {TRANSFORMED}"),
    ],
)
def test_what_is_no_image_is_told_with_its_remedy(image: object, said: str) -> None:
    data = as_dataset({"train": Pairs([image] * 60), "validation": Pairs()})
    with pytest.raises(ZooError, match=f"^{re.escape(f'{NO_IMAGE} {said}')}$"):
        data["train"][0].read()


def test_images_of_the_library_datasets_that_are_not_opened() -> None:
    def read(images: list[Any], form: str | None = None) -> Image.Image:
        data = datasets.Dataset.from_dict({"image": images, "label": [0, 1]}).with_format(form)
        return as_dataset({"train": data, "validation": data})["train"][0].read()

    for image, kind in (("a.png", "str"), ({"bytes": b"PNG", "path": "a.png"}, "dict")):
        with pytest.raises(ZooError) as caught:
            read([image] * 2)
        assert str(caught.value) == f"{NO_IMAGE} {kind}; cast_column('image', Image()) opens it"
    pixels = np.repeat(IMAGES[0][:, :, None], 3, 2)
    with pytest.raises(ZooError) as caught:
        read([pixels.tolist()] * 2)
    assert str(caught.value) == f"{NO_IMAGE} list; use with_format('numpy')"
    np.testing.assert_array_equal(np.asarray(read([pixels.tolist()] * 2, "numpy")), pixels)


def test_items_that_are_no_images_are_refused_where_they_are_read() -> None:
    data = as_dataset({"train": Pairs(torch.rand(60, 3, 8, 8)), "validation": Pairs(), "test": Pairs([None] * 60)})
    with pytest.raises(ZooError, match=f"^{re.escape(f'{NO_IMAGE} Tensor of float32, (3, 8, 8); {TRANSFORMED}')}$"):
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
