"""The file of a drawn dataset: what it holds, that it is loaded as any other data, and which files are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import fitted
from refusals import refusal
from safetensors.numpy import load_file
from shell import run, succeed

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.recipes import RECIPES
from fbnetv3_zoo.training import find_dataset, train
from fbnetv3_zoo.training.data import SPLITS, choose_subset, digits
from fbnetv3_zoo.training.data.dataset import data_difference
from fbnetv3_zoo.training.data.rendered import DatasetFile
from fbnetv3_zoo.training.data.rendered import dataset_file as module
from fbnetv3_zoo.weights.serialization import save


def _file(seed: int = 0, *, color: bool = False, count: int = 240) -> DatasetFile:
    """Two classes, a bright upper or a bright lower half, in three groups."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.integers(60, size=(count, 32, 32), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[16 * label : 16 * label + 16] += 150
    images = np.repeat(images[..., None], 3, -1) if color else images
    mean, std = module.statistics(images)
    train, held_out = count - 2 * (count // 6), count // 6
    return DatasetFile(
        "halves", ("upper", "lower"), ("x", "y", "z"), mean, std, images, labels,
        np.repeat([0, 1, 2], [train, held_out, held_out]), (train, held_out, held_out),
        tuple(f"half {n}" for n in range(count)), json.dumps({"seed": seed}),
    )  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "halves.safetensors"
    _file().save(path)
    return path


@pytest.mark.parametrize("color", [False, True])
def test_what_is_saved_is_loaded(tmp_path: Path, *, color: bool) -> None:
    made, path = _file(color=color), tmp_path / "a.safetensors"
    made.save(path)
    data = find_dataset(path)
    assert (data.name, data.class_names, data.mean, data.std) == ("halves", made.class_names, made.mean, made.std)
    assert {split: len(data[split]) for split in SPLITS} == {"train": 160, "validation": 40, "test": 40}
    row = 0
    for split in SPLITS:
        for example in data[split]:
            assert (np.asarray(example.read()) == made.images[row]).all()
            assert (example.label, example.key) == (row % 2, f"half {row}")
            row += 1
    assert DatasetFile.load(path).provenance == '{"seed": 0}'
    made.save(tmp_path / "b.safetensors")
    assert path.read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_seed_of_a_search_does_not_split_it(path: Path) -> None:
    assert find_dataset(path, seed=3).fingerprint == find_dataset(path, seed=None).fingerprint


def test_other_pixels_are_other_data(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    _file(1).save(other)
    one, two = find_dataset(path).fingerprint, find_dataset(other).fingerprint
    assert data_difference(one, two) == "stored images: 240 then, as many others now"
    assert data_difference(one, one) == ""


def test_networks_are_trained_on_it(path: Path, tiny_arch: Arch, tmp_path: Path) -> None:
    recipe = replace(RECIPES["digits"], epochs=1, batch_size=32)
    done = train(replace(tiny_arch, num_classes=2), find_dataset(path), recipe, tmp_path / "run")
    assert (len(done.epochs), done.test and done.test.total) == (1, 40)
    other = tmp_path / "other.safetensors"
    _file(1).save(other)
    told = refusal(lambda: train(done.model.arch, find_dataset(other), recipe, tmp_path / "run", resume=True))
    assert "stored images: 240 then, as many others now" in told


def test_commands_take_it(path: Path, tiny_arch: Arch, tmp_path: Path) -> None:
    (tmp_path / "arch.json").write_text(replace(tiny_arch, num_classes=2).to_json())
    common = ("--epochs", 1, "--batch-size", 32)
    run_ = tmp_path / "run"
    ended = run("train", path, "--model", tmp_path / "arch.json", *common, "--output", run_)
    assert ended.code == 0, ended.err
    told = json.loads(succeed("validate", run_ / "model.safetensors", path, "--json"))
    assert (told["split"], told["images"]) == ("test", 240)
    ended = run("distil", path, "--models", tmp_path / "arch.json", *common, "--output", tmp_path / "family")
    assert ended.code == 0, ended.err
    told = json.loads(succeed("subset", path, "--classes", 2, "--held-out", 6, "--json", "--output", tmp_path / "s"))
    assert told["validation"] == 6
    subset = find_dataset(path, subset=tmp_path / "s")
    assert {split: len(subset[split]) for split in SPLITS} == {"train": 154, "validation": 6, "test": 40}
    assert choose_subset(find_dataset(path), classes=2, held_out=6).data == "halves"


def test_candidates_of_a_search_are_trained_on_it(path: Path) -> None:
    from fbnetv3_zoo.search import SPACES
    from fbnetv3_zoo.search.evaluation import TrainingEvaluator

    space = SPACES["tiny"]
    candidate = space.candidate(space.sample(1, np.random.default_rng(0))[0])
    evaluator = TrainingEvaluator(str(path))
    evaluator.look()
    (score,) = evaluator(candidate, 1)
    assert 0 <= score <= 1


def test_models_and_data_are_not_confused(path: Path, tiny_arch: Arch, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    save(fitted(tiny_arch), model)
    told = f"{model}: is a model, not a data set; `fbnetv3 data` writes such files"
    assert refusal(lambda: find_dataset(model)) == told
    told = f"error: {path}: is a data set, not a model; `fbnetv3 train` and every --data take it\n"
    for call in (("validate", path, "digits"), ("info", path), ("export", "onnx", path), ("benchmark", path),
                 ("train", "digits", "--weights", path, "--output", tmp_path / "run")):  # fmt: skip
        assert run(*call).err == told, call


def test_a_damaged_file_is_refused(path: Path, tmp_path: Path) -> None:
    data, place = path.read_bytes(), tmp_path / "damaged.safetensors"
    for at in (len(data) // 2, len(data) - 3):
        place.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert refusal(lambda: find_dataset(place)).startswith(f"{place}: is damaged (its contents do not fit the ")
    for content, told in ((b"", "cannot be read as a data set"), (data[:-1], "cannot be read as a data set")):
        place.write_bytes(content)
        assert refusal(lambda: find_dataset(place)).startswith(f"{place}: {told} (")
    assert refusal(lambda: find_dataset(tmp_path / "none.safetensors")) == f"{tmp_path}/none.safetensors: no such file"


def _others(value: str) -> str:
    return json.dumps([*json.loads(value)[:-1], "\x1b"])


HOSTILE: tuple[tuple[str, Any, str], ...] = (
    ("images", lambda a: a[..., None], "its images are of shape (240, 32, 32, 1) and type uint8"),
    ("images", lambda a: a.astype(np.uint16), "its images are of shape (240, 32, 32) and type uint16"),
    ("images", lambda a: a[:0], "its images are of shape (0, 32, 32) and type uint8"),
    ("images", lambda a: a.reshape(15, 16, 32 * 32), None),
    ("images", lambda a: a.reshape(240, 1, 1024), None),
    ("images", lambda a: a.reshape(120, 1, 2048), "its images are of shape (120, 1, 2048) and type uint8"),
    ("images", lambda a: a.reshape(-1, 1, 1)[:100], "it has 240 keys for 100 images"),
    ("images", lambda a: np.empty((10**15, 0, 3), np.uint8), "its images are of shape (1000000000000000, 0, 3)"),
    ("labels", lambda a: a[:-1], "its labels are of shape (239,), not (240,)"),
    ("labels", lambda a: a + 1, "its labels are from 1 to 2, not from 0 to 1"),
    ("labels", lambda a: a.astype(np.int64) - 1, "its labels are from -1 to 0, not from 0 to 1"),
    ("labels", lambda a: a.astype(np.uint64) + (1 << 63), "its labels are from 9223372036854775808 to 92233720368547"),
    ("groups", lambda a: a * 2, "its groups are from 0 to 4, not from 0 to 2"),
    ("groups", lambda a: np.roll(a, -1), "'y' is in its splits train and validation"),
    ("groups", lambda a: a * 0, "'x' is in its splits train and validation"),
    ("sizes", lambda a: a + 1, "its splits are of (161, 41, 41) images, of 240 in all"),
    ("sizes", lambda a: a + np.array([81, -80, -1]), "its splits are of (241, -40, 39) images, of 240 in all"),
    ("sizes", lambda a: a[:2], "its sizes of splits are of shape (2,), not (3,)"),
    ("keys", lambda a: a[:-1], "it has 239 keys for 240 images"),
    ("keys", lambda a: a * 0 + 10, "it has 2,050 keys for 240 images"),
    ("keys", lambda a: np.where(a == ord("1"), ord("2"), a), "it has an image name twice"),
    ("keys", lambda a: np.where(a == ord(" "), 0xFF, a), "its keys are not UTF-8"),
    ("keys", lambda a: np.where(a == ord(" "), 0x1B, a), "it has the image name"),
    ("mean", lambda t: "[NaN]", "mean cannot be read: NaN is not a number of JSON"),
    ("mean", lambda t: "[1e400]", "mean cannot be read: the number 1e400 is too large"),
    ("mean", lambda t: "[2.5]", "mean is 2.5; it must be a number"),
    ("mean", lambda t: "[0.5, 0.5, 0.5]", "it has 3 means and 1 deviations for 1 channels"),
    ("mean", lambda t: "[true]", "its mean are no list of numbers"),
    ("mean", lambda t: "[" * 100_000, "mean cannot be read: nested too deeply"),
    ("std", lambda t: "[0.0]", "std is 0.0; it must be a number above 0"),
    ("std", lambda t: "0.5", "its std are no list of numbers"),
    ("class_names", lambda t: '["upper"]', "it has 1 class names, not 2 to 10,000"),
    ("class_names", lambda t: '["upper", "upper"]', "it has a class name twice"),
    ("class_names", _others, "it has the class name"),
    ("class_names", lambda t: '["upper", 1]', "its class_names are no list of names"),
    ("class_names", lambda t: "{}", "its class_names are no list of names"),
    ("group_names", lambda t: '["x", "y"]', "its groups are from 0 to 2, not from 0 to 1"),
    ("group_names", lambda t: '["x", "y", ""]', "it has the group name ''"),
    ("name", lambda t: "a\x1b[31m", "it has the data set name"),
)  # fmt: skip


@pytest.mark.parametrize(("entry", "change", "told"), HOSTILE)
def test_hostile_files_are_refused(path: Path, tmp_path: Path, entry: str, change: Any, told: str | None) -> None:
    """Their digests are right; those without a message may be read."""
    arrays, metadata = module._FILE.read(path)
    assert arrays.keys() == load_file(path).keys()
    metadata = {name: text for name, text in metadata.items() if name not in ("format", "sha256")}
    if entry in arrays:
        arrays[entry] = change(arrays[entry])
    else:
        metadata[entry] = change(metadata[entry])
    place = tmp_path / "hostile.safetensors"
    module._FILE.write(place, arrays, metadata)
    if told is None:
        try:
            find_dataset(place)
        except ZooError as error:
            assert str(error).isprintable()  # noqa: PT017
        return
    text = refusal(lambda: find_dataset(place))
    assert text.startswith(f"{place}: {told}")
    assert text.endswith("; make it again by `fbnetv3 data`")


@pytest.mark.parametrize("name", ["labels", "mean"])
def test_files_that_lack_something(path: Path, tmp_path: Path, name: str) -> None:
    arrays, metadata = module._FILE.read(path)
    del metadata["sha256"]
    arrays.pop(name, None)
    metadata.pop(name, None)
    module._FILE.write(place := tmp_path / "a.safetensors", arrays, metadata)
    assert refusal(lambda: find_dataset(place)) == f"{place}: lacks {name}; make it again"


def test_statistics_of_the_digits() -> None:
    images = np.stack([np.asarray(example.read()) for example in digits()["train"]])
    (mean,), (std,) = module.statistics(images)
    assert (mean, std) == pytest.approx((images.mean() / 255, images.std() / 255), abs=1e-4)
    color = np.stack([images, images // 2, images * 0], -1)
    means, deviations = module.statistics(color)
    assert means == pytest.approx((mean, mean / 2, 0), abs=0.003)
    assert deviations[2] > 0
