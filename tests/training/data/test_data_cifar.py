"""CIFAR from its files: both versions of both sets, damaged files by name, pickles that mean harm."""

from __future__ import annotations

import os
import pickle
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import Ops, bombs, call, live, named, push, stop
from refusals import refusal

from fbnetv3_zoo.training.data import SPLITS, cifar, find_dataset
from fbnetv3_zoo.training.data.cifar import LAYOUTS, STATISTICS, CifarLayout
from fbnetv3_zoo.training.data.safe_pickle import read_plain

BY_FOLDER = {layout.folder: layout for layout in LAYOUTS}
TRAIN, TESTS = 1000, 100  # a fiftieth and a hundredth of what is published
Part = tuple[np.ndarray, list[int]]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layouts with fewer images."""
    fewer = tuple(replace(layout, train_images=TRAIN, test_images=TESTS) for layout in LAYOUTS)
    monkeypatch.setattr(sys.modules["fbnetv3_zoo.training.data.cifar"], "LAYOUTS", fewer)


def _draw(count: int, classes: int, seed: int) -> Part:
    """Pixels, and labels as evenly spread over the classes as in the published files."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % classes)
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), [int(label) for label in labels]


def parts_of(layout: CifarLayout) -> dict[str, Part]:
    share = TRAIN // len(layout.train)
    parts = {name: _draw(share, layout.num_classes, n) for n, name in enumerate(layout.train)}
    return {**parts, layout.test: _draw(TESTS, layout.num_classes, 99)}


def _string(data: bytes) -> Ops:
    return Ops(b"T" + len(data).to_bytes(4, "little") + data)


def _python2(value: Any) -> Ops:
    """Opcodes of ``value`` as Python 2 wrote them: texts are strings of bytes."""
    if isinstance(value, dict):
        items = b"".join(_string(key.encode()) + _python2(item) for key, item in value.items())
        return Ops(b"}(" + items + b"u")
    if isinstance(value, list):
        return Ops(b"](" + b"".join(map(_python2, value)) + b"e")
    if isinstance(value, np.ndarray):
        state = push((3, _string(b"|"), None, None, None, -1, -1, 0))
        dtype = Ops(call("numpy:dtype", _string(b"u1"), 0, 1) + state + b"b")
        empty = call("numpy.core.multiarray:_reconstruct", named("numpy:ndarray"), (0,), _string(b"b"))
        return Ops(empty + push((1, value.shape, dtype, False, _string(value.tobytes()))) + b"b")
    return _string(value.encode()) if isinstance(value, str) else push(value)


def python2(value: Any) -> bytes:
    return stop(_python2(value))


def python3(value: Any) -> bytes:
    return pickle.dumps(value, 2)


def write(place: Path, layout: CifarLayout, dumps: Any = python2) -> Path:
    """The files of ``layout`` in the folder ``place``."""
    place.mkdir(parents=True)
    names = [f"class {n}" for n in range(layout.num_classes)]
    for name, (pixels, labels) in parts_of(layout).items():
        if layout.label_bytes:
            column = np.array(labels, dtype=np.uint8)[:, None]
            coarse = column // 5  # what comes before the fine label
            (place / name).write_bytes(np.hstack([*[coarse] * (layout.label_bytes - 1), column, pixels]).tobytes())
        else:
            pictures = [f"picture {n}.png" for n in range(len(labels))]
            value = {"batch_label": name, layout.labels: labels, "data": pixels, "filenames": pictures}
            (place / name).write_bytes(dumps(value))
    meta = "\n".join(names) + "\n\n"
    value = {layout.names: names, "num_vis": 3072}
    (place / layout.meta).write_bytes(meta.encode() if layout.label_bytes else dumps(value))
    return place


