"""What the processes of :mod:`forks` do."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from runs import few_digits, train
from safetensors.torch import save_file

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.recipes import Recipe
from fbnetv3_zoo.training import Callback, Dataset, Epoch, Execution, Interrupted, Step
from fbnetv3_zoo.training.data import Example
from fbnetv3_zoo.training.distill import Member, distil
from fbnetv3_zoo.training.distributed import join
from fbnetv3_zoo.training.engine import Engine
from fbnetv3_zoo.training.learner import Learner
from fbnetv3_zoo.training.loader import TrainingBatches
from fbnetv3_zoo.utils.serialization import from_json

Job = dict[str, Any]
Tell = Callable[[str], None]
REFUSED, INTERRUPTED = 3, 4


def warm_up() -> None:
    """Import what a run would, without using it."""
    for name in ("scipy.stats", "torch.distributed", "torch.nn.parallel", "matplotlib.figure"):
        importlib.import_module(name)
    few_digits()


def do(job: Job, tell: Tell) -> int:
    """Do ``job``; the exit status."""
    logging.disable()
    try:
        {"train": _train, "steps": _steps, "detector": _detector, "distil": _distil, "call": _call}[job["name"]](
            job, tell
        )
    except ZooError as error:
        tell(f"refused: {error}")
        return REFUSED
    except Interrupted as error:
        tell(f"interrupted: {error}")
        return INTERRUPTED
    return 0


class Teller(Callback):
    """Tells every step and epoch.

    Where ``dies`` is [epoch, step], the process kills itself there, once; where ``ends`` is, SIGTERM asks it to end.
    """

    def __init__(self, tell: Tell, dies: list[int] | None, ends: list[int] | None = None) -> None:
        self._tell, self._dies, self._ends = tell, dies, ends

    def on_step(self, step: Step) -> None:
        self._tell(f"step {step.epoch} {step.step}")
        if self._dies == [step.epoch, step.step] and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._ends == [step.epoch, step.step]:
            signal.raise_signal(signal.SIGTERM)

    def on_epoch(self, epoch: Epoch) -> None:
        self._tell(f"epoch {epoch.epoch}")


def _call(job: Job, tell: Tell) -> None:
    """Call a function of a test's file with ``tell``."""
    file = Path(job["file"])
    sys.path.insert(0, str(file.parent))
    getattr(importlib.import_module(file.stem), job["function"])(tell)


def _train(job: Job, tell: Tell) -> None:
    tell(f"pid {os.getpid()}")
    data = few_digits()
    if job.get("signaled"):
        data = _signaled(data, Path(job["folder"]) / "signaled")
    run = train(
        Arch.from_json(job["arch"]), data, Recipe.from_json(job["recipe"]), job["folder"], resume=True,
        execution=from_json(Execution, job["execution"]), callbacks=[Teller(tell, job.get("dies"))],
    )  # fmt: skip
    assert run.test is not None
    tell("result " + json.dumps([run.test.total, run.test.loss, [epoch.validation_top1 for epoch in run.epochs]]))


def _distil(job: Job, tell: Tell) -> None:
    """A family of the networks ``archs``; each process begins every run up to a second late, as chance has it."""
    recipe, chance = Recipe.from_json(job["recipe"]), random.Random(os.getpid())
    family = distil(
        [Member(Arch.from_json(text), recipe) for text in job["archs"]], few_digits(), job["folder"],
        begins=lambda name: time.sleep(chance.uniform(0, job["late"])),
    )  # fmt: skip
    tell("result " + json.dumps([run.epochs[-1].train_loss for run in family.students.values()]))


def _signaled(data: Dataset, flag: Path) -> Dataset:
    """The same data; who reads the fourth image to validate sends a SIGTERM to the whole group of its run, once."""
    group = os.getpgid(0)

    def noted(example: Example) -> Example:
        def read(*least: Any) -> Any:
            if not flag.exists():
                flag.touch()
                os.killpg(group, signal.SIGTERM)
            return example.read(*least)

        return replace(example, read=read)

    validation = tuple(noted(e) if n == 3 else e for n, e in enumerate(data["validation"]))
    return replace(data, splits=MappingProxyType({**data.splits, "validation": validation}))


def tell_parameters(tell: Tell) -> None:
    """From now on, every run of this process tells a digest of its parameters at its end, those of the average too."""
    close = Engine.close

    def telling(run: Engine[Any, Any]) -> None:
        modules = (run.learner.student, run.learner.result)
        values = [p.detach().numpy().tobytes() for module in modules for p in module.parameters()]
        tell("parameters " + hashlib.sha256(b"".join(values)).hexdigest())
        close(run)

    Engine.close = telling  # type: ignore[method-assign]


def _detector(job: Job, tell: Tell) -> None:
    from detectors import RECIPE, SPEC

    from fbnetv3_zoo.detection import read_coco
    from fbnetv3_zoo.detection.training.train import train_detector

    tell_parameters(tell)
    annotations = Path(job["annotations"])
    data = read_coco(annotations, annotations.parent)
    run = train_detector(
        SPEC, data, data, replace(RECIPE, epochs=2), job["folder"], resume=True,
        execution=from_json(Execution, job["execution"]), callbacks=[Teller(tell, None, job.get("ends"))],
        report=False,
    )  # fmt: skip
    tell(f"result {run.precision} {[epoch.train_loss for epoch in run.epochs]}")


def _steps(job: Job, tell: Tell) -> None:
    """Six steps with norms as in evaluation, so that it does not matter how a batch is divided."""
    data, recipe = few_digits(), Recipe.from_json(job["recipe"])
    execution, generator = from_json(Execution, job["execution"]), torch.Generator().manual_seed(0)
    preprocess = Preprocess(32, 32, mean=data.mean, std=data.std)
    with join() as world:
        network = create(replace(Arch.from_json(job["arch"]), in_channels=1), generator=generator)
        network.preprocess = preprocess
        learner = Learner(network, recipe, execution=execution, world=world)
        learner.student.eval()
        batches = TrainingBatches(data["train"], preprocess, recipe, execution=execution, world=world)
        for number, parts in enumerate(step for epoch in range(2) for step in list(batches.epoch(epoch))[:3]):
            loss = float(learner.gradients(parts, seed=number))
            learner.update(recipe.learning_rate)
            tell(f"loss {float(world.total(torch.tensor(loss, dtype=torch.float64))) / world.size!r}")
        if world.leads:
            save_file({name: t.contiguous() for name, t in learner.student.state_dict().items()}, job["file"])
