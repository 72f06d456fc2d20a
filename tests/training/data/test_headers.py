"""Looking at all images before a run: what is found, told and remembered; what a run says of those it could not use."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refusal
from runs import PLAIN, train

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.recipes import Augmentation
from fbnetv3_zoo.training import Callback, Dataset, Execution, OnBadImage, find_dataset
from fbnetv3_zoo.training.data.folder_source import FileReader
from fbnetv3_zoo.training.data.image_headers import HeaderCache, Unusable, check_images, in_one_line, look_at
from fbnetv3_zoo.weights.serialization import load

RECIPE = replace(PLAIN, epochs=2, batch_size=8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FBNETV3_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fbnetv3_zoo.training.data.image_headers._LEAST_KEPT", 1)
    return tmp_path / "cache"


def _photo(seed: int, size: tuple[int, int] = (40, 40)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(
        file, "PNG"
    )
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 12 photographs to train on, 4 each to validate and to test."""
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for n in range(count):
                (folder / f"{n}.png").write_bytes(_photo(n + 100 * (name == "dog")))
    return tmp_path / "photos"


def _damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def _found(data: Dataset, *, crop_area: float = 1.0) -> dict[str, list[str]]:
    recipe = replace(RECIPE, augmentation=Augmentation(crop_area=crop_area))
    found = check_images(data, Preprocess(32, 32), recipe)
    return {split: [image.key for image in images] for split, images in found.items()}


def test_all_that_cannot_be_used_is_found(photos: Path) -> None:
    assert _found(find_dataset(photos)) == {"train": [], "validation": [], "test": []}
    for name in ("train/cat/3.png", "train/dog/11.png", "test/dog/0.png"):
        _damage(photos / name)
    (photos / "val/cat/1.png").write_bytes(b"<html>")
    (photos / "val/dog/2.png").write_bytes(_photo(1, (1, 200_000)))
    (photos / "train/dog/2.png").write_bytes(_photo(1, (1, 200_000)))
    found = _found(find_dataset(photos))
    assert sorted(found["train"]) == ["train/cat/3.png", "train/dog/11.png", "train/dog/2.png"]
    assert sorted(found["validation"]) == ["val/cat/1.png", "val/dog/2.png"]
    assert found["test"] == ["test/dog/0.png"]
    cropped = _found(find_dataset(photos), crop_area=0.3)  # a random crop is resized, whatever its shape
    assert "train/dog/2.png" not in cropped["train"]


def test_what_is_sound_is_remembered_until_it_changes(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    plain = FileReader.open
    monkeypatch.setattr(FileReader, "open", lambda self: opened.append(self.name) or plain(self))
    _damage(photos / "val/cat/1.png")
    first = _found(find_dataset(photos))
    assert len(opened) == 40
    opened.clear()
    assert _found(find_dataset(photos)) == first
    assert opened == ["val/cat/1.png"]  # what cannot be used is looked at again
    os.utime(photos / "train/cat/0.png", ns=(1, 1))
    (photos / "train/cat/1.png").write_bytes(_photo(7, (50, 60)))
    opened.clear()
    _found(find_dataset(photos))
    assert sorted(opened) == ["train/cat/0.png", "train/cat/1.png", "val/cat/1.png"]


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"nonsense", None])
def test_a_damaged_memory_is_made_anew(content: bytes | None, photos: Path) -> None:
    readers = [FileReader(str(photos), f"val/cat/{n}.png") for n in range(4)]
    assert [*look_at(readers, photos)] == [(40, 40)] * 4
    memory = HeaderCache(photos).file
    if content is None:
        np.save(memory, np.ones((3, 2), np.uint64))
    else:
        memory.write_bytes(content)
    assert [*look_at(readers, photos)] == [(40, 40)] * 4
    assert np.load(memory).shape == (4, 2)


def test_a_cache_that_takes_nothing_is_no_error(photos: Path, cache: Path) -> None:
    cache.write_bytes(b"a file in the place of the folder")
    assert [*look_at([FileReader(str(photos), "val/cat/0.png")], photos)] == [(40, 40)]


