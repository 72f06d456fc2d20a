"""``fbnetv3 train`` as its users meet it: every option, what it prints and leaves, how it ends and goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import typer.main
from PIL import Image
from runs import checkpoints, metadata
from shell import Ended, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from waiting import PATIENCE

from fbnetv3_zoo import training
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.cli import app
from fbnetv3_zoo.cli.progress import TrainingProgress
from fbnetv3_zoo.cli.usage import interrupted
from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import counted
from fbnetv3_zoo.recipes import RECIPES, SGD, AdamW, ExponentialDecay, Recipe, RecipePreset, find_preset, fit_recipe
from fbnetv3_zoo.training import Dataset, Execution, OnBadImage, Precision
from fbnetv3_zoo.training.data import SPLITS, choose_subset, digits
from fbnetv3_zoo.training.data.seen import seen_among
from fbnetv3_zoo.training.tensorboard_writer import TensorBoard
from fbnetv3_zoo.utils.paths import LOCK
from fbnetv3_zoo.weights.serialization import load, save
from fbnetv3_zoo.zoo import ARCHS

RECIPE = Recipe(1, 8, SGD(), 0.05, warmup_epochs=0, schedule=ExponentialDecay(0.8), ema_decay=0.5)
LEFT = ("model.safetensors", "best.safetensors", "report.html", "results.json", "metrics.jsonl", "curve.png")
LINE = r"epoch {:3}/{}  train loss [\d.]+  validation loss [\d.]+  top-1 [ \d]\d\d?\.\d\d%  [\d.]+ s"


@dataclass(frozen=True)
class Home:
    """A folder with ``arch.json``, ``recipe.json``, ``subset.json`` and a run of three epochs; what training printed.

    The subset has two digits, 0 and 9 for one choice: 20 images to validate on.
    """

    folder: Path
    first: Ended
    resumed: Ended
    data: Dataset

    @property
    def test_images(self) -> int:
        return len(self.data["test"])

    @property
    def options(self) -> tuple[object, ...]:
        """A run of one epoch with the tiny network, but for its output folder."""
        return _options(self.folder)


def _options(folder: Path) -> tuple[object, ...]:
    names = ("model", "recipe", "subset")
    files = dict(zip(names, ("arch.json", "recipe.json", "subset.json"), strict=True))
    return tuple(item for name in names for item in (f"--{name}", folder / files[name]))


@pytest.fixture(scope="module")
def home(tiny_arch: Arch, tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    part = choose_subset(digits(), classes=2, held_out=20)
    (folder / "arch.json").write_text(tiny_arch.to_json())
    (folder / "recipe.json").write_text(RECIPE.to_json())
    (folder / "subset.json").write_text(part.to_json())
    options = (*_options(folder), "--output", folder / "run", "--tensorboard")
    first = run("train", *options)
    resumed = run("train", *options, "--epochs", 3, "--resume", "--json")
    return Home(folder, first, resumed, part.apply(digits()))


def _metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# --- what it prints and leaves ---


def test_what_it_prints(home: Home) -> None:
    assert home.first.code == 0
    accuracy, test, *files, warning, classify, export = home.first.out.splitlines()
    epoch = _metrics(home.folder / "run")[0]
    assert accuracy == f"validation accuracy {epoch['validation_top1']:.2%} after 1 epoch"
    assert re.fullmatch(rf"test accuracy [\d.]+% \(\d+ of {home.test_images}; 95 % interval [\d.]+% to [\d.]+%\)", test)
    assert [line.split(" (")[0] for line in files] == [str(home.folder / "run" / name) for name in LEFT]
    assert warning.startswith("warning: test accuracy 50.00% is no better than chance (always answering ")
    model = home.folder / "run" / "model.safetensors"
    assert (classify[:6], export[:6]) == ("next: ", 6 * " ")
    assert classify.endswith(f" classify IMAGES --model {model}")
    assert export.endswith(f" export onnx {model}")
    *header, line = home.first.err.splitlines()
    train, validation, test = (len(home.data[split]) for split in SPLITS)
    assert home.data.counts("train").tolist() == [train // 2] * 2
    cost = arch_cost(load(model).arch)
    assert header == [
        f"images   {home.data.name}: {train} to train on, {validation} to validate on, {test} to test on; "
        f"2 classes with {train // 2} training images each",
        f"network  tiny, 32 x 32 pixels, {cost.parameters / 1e6:.2f} M parameters, {cost.macs / 1e6:.1f} M MACs; "
        "starts from random weights",
        f"recipe   {home.folder / 'recipe.json'}: 1 epoch of {train // 8} steps of 8 images",
        "         SGD, learning rate 0.05, x 0.8 an epoch, average of weights 0.5",
        "         images as they are",
        f"device   cpu, {counted(torch.get_num_threads(), 'thread')}",
        f"output   {home.folder / 'run'}",
    ]
    assert re.fullmatch(LINE.format(1, 1), line)
    assert f"train loss {epoch['train_loss']:.3f}  validation loss {epoch['validation_loss']:.3f}  top-1" in line
    assert f" {epoch['validation_top1']:7.2%}  {epoch['seconds']:.1f} s" in line


def test_uneven_classes_are_told_of(home: Home, tmp_path: Path) -> None:
    for name, count in (("owl", 40), ("cat", 3)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(count):
            pixels = np.random.default_rng([count, n]).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{n}.png")
    options = ("train", tmp_path / "photos", "--model", home.folder / "arch.json", "--epochs", 1)
    told = run(*options, "--output", tmp_path / "run").err
    hint = "         classes differ more than 10 times in size, smallest: cat 1, owl 24"
    assert f"{hint}; --balanced weights them alike\n" in told
    assert "         fewer than 5 training images: cat 1; a few more help such classes most\n" in told
    assert f"{hint}\n" in run(*options, "--output", tmp_path / "again", "--balanced").err


def test_several_seeds(home: Home, tmp_path: Path) -> None:
    options = ("train", *home.options, "--output", tmp_path / "runs", "--seed", 4, "--seeds", 2)
    found = json.loads(run(*options, "--json").out)
    scores = [one["test"]["accuracy"] for one in found["runs"]]
    assert [Path(one["folder"]).name for one in found["runs"]] == ["seed-4", "seed-5"]
    assert load(tmp_path / "runs" / "seed-4" / "model.safetensors").arch.name == "tiny"
    half = 12.706204736 * abs(scores[0] - scores[1]) / 2  # t of one degree of freedom
    assert found["mean"] == pytest.approx(sum(scores) / 2)
    assert found["interval"] == pytest.approx([found["mean"] - half, found["mean"] + half])
    lines = run(*options, "--resume").out.splitlines()
    assert lines[-1].startswith(f"test accuracy over 2 seeds: mean {found['mean']:.2%}, 95 % interval ")


def test_each_seed_has_its_own_split(home: Home, tmp_path: Path) -> None:
    """So that no test image was trained on, if the split is made again by the seed of a run."""
    model, recipe = home.folder / "arch.json", home.folder / "recipe.json"
    assert run("train", "--model", model, "--recipe", recipe, "--output", tmp_path, "--seeds", 2).code == 0
    for seed in (0, 1):
        trained_on = load(tmp_path / f"seed-{seed}" / "model.safetensors").description.trained_on
        assert [seen_among(trained_on, digits(seed=seed)[split]) for split in ("train", "test")] == [
            len(trained_on), 0
        ]  # fmt: skip


def test_weights_fit_their_own_network_alone(tmp_path: Path) -> None:
    ended = run("train", "--model", "fbnetv3_nano", "--pretrained", "--width", 0.5, "--output", tmp_path / "new")
    told = "--pretrained: fbnetv3_nano.zoo_v1 only fits its own network; leave out --width and --depth, or train from"
    assert (ended.code, told in ended.err) == (2, True)


def test_resumed_and_told_to_scripts(home: Home) -> None:
    assert home.resumed.code == 0
    going_on, *lines = home.resumed.err.splitlines()
    assert going_on.startswith(f"going on after epoch 1 of 3 ({home.folder}/run/checkpoints/epoch-0001-step-000000-")
    assert [bool(re.fullmatch(LINE.format(n, 3), line)) for n, line in enumerate(lines, 2)] == [True, True]
    found, told = json.loads(home.resumed.out), _metrics(home.folder / "run")
    assert list(found) == ["folder", "last_epoch", "test", "bad_images", "warning", "hint"]
    assert found["folder"] == str(home.folder / "run")
    assert [line["epoch"] for line in told] == [1, 2, 3]
    assert found["last_epoch"] == told[-1]
    assert found["test"]["total"] == home.test_images
    assert found["test"]["accuracy"] == found["test"]["top1"] / home.test_images > 0.7
    assert 0 < found["test"]["interval"][0] < found["test"]["accuracy"] <= found["test"]["interval"][1] <= 1


def test_what_it_leaves(home: Home) -> None:
    folder = home.folder / "run"
    assert {path.name for path in folder.iterdir()} - {".fbnetv3-zoo.lock"} == {
        *LEFT,
        "checkpoints",
        "config.json",
        "recipe.json",
        "tensorboard",
    }
    assert [path.name[:11] for path in checkpoints(folder)] == ["epoch-0003-", "epoch-0002-"]
    model = load(folder / "model.safetensors")
    assert (model.arch.name, model.arch.num_classes, model.class_names) == ("tiny", 2, _class_names(home))


def _class_names(home: Home) -> tuple[str, ...]:
    """The names of the subset's classes."""
    return tuple(json.loads((home.folder / "subset.json").read_text())["class_names"])


