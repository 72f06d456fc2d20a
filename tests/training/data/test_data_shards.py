"""Shards: samples from headers alone, every image within reach, whatever is wrong said by name."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from pictures import KINDS, picture, samples, tar
from PIL import Image
from refusals import refusal

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.training.data import SPLITS, Dataset, Examples, find_dataset, shards
from fbnetv3_zoo.training.data.shards import OpenFiles
from fbnetv3_zoo.training.data.tar_samples import SampleFaults, samples_in


def _contents(data: Dataset) -> dict[str, tuple[bytes, int]]:
    return {e.key: (e.read().convert("RGB").tobytes(), e.label) for split in SPLITS for e in data[split]}


def _pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


def test_split_by_seed(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    tar(root / "a.tar", samples(0, 30))
    tar(root / "b.tar", samples(30, 30))
    data = find_dataset(root)
    assert (data.name, data.class_names) == ("mine", ("0", "1", "2"))
    assert {split: len(data[split]) for split in SPLITS} == {"train": 36, "validation": 12, "test": 12}
    assert _contents(data) == {f"{'ab'[n // 30]}.tar/{n:04d}.png": (_pixels(picture(n)), n % 3) for n in range(60)}
    assert shards(root).fingerprint == data.fingerprint != shards(root, seed=1).fingerprint
    assert find_dataset(root, seed=1).fingerprint == shards(root, seed=1).fingerprint


@pytest.mark.parametrize(
    ("names", "validation"),
    [
        (("train/0.tar", "train/1.tar", "val/0.tar", "test/0.tar"), "val/0.tar"),
        (("train/0.tar", "train/1.tar", "validation/0.tar", "test/0.tar"), "validation/0.tar"),
        (("in1k-train-0.tar", "in1k-train-1.tar", "in1k-validation-0.tar", "in1k-test-0.tar"), "in1k-validation-0.tar"),
        (("train_0.TAR", "train_1.tar", "val.tar", "Test.0.tar"), "val.tar"),
    ],
)
def test_given_splits(names: tuple[str, ...], validation: str, tmp_path: Path) -> None:
    for n, name in enumerate(names):
        tar(tmp_path / name, samples(10 * n, 10))
    data = find_dataset(tmp_path, seed=5)
    assert [example.key for example in data["train"]] == [
        f"{name}/{n:04d}.png" for n, name in [(n, names[n // 10]) for n in range(20)]
    ]
    assert {example.key.rpartition("/")[0] for example in data["validation"]} == {validation}
    assert [example.label for example in data["test"]] == [n % 3 for n in range(30, 40)]


def test_without_test_shards_the_split_is_empty(tmp_path: Path) -> None:
    tar(tmp_path / "train.tar", samples(0, 6))
    tar(tmp_path / "val.tar", samples(6, 3))
    assert len(shards(tmp_path)["test"]) == 0


def test_kinds_of_samples(tmp_path: Path) -> None:
    """Five kinds of image, labels in text and in JSON, folders, long names, hidden files, other files beside."""
    long = "n01440764/" + "x" * 150
    files: dict[str, bytes] = {"._0.png": b"what macOS leaves"}
    labels = {}
    for n, extension in enumerate(KINDS):
        name = f"{long}{n}"
        files[f"{name}.{extension.upper() if n == 0 else extension}"] = picture(n, extension)
        files[f"{name}.seg.png"] = b"another extension"
        if n % 2:
            files[f"{name}.json"] = json.dumps({"filename": "x", "label": n}).encode()
        else:
            files[f"{name}.cls"] = str(n).encode()
            files[f"{name}.json"] = b'{"label": 99}'  # the text counts
        labels[f"train.tar/{name}.{extension}"] = n
    tar(tmp_path / "train.tar", files)
    tar(tmp_path / "val.tar", samples(0, 5, classes=5), tarfile.GNU_FORMAT)
    data = shards(tmp_path)
    assert {example.key: example.label for example in data["train"]} == labels
    for n, example in enumerate(data["train"]):
        assert example.read().convert("RGB").tobytes() == _pixels(picture(n, list(KINDS)[n]))


def test_classes_have_names(tmp_path: Path) -> None:
    tar(tmp_path / "train.tar", samples(0, 6))
    tar(tmp_path / "val.tar", samples(0, 3))
    listed = tmp_path / "classes.txt"
    listed.write_text("tench\ngold fish\nshark\nray\n")
    assert shards(tmp_path).class_names == ("tench", "gold fish", "shark", "ray")
    wrong = f"{listed}: must have at least 2 names, one per line, without blank lines and repetitions"
    for text in ("", "one\n", "one\n\ntwo\n"):
        listed.write_text(text)
        assert refusal(lambda: shards(tmp_path)) == wrong
    listed.write_text("one\ntwo\none\n")
    assert refusal(lambda: shards(tmp_path)) == f"{wrong} ('one')"
    listed.write_text("tench\nfish\n")
    assert refusal(lambda: shards(tmp_path)) == (
        f"{tmp_path}: 3 samples have labels that are too large; labels are 0 to 1 by classes.txt: 'train.tar/0002', "
        f"'train.tar/0005', 'val.tar/0002'"
    )
    listed.write_bytes(b"caf\xe9\nbar\n")
    assert refusal(lambda: shards(tmp_path)) == f"{listed}: cannot be read (is not UTF-8 text)"


def test_a_least_size_reaches_the_decoder(tmp_path: Path) -> None:
    tar(tmp_path / "train.tar", {"0.jpg": picture(0, "jpg", 64), "0.cls": b"0"})
    tar(tmp_path / "val.tar", {"0.jpg": picture(0, "jpg", 64), "0.cls": b"1"})
    (example,) = shards(tmp_path)["train"]
    assert example.read(lambda size: (16, 16)).size == (16, 16)
    assert example.read(at_least=None).size == (64, 64)


# --- reading ---


def _two(root: Path) -> Dataset:
    tar(root / "train.tar", samples(0, 6))
    tar(root / "val.tar", samples(6, 3))
    return shards(root)


def test_the_index_does_not_read_images(tmp_path: Path) -> None:
    """Bytes read, as Linux counts them, are those of headers and labels."""
    files = {}
    for n in range(50):
        files[f"{n}.png"] = picture(n) + bytes(200_000)
        files[f"{n}.cls"] = b"%d" % (n % 2)
    tar(tmp_path / "train.tar", files)
    tar(tmp_path / "val.tar", samples(0, 2))

    def count() -> int:
        lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(lines["rchar"])

    before = count()
    data = shards(tmp_path)
    assert count() - before < 104 * 512 + 52 * 8 + 104 + 3 * 10_240 + 20_000
    assert len(data["train"]) == 50


def test_the_index_forgets_headers(tmp_path: Path) -> None:
    whole = samples(0, 1)
    many = {f"{n:05d}{name[4:]}": data for n in range(3000) for name, data in whole.items()}
    path = tar(tmp_path / "x.tar", many)
    tracemalloc.start()
    try:
        assert sum(1 for _ in samples_in(tmp_path, path.name, None, SampleFaults(tmp_path))) == 3000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_500_000


def test_examples_go_to_other_processes(tmp_path: Path) -> None:
    data = _two(tmp_path)
    first = data["train"][0].read().tobytes()
    copy = pickle.loads(pickle.dumps(data["train"]))
    assert isinstance(copy, Examples)
    assert [example.key for example in copy] == [example.key for example in data["train"]]
    assert copy[0].read().tobytes() == first
    example = pickle.loads(pickle.dumps(data["train"][2]))
    assert example.read().tobytes() == data["train"][2].read().tobytes()


def test_files_stay_open_but_not_too_many(tmp_path: Path) -> None:
    files = OpenFiles()
    for n in range(250):
        (tmp_path / str(n)).write_bytes(bytes([n]) * 10)
    opened = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for n in range(250):
            assert files.read(str(tmp_path / str(n)), 3, 4) == bytes([n]) * 4
    assert len(os.listdir("/proc/self/fd")) - opened == 200
    assert files.read(str(tmp_path / "7"), 8, 4) == bytes([7]) * 2
    del files
    assert len(os.listdir("/proc/self/fd")) == opened


def test_reading_goes_on_until_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system may give less at a time than it is asked for."""
    data = _two(tmp_path)
    whole = data["train"][0].read().tobytes()
    pread = os.pread
    monkeypatch.setattr("os.pread", lambda file, size, offset: pread(file, min(size, 100), offset))
    assert data["train"][0].read().tobytes() == whole


