"""The evaluator that trains: what it measures is what `fbnetv3 train` measures."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import ENVIRONMENT
from refusals import refusal
from waiting import until

from fbnetv3_zoo.recipes import SGD
from fbnetv3_zoo.search import SPACES, Limits, TrainingEvaluator, find_space
from fbnetv3_zoo.search.evaluation import EvaluatorConfig, Failure, Task
from fbnetv3_zoo.search.evaluation.running import read_running
from fbnetv3_zoo.search.evaluation.training import CandidateEpoch, _Training, check_model
from fbnetv3_zoo.search.executors import InProcess, LocalPool, find_executor
from fbnetv3_zoo.search.space import Candidate
from fbnetv3_zoo.training import Execution, train
from fbnetv3_zoo.training.data import digits

TINY = SPACES["tiny"]
EVALUATOR = TrainingEvaluator("digits")


@pytest.fixture(scope="module")
def candidate() -> Candidate:
    """The smallest network, with a recipe that uses the moving average, mixup and dropout, in few large steps."""
    values = TINY.values(np.zeros(len(TINY.dimensions), np.int64))
    values |= {"recipe.learning_rate": 0.05, "recipe.dropout": 0.1, "recipe.augmentation.mixup": 0.1}
    found = TINY.candidate(TINY.code(values), "smallest")
    assert found.recipe is not None
    return replace(found, recipe=replace(found.recipe, batch_size=256))


def test_the_curve_is_that_of_a_training_run(candidate: Candidate, tmp_path: Path) -> None:
    assert candidate.arch is not None
    assert candidate.recipe is not None
    before = torch.random.get_rng_state()
    curve = EVALUATOR(candidate, 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    run = train(candidate.arch, digits(), replace(candidate.recipe, epochs=2), tmp_path / "run")
    assert list(curve) == [epoch.validation_top1 for epoch in run.epochs]
    tested = replace(EVALUATOR, split="test")(candidate, 2)
    assert run.test is not None
    assert tested[-1] == run.test.fraction


def test_fewer_epochs_are_the_beginning_of_the_curve(candidate: Candidate) -> None:
    assert EVALUATOR(candidate, 2)[:1] == EVALUATOR(candidate, 1)


def test_another_seed_of_the_recipe_is_another_training(candidate: Candidate) -> None:
    assert candidate.recipe is not None
    other = replace(candidate, recipe=replace(candidate.recipe, seed=1))
    assert EVALUATOR(candidate, 1) != EVALUATOR(other, 1)


def test_a_loss_that_explodes_is_recorded(candidate: Candidate) -> None:
    assert candidate.recipe is not None
    wild = replace(candidate, recipe=replace(candidate.recipe, learning_rate=9e5, warmup_epochs=0, optimizer=SGD()))
    (outcome,) = InProcess().run(EVALUATOR, [Task(0, wild, 2)], Limits())
    assert outcome.failure is Failure.NOT_FINITE
    assert outcome.reason.startswith("the score after epoch ")
    assert math.isnan(EVALUATOR(wild, 2)[-1])


DIES = """
import os, signal, sys
from pathlib import Path
from fbnetv3_zoo.search.evaluation import training
from fbnetv3_zoo.search.space import Candidate
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.recipes import Recipe

arch, recipe, folder = (Path(name) for name in sys.argv[1:])
write = training.Checkpoints.write


def written(self, learner, progress, **rest):
    write(self, learner, progress, **rest)
    if (progress.epoch, progress.step) == (2, 0):
        os.kill(os.getpid(), signal.SIGKILL)