def test_figures_for_tensorboard(home: Home) -> None:
    """Of the run and of its continuation, in one folder."""
    found = EventAccumulator(str(home.folder / "run" / "tensorboard"))
    found.Reload()
    told = _metrics(home.folder / "run")
    for name in ("train_loss", "validation_loss", "validation_top1", "skipped"):
        events = found.Scalars(f"epoch/{name}")
        assert [event.step for event in events] == [1, 2, 3]
        assert [event.value for event in events] == pytest.approx([line[name] for line in told], rel=1e-6)
    losses, rates = found.Scalars("step/loss"), found.Scalars("step/learning_rate")
    steps = len(losses) // 3
    assert [event.step for event in losses] == list(range(1, 3 * steps + 1))
    for n, line in enumerate(told):
        mean = np.mean([event.value for event in losses[n * steps : (n + 1) * steps]])
        assert mean == pytest.approx(line["train_loss"], rel=1e-5)
        assert rates[(n + 1) * steps - 1].value == pytest.approx(line["learning_rate"], rel=1e-6)
    assert all(event.value > 0 for event in found.Scalars("step/images_per_second"))


def test_a_bar_on_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with TrainingProgress(3) as progress:
        for step in range(1, 5):
            progress.on_step(training.Step(2, step, 4, 0.75 - step / 4, 0.1, 1234.4))
        progress.on_epoch(training.Epoch(2, 0.1, 1.5, 2.25, 0.125, 3, 9.0, 61.24))
    text = re.sub(r"\x1b\[[\d;?]*\w", "", capsys.readouterr().err)
    told = "epoch   2/3  train loss 1.500  validation loss 2.250  top-1  12.50%  61.2 s  3 images could not be read"
    assert told in text
    assert re.search(r"epoch 2/3 [━╸╺ ]+ loss -0\.250 1234 images/s \d:\d\d:\d\d left (\d|-):(\d|-)+:(\d|-)+", text)