def test_a_shard_that_changes_under_us(tmp_path: Path) -> None:
    data = _two(tmp_path)
    path, last = tmp_path / "train.tar", data["train"][5]
    whole = path.read_bytes()
    os.truncate(path, 512)
    name = f"{path}/0005.png"
    assert refusal(last.read) == f"{name}: the tar file is shorter than when it was indexed; get it again"
    path.write_bytes(bytes(len(whole)))
    assert refusal(last.read).startswith(f"{name}: cannot be read as an image (")
    path.unlink()
    assert refusal(pickle.loads(pickle.dumps(last)).read) == f"{name}: cannot be read (No such file or directory)"
    path.mkdir()
    assert refusal(pickle.loads(pickle.dumps(last)).read) == f"{name}: cannot be read (Is a directory)"


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    tar(tmp_path / "train.tar", {**samples(0, 4), "bad.png": picture(1)[:100], "bad.cls": b"1"})
    tar(tmp_path / "val.tar", samples(0, 3))
    *_, bad = shards(tmp_path)["train"]
    assert bad.key == "train.tar/bad.png"
    assert refusal(bad.read) == f"{tmp_path}/train.tar/bad.png: cannot be read as an image (image file is truncated)"


# --- what is refused ---


def _first(path: Path, files: Mapping[str, bytes]) -> str:
    """What is said of a first shard of these files, after its name."""
    tar(path / "train.tar", files)
    tar(path / "val.tar", samples(0, 3))
    text = refusal(lambda: shards(path))
    assert text.startswith(f"{path}/train.tar: ")
    return text.removeprefix(f"{path}/train.tar: ")