training.Checkpoints.write = written
candidate = Candidate("one", {}, Arch.from_json(arch.read_text()), Recipe.from_json(recipe.read_text()))
training.TrainingEvaluator("digits", checkpoints=folder)(candidate, 3)
"""


def test_a_lost_candidate_goes_on_from_its_checkpoint(
    candidate: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after two of three epochs, it trains one more, to the same accuracies; then nothing of it is left."""
    assert candidate.arch is not None
    assert candidate.recipe is not None
    folder, files = tmp_path / "candidates", (tmp_path / "arch.json", tmp_path / "recipe.json")
    for file, value in zip(files, (candidate.arch, candidate.recipe), strict=True):
        file.write_text(value.to_json())
    killed = subprocess.run([sys.executable, "-c", DIES, *map(str, files), str(folder)], env=ENVIRONMENT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list((folder / "one" / "checkpoints").glob("epoch-0002-*"))
    (folder / "one" / "mine.txt").touch()
    epochs, measure = [], _Training.measure_epoch
    monkeypatch.setattr(_Training, "measure_epoch", lambda self: (epochs.append(1), measure(self))[1])
    straight = EVALUATOR(candidate, 3)
    assert len(epochs) == 3
    kept = replace(EVALUATOR, checkpoints=folder)
    assert kept(replace(candidate, name="one"), 3) == straight
    assert len(epochs) == 4
    assert [path.name for path in (folder / "one").iterdir()] == ["mine.txt"]
    assert kept(replace(candidate, name="two"), 3) == straight
    assert not (folder / "two").exists()


def test_a_checkpoint_of_another_candidate_is_refused(
    candidate: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert candidate.recipe is not None
    kept = replace(EVALUATOR, checkpoints=tmp_path, execution=Execution(checkpoint_steps=1))
    exploding = replace(
        candidate, recipe=replace(candidate.recipe, learning_rate=9e5, warmup_epochs=0, optimizer=SGD())
    )
    kept(exploding, 1)
    assert not list(tmp_path.iterdir())  # what has ended, in whatever way, leaves nothing
    monkeypatch.setattr(_Training, "measure_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kept(candidate, 1)
    monkeypatch.undo()
    told = refusal(lambda: kept(replace(candidate, recipe=replace(candidate.recipe, seed=1)), 1))
    assert told == f"{tmp_path / 'smallest'}: the run was begun with another candidate; give another folder"


def interrupted(training: _Training) -> CandidateEpoch:
    raise KeyboardInterrupt


def test_a_model_of_torchvision_is_trained(candidate: Candidate) -> None:
    space = TINY.recipe_only("torchvision:squeezenet1_1")
    code = np.zeros(len(space.dimensions), np.int64)
    found = space.candidate(code)
    assert (found.arch, found.model) == (None, "torchvision:squeezenet1_1")
    assert found.recipe is not None
    found = replace(found, recipe=replace(found.recipe, batch_size=512, dropout=0.25))
    (accuracy,) = replace(EVALUATOR, resolution=32)(found, 1)
    assert 0 <= accuracy <= 1


def test_a_fixed_network_is_trained_by_name() -> None:
    found = find_space("paper_recipe").candidate(np.zeros(8, np.int64)[: len(find_space("paper_recipe").dimensions)])
    assert found.arch is not None
    assert found.arch.name == "fbnetv2_l3"


def test_what_it_refuses(candidate: Candidate) -> None:
    unknown = refusal(lambda: check_model("torchvision:resnet5O"))
    assert unknown == "torchvision has no model 'resnet5O' (did you mean 'resnet50'?)"
    assert refusal(lambda: check_model("fbnetv3_h")).startswith("unknown model 'fbnetv3_h'")
    assert refusal(lambda: EVALUATOR(candidate, 7)) == "smallest: 7 epochs asked for; its recipe has 6"
    bare = replace(candidate, recipe=None)
    assert refusal(lambda: EVALUATOR(bare, 1)) == "smallest: its space has no recipes, so it cannot be trained"
    nothing = refusal(lambda: EvaluatorConfig())
    assert nothing == "a search needs data to train on (--data) or a recording (--table), one of the two"
    origin = EvaluatorConfig(data="digits")
    missing = refusal(lambda: origin.evaluator(TINY.recipe_only("torchvision:none"), Execution()))
    assert missing.startswith("torchvision has no model 'none'")


def test_pool_and_process_give_the_same_curve(candidate: Candidate) -> None:
    tasks = [Task(0, candidate, 1)]
    (here,), (there,) = (list(find_executor(e).run(EVALUATOR, tasks, Limits())) for e in ("in-process", "pool:1"))
    assert here.curve == there.curve


TOGETHER = """
import sys
from pathlib import Path
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.recipes import Recipe
from fbnetv3_zoo.training import train
from fbnetv3_zoo.training.data import digits

arch, recipe, folder = (Path(name) for name in sys.argv[1:])
train(Arch.from_json(arch.read_text()), digits(), Recipe.from_json(recipe.read_text()), folder)
"""


@pytest.mark.long
def test_several_processes_train_as_under_torchrun(candidate: Candidate, tmp_path: Path) -> None:
    """In a worker of a pool, which ends them as well."""
    assert candidate.arch is not None
    assert candidate.recipe is not None
    (tmp_path / "script.py").write_text(TOGETHER)
    files = tmp_path / "arch.json", tmp_path / "recipe.json"
    for file, value in zip(files, (candidate.arch, replace(candidate.recipe, epochs=2)), strict=True):
        file.write_text(value.to_json())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, *map(str, (tmp_path / "script.py", *files, tmp_path / "run"))], env=ENVIRONMENT, check=True
    )
    expected = [
        json.loads(line)["validation_top1"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    (outcome,) = LocalPool(1).run(replace(EVALUATOR, processes=2), [Task(0, candidate, 2)], Limits())
    assert (outcome.reason, list(outcome.curve)) == ("", expected)


@pytest.mark.long
def test_a_group_that_loses_a_process_goes_on_from_its_checkpoint(candidate: Candidate, tmp_path: Path) -> None:
    """The attempt fails at once, and the next one trains what is left, to the same accuracies."""
    reporting = replace(EVALUATOR, processes=2, checkpoints=tmp_path / "candidates").reporting_to(tmp_path)
    began: list[float] = []
    resumed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        """Kill a process after two epochs; then watch after how many the next attempt begins."""
        while not over.wait(0.02):
            running = read_running(tmp_path, ["smallest"]).get("smallest")
            if running is None or not running.curve:
                continue
            if not began and len(running.curve) == 2:
                began.append(running.began)
                os.kill(_member(), signal.SIGKILL)
            elif began and running.began != began[0]:
                resumed.append(len(running.curve))

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        (outcome,) = InProcess().run(reporting, [Task(0, candidate, 4)], Limits(retries=1))
    finally:
        over.set()
        thread.join()
    assert (outcome.failure, outcome.attempts) == (None, 2)
    assert resumed[0] >= 2
    assert list(outcome.curve) == replace(EVALUATOR, processes=2)(candidate, 4)
    assert not (tmp_path / "candidates" / "smallest").exists()


def _member() -> int:
    """A process that this one has started to train with others."""
    children = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    return next(pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())


PREEMPTED = """
import sys
from pathlib import Path
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import Interrupted
from fbnetv3_zoo.recipes import Recipe
from fbnetv3_zoo.search import TrainingEvaluator
from fbnetv3_zoo.search.space import Candidate

if __name__ == "__main__":
    arch, recipe, folder = (Path(name) for name in sys.argv[1:])
    candidate = Candidate("one", {}, Arch.from_json(arch.read_text()), Recipe.from_json(recipe.read_text()))
    try:
        TrainingEvaluator("digits", checkpoints=folder, processes=2).reporting_to(folder)(candidate, 6)
    except Interrupted as ended:
        sys.exit(str(ended))
"""


def test_sigterm_reaches_all_processes(candidate: Candidate, tmp_path: Path) -> None:
    """They write a checkpoint and end, as one process does."""
    assert candidate.arch is not None
    assert candidate.recipe is not None
    (script := tmp_path / "script.py").write_text(PREEMPTED)
    (folder := tmp_path / "candidates").mkdir()
    files = tmp_path / "arch.json", tmp_path / "recipe.json"
    for file, value in zip(files, (candidate.arch, candidate.recipe), strict=True):
        file.write_text(value.to_json())
    command = [sys.executable, *map(str, (script, *files, folder))]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: any(one.curve for one in read_running(folder, ["one"]).values()))
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
    assert process.returncode == 1
    assert "SIGTERM" in said
    assert list((folder / "one" / "checkpoints").iterdir())
    assert read_running(folder, ["one"]) == {}