@pytest.mark.parametrize("environment", [{}, {"RANK": "1", "WORLD_SIZE": "2", "FORCE_COLOR": "1"}], ids=["file", "2nd"])
def test_no_bar_elsewhere(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with TrainingProgress(3) as progress:
        progress.on_step(training.Step(1, 1, 4, 0.75, 0.1, 1234.4))
    assert capsys.readouterr().err == ""


# --- options ---


class _Called(Exception):  # noqa: N818 -- nothing is wrong
    pass


def _given(monkeypatch: pytest.MonkeyPatch, *options: object) -> SimpleNamespace:
    """What ``fbnetv3 train OPTIONS`` gives to :func:`fbnetv3_zoo.training.train`."""
    given = SimpleNamespace()

    def note(arch: Arch, data: Any, preset: RecipePreset, folder: Path, **rest: Any) -> None:
        vars(given).update(arch=arch, data=data, recipe=preset.recipe, folder=folder, **rest)
        raise _Called

    monkeypatch.setattr(training, "train", note)
    with pytest.raises(_Called):
        app(args=["train", *map(str, options)], standalone_mode=False)
    return given


def test_what_is_not_given_is_as_in_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = _given(monkeypatch, "--output", tmp_path / "new")
    assert (given.arch, given.recipe, given.folder) == (ARCHS["fbnetv3_a"], RECIPES["digits"], tmp_path / "new")
    assert (given.teacher, given.pretrained, given.resume) == (None, False, False)
    assert given.execution == Execution()
    assert given.data.fingerprint == digits().fingerprint
    assert [type(callback) for callback in given.callbacks] == [TrainingProgress]


def test_every_option_arrives(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = _given(
        monkeypatch, "--output", tmp_path / "new", "--model", "fbnetv3_b", "--small-images", "--width", 0.5,
        "--depth", 2, "--resolution", 40, "--subset", home.folder / "subset.json", "--recipe", "cifar10",
        "--epochs", 7, "--batch-size", 64, "--learning-rate", 0.3, "--seed", 5, "--teacher", "t.onnx",
        "--weights", "w.safetensors", "--weight-levels", 63, "--resume", "--device", "cuda:1", "--workers", 3,
        "--precision", "bf16", "--compile", "--gradient-checkpointing", "--accumulation", 4, "--checkpoint-steps", 50,
        "--checkpoint-minutes", 2.5, "--keep-checkpoints", 9, "--on-bad-image", "skip", "--skip-image-check",
        "--tensorboard", "--json", "--weight-decay", 0.25, "--ema-decay", 0.75, "--balanced", "--patience", 6,
        "--flip", "--threads", 3,
    )  # fmt: skip
    assert given.arch == replace(ARCHS["fbnetv3_b"].for_small_images().scaled(width=0.5, depth=2), resolution=40)
    assert given.recipe == replace(
        RECIPES["cifar10"].for_batch_size(64), epochs=7, learning_rate=0.3, weight_levels=63, seed=5, weight_decay=0.25,
        ema_decay=0.75, balanced=True, patience=6, augmentation=replace(RECIPES["cifar10"].augmentation, flip=0.5),
    )  # fmt: skip
    assert (given.teacher, given.pretrained, given.resume) == ("t.onnx", "w.safetensors", True)
    assert given.execution == Execution(
        device="cuda:1", workers=3, precision=Precision.BFLOAT16, compile=True, gradient_checkpointing=True,
        accumulation=4, checkpoint_steps=50, checkpoint_minutes=2.5, keep_checkpoints=9,
        on_bad_image=OnBadImage.SKIP, check_images=False, threads=3,
    )  # fmt: skip
    unchanged = {f.name for f in fields(Execution) if getattr(given.execution, f.name) == f.default}
    assert unchanged == {"channels_last"}  # has no option: the layout follows the device
    assert given.data.class_names == _class_names(home)
    assert [type(callback) for callback in given.callbacks] == [TrainingProgress, TensorBoard]


def test_options_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"data": "digits", "lr": 0.25, "batch_size": 8, "epochs": 9, "tensorboard": true}')
    given = _given(monkeypatch, "--config", file, "--epochs", 7, "--output", tmp_path / "new")
    assert (given.recipe.epochs, given.recipe.batch_size, given.recipe.learning_rate) == (7, 8, 0.25)
    assert [type(callback) for callback in given.callbacks] == [TrainingProgress, TensorBoard]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"epoch": 3}', "no option --epoch (did you mean 'epochs'?)"),
        (
            "[1]",
            "is not a JSON object of options; give an output folder's config.json, or an object such as "
            '{"epochs": 10}',
        ),
        ('{"config": "other.json"}', "no option --config"),
    ],
)
def test_wrong_files_of_options(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text)
    ended = run("train", "--config", file, "--output", tmp_path / "new")
    assert (ended.code, ended.err.partition(": ")[2]) == (2, f"{file}: {told}\n")