def test_images_of_shards_are_looked_at_where_they_lie(tmp_path: Path) -> None:
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"x-{split}-0.tar", "w") as tar:
            for n in range(4):
                picture = b"none" if (split, n) == ("val", 2) else _photo(n, (40, 30 + n))
                for ending, data in (("png", picture), ("cls", str(n % 2).encode())):
                    member = tarfile.TarInfo(f"{n}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    data = find_dataset(tmp_path)
    sizes = [*look_at((example.read for example in data["train"]), tmp_path)]
    assert sizes == [(40, 30), (40, 31), (40, 32), (40, 33)]
    assert _found(data) == {"train": [], "validation": ["x-val-0.tar/2.png"], "test": []}


def test_many_images_in_order_and_never_far_ahead(photos: Path) -> None:
    """Whoever asks sets the pace, so that millions need no list."""
    given = 0

    def readers() -> Iterator[FileReader]:
        nonlocal given
        for n in range(30_000):
            given += 1
            yield FileReader(str(photos), f"val/{('cat', 'gone')[n % 2]}/0.png")

    sizes = look_at(readers(), photos)
    assert next(sizes) == (40, 40)
    assert given < 10_000
    rest = [*sizes]
    assert len(rest) == 29_999
    assert all(isinstance(size, tuple) == bool(n % 2) for n, size in enumerate(rest))


def test_lines_name_five_and_count_the_others() -> None:
    images = [Unusable(f"{n}.png", f"{n}.png: is bad") for n in range(7)]
    assert in_one_line(images[:1]) == "0.png: is bad"
    assert in_one_line(images, name=lambda image: image.key) == "0.png; 1.png; 2.png; 3.png; 4.png; and 2 more"


# --- in a run ---


class Looking(Callback):
    """Keeps what it is told of the look at the images."""

    def __init__(self) -> None:
        self.looked: list[tuple[int, int]] = []

    def on_look(self, done: int, total: int) -> None:
        self.looked.append((done, total))


def test_a_run_that_cannot_use_its_images_ends_before_it_begins(photos: Path, tiny_arch: Arch, tmp_path: Path) -> None:
    """All at once, of all splits; nothing is left of it."""
    _damage(photos / "test/dog/3.png")
    looking = Looking()
    told = refusal(lambda: train(tiny_arch, find_dataset(photos), RECIPE, tmp_path / "run", callbacks=[looking]))
    assert told.startswith(f"{photos}/test/dog/3.png: cannot be read as an image (")
    assert told.endswith("); with --on-bad-image skip (on_bad_image=OnBadImage.SKIP) they are left out and counted")
    assert looking.looked[-1] == (40, 40)
    for n in range(8):
        _damage(photos / f"train/cat/{n}.png")
    told = refusal(lambda: train(tiny_arch, find_dataset(photos), RECIPE, tmp_path / "run"))
    assert told.startswith("9 images cannot be used: ")
    assert "; and 4 more; with --on-bad-image skip" in told
    assert not [*(tmp_path / "run").glob("*.safetensors")]


def test_a_split_of_which_nothing_is_left_ends_the_run(photos: Path, tiny_arch: Arch, tmp_path: Path) -> None:
    for path in photos.glob("val/*/*"):
        _damage(path)
    skip = Execution(on_bad_image=OnBadImage.SKIP)
    told = refusal(lambda: train(tiny_arch, find_dataset(photos), RECIPE, tmp_path / "run", execution=skip))
    assert told.startswith("none of the 8 validation images can be used: ")


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_images_left_out_are_counted_once_each_and_named(
    check: bool, workers: int, photos: Path, tiny_arch: Arch, tmp_path: Path
) -> None:
    """However often they were tried: by every process that prepares images, in every epoch, by repeats."""
    bad = [f"train/cat/{n}.png" for n in (0, 1, 2)] + ["train/dog/5.png"]
    for name in (*bad, "test/cat/1.png", "val/dog/1.png"):
        _damage(photos / name)
    recipe = replace(RECIPE, augmentation=Augmentation(repeats=3))
    execution = Execution(on_bad_image=OnBadImage.SKIP, check_images=check, workers=workers)
    run = train(tiny_arch, find_dataset(photos), recipe, tmp_path / "run", execution=execution, report=True)
    assert set(run.bad_images) >= {"test/cat/1.png"}
    assert set(run.bad_images) <= {*bad, "test/cat/1.png", "val/dog/1.png"}
    if check:
        assert set(run.bad_images) == {*bad, "test/cat/1.png", "val/dog/1.png"}
    assert all(epoch.skipped <= len(bad) for epoch in run.epochs)
    assert max(epoch.skipped for epoch in run.epochs) > 0
    told = [json.loads(line)["skipped"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert told == [epoch.skipped for epoch in run.epochs]
    assert "test/cat/1.png" in (tmp_path / "run" / "report.html").read_text()


def test_looking_changes_nothing_of_what_is_learned(photos: Path, tiny_arch: Arch, tmp_path: Path) -> None:
    _damage(photos / "train/cat/1.png")
    weights = []
    for check in (True, False):
        execution = Execution(on_bad_image=OnBadImage.SKIP, check_images=check)
        run = train(tiny_arch, find_dataset(photos), RECIPE, tmp_path / str(check), execution=execution)
        weights.append({name: value.tolist() for name, value in run.model.state_dict().items()})
    assert weights[0] == weights[1]


def test_the_result_is_saved_before_it_is_measured(photos: Path, tiny_arch: Arch, tmp_path: Path) -> None:
    _damage(photos / "test/cat/1.png")
    run = tmp_path / "run"
    blind = Execution(check_images=False)
    told = refusal(lambda: train(tiny_arch, find_dataset(photos), RECIPE, run, execution=blind))
    assert told.startswith(f"{photos}/test/cat/1.png: ")
    assert told.endswith(f"; training itself has ended, its result is {run / 'model.safetensors'}")
    assert load(run / "model.safetensors").num_classes == 2
    (photos / "test/cat/1.png").write_bytes(_photo(1))
    assert (
        train(tiny_arch, find_dataset(photos), RECIPE, run, resume=True, execution=blind, report=True).test is not None
    )
    assert (run / "report.html").exists()


def test_what_a_resumed_run_lacks_is_made_again(photos: Path, tiny_arch: Arch, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_arch, find_dataset(photos), RECIPE, run)
    for name in ("best.safetensors", "model.safetensors"):
        (run / name).unlink()
    train(tiny_arch, find_dataset(photos), RECIPE, run, resume=True)
    assert load(run / "best.safetensors").num_classes == load(run / "model.safetensors").num_classes == 2


def test_a_thin_image_is_named_by_training_that_did_not_look(photos: Path, tiny_arch: Arch, tmp_path: Path) -> None:
    (photos / "train/cat/0.png").write_bytes(_photo(1, (1, 200_000)))
    blind = Execution(check_images=False)
    told = refusal(lambda: train(tiny_arch, find_dataset(photos), RECIPE, tmp_path / "run", execution=blind))
    assert told.startswith("train/cat/0.png: an image of 1 x 200000 pixels is ")


# --- batches that there are, and results that are none ---


def test_the_rate_is_that_of_the_batch_that_is_run(
    photos: Path, tiny_arch: Arch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """24 images cannot fill a batch of 1024."""
    large = replace(RECIPE, epochs=1, batch_size=1024, learning_rate=1.6, ema_decay=0.5**24)
    run = train(tiny_arch, find_dataset(photos), large, tmp_path / "large")
    assert run.epochs[0].learning_rate == pytest.approx(1.6 * 24 / 1024)
    assert caplog.messages[0] == (
        "24 training images are fewer than a batch of 1,024: using batches of 24, and the recipe's learning rate "
        "of 1.6 becomes 0.0375"
    )
    fitting = replace(large, batch_size=24, learning_rate=1.6 * 24 / 1024, ema_decay=(0.5**24) ** (24 / 1024))
    same = train(tiny_arch, find_dataset(photos), fitting, tmp_path / "fitting")
    for name, value in same.model.state_dict().items():
        assert value.equal(run.model.state_dict()[name])
    assert sum("fewer than a batch" in message for message in caplog.messages) == 1


def test_a_result_no_better_than_chance_says_so(photos: Path, tiny_arch: Arch, tmp_path: Path) -> None:
    """Photographs of noise: there is nothing to learn."""
    run = train(tiny_arch, find_dataset(photos), replace(RECIPE, epochs=1), tmp_path / "run", report=True)
    assert run.test is not None
    assert run.warning == (
        f"test accuracy {run.test.fraction:.2%} is no better than chance (always answering 'cat' is right for 50.00%); "
        "train longer, or at another learning rate than 0.05"
    )
    assert "no better than chance" in (tmp_path / "run" / "report.html").read_text()


def test_a_loss_that_exploded_is_an_error(photos: Path, tiny_arch: Arch, tmp_path: Path) -> None:
    """In the only step, after which no other tells of it; no model is left that looks like a result."""
    wild = replace(RECIPE, epochs=1, batch_size=24, learning_rate=1e5, warmup_epochs=0)
    told = refusal(lambda: train(tiny_arch, find_dataset(photos), wild, tmp_path / "run"))
    assert told.startswith("validation loss is ")
    assert told.endswith("; lower learning_rate (100000)")
    assert not (tmp_path / "run" / "model.safetensors").exists()
