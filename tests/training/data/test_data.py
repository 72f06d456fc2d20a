"""Datasets as values, examples by the million, and digits: no image in two splits, the same split for a seed."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import ROOT
from refusals import refusal

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.images import MAX_BYTES
from fbnetv3_zoo.images.limits import MAX_PIXELS
from fbnetv3_zoo.training.data import IMAGE_SUFFIXES, SPLITS, Dataset, Example, Examples, digits, find_dataset
from fbnetv3_zoo.training.data.cifar import LAYOUTS
from fbnetv3_zoo.training.data.dataset import Names, keys_of, labels_of, take
from fbnetv3_zoo.training.data.folder_source import FileReader, FolderSource
from fbnetv3_zoo.training.data.split_names import COMPANIONS, SPELLINGS


@pytest.fixture(scope="module")
def numbers() -> Dataset:
    """The digits as split by seed 0."""
    return digits()


def _contents(data: Dataset, split: str) -> list[bytes]:
    return [example.read().tobytes() for example in data[split]]  # type: ignore[index]


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
        replace(numbers, class_names=tuple("abcdefghij")),
        replace(numbers, splits={**numbers.splits, "test": numbers["test"][:-1]}),
    ]
    assert replace(numbers, name="mine", root="/elsewhere").fingerprint == numbers.fingerprint
    assert len({numbers.fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize(("seed", "bound"), [(-1, "at least 0"), (1.5, "at least 0"), (2**32, "at most 4294967295")])
def test_wrong_seeds(seed: object, bound: str) -> None:
    with pytest.raises(ZooError) as caught:
        digits(seed=seed)  # type: ignore[arg-type]
    assert str(caught.value) == f"seed is {seed!r}; it must be a whole number of {bound}"


def test_find_digits(numbers: Dataset, tmp_path: Path) -> None:
    assert find_dataset("digits").fingerprint == numbers.fingerprint
    assert find_dataset("digits", seed=1).fingerprint == digits(seed=1).fingerprint
    expected = f"{tmp_path}/absent: no such folder; give 'digits' or a folder of class folders"
    assert refusal(lambda: find_dataset(tmp_path / "absent")) == expected
    assert refusal(lambda: find_dataset(__file__)).startswith(f"{__file__}: is a file; give")


def test_a_least_size_is_no_matter_to_digits(numbers: Dataset) -> None:
    assert numbers["train"][0].read(lambda size: (1, 1)).size == (8, 8)


# --- examples by the million ---


def _listed(count: int) -> Examples:
    keys = Names.of(f"train/n{n // 1300:08d}/n{n // 1300:08d}_{n}.JPEG" for n in range(count))
    return Examples(keys, (np.arange(count) // 1300).astype(np.int32), np.arange(count), FolderSource("/data"))


def test_a_million_examples_take_little_memory() -> None:
    count = 50_000
    tracemalloc.start()
    try:
        examples = _listed(count)
        held, peak = tracemalloc.get_traced_memory()
        first = examples[: count // 2], examples[count // 2 :]
        both, _ = tracemalloc.get_traced_memory()
        data = Dataset("x", ("a",), (0.0,), (1.0,), 1.0, {"train": examples, "validation": (), "test": ()})
        tracemalloc.reset_peak()
        assert data.fingerprint
        _, digesting = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 80 * count
    assert peak < 150 * count
    assert both - held < 10_000, "a slice shares names and labels"
    assert len(first[0]) + len(first[1]) == count
    assert digesting - both < 20_000_000, "however many there are"
    assert len(pickle.dumps(examples)) < 80 * count


def test_examples_are_made_when_asked_for() -> None:
    examples = _listed(3000)
    expected = Example(
        FileReader("/data", "train/n00000001/n00000001_1500.JPEG"), 1, "train/n00000001/n00000001_1500.JPEG"
    )
    assert examples[1500] == examples[-1500] == expected
    assert list(examples)[1500] == expected
    part = examples[1000:2000:2]
    assert isinstance(part, Examples)
    assert [example.key for example in part[250:252]] == [examples[1500].key, examples[1502].key]
    assert pickle.loads(pickle.dumps(part))[250] == expected
    assert expected in examples
    assert examples[1500:1500].rows.size == len(examples[3000:]) == 0
    for n in (3000, -3001):
        with pytest.raises(IndexError):
            examples[n]


def test_all_kinds_of_sequence_are_one() -> None:
    examples = _listed(3000)
    plain = tuple(examples)
    chosen = np.array([2999, 5, 1300])
    assert labels_of(examples).tolist() == labels_of(plain).tolist()
    assert keys_of(examples, chosen) == keys_of(plain, chosen) == [plain[n].key for n in chosen]
    assert tuple(take(examples, chosen, np.array([7, 8, 9]))) == take(plain, chosen, np.array([7, 8, 9]))
    assert [example.label for example in take(plain, chosen, np.array([7, 8, 9]))] == [9, 7, 8]
    of_examples, of_tuples = (
        Dataset("x", ("a", "b", "c"), (0.0,), (1.0,), 1.0, {"train": kind, "validation": (), "test": ()})
        for kind in (examples, plain)
    )
    assert of_examples.fingerprint == of_tuples.fingerprint


def test_names_of_any_kind() -> None:
    given = ["", "a", "grün/猫.png", os.fsdecode(b"latin \xfc.jpg"), "", "line\nline"]
    names = Names.of(given)
    assert list(names) == names[:] == given
    assert names[-2:] == given[-2:]
    assert [names[n] for n in range(-6, 0)] == given
    assert len(Names.of([])) == 0
    assert Names.of([])[:] == []
    for n in (6, -7):
        with pytest.raises(IndexError):
            names[n]


def test_fingerprints_see_where_a_key_ends() -> None:
    def of(*keys: str) -> str:
        examples = tuple(Example(FileReader("", ""), 0, key) for key in keys)
        return Dataset("x", ("a",), (0.0,), (1.0,), 1.0, {"train": examples, "validation": (), "test": ()}).fingerprint

    assert len({of("ab", "c"), of("a", "bc"), of("abc"), of("abc", ""), of("", "abc"), of("c", "ab")}) == 6


def test_fingerprints_see_to_the_end() -> None:
    """However many there are: two examples that change places, wherever, are seen."""
    examples, found = _listed(70_000), set()
    for n in (0, 20, 65_534, 65_535, 69_998):
        rows = examples.rows.copy()
        rows[[n, n + 1]] = rows[[n + 1, n]]
        splits = {"train": replace(examples, rows=rows), "validation": (), "test": ()}
        found.add(Dataset("x", ("a",), (0.0,), (1.0,), 1.0, splits).fingerprint)  # type: ignore[arg-type]
    assert len(found) == 5


def test_fingerprints_see_labels_and_splits() -> None:
    def of(label: int, split: str) -> str:
        splits = {**dict.fromkeys(SPLITS, ()), split: (Example(FileReader("", ""), label, "key"),)}
        return Dataset("x", ("a", "b"), (0.0,), (1.0,), 1.0, splits).fingerprint  # type: ignore[arg-type]

    assert len({of(label, split) for label in (0, 1) for split in SPLITS}) == 6


# --- what the documentation says ---


def test_the_documentation_names_what_is_understood() -> None:
    text = " ".join((ROOT / "docs" / "data.md").read_text().split())
    assert f"Images are `{' '.join(sorted(IMAGE_SUFFIXES))}`," in text
    for split, words in SPELLINGS.items():
        assert f"`{split}`: `{' '.join(words)}`" in text
    assert f"`{' '.join(sorted(COMPANIONS))}`" in text
    assert all(f"`{layout.folder}`" in text for layout in LAYOUTS)
    assert f"over {MAX_BYTES >> 30} GiB, over {MAX_PIXELS:,} pixels" in text