def test_the_options_of_a_run_are_those_of_another(home: Home, tmp_path: Path) -> None:
    config = json.loads((home.folder / "run" / "config.json").read_text())
    assert {"output", "resume", "json", "config", "help"}.isdisjoint(config)
    assert (config["epochs"], config["recipe"], config["tensorboard"]) == (3, str(home.folder / "recipe.json"), True)
    again = run("train", "--config", home.folder / "run" / "config.json", "--output", tmp_path / "again", "--json")
    assert again.code == 0
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == config
    weights = [load(folder / "model.safetensors").state_dict() for folder in (home.folder / "run", tmp_path / "again")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_images_given_beside_a_file_of_options_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"data": "elsewhere", "epochs": 2}')
    assert _given(monkeypatch, "digits", "--config", file, "--output", tmp_path / "new").recipe.epochs == 2


@pytest.mark.parametrize("command", [("train", "--seeds", 2), ("distil", "--models", "fbnetv3_nano")])
def test_a_file_of_options_of_something_else_stays(command: tuple[object, ...], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"mine": 1}')
    ended = run(*command, "--output", tmp_path)
    said = f"error: {tmp_path}/config.json: already exists, and was not written by this program; give another folder"
    assert (ended.code, ended.err.startswith(said)) == (2, True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ['{"mine": 1}']


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_options_are_kept_without_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    address = "https://me:SECRET@a.b/c.safetensors?id=3&token=SECRET&X-Amz-Signature=SECRET#sha256=01234567"
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / LOCK).touch()  # as of a run that has begun
    monkeypatch.setattr(training, "train", _interrupted)
    ended = run("train", "--model", "fbnetv3_a", "--weights", address, "--output", tmp_path / "new")
    assert (ended.code, "SECRET" in ended.out + ended.err) == (130, False)
    kept = json.loads((tmp_path / "new" / "config.json").read_text())
    assert kept["weights"] == "https://a.b/c.safetensors?id=3#sha256=01234567"