IMAGE = picture(0)
NEEDS = "it needs one, such as a jpg, png or webp file"
NO_NUMBER = "sample 'a' has a label that is not a whole number; write one from 0 on"


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"a.png": IMAGE}, "sample 'a' has no label; it needs a cls or json file"),
        ({"a.cls": b"0"}, f"sample 'a' has no image; {NEEDS}"),
        (
            {"x/a.png": IMAGE, "y/a.cls": b"0"},
            f"sample 'x/a' has no label; it needs a cls or json file; sample 'y/a' has no image; {NEEDS}",
        ),
        ({"a.png": IMAGE, "a.jpg": IMAGE, "a.cls": b"0"}, f"sample 'a' has 2 images; {NEEDS}"),
        ({"a.png": IMAGE, "a.PNG": IMAGE, "a.cls": b"0"}, "has two samples 'a'; give them different names"),
        (
            {"a.png": IMAGE, "a.cls": b"0", "b.png": IMAGE, "b.cls": b"0", "a.jpg": IMAGE, "a.json": b"0"},
            "has two samples 'a'; give them different names",
        ),
        ({"a.png": IMAGE, "a.cls": b"cat"}, NO_NUMBER),
        ({"a.png": IMAGE, "a.cls": b""}, NO_NUMBER),
        ({"a.png": IMAGE, "a.cls": b"-1"}, NO_NUMBER),
        ({"a.png": IMAGE, "a.cls": b"1.0"}, NO_NUMBER),
        ({"a.png": IMAGE, "a.cls": b"9" * 5000}, NO_NUMBER),
        ({"a.png": IMAGE, "a.json": b"{"}, NO_NUMBER),
        ({"a.png": IMAGE, "a.json": b"[" * 100_000}, NO_NUMBER),
        ({"a.png": IMAGE, "a.json": b"3"}, NO_NUMBER),
        ({"a.png": IMAGE, "a.json": b'{"class": 3}'}, NO_NUMBER),
        ({"a.png": IMAGE, "a.json": b'{"label": true}'}, NO_NUMBER),
        ({"a.png": IMAGE, "a.json": b'{"label": -1}'}, NO_NUMBER),
        ({"a.png": IMAGE, "a.cls": b"100000"}, "sample 'a' has label 100000; labels go up to 99999"),
    ],
)
def test_wrong_samples(files: dict[str, bytes], what: str, tmp_path: Path) -> None:
    assert _first(tmp_path, files) == what


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_are_refused(kind: bytes, tmp_path: Path) -> None:
    _two(tmp_path)
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        entry = tarfile.TarInfo("a.png")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    expected = f"{tmp_path}/train.tar: 'a.png' is a link or not a regular file; pack the files themselves"
    assert refusal(lambda: shards(tmp_path)) == expected


