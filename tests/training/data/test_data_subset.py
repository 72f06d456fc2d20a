"""Subsets: classes and held-out images by a seed, written down, and applied to the data they are of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refusal

from fbnetv3_zoo.training.data import (
    SPLITS,
    Dataset,
    Example,
    Subset,
    choose_subset,
    digits,
    find_dataset,
    folder,
    load_subset,
)
from fbnetv3_zoo.training.data.dataset import Examples, Names
from fbnetv3_zoo.training.data.folder_source import FileReader, FolderSource


def data_of(counts: Sequence[int], *, validation: int = 2) -> Dataset:
    """A dataset of so many training images a class, and a few to validate on; no image can be read."""

    def examples(split: str, counts: Sequence[int]) -> Examples:
        labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
        keys = Names.of(f"{split}/c{label}/{n}.jpg" for n, label in enumerate(labels))
        return Examples(keys, labels, np.arange(len(labels)), FolderSource("/data"))

    names = tuple(f"c{n}" for n in range(len(counts)))
    splits = {
        "train": examples("train", counts),
        "validation": examples("val", [validation] * len(counts)),
        "test": examples("test", [1] * len(counts)),
    }
    return Dataset("mine", names, (0.5,), (0.5,), 8 / 7, splits)  # type: ignore[arg-type]


def _keys(examples: Sequence[Example]) -> list[str]:
    return [example.key for example in examples]


def test_every_image_has_one_place() -> None:
    data = data_of([20] * 10)
    subset = choose_subset(data, classes=4, held_out=12, seed=5)
    part = subset.apply(data)
    assert (subset.data, subset.seed) == ("mine", 5)
    assert part.name == "mine, 4 of 10 classes"
    assert (part.mean, part.std, part.resize_ratio) == (data.mean, data.std, data.resize_ratio)
    assert part.class_names == subset.class_names
    assert list(part.class_names) == sorted(part.class_names)
    assert {split: len(part[split]) for split in SPLITS} == {"train": 68, "validation": 12, "test": 8}
    for example in (e for split in SPLITS for e in part[split]):
        assert example.key.split("/")[1] == part.class_names[example.label]
        assert isinstance(example.read, FileReader)
        assert example.read.name == example.key
    assert Counter(e.label for e in part["validation"]) == dict.fromkeys(range(4), 3)
    ours = [key for key in _keys(data["train"]) if key.split("/")[1] in part.class_names]
    assert sorted(_keys(part["train"]) + _keys(part["validation"])) == sorted(ours)
    assert _keys(part["validation"]) == list(subset.held_out) == [key for key in ours if key in subset.held_out]
    assert all(key.startswith("val/") for key in _keys(part["test"]))
    assert isinstance(part["train"], Examples)


def test_the_seed_decides() -> None:
    data = data_of([20] * 10)
    chosen = [choose_subset(data, classes=4, held_out=12, seed=seed) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1]
    assert chosen[0].class_names != chosen[2].class_names
    assert set(chosen[0].held_out) != set(chosen[2].held_out)
    assert chosen[0].apply(data).fingerprint == chosen[1].apply(data).fingerprint != chosen[2].apply(data).fingerprint


def test_what_seed_0_chooses_stays_the_same() -> None:
    subset = choose_subset(data_of([5] * 6), classes=3, held_out=4)
    held_out = ("train/c2/13.jpg", "train/c2/14.jpg", "train/c3/15.jpg", "train/c5/28.jpg")
    assert subset == Subset("mine", 0, ("c2", "c3", "c5"), held_out)


@pytest.mark.parametrize(
    ("counts", "held_out", "shares"),
    [
        ([10, 10, 10], 9, [3, 3, 3]),
        ([10, 10, 10], 27, [9, 9, 9]),
        ([3, 10, 10], 12, [2, 5, 5]),
        ([2, 3, 100], 20, [1, 2, 17]),
        ([2, 2, 100], 3, [1, 1, 1]),
    ],
)
def test_as_many_of_each_class_as_can_be(counts: list[int], held_out: int, shares: list[int]) -> None:
    data = data_of(counts)
    part = choose_subset(data, classes=3, held_out=held_out).apply(data)
    assert [Counter(e.label for e in part["validation"])[label] for label in range(3)] == shares
    assert len({e.label for e in part["train"]}) == 3, "each keeps one to train on"


def test_what_is_left_over_goes_to_classes_by_the_seed() -> None:
    data = data_of([10] * 5)
    fuller = set()
    for seed in range(20):
        part = choose_subset(data, classes=5, held_out=12, seed=seed).apply(data)
        shares = Counter(e.label for e in part["validation"])
        assert sorted(shares.values()) == [2, 2, 2, 3, 3]
        fuller |= {label for label, share in shares.items() if share == 3}
    assert fuller == set(range(5))


def test_classes_of_one_image_are_not_drawn() -> None:
    data = data_of([1, 5, 0, 5, 1])
    assert choose_subset(data, classes=2, held_out=2).class_names == ("c1", "c3")
    expected = "mine: has 2 classes with 2 or more training images, not 3"
    assert refusal(lambda: choose_subset(data, classes=3, held_out=2)) == expected


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"classes": 1}, "classes is 1; it must be a whole number of at least 2"),
        ({"held_out": 0}, "held_out is 0; it must be a whole number of at least 1"),
        ({"seed": -1}, "seed is -1; it must be a whole number of at least 0"),
        (
            {"classes": 3, "held_out": 13},
            "mine: 3 classes have 15 training images; at most 12 can be held out, not 13",
        ),
    ],
)
def test_wrong_choices(options: dict[str, int], what: str) -> None:
    assert refusal(lambda: choose_subset(data_of([5] * 3), **{"classes": 2, "held_out": 2, **options})) == what


def test_written_down_and_read_again(tmp_path: Path) -> None:
    data = data_of([20] * 10)
    subset = choose_subset(data, classes=4, held_out=12)
    file = tmp_path / "subset.json"
    file.write_text(subset.to_json())
    assert load_subset(file) == Subset.from_json(subset.to_json()) == subset
    read = json.loads(file.read_text())
    assert {**read, "held_out": 0, "class_names": 0} == {
        "format": "fbnetv3_zoo.subset", "version": 1, "data": "mine", "seed": 0, "class_names": 0, "held_out": 0,
    }  # fmt: skip
    assert f'\n  "{subset.held_out[3]}",\n' in file.read_text(), "an item a line"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"format": "x"}, 'subset JSON lacks "format": "fbnetv3_zoo.subset"; write such files with to_json()'),
        ({"version": 2}, "subset JSON has version 2; this release reads version 1"),
        ({"seed": "0"}, "subset.seed is '0'; it must be a whole number"),
        ({"held_out": "a"}, "subset.held_out is 'a'; it must be a list"),
        ({"held_out": ["a", 1]}, "subset.held_out[1] is 1; it must be text"),
        ({"held_out": ["a", "b", "a"]}, "subset: Subset.held_out has 'a' twice; remove one"),
        ({"class_names": ["a", "a"]}, "subset: Subset.class_names has 'a' twice; remove one"),
        ({"class_names": ["a"]}, "subset: Subset needs at least 2 class_names and 1 held_out image"),
        ({"held_out": []}, "subset: Subset needs at least 2 class_names and 1 held_out image"),
        ({"classes": 3}, "subset has an unknown key 'classes' (did you mean 'class_names'?)"),
    ],
)
def test_wrong_files(change: dict[str, object], what: str, tmp_path: Path) -> None:
    right = json.loads(Subset("mine", 0, ("a", "b"), ("x",)).to_json())
    file = tmp_path / "subset.json"
    file.write_text(json.dumps({**right, **change}))
    assert refusal(lambda: load_subset(file)) == f"{file}: {what}"


def test_missing_files(tmp_path: Path) -> None:
    expected = f"{tmp_path}/absent.json: no such file"
    assert refusal(lambda: find_dataset("digits", subset=tmp_path / "absent.json")) == expected


def test_data_that_lacks_something() -> None:
    subset = choose_subset(data_of([20] * 10), classes=4, held_out=12, seed=2)
    fewer = data_of([15] * 10)
    lost = [repr(key) for key in subset.held_out if key not in set(_keys(fewer["train"]))]
    assert len(lost) == 10
    expected = f"mine: has no training images {', '.join(lost[:5])} and 5 more, unlike the subset of mine"
    assert refusal(lambda: subset.apply(fewer)) == expected
    other = Subset("mine", 0, ("c0", "owl"), ("x",))
    assert refusal(lambda: other.apply(fewer)) == "mine: has no class 'owl', unlike the subset of mine"
    elsewhere = Subset("mine", 0, ("c0", "c1"), ("train/c2/31.jpg",))
    expected = "mine: has no training image 'train/c2/31.jpg', unlike the subset of mine"
    assert refusal(lambda: elsewhere.apply(fewer)) == expected


def test_of_digits() -> None:
    """Data that is split by a seed: the subset's own seed splits it, whatever the caller's is."""
    subset = choose_subset(digits(seed=7), classes=3, held_out=30, seed=7)
    data = find_dataset("digits", seed=1, subset=subset)
    assert data.fingerprint == subset.apply(digits(seed=7)).fingerprint
    assert len(data["validation"]) == 30
    assert {e.key for e in data["test"]} <= {e.key for e in digits(seed=7)["validation"]}
    pixels = [example.read().tobytes() for split in SPLITS for example in data[split]]
    assert len(pixels) == sum(len(data[split]) for split in SPLITS) > 300


def test_of_a_folder_by_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    root = tmp_path / "photos"
    for name in ("ant", "bee", "cat"):
        for split, count in (("train", 5), ("val", 2)):
            (root / split / name).mkdir(parents=True)
            for n in range(count):
                pixels = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{n}.png")
    subset = choose_subset(folder(root), classes=2, held_out=4, seed=3)
    (tmp_path / "subset.json").write_text(subset.to_json())
    data = find_dataset(root, subset=str(tmp_path / "subset.json"))
    assert data.class_names == subset.class_names
    assert {split: len(data[split]) for split in SPLITS} == {"train": 6, "validation": 4, "test": 4}
    for example in (e for split in SPLITS for e in data[split]):
        assert example.read().tobytes() == Image.open(root / example.key).tobytes()