def test_an_interruption_before_there_is_a_run_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(training, "find_dataset", _interrupted)
    assert run("train", "--output", tmp_path).code == 130
    assert not list(tmp_path.iterdir())


def test_another_optimizer_needs_its_own_rate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = ("--output", tmp_path / "new", "--optimizer", "adamw")
    found = _given(monkeypatch, *options, "--lr", 0.001, "--freeze", 2).recipe
    assert found == replace(RECIPES["digits"], optimizer=AdamW(), learning_rate=0.001, frozen_stages=2)
    assert _given(monkeypatch, *options[:3], "sgd").recipe == RECIPES["digits"]
    told = run("train", *options).err
    assert told == (
        "error: --optimizer adamw: the recipe's learning rate of 0.1 is for SGD; give --learning-rate, too\n"
    )


@pytest.mark.parametrize(
    ("recipe", "batch_size", "rate"),
    [(RECIPE, 32, 0.2), (replace(RECIPE, optimizer=AdamW()), 32, 0.1), (RECIPE, 2, 0.0125)],
)
def test_batch_size_scales_rate_and_average(
    recipe: Recipe, batch_size: int, rate: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    options = ("--output", tmp_path, "--recipe", tmp_path / "recipe.json", "--batch-size", batch_size)
    found = _given(monkeypatch, *options).recipe
    assert found.learning_rate == pytest.approx(rate)
    assert found.ema_decay == pytest.approx(0.5 ** (batch_size / 8))
    assert replace(found, learning_rate=1, ema_decay=0) == replace(
        recipe, batch_size=batch_size, learning_rate=1, ema_decay=0
    )
    assert _given(monkeypatch, *options, "--learning-rate", 0.5).recipe == replace(found, learning_rate=0.5)


def test_pretrained_takes_the_models_own_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = _given(monkeypatch, "--output", tmp_path, "--model", "fbnetv3_b.ra2_in1k", "--pretrained")
    assert given.pretrained == "fbnetv3_b.ra2_in1k"
    assert (given.arch.name, given.arch.resolution) == ("fbnetv3_b", 256)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs, 4 of each kind to train on and 2 to validate on."""
    folder = tmp_path_factory.mktemp("photos")
    for label, level in (("dark", 60), ("bright", 160)):
        for split, count in (("train", 4), ("val", 2)):
            (folder / split / label).mkdir(parents=True)
            for n in range(count):
                noise = np.random.default_rng(n).integers(0, 90, (40, 50, 3)) + level
                Image.fromarray(noise.astype(np.uint8)).save(folder / split / label / f"{n}.jpg")
    return folder


def test_photographs_of_ones_own(home: Home, photos: Path, tmp_path: Path) -> None:
    """From the weights of another run, at another resolution; the recipe follows the data."""
    ended = run(
        "train", "--model", home.folder / "arch.json", "--data", photos, "--output", tmp_path / "run", "--epochs", 2,
        "--batch-size", 4, "--seed", 3, "--weights", home.folder / "run" / "model.safetensors", "--resolution", 48,
        "--json",
    )  # fmt: skip
    assert ended.code == 0
    assert json.loads(ended.out)["test"] is None
    kept = find_preset(tmp_path / "run" / "recipe.json")
    assert {kept.all_sources[name] for name in ("epochs", "batch_size", "seed")} == {"chosen for this run"}
    assert kept.all_sources["augmentation.crop_area"] == "this project's choice: docs/fine-tuning.md"
    model = load(tmp_path / "run" / "model.safetensors")
    assert (model.arch.resolution, model.arch.in_channels, model.class_names) == (48, 3, ("bright", "dark"))
    assert model.preprocess.resize == 55  # 8 / 7 of the crop
    recipe = Recipe.from_json(metadata(checkpoints(tmp_path / "run")[0])["identity"]["recipe"])
    assert kept.recipe == recipe == replace(fit_recipe(18, epochs=2, pretrained=True).recipe.for_batch_size(4), seed=3)


def _linear(description: Description) -> onnx.ModelProto:
    """Two logits that are products of the pixels with numbers drawn at random."""
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    weight = np.random.default_rng(0).normal(size=(32 * 32, 2)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Flatten", ["images"], ["pixels"]),
        onnx.helper.make_node("MatMul", ["pixels", "weight"], ["logits"]),
    ]
    ends = [value("images", kind, ["n", 1, 32, 32])], [value("logits", kind, ["n", 2])]
    graph = onnx.helper.make_graph(nodes, "g", *ends, [onnx.numpy_helper.from_array(weight, "weight")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.helper.set_model_props(model, description.to_metadata())
    return model


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_a_teacher_from_a_file(kind: str, home: Home, tmp_path: Path) -> None:
    teacher = tmp_path / f"teacher.{kind}"
    network = load(home.folder / "run" / "model.safetensors")
    save(network, teacher) if kind == "safetensors" else onnx.save_model(_linear(network.description), teacher)
    ended = run("train", *home.options, "--output", tmp_path / "run", "--teacher", teacher, "--json")
    assert ended.code == 0
    assert _metrics(tmp_path / "run") != _metrics(home.folder / "run")[:1]
    digest = metadata(checkpoints(tmp_path / "run")[0])["identity"]["teacher"]
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert f"teacher {teacher}: validation accuracy " in (tmp_path / "run" / "report.html").read_text()
    again = run("train", *home.options, "--output", tmp_path / "run", "--epochs", 2, "--resume")
    assert again.err.splitlines()[-1] == (
        f"error: {tmp_path}/run: the run was begun with another teacher; give another folder"
    )


def test_the_seed_of_a_run_is_that_of_its_split(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = _given(monkeypatch, "--output", tmp_path, "--seed", 1)
    assert given.data.fingerprint == digits(seed=1).fingerprint != digits(seed=0).fingerprint


def test_without_tensorboard(monkeypatch: pytest.MonkeyPatch, home: Home, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    ended = run("train", *home.options, "--output", tmp_path / "run", "--tensorboard")
    missing = "error: TensorBoard is not installed; pip install 'fbnetv3-zoo[tensorboard]'\n"
    assert (ended.code, ended.out, ended.err) == (2, "", missing)
    assert not (tmp_path / "run").exists()


# --- processes of their own ---


def _started(*command: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_sigterm_and_resumed(home: Home, tmp_path: Path) -> None:
    """As from a scheduler that wants the machine back."""
    options = (*home.options, "--output", "run")
    process = _started("fbnetv3_zoo", "train", *options, "--epochs", 100_000, cwd=tmp_path)
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("epoch   1/100000"))
    process.terminate()
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (143, "")
    *before, last = err.splitlines()
    found = re.fullmatch(r"ended by SIGTERM after step (\d+) of epoch (\d+); continue with --resume", last)
    assert found is not None
    assert all(line.startswith(("epoch ", "about ")) for line in before[5:])
    assert not (tmp_path / "run" / "model.safetensors").exists()
    epochs = int(found[2])
    config = tmp_path / "run" / "config.json"
    again = run("train", "--config", config, "--output", tmp_path / "run", "--epochs", epochs, "--resume", "--json")
    assert again.code == 0
    assert [line["epoch"] for line in _metrics(tmp_path / "run")] == list(range(1, epochs + 1))
    going_on, _ = again.err.splitlines()
    assert going_on.startswith(f"going on after step {found[1]} of epoch {epochs} of {epochs} (")


def test_interrupted_from_the_keyboard(home: Home, tmp_path: Path) -> None:
    options = (*home.options, "--output", "run", "--epochs", 100_000)
    process = _started("fbnetv3_zoo", "train", *options, cwd=tmp_path)
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("epoch   1/100000"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; the same command with --resume continues"
    assert "Traceback" not in err


def test_interrupted_twice(home: Home, tmp_path: Path) -> None:
    process = _started("fbnetv3_zoo", "train", *home.options, "--output", "run", "--epochs", 100_000, cwd=tmp_path)
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("epoch   1/100000"))
    process.send_signal(signal.SIGINT)
    last = next(line for line in process.stderr if "interrupted" in line)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, last, err) == (130, "interrupted; the same command with --resume continues\n", "")


def test_interrupted_before_there_is_a_run(tmp_path: Path) -> None:
    """While the program is imported, too."""
    ready = "import os, signal; os.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "typer.py").write_text(ready)
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    process = _started("fbnetv3_zoo", "list", cwd=tmp_path, env={**os.environ, **paths})
    assert process.communicate(timeout=PATIENCE) == ("", "interrupted\n")
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("arguments", "made", "said"),
    [
        ("train --output run", None, "interrupted"),
        ("train --output run", "run/checkpoints/epoch", "interrupted; the same command with --resume continues"),
        ("distil --output=runs", "runs/a/checkpoints/epoch", "interrupted; the same command with --resume continues"),
        ("train --config run/config.json", None, "interrupted; the same command with --resume continues"),
        ("search run --output", None, "interrupted"),
        ("search run --output here", None, "interrupted"),
        ("search run --output here", "here/journal.sqlite", "interrupted; `fbnetv3 search resume here` continues"),
        ("list", None, "interrupted"),
    ],
)
def test_how_to_continue(
    arguments: str, made: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if made is not None:
        Path(made).parent.mkdir(parents=True)
        Path(made).touch()
    assert interrupted(typer.main.get_command(app), arguments.split()) == said


def test_under_torchrun_one_process_speaks(home: Home, tmp_path: Path) -> None:
    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "fbnetv3_zoo")
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "120"}
    options = (*home.options, "--output", "run", "--json")
    process = _started(*launch, "train", *options, cwd=tmp_path, env=environment)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert json.loads(out)["last_epoch"] == _metrics(tmp_path / "run")[0]
    text = re.sub(r"\x1b\[[\d;?]*\w", "", err)
    assert text.count("  validation loss ") == 1
    assert set(re.findall(r"epoch \d/\d", text)) == {"epoch 1/1"}


def test_the_header_comes_before_an_epoch_that_had_no_step_left(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress(3, header=["images   few"]) as progress:
        progress.on_epoch(training.Epoch(2, 0.1, 1.0, 1.0, 0.5, 0, 10.0, 1.0))
        progress.on_step(training.Step(3, 1, 4, 0.75, 0.1, 1234.4))
    first, second = capsys.readouterr().err.splitlines()
    assert (first, second[:11]) == ("images   few", "epoch   2/3")