def _rewritten(path: Path, change: Callable[[bytes], bytes]) -> str:
    """What is said of ``train.tar`` after ``change`` of its bytes."""
    _two(path)
    file = path / "train.tar"
    file.write_bytes(change(file.read_bytes()))
    text = refusal(lambda: find_dataset(path))
    assert text.startswith(f"{file}: ")
    return text.removeprefix(f"{file}: ")


COMPRESSED = "is compressed; decompress it to a plain tar file, which allows random access"
MORE = "it is damaged or several tar files in one, get it again"


def test_compressed_shards_are_refused(tmp_path: Path) -> None:
    assert _rewritten(tmp_path / "a", gzip.compress) == COMPRESSED
    assert _rewritten(tmp_path / "b", lambda data: b"\x28\xb5\x2f\xfd" + data) == COMPRESSED
    tar(tmp_path / "c" / "x.tar", {})
    (tmp_path / "c" / "x.tar").rename(tmp_path / "c" / "train-0.tar.gz")
    (tmp_path / "c" / "train-0.tar.gz").write_bytes(gzip.compress(b"x"))
    (tmp_path / "c" / "val-0.tar.gz").write_bytes(gzip.compress(b"x"))
    assert refusal(lambda: find_dataset(tmp_path / "c")) == f"{tmp_path}/c/train-0.tar.gz: {COMPRESSED}"


def test_truncated_shards_are_refused(tmp_path: Path) -> None:
    """Wherever a tar file is cut, from nothing left to the last block of its end missing."""
    whole = tar(tmp_path / "whole.tar", samples(0, 6)).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # the first block of the end
    told = set()
    for n, size in enumerate((0, 1, 511, 512, 513, 800, 1024, 1500, 2048, end - 512, end - 1, end, end + 511)):
        said = _rewritten(tmp_path / str(n), lambda data, size=size: data[:size])  # type: ignore[misc]
        assert said.endswith("; get it again"), (size, said)
        told.add(said)
    assert "is cut off; get it again" in told
    assert "ends within '0000.png'; get it again" in told
    assert "cannot be read as a tar file (empty file); get it again" in told
    (tmp_path / "last").mkdir()
    _two(tmp_path / "last")
    (tmp_path / "last" / "train.tar").write_bytes(whole[: end + 512])
    assert len(shards(tmp_path / "last")["train"]) == 6


