"""Runs killed, ended and resumed give what they would have given uninterrupted, to the last bit."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forks import Job, Server
from jobs import INTERRUPTED
from runs import PLAIN, RECIPE, Stopped, Stopper, assert_same, checkpoints, metadata, metrics, train

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.recipes import SGD, AdamW, CosineDecay, Recipe
from fbnetv3_zoo.training import Callback, Dataset, Execution, Interrupted, Run, Step
from fbnetv3_zoo.utils.serialization import to_json

EVERY_STEP = Execution(checkpoint_steps=1)


def _job(arch: Arch, recipe: Recipe, folder: Path, execution: Execution) -> Job:
    return {
        "arch": arch.to_json(), "recipe": recipe.to_json(), "folder": str(folder), "execution": to_json(execution),
    }  # fmt: skip


def _moments(count: int, first: float, step: float) -> list[Job]:
    """Moments while it starts, while it writes, and any time in a step; every tenth is for a fresh interpreter."""
    chance = random.Random(0)
    starting: list[Job] = [{"delay": chance.uniform(0, 1.2 * first)} for _ in range(count // 3)]
    writing: list[Job] = [{"steps": chance.randint(0, 2), "writing": "", "delay": 0.0} for _ in range(count // 3)]
    stepping: list[Job] = [
        {"steps": chance.randint(1, 4), "delay": chance.uniform(0, 2 * step)} for _ in range(count - 2 * (count // 3))
    ]
    moments = starting + writing + stepping
    chance.shuffle(moments)
    return [{**moment, "fresh": number % 10 == 9} for number, moment in enumerate(moments)]


@pytest.mark.parametrize("count", [4, pytest.param(30, marks=pytest.mark.long)])
def test_killed_often_is_as_never_killed(count: int, server: Server, tiny_arch: Arch, tmp_path: Path) -> None:
    """Shuffling, augmentation, mixing, dropout, stochastic depth, moving average, RMSProp, two worker processes."""
    execution = Execution(workers=2, checkpoint_steps=2)
    recipe = replace(RECIPE, epochs=count // 2 + 1)  # more steps than are taken between the kills
    straight = server("train", **_job(tiny_arch, recipe, tmp_path / "straight", execution))
    assert straight["codes"] == [0], straight
    hits, halves, steps, broken = 0, 0, [], tmp_path / "broken"
    last_step = recipe.epochs * 5
    for moment in _moments(count, straight["first"], (straight["last"] - straight["first"]) / (last_step - 1)):
        fresh = moment.pop("fresh")
        if "writing" in moment:
            moment["writing"] = str(broken / "checkpoints")
        lingers = "writing" in moment
        job = _job(tiny_arch, recipe, broken, execution)
        told = server("train", kill=moment, fresh=fresh, lingers=lingers, **job)
        hits += told["codes"] == [-signal.SIGKILL]
        halves += any((broken / "checkpoints").glob(".fbnetv3-zoo-*/new/epoch-*"))
        steps.append(sum(line.startswith("step") for line in told["lines"][0]))
    assert hits == count, steps
    assert halves >= count // 4  # it was really killed while writing
    assert sum(taken > 0 for taken in steps) >= count // 3
    last = server("train", **_job(tiny_arch, recipe, broken, execution))
    assert last["codes"] == [0], last
    assert 0 < sum(line.startswith("step") for line in last["lines"][0]) < last_step  # some had been done before
    assert last["lines"][0][-1] == straight["lines"][0][-1]
    assert_same(broken, tmp_path / "straight")
    assert not any((broken / "checkpoints").glob(".*"))


@pytest.mark.parametrize(
    "recipe",
    [
        replace(PLAIN, optimizer=SGD(momentum=0.0)),
        replace(RECIPE, epochs=2, optimizer=AdamW(), schedule=CosineDecay(), learning_rate=0.001),
    ],
    ids=["sgd without momentum or average", "adamw"],
)
def test_resumed_with_other_optimizers(recipe: Recipe, tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    train(tiny_arch, data, recipe, tmp_path / "straight")
    with pytest.raises(Stopped):
        train(tiny_arch, data, recipe, tmp_path / "run", execution=EVERY_STEP, callbacks=[Stopper(2, 3)])
    assert metadata(checkpoints(tmp_path / "run")[0])["progress"]["step"] == 2
    train(tiny_arch, data, recipe, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", tmp_path / "straight")


def test_resumed_between_epochs_and_before_an_epoch_is_validated(
    finished: Run, tiny_arch: Arch, data: Dataset, tmp_path: Path
) -> None:
    class Failing(Callback):
        def on_epoch(self, epoch: object) -> None:
            raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            train(tiny_arch, data, RECIPE, tmp_path, resume=True, callbacks=[Failing()])
    assert metadata(checkpoints(tmp_path)[0])["progress"]["epoch"] == 2
    assert len(metrics(tmp_path)) == 2
    with pytest.raises(Interrupted):  # asked in the last step, after which it ends
        train(tiny_arch, data, RECIPE, tmp_path, resume=True, callbacks=[_Terminator(3, 5)])
    assert metadata(checkpoints(tmp_path)[0])["progress"]["step"] == 5
    train(tiny_arch, data, RECIPE, tmp_path, resume=True)
    assert_same(tmp_path, finished.folder)


def test_resume_of_a_finished_run_only_measures(finished: Run, tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    train(tiny_arch, data, replace(RECIPE, epochs=1), tmp_path)
    before = [path.read_bytes() for path in checkpoints(tmp_path)]
    run = train(tiny_arch, data, replace(RECIPE, epochs=1), tmp_path, resume=True, callbacks=[Stopper(1, 1)])
    assert [path.read_bytes() for path in checkpoints(tmp_path)] == before
    assert len(run.epochs) == 1
    train(tiny_arch, data, RECIPE, tmp_path, resume=True)  # an exponential schedule may go on for longer
    assert_same(tmp_path, finished.folder)


class _Terminator(Callback):
    def __init__(self, epoch: int, step: int) -> None:
        self._moment = epoch, step

    def on_step(self, step: Step) -> None:
        if (step.epoch, step.step) == self._moment:
            signal.raise_signal(signal.SIGTERM)


def test_sigterm(finished: Run, tiny_arch: Arch, data: Dataset, tmp_path: Path) -> None:
    heard: list[Any] = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Interrupted) as caught:
            train(tiny_arch, data, RECIPE, tmp_path, callbacks=[_Terminator(2, 2)])
        assert str(caught.value) == "ended by SIGTERM after step 2 of epoch 2; continue with --resume"
        assert signal.getsignal(signal.SIGTERM) is handler
        progress = metadata(checkpoints(tmp_path)[0])["progress"]
        assert (progress["epoch"], progress["step"]) == (1, 2)
        assert not (tmp_path / "model.safetensors").exists()
        train(tiny_arch, data, RECIPE, tmp_path, resume=True)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == []
    assert_same(tmp_path, finished.folder)


def test_sigterm_to_the_whole_group_while_workers_read(server: Server, tiny_arch: Arch, tmp_path: Path) -> None:
    """A process that prepares images for validation sends it; none of its kind may end by it."""
    straight = server("train", **_job(tiny_arch, RECIPE, tmp_path / "straight", Execution()))
    assert straight["codes"] == [0], straight
    job = _job(tiny_arch, RECIPE, tmp_path / "run", Execution(workers=2))
    told = server("train", signaled=True, **job)
    assert told["codes"] == [INTERRUPTED], told
    said = told["lines"][0][-1]
    assert said == "interrupted: ended by SIGTERM after step 1 of epoch 2; continue with --resume"
    again = server("train", **job)
    assert again["codes"] == [0], again
    assert_same(tmp_path / "run", tmp_path / "straight")