@pytest.mark.parametrize("folder", BY_FOLDER)
@pytest.mark.parametrize("below", [True, False])
def test_all_versions(folder: str, below: bool, tmp_path: Path) -> None:
    layout = BY_FOLDER[folder]
    write(tmp_path / folder if below else tmp_path / "mine", layout)
    data = find_dataset(tmp_path if below else tmp_path / "mine")
    assert data.name == layout.title
    assert data.class_names == tuple(f"class {n}" for n in range(layout.num_classes))
    assert (data.mean, data.std) == STATISTICS[layout.title]
    assert data.resize_ratio == 1
    counts = {split: len(data[split]) for split in SPLITS}
    assert counts == {"train": TRAIN * 9 // 10, "validation": TRAIN // 10, "test": TESTS}
    parts = parts_of(layout)
    train = [parts[name] for name in layout.train]
    whole = {"train": (np.concatenate([p for p, _ in train]), [n for _, labels in train for n in labels])}
    whole["test"] = parts[layout.test]
    for split in SPLITS:
        for example in list(data[split])[::7]:
            part, _, number = example.key.partition("/")
            image = example.read(lambda size: (1, 1))
            assert (image.mode, image.size) == ("RGB", (32, 32))
            red_green_blue = np.asarray(image).transpose(2, 0, 1).reshape(-1)
            assert np.array_equal(red_green_blue, whole[part][0][int(number)])
            assert example.label == whole[part][1][int(number)]


def test_the_versions_agree(tmp_path: Path) -> None:
    """The same images from strings of Python 2, from Python 3, and from the binary files."""
    binary, python = BY_FOLDER["cifar-10-batches-bin"], BY_FOLDER["cifar-10-batches-py"]
    found = [
        cifar(write(tmp_path / "binary", binary), seed=3),
        cifar(write(tmp_path / "python2", python), seed=3),
        cifar(write(tmp_path / "python3", python, python3), seed=3),
    ]
    assert len({data.fingerprint for data in found}) == 1
    pixels = [[example.read().tobytes() for example in data["validation"]] for data in found]
    assert pixels[0] == pixels[1] == pixels[2]


def test_validation_is_drawn_by_seed_class_by_class(tmp_path: Path) -> None:
    place = write(tmp_path / "x", BY_FOLDER["cifar-10-batches-bin"])
    first, again, other = cifar(place), cifar(place), cifar(place, seed=1)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert find_dataset(place, seed=1).fingerprint == other.fingerprint
    assert Counter(example.label for example in first["validation"]) == dict.fromkeys(range(10), TRAIN // 100)
    keys = [{example.key for example in first[split]} for split in SPLITS]
    assert len(set.union(*keys)) == TRAIN + TESTS
    assert {example.key for example in other["validation"]} != keys[1]
    assert refusal(lambda: cifar(place, seed=-1)) == "seed is -1; it must be a whole number of at least 0"


def test_the_published_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the real length, as sparse files: 50,000 and 10,000 images of class 0 in files of 30,730,000 bytes."""
    monkeypatch.setattr(sys.modules["fbnetv3_zoo.training.data.cifar"], "LAYOUTS", LAYOUTS)
    for name in (*LAYOUTS[0].train, LAYOUTS[0].test):
        with (tmp_path / name).open("wb") as file:
            file.truncate(30_730_000)
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    data = cifar(tmp_path)
    assert [len(data[split]) for split in SPLITS] == [45_000, 5_000, 10_000]


@pytest.mark.parametrize("folder", BY_FOLDER)
def test_a_missing_file(folder: str, tmp_path: Path) -> None:
    layout = BY_FOLDER[folder]
    for name in (layout.train[-1], layout.test, layout.meta):
        place = write(tmp_path / name / "data", layout)
        (place / name).unlink()
        message = refusal(lambda place=place: find_dataset(place))  # type: ignore[misc]
        assert message == f"{place}/{name}: cannot be read (No such file or directory)"


AGAIN = "it is damaged, unpack the published archive again"


@pytest.mark.parametrize(("change", "what"), [(-1, "102,399"), (1, "102,401")])
def test_binary_files_of_another_size(change: int, what: str, tmp_path: Path) -> None:
    place = write(tmp_path / "x", replace(BY_FOLDER["cifar-100-binary"]))
    file = place / "test.bin"
    size = TESTS * 3074
    data = file.read_bytes()
    file.write_bytes((data + b"\0")[: size + change])
    told = "has 307,399 bytes, not 307,400" if change < 0 else "has 307,401 bytes, more than 307,400"
    assert refusal(lambda: cifar(place)) == f"{file}: {told}; {AGAIN}"


def _damage(place: Path, name: str, **changes: Any) -> Path:
    layout = BY_FOLDER["cifar-10-batches-py"]
    pixels, labels = parts_of(layout)[name]
    value = {"data": pixels, "labels": labels, **changes}
    (place / name).write_bytes(python2({key: item for key, item in value.items() if item is not None}))
    return place / name


NO_LABELS = "has no list 'labels' of 200 whole numbers"
NO_DATA = "has no array 'data' of 200 x 3,072 bytes"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"data": None}, NO_DATA),
        ({"data": [1, 2]}, NO_DATA),
        ({"data": np.zeros((199, 3072), np.uint8)}, NO_DATA),
        ({"data": np.zeros((200 * 3072,), np.uint8)}, NO_DATA),
        ({"labels": None}, NO_LABELS),
        ({"labels": [0] * 199}, NO_LABELS),
        ({"labels": ["cat"] * 200}, NO_LABELS),
        ({"labels": [True] * 200}, NO_LABELS),
        ({"labels": [0] * 199 + [1 << 80]}, NO_LABELS),
        ({"labels": [0] * 199 + [10]}, "has the label 10"),
        ({"labels": [0] * 199 + [-1]}, "has the label -1"),
    ],
)
def test_wrong_contents(changes: dict[str, Any], what: str, tmp_path: Path) -> None:
    place = write(tmp_path / "x", BY_FOLDER["cifar-10-batches-py"])
    file = _damage(place, "data_batch_2", **changes)
    assert refusal(lambda: cifar(place)) == f"{file}: {what}; {AGAIN}"


def test_truncated_and_garbage_pickles(tmp_path: Path) -> None:
    place = write(tmp_path / "x", BY_FOLDER["cifar-10-batches-py"])
    file = place / "data_batch_3"
    whole = file.read_bytes()
    for data in (b"", whole[:1000], whole[:-1], whole[:-3] + b".", b"no pickle", b"\x80\x02."):
        file.write_bytes(data)
        assert refusal(lambda: cifar(place)) == f"{file}: is a damaged pickle; {AGAIN}", data[:20]
    file.write_bytes(pickle.dumps([1], 2))
    assert refusal(lambda: cifar(place)) == f"{file}: is not a dict; {AGAIN}"
    file.write_bytes(whole * 5)
    limit = 200 * (3072 + 1000) * 2
    told = f"has {5 * len(whole):,} bytes, more than {limit:,}"
    assert refusal(lambda: cifar(place)) == f"{file}: {told}; {AGAIN}"


@pytest.mark.parametrize("names", [[], ["a"] * 10, list("abcdefghi"), [*"abcdefghi", 7], "abcdefghij"])
def test_wrong_class_names(names: Any, tmp_path: Path) -> None:
    place = write(tmp_path / "x", BY_FOLDER["cifar-10-batches-py"])
    (place / "batches.meta").write_bytes(python2({"label_names": names}))
    assert refusal(lambda: cifar(place)) == f"{place}/batches.meta: does not name 10 classes; {AGAIN}"


def test_other_folders(tmp_path: Path) -> None:
    expected = f"{tmp_path}: has neither CIFAR-10 nor CIFAR-100; unpack the published archive there"
    assert refusal(lambda: cifar(tmp_path)) == expected
    one = write(tmp_path / "cifar-10-batches-py", BY_FOLDER["cifar-10-batches-py"])
    two = write(tmp_path / "cifar-100-binary", BY_FOLDER["cifar-100-binary"])
    expected = f"{tmp_path}: has CIFAR-10 and CIFAR-100; give one of {one} and {two}"
    assert refusal(lambda: find_dataset(tmp_path)) == expected
    assert find_dataset(two).name == "CIFAR-100"


def test_pickles_that_mean_harm_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    marks = tmp_path / "marks"
    marks.mkdir()
    before = set(sys.modules)
    harmful = live(str(marks))
    assert len(harmful) > 30
    for name, data in harmful.items():
        message = refusal(lambda data=data: read_plain(data))  # type: ignore[misc]
        assert message.startswith("has contents that such a file does not need ("), (name, message)
    assert list(marks.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["marks"]
    assert set(sys.modules) == before
    assert refusal(lambda: read_plain(harmful["system"])) == "has contents that such a file does not need ('os.system')"


def test_bombs_cost_neither_memory_nor_time() -> None:
    plain = {"laughs_list", "text_as_tensor", "memo_4_gib", "deep_lists", "deep_tuples", "deep_dict", "several"}
    for name, data in bombs().items():
        if name in plain:  # which this reader can take
            read_plain(data)
            continue
        message = refusal(lambda data=data: read_plain(data))  # type: ignore[misc]
        assert len(message) < 120, name


@pytest.mark.parametrize(
    "ops",
    [
        call("_codecs:encode", "a", "hex"),
        call("_codecs:encode", 7, "latin1"),
        call("_codecs:encode"),
        call("numpy:dtype", "O", 0, 1),
        call("numpy:ndarray", (1 << 40,)),
        call("numpy.core.multiarray:_reconstruct", named("numpy:dtype"), (0,), "b"),
        Ops(named("numpy:ndarray") + push({}) + b"b"),
        Ops(push({}) + push({}) + b"b"),
        Ops(b"}" + push((1,)) + push(1) + b"s"),
        Ops(b"]" + push("key") + push(1) + b"s"),
        Ops(push("text") + push(1) + b"a"),
        Ops(
            b"}" + push("data") + call("numpy._core.multiarray:_reconstruct", named("numpy:ndarray"), (0,), "b") + b"s"
        ),
    ],
)
def test_known_names_do_nothing_else(ops: Ops) -> None:
    assert refusal(lambda: read_plain(stop(ops))) == "is a damaged pickle"


@pytest.mark.parametrize("shape", [(4,), (2, 2, 2), (-1, 8), (True, 8), ("8",), (1 << 40, 0)])
def test_arrays_are_as_long_as_they_say(shape: Any) -> None:
    dtype = call("numpy:dtype", "u1", 0, 1)
    empty = call("numpy.core.multiarray:_reconstruct", named("numpy:ndarray"), (0,), "b")
    array = Ops(empty + push((1, shape, dtype, False, _string(bytes(8)))) + b"b")
    data = stop(Ops(b"}" + push("data") + array + b"s"))
    if shape == (2, 2, 2):
        value = read_plain(data)
        assert isinstance(value, dict)
        assert value["data"].shape == shape
    else:
        assert refusal(lambda: read_plain(data)) == "is a damaged pickle"


def _harmful(ops: Ops, start: bytes = b"") -> bytes:
    return b"\x80\x02" + start + ops + b"."


def test_small_files_cannot_ask_for_much() -> None:
    """A megabyte that would take gigabytes, or minutes: texts encoded again and again, long keys, huge shapes."""
    text = _string(b"x" * 500_000) + b"q\x00"
    encode = Ops(b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * 9_000)
    told = "expands to more bytes than it has, which such a file does not need"
    assert refusal(lambda: read_plain(_harmful(Ops(b"(" + text + encode + b"t")))) == told
    keys = Ops(b"}(" + text + b"N" + b"h\x00N" * 40_000 + b"u")
    assert refusal(lambda: read_plain(_harmful(keys))) == "is a damaged pickle"
    huge = b"\x8a\xff" + b"\x7f" * 255 + b"q\x00"
    shape = Ops(b"(" + huge + b"h\x00" * 90_000 + b"t")
    dtype = call("numpy:dtype", "u1", 0, 1)
    empty = call("numpy.core.multiarray:_reconstruct", named("numpy:ndarray"), (0,), "b")
    array = Ops(empty + b"(" + push(1) + shape + dtype + push(False) + _string(b"") + b"tb")
    assert refusal(lambda: read_plain(stop(Ops(b"}" + push("data") + array + b"s")))) == "is a damaged pickle"
    told = "has more than 1,000 opcodes, which such a file does not need"
    assert refusal(lambda: read_plain(_harmful(Ops(b"](" + b"N" * 1000 + b"e")), most_opcodes=1000)) == told


def test_a_pipe_in_place_of_a_file(tmp_path: Path) -> None:
    place = write(tmp_path / "x", BY_FOLDER["cifar-10-batches-bin"])
    (place / "data_batch_3.bin").unlink()
    os.mkfifo(place / "data_batch_3.bin")
    assert refusal(lambda: cifar(place)) == f"{place}/data_batch_3.bin: is not a regular file; {AGAIN}"
