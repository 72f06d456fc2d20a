"""Checkpoints: which are kept, what happens to damaged ones, and whose they are."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from disks import small_disk
from filelock import FileLock
from killed import leave_half_a_file
from refusals import refusal
from runs import PLAIN, RECIPE, Stopped, Stopper, assert_same, checkpoints, few_digits, metadata, metrics, train
from safetensors.torch import load_file, save

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.recipes import CosineDecay, Recipe
from fbnetv3_zoo.training import Callback, Dataset, Execution, Run, Step
from fbnetv3_zoo.training.callbacks import Epoch
from fbnetv3_zoo.training.checkpoint import Checkpoints, Progress, restore
from fbnetv3_zoo.training.data import SPLITS
from fbnetv3_zoo.training.learner import Learner
from fbnetv3_zoo.utils.paths import LOCK
from fbnetv3_zoo.utils.serialization import parse_json

EVERY_STEP = Execution(checkpoint_steps=1, keep_checkpoints=3)


@pytest.fixture(scope="module")
def stopped(tiny_arch: Arch, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run, as if killed after step 4 of epoch 2, with its checkpoints of steps 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Stopped):
        train(tiny_arch, data, RECIPE, folder, execution=EVERY_STEP, callbacks=[Stopper(2, 4)])
    return folder


@pytest.fixture
def begun(stopped: Path, tmp_path: Path) -> Path:
    """A copy of :func:`stopped` to go on with."""
    return Path(shutil.copytree(stopped, tmp_path / "begun"))


def _positions(folder: Path) -> list[tuple[int, int]]:
    progress = [metadata(path)["progress"] for path in checkpoints(folder)]
    return [(entry["epoch"], entry["step"]) for entry in progress]


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != ".fbnetv3-zoo.lock"
    }


# --- which are kept ---


def test_the_newest_are_kept(stopped: Path, finished: Run) -> None:
    assert _positions(stopped) == [(1, 3), (1, 2), (1, 1)]
    assert _positions(finished.folder) == [(3, 0), (2, 0)]


def test_a_checkpoint_after_so_many_minutes(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    seen: list[list[tuple[int, int]]] = []

    class Looking(Callback):
        def on_step(self, step: Step) -> None:
            seen.append(_positions(tmp_path))

    recipe, execution = replace(PLAIN, epochs=1), Execution(checkpoint_minutes=1e-9, keep_checkpoints=1)
    train(tiny_arch, data, recipe, tmp_path, execution=execution, callbacks=[Looking()])
    assert seen == [[], [(0, 1)], [(0, 2)], [(0, 3)], [(0, 4)]]
    assert _positions(tmp_path) == [(1, 0)]


def _learner(arch: Arch) -> Learner:
    network = FBNet(arch, generator=torch.Generator().manual_seed(0))
    network.preprocess = Preprocess.for_arch(arch)
    return Learner(network, PLAIN)


def test_what_could_not_be_read_does_not_push_out_what_is_whole(tiny_arch: Arch, tmp_path: Path) -> None:
    learner, kept = _learner(tiny_arch), Checkpoints(tmp_path, keep=2)
    whole = kept.write(learner, Progress(epoch=1), identity={})
    damaged = [kept.write(learner, Progress(epoch=epoch), identity={}) for epoch in (2, 3)]
    assert not whole.exists()
    whole = kept.write(learner, Progress(epoch=1), identity={})
    assert kept.paths() == [whole]  # those of a future that did not come about are gone
    assert not any(path.exists() for path in damaged)
    before = Checkpoints(tmp_path, keep=1).write(learner, Progress(epoch=1), identity={"other": "contents"})
    assert kept.paths() == [before]  # of the same moment, too, the one written last


def test_a_loss_that_was_no_number_is_written_and_restored(tiny_arch: Arch, tmp_path: Path) -> None:
    learner = _learner(tiny_arch)
    progress = Progress(epoch=1, history=(Epoch(1, 0.1, 2.0, math.nan, 0.5, 0, 9.0, 1.0),))
    progress.write_metrics(tmp_path)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert parse_json(line, "metrics.jsonl")["validation_loss"] is None
    path = Checkpoints(tmp_path, keep=1).write(learner, progress, identity={})
    assert metadata(path)["progress"]["history"][0]["validation_loss"] is None
    (epoch,) = restore(path.read_bytes(), learner, identity={}, place=tmp_path).history
    assert math.isnan(epoch.validation_loss)


# --- damage ---


def test_any_bit_that_flips_is_seen(begun: Path, caplog: pytest.LogCaptureFixture) -> None:
    newest, second, _ = checkpoints(begun)
    content, chance = newest.read_bytes(), random.Random(0)
    places = [0, 9, len(content) - 1, *(chance.randrange(len(content)) for _ in range(40))]
    for place in places:
        newest.write_bytes(content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :])
        assert Checkpoints(begun / "checkpoints", keep=3).newest() == (second, second.read_bytes())
    told = f"{newest}: is damaged; going on from the checkpoint before it"
    assert [record.getMessage() for record in caplog.records] == [told] * len(places)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:-100], id="truncated"),
        pytest.param(lambda content: content[:5000] + bytes([content[5000] ^ 4]) + content[5001:], id="flipped"),
    ],
)
def test_damaged_and_resumed_is_as_never_damaged(
    damage: Callable[[bytes], bytes], tiny_arch: Arch, data: Dataset, finished: Run, begun: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    newest, second, _ = checkpoints(begun)
    for path in (newest, second):
        path.write_bytes(damage(path.read_bytes()))
    train(tiny_arch, data, RECIPE, begun, resume=True)
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [f"{path}: is damaged; going on from the checkpoint before it" for path in (newest, second)]
    assert_same(begun, finished.folder)
    assert _positions(begun) == [(3, 0), (2, 0)]


def test_a_checkpoint_that_cannot_be_opened(begun: Path, caplog: pytest.LogCaptureFixture) -> None:
    newest, second, _ = checkpoints(begun)
    newest.unlink()
    newest.mkdir()
    assert Checkpoints(begun / "checkpoints", keep=3).newest() == (second, second.read_bytes())
    said = f"{newest}: cannot be read (Is a directory); going on from the checkpoint before it"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_none_is_whole(tiny_arch: Arch, data: Dataset, begun: Path) -> None:
    for path in checkpoints(begun):
        path.write_bytes(b"")
    before = _contents(begun)
    assert refusal(lambda: train(tiny_arch, data, RECIPE, begun, resume=True)) == (
        f"{begun}/checkpoints: none of 3 checkpoints can be read; begin anew in another folder"
    )
    assert _contents(begun) == before


@pytest.mark.parametrize("entry", ["identity", "progress", "scaler"])
def test_a_whole_checkpoint_without_an_entry(entry: str, tiny_arch: Arch, tmp_path: Path) -> None:
    learner = _learner(tiny_arch)
    path = Checkpoints(tmp_path, keep=1).write(learner, Progress(), identity={})
    entries = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata(path).items()}
    del entries[entry]
    data = save(load_file(path), entries)
    told = refusal(lambda: restore(data, learner, identity={}, place=tmp_path))
    assert told.startswith(f"{tmp_path}: its newest checkpoint is whole but makes no sense ({entry!r}); delete it")


# --- whose they are ---


def _rewritten(folder: Path, **changed: str) -> None:
    """The newest checkpoint of ``folder``, alone, with other metadata and so under another name."""
    newest = checkpoints(folder)[0]
    about = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata(newest).items()}
    tensors = load_file(newest)
    for path in checkpoints(folder):
        path.unlink()
    from blake3 import blake3

    data = save(tensors, {**about, **changed})
    name = f"epoch-0001-step-000003-{blake3(data).hexdigest()[:16]}.safetensors"
    (folder / "checkpoints" / name).write_bytes(data)


@pytest.mark.parametrize("changed", [{"version": "2"}, {"format": "something"}])
def test_checkpoints_of_another_release(changed: dict[str, str], tiny_arch: Arch, data: Dataset, begun: Path) -> None:
    _rewritten(begun, **changed)
    assert refusal(lambda: train(tiny_arch, data, RECIPE, begun, resume=True)) == (
        f"{begun}: holds checkpoints of another release; begin anew in another folder"
    )


@pytest.mark.parametrize("what", ["network", "data", "recipe", "teacher", "network and recipe"])
def test_resumed_with_something_else(what: str, tiny_arch: Arch, data: Dataset, begun: Path) -> None:
    before = _contents(begun)
    arch = tiny_arch.scaled(width=2) if "network" in what else tiny_arch
    data = few_digits(seed=1) if "data" in what else data
    recipe = replace(RECIPE, learning_rate=0.04) if "recipe" in what else RECIPE
    teacher = FBNet(replace(tiny_arch, in_channels=1)) if "teacher" in what else None
    if teacher is not None:
        teacher.preprocess = Preprocess(32, 32, mean=data.mean, std=data.std)
    splits = ", ".join(f"{name} images: {len(data[name])} then, as many others now" for name in SPLITS)
    differences = {
        "network": "network (name: 'tiny' then, 'tiny_w2' now, stages.0.0.out_channels: 8 then, 16 now, "
        "stages.1.0.out_channels: 8 then, 16 now and 2 more)",
        "data": f"data ({splits})",
        "recipe": f"recipe (learning_rate: {RECIPE.learning_rate} then, 0.04 now)",
        "teacher": "teacher",
    }
    told = " and ".join(differences[part] for part in what.split(" and "))
    said = refusal(lambda: train(arch, data, recipe, begun, resume=True, teacher=teacher))
    assert said == f"{begun}: the run was begun with another {told}; give another folder"
    assert _contents(begun) == before


def test_a_cosine_is_as_long_as_it_was(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    """An exponential one may go on for longer: test_resume.py."""
    recipe = replace(PLAIN, schedule=CosineDecay())
    with pytest.raises(Stopped):
        train(tiny_arch, data, recipe, tmp_path, execution=EVERY_STEP, callbacks=[Stopper(1, 2)])
    longer: Recipe = replace(recipe, epochs=3)
    assert refusal(lambda: train(tiny_arch, data, longer, tmp_path, resume=True)) == (
        f"{tmp_path}: the run was begun with another recipe (epochs: 2 then, 3 now); give another folder"
    )


def test_a_folder_that_holds_a_run(tiny_arch: Arch, data: Dataset, begun: Path) -> None:
    before = _contents(begun)
    assert refusal(lambda: train(tiny_arch, data, RECIPE, begun)) == (
        f"{begun}: holds a run; continue it with --resume (resume=True), or give another folder"
    )
    assert _contents(begun) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_has_ended_is_not_replaced(resume: bool, tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    """Though its checkpoints were deleted, to save space."""
    train(tiny_arch, data, PLAIN, tmp_path, report=False)
    shutil.rmtree(tmp_path / "checkpoints")
    before = _contents(tmp_path)
    assert refusal(lambda: train(tiny_arch, data, PLAIN, tmp_path, resume=resume)) == (
        f"{tmp_path}: holds a run that has ended, without checkpoints; give another folder"
    )
    assert _contents(tmp_path) == before


def test_two_runs_in_one_folder(
    tiny_arch: Arch, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbnetv3_zoo.training.run_folder._PATIENCE", 0.1)
    said: list[str] = []

    class Intruder(Callback):
        def on_step(self, step: Step) -> None:
            said.append(refusal(lambda: train(tiny_arch, data, PLAIN, tmp_path, resume=True)))
            raise Stopped

    with pytest.raises(Stopped):
        train(tiny_arch, data, PLAIN, tmp_path, callbacks=[Intruder()])
    assert said == [f"{tmp_path}: another run is writing here; give another folder"]
    with FileLock(tmp_path / ".fbnetv3-zoo.lock", timeout=0):
        pass  # free again


# --- a folder that is not a run's ---


@pytest.mark.parametrize("name", ["model.safetensors", "best.safetensors", "recipe.json", "results.json",
                                  "metrics.jsonl", "curve.png", "report.html", "config.json"])  # fmt: skip
@pytest.mark.parametrize("resume", [False, True])
def test_files_of_others_are_left_alone(
    name: str, resume: bool, tiny_arch: Arch, data: Dataset, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("mine")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "epoch-1.ckpt").write_text("mine, too")
    before = _contents(tmp_path)
    assert refusal(lambda: train(tiny_arch, data, PLAIN, tmp_path, resume=resume)) == (
        f"{tmp_path}/{name}: already exists, and was not written by this program; give another folder, or "
        "move that file"
    )
    assert _contents(tmp_path) == before


def test_folders_of_others_are_left_alone(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    assert refusal(lambda: train(tiny_arch, data, PLAIN, tmp_path)) == (
        f"{tmp_path}/report.html: already exists, and was not written by this program; give another folder, or "
        "move that file"
    )
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "journal.sqlite").touch()
    said = refusal(lambda: train(tiny_arch, data, PLAIN, tmp_path / "search"))
    assert said == f"{tmp_path}/search: holds a search; give another folder"


def test_files_of_other_names_are_no_obstacle(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    for name in (".hidden", "model.onnx", "notes.txt"):
        (tmp_path / name).write_text("mine")
    train(tiny_arch, data, replace(PLAIN, epochs=1), tmp_path)
    assert all((tmp_path / name).read_text() == "mine" for name in (".hidden", "model.onnx", "notes.txt"))


def test_a_run_without_its_lock_is_continued(tiny_arch: Arch, data: Dataset, begun: Path) -> None:
    (begun / LOCK).unlink()  # as where hidden files are not copied
    assert (begun / "metrics.jsonl").exists()
    assert train(tiny_arch, data, RECIPE, begun, resume=True).epochs


def test_a_refused_run_leaves_no_folder(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    frozen = replace(PLAIN, frozen_stages=1)  # refused where the network is built
    assert "random weights should not be frozen" in refusal(lambda: train(tiny_arch, data, frozen, tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    refusal(lambda: train(tiny_arch, data, frozen, tmp_path / "run"))
    assert (tmp_path / "run").is_dir()


def test_nothing_to_resume_is_said(
    tiny_arch: Arch, data: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tiny_arch, data, replace(PLAIN, epochs=1), tmp_path, resume=True)
    assert f"{tmp_path}: holds no run to continue; one begins" in caplog.messages


# --- writing ---


def test_a_disk_that_fills_up(tiny_arch: Arch, data: Dataset, finished: Run, tmp_path: Path) -> None:
    folder, size = tmp_path / "disk" / "run", checkpoints(finished.folder)[0].stat().st_size
    with small_disk(tmp_path / "disk", 4 * size):

        class Filling(Callback):
            def on_step(self, step: Step) -> None:
                if (step.epoch, step.step) == (2, 3):
                    free = shutil.disk_usage(folder).free
                    (tmp_path / "disk" / "other").write_bytes(b"x" * max(0, free - size // 2))

        execution = Execution(checkpoint_steps=2)
        said = refusal(lambda: train(tiny_arch, data, RECIPE, folder, execution=execution, callbacks=[Filling()]))
        assert said.startswith(f"{folder}/checkpoints/epoch-0001-step-000")
        assert said.endswith(": cannot be written (No space left on device)")
        assert not any((folder / "checkpoints").glob(".*"))
        assert _positions(folder)[0][0] == 1
        (tmp_path / "disk" / "other").unlink()
        train(tiny_arch, data, RECIPE, folder, resume=True, execution=Execution(keep_checkpoints=1))
        assert_same(folder, finished.folder)


def test_leftovers_of_a_killed_process_are_removed(tiny_arch: Arch, data: Dataset, begun: Path) -> None:
    left = [leave_half_a_file(begun / "checkpoints"), leave_half_a_file(begun)]
    others = ["checkpoints/.hidden", ".notes.txt", "best.00000000.safetensors", ".thesis.20251231.tex",
              ".best.safetensors.00000000.safetensors", ".keys.20240101.gpg"]  # fmt: skip
    for name in others:
        (begun / name).write_bytes(b"mine")
    with pytest.raises(Stopped):
        train(tiny_arch, data, RECIPE, begun, resume=True, callbacks=[Stopper(2, 4)])
    assert not any(path.exists() for path in left)
    assert [(begun / name).read_bytes() for name in others] == [b"mine"] * len(others)


def test_a_file_where_the_folder_should_be(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("notes")
    said = refusal(lambda: train(tiny_arch, data, RECIPE, tmp_path / "run"))
    assert said == f"{tmp_path}/run: is a file; give the path of a folder"


def test_the_best_file_is_of_the_best_epoch(tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    """The rate explodes late, so that the last epoch is not the best; a resumed run knows what was best before."""
    recipe = replace(PLAIN, epochs=4, schedule=replace(PLAIN.schedule, factor=6.0))
    weights: list[dict[str, Any]] = []

    class Keeping(Callback):
        def on_epoch(self, epoch: object) -> None:
            weights.append(load_file(checkpoints(tmp_path)[0]))
            if len(weights) == 2:
                raise Stopped

    with pytest.raises(Stopped):
        train(tiny_arch, data, recipe, tmp_path, callbacks=[Keeping()])
    run = train(tiny_arch, data, recipe, tmp_path, resume=True, callbacks=[Keeping()])
    accuracies = [epoch.validation_top1 for epoch in run.epochs]
    best = accuracies.index(max(accuracies))
    assert best < 3, accuracies
    assert [entry["validation_top1"] for entry in metrics(tmp_path)] == accuracies
    found = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(tensor, weights[best][f"student.network.{name}"]) for name, tensor in found.items())