def test_damaged_headers_are_refused(tmp_path: Path) -> None:
    where = samples(0, 6)
    second = 512 + -(-len(where["0000.png"]) // 512) * 512
    assert _rewritten(tmp_path / "a", lambda data: bytes([data[0] ^ 1]) + data[1:]) == (
        "cannot be read as a tar file (bad checksum); get it again"
    )
    assert _rewritten(tmp_path / "b", lambda data: data[:second] + b"\xff" + data[second + 1 :]) == (
        f"has data after its end at byte {second:,}; {MORE}"
    )
    assert _rewritten(tmp_path / "c", lambda data: data[:second] + bytes(512) + data[second + 512 :]) == (
        f"has data after its end at byte {second:,}; {MORE}"
    )
    twice = _rewritten(tmp_path / "d", lambda data: data + data)
    assert twice.startswith("has data after its end at byte ")
    assert twice.endswith(MORE)
    absurd = tarfile.TarInfo("a")
    absurd.size, absurd.type = 1 << 30, tarfile.XHDTYPE
    text = _rewritten(tmp_path / "e", lambda data: absurd.tobuf(tarfile.PAX_FORMAT) + data)
    assert text == "has an extended header of 1,073,741,824 bytes; it is damaged, get it again"


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_to_headers_ends_in_an_error_or_in_the_same_index(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    whole = tar(tmp_path / "train.tar", samples(0, 8)).read_bytes()
    tar(tmp_path / "val.tar", samples(0, 3))
    good = [(example.key, example.label) for example in shards(tmp_path)["train"]]
    for _ in range(150):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole), 3) // 512 * 512 + rng.integers(0, 512, 3):
            changed[at] = rng.integers(256)
        (tmp_path / "train.tar").write_bytes(changed)
        try:
            found = [(example.key, example.label) for example in shards(tmp_path)["train"]]
        except ZooError:
            continue
        assert [key for key, _ in found] == [key for key, _ in good]


def test_folders_of_shards_that_do_not_fit(tmp_path: Path) -> None:
    def said(*names: str) -> str:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for n, name in enumerate(names):
            tar(root / name, samples(10 * n, 10))
        return refusal(lambda: find_dataset(root)).removeprefix(str(root))

    assert said("train-0.tar", "other.tar") == (
        "/other.tar: its name has no split, unlike others here; put train, val or test into it"
    )
    assert said("train-0.tar", "other.tar", "more.tar") == (
        ": the names of 2 tar files (more.tar, other.tar) have no split, unlike others here; put train, val or test "
        "into it"
    )
    assert said("train-val-0.tar") == "/train-val-0.tar: names two splits, train and validation; leave one in its name"
    expected = ": has two folders for the validation split; keep one of them there"
    assert said("train/0.tar", "val/0.tar", "valid/0.tar") == expected
    root = tmp_path / "without"
    tar(root / "train" / "0.tar", samples(0, 10))
    (root / "val").mkdir()
    assert refusal(lambda: shards(root)) == f"{root}: has a split folder without tar files"
    tar(root / "val" / "0.tar", {})
    assert refusal(lambda: shards(root)) == f"{root}/val/0.tar: has no samples, like all tar files of its split"


def test_too_few_classes_or_images(tmp_path: Path) -> None:
    tar(tmp_path / "a" / "x.tar", samples(0, 10, classes=1))
    assert refusal(lambda: shards(tmp_path / "a")) == f"{tmp_path}/a: needs at least 2 classes, has 1"
    tar(tmp_path / "b" / "x.tar", samples(0, 8))
    fault = "has 2 different images; at least 3 are needed, one per split: add some, or leave the class out"
    expected = f"{tmp_path}/b: class '2': {fault}"
    assert refusal(lambda: shards(tmp_path / "b")) == expected


def test_tar_files_beside_folders_are_left_alone(tmp_path: Path) -> None:
    """Who unpacked ImageNet may have kept what it came in."""
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "1.png").write_bytes(picture(1))
        (tmp_path / split / "n01.tar").write_bytes(b"")
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(b"")
    assert find_dataset(tmp_path).class_names == ("n01", "n02")
