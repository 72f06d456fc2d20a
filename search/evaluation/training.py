"""Scoring a candidate by training it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal

import torch

from fbnetv3_zoo.arch.torchvision_arch import AnyArch, is_torchvision
from fbnetv3_zoo.errors import ZooError, check_whole
from fbnetv3_zoo.factory import create
from fbnetv3_zoo.models.network import Network
from fbnetv3_zoo.models.torchvision_model import find_torchvision
from fbnetv3_zoo.recipes import SGD, Augmentation, Recipe
from fbnetv3_zoo.training import Dataset, find_dataset
from fbnetv3_zoo.training.callbacks import Callback
from fbnetv3_zoo.training.checkpoint import Checkpoints
from fbnetv3_zoo.training.data import Split
from fbnetv3_zoo.training.data.image_headers import look_before_run
from fbnetv3_zoo.training.distributed import World, together, usable
from fbnetv3_zoo.training.engine import Engine, ExplodedLossError
from fbnetv3_zoo.training.execution import Execution
from fbnetv3_zoo.training.learner import Learner
from fbnetv3_zoo.training.loader import Batch, TrainingBatches, fitted
from fbnetv3_zoo.training.run_folder import CHECKPOINTS, METRICS, claimed
from fbnetv3_zoo.utils.paths import LOCK
from fbnetv3_zoo.zoo import find_arch

from ..space import Candidate, Recipes
from .running import ProgressFile, progress_file


@dataclass(frozen=True, slots=True)
class CandidateEpoch:
    """Accuracies in [0, 1] after an epoch; NaN where they were not asked for."""

    validation: float = float("nan")
    test: float = float("nan")


@dataclass(frozen=True)
class TrainingEvaluator:
    """Trains a candidate with this package's trainer; the curve is accuracy in [0, 1] after every epoch.

    ``data`` is what :func:`find_dataset` takes, split by ``data_seed``; ``subset`` the file of a part of it. Every
    candidate starts from the seed of its recipe. Training stops after the epochs asked for, on the schedule of the
    recipe's. ``resolution`` is for models that name none (torchvision's). ``split`` is what the accuracies are of: a
    search goes by validation, and the test images are for what it has found. ``checkpoints`` is a folder, the same for
    all machines, in which a candidate keeps checkpoints until it is trained, as often as ``execution`` says and after
    every epoch: one whose process or machine is lost goes on from the last. Without it, a candidate stays in memory.
    ``progress`` is the folder to which it reports its scores after every epoch (:mod:`.running`). ``processes`` of one
    machine train a candidate together, sharing each batch; on GPUs, each has its own.
    """

    data: str
    data_seed: int = 0
    subset: Path | None = None
    execution: Execution = Execution()
    resolution: int = 224
    split: Literal["validation", "test"] = "validation"
    checkpoints: Path | None = None
    progress: Path | None = None
    processes: int = 1

    def __post_init__(self) -> None:
        check_whole("TrainingEvaluator.resolution", self.resolution)
        check_whole("TrainingEvaluator.processes", self.processes)

    def reporting_to(self, folder: Path) -> TrainingEvaluator:
        """The same, with candidates that report to ``folder``."""
        return replace(self, progress=folder.absolute())

    def fingerprint(self) -> str:
        """What identifies the data as this machine has it."""
        return opened(self.data, self.data_seed, self.subset).fingerprint

    def look(self) -> None:
        """Look at the headers of all images: a search would find what is wrong with them in its trials, one by one."""
        data = opened(self.data, self.data_seed, self.subset)
        anywhere = Recipe(1, 2, SGD(), 0.1, Augmentation(crop_area=0.5))
        look_before_run(data, data.preprocess(self.resolution), anywhere, execution=self.execution)

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        """Accuracies; a loss that explodes ends the training, as in `train`, and the rest of the curve is NaN."""
        return self.curves(candidate, epochs, (self.split,))[self.split]

    def curves(self, candidate: Candidate, epochs: int, splits: Sequence[Split]) -> dict[Split, list[float]]:
        """The same, of several splits in one training."""
        if candidate.recipe is None:
            raise ZooError(f"{candidate.name}: its space has no recipes, so it cannot be trained")
        check_searched(candidate.recipe)
        if epochs > candidate.recipe.epochs:
            raise ZooError(f"{candidate.name}: {epochs} epochs asked for; its recipe has {candidate.recipe.epochs}")
        with torch.random.fork_rng(devices=[]), progress_file(self.progress, candidate.name, epochs) as file:
            train = partial(self._train, candidate, candidate.recipe, epochs, splits, file)
            device = self.execution.device
            many = self.processes > 1
            history = together(train, self.processes, device) if many else train(World(device=usable(device)))
        history += [CandidateEpoch()] * (epochs - len(history))
        return {split: [getattr(epoch, split) for epoch in history] for split in splits}

    def _train(
        self, candidate: Candidate, recipe: Recipe, epochs: int, splits: Sequence[Split], file: ProgressFile,
        world: World,
    ) -> list[CandidateEpoch]:  # fmt: skip
        data = opened(self.data, self.data_seed, self.subset)
        arch = candidate.arch or replace(find_torchvision(candidate.model), resolution=self.resolution)
        preprocess = data.preprocess(arch.resolution)
        recipe = fitted(recipe, len(data["train"]), tell=False)
        network = _build(arch, recipe, data)
        network.preprocess = preprocess
        learner = Learner(network, recipe, execution=self.execution, world=world)
        batches = TrainingBatches(data["train"], preprocess, recipe, execution=self.execution, world=world)
        if self.checkpoints is None:
            return _epochs(_Training(learner, batches, data, splits, epochs), file)
        folder = self.checkpoints / candidate.name
        with claimed(folder, world):
            training = _Training(learner, batches, data, splits, epochs, folder)
            training.identity = {"candidate": _identity(candidate, recipe, epochs), "data": data.fingerprint}
            training.begin(resume=True, epoch=CandidateEpoch)
            history = _epochs(training, file)
        if world.leads:
            _clear(folder)
        return history


def _clear(folder: Path) -> None:
    """Remove what a candidate has left in ``folder``, and the folder, unless it holds something else."""
    Checkpoints(folder / CHECKPOINTS, keep=1).discard()
    for name in (METRICS, "failed-batch-0.safetensors", LOCK):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _epochs(training: _Training, file: ProgressFile) -> list[CandidateEpoch]:
    """The epochs of ``training``, reported to ``file``; fewer if its loss explodes."""
    report = _Report(training, file)
    try:
        return training.run([report])
    except ExplodedLossError:
        return [*training.progress.history]


def _identity(candidate: Candidate, recipe: Recipe, epochs: int) -> str:
    """What a checkpoint must be of, if ``candidate`` is to go on from it."""
    network = candidate.arch.to_json() if candidate.arch else candidate.model
    return hashlib.sha256(f"{network}\n{recipe.to_json()}\n{epochs}".encode()).hexdigest()[:16]


class _Training(Engine[Batch, list[CandidateEpoch]]):
    """A training of which only the accuracies on ``splits`` are kept; with ``output``, it leaves checkpoints there."""

    learner: Learner
    resumes_anyway = True

    def __init__(
        self, learner: Learner, batches: TrainingBatches, data: Dataset, splits: Sequence[Split], epochs: int,
        output: Path | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            learner.recipe, batches, output, execution=learner.execution, world=learner.world, epochs=epochs
        )
        self.learner, self.data, self.splits = learner, data, splits

    def measure_epoch(self) -> CandidateEpoch:
        """Accuracies in [0, 1]."""
        measured = {split: self.learner.evaluate(self.data, split, reduced=True) for split in self.splits}
        return CandidateEpoch(**{split: evaluation.fraction for split, evaluation in measured.items()})

    def finish(self) -> list[CandidateEpoch]:
        """The accuracies after each epoch."""
        return [*self.progress.history]


class _Report(Callback):
    """Reports the accuracies of ``training`` after each epoch, those on the first of its splits."""

    def __init__(self, training: _Training, file: ProgressFile) -> None:
        self._training, self._file = training, file

    def on_resume(self, epochs: int, steps: int, checkpoint: Path) -> None:
        """Report those of before the interruption."""
        self._tell()

    def on_epoch(self, epoch: CandidateEpoch) -> None:
        """Report one more."""
        self._tell()

    def _tell(self) -> None:
        split = self._training.splits[0]
        self._file.tell([getattr(epoch, split) for epoch in self._training.progress.history])


_NOT_TRAINED_WITH = ("balanced", "frozen_stages", "patience", "weight_levels")
"""Fields of recipes that :func:`fbnetv3_zoo.training.train` knows, and candidates do not."""


def check_searched(recipe: Recipe) -> None:
    """Raise :class:`ZooError` for what candidates are not trained with."""
    if any(getattr(recipe, field) for field in _NOT_TRAINED_WITH):
        raise ZooError(
            "recipe: candidates of a search know no balanced, frozen_stages, patience or weight_levels; leave them out"
        )


def check_recipes(recipes: Recipes, epochs: int) -> None:
    """Raise :class:`ZooError` if candidates of ``epochs`` epochs cannot be trained by all of ``recipes``."""
    for setting in recipes.settings:
        if setting.field in _NOT_TRAINED_WITH:
            raise ZooError(f"recipes: candidates of a search know no {setting.field}; leave it out")
    check_searched(recipes.base)
    searched = [setting.options.values for setting in recipes.settings if setting.field == "epochs"]
    least = min(map(int, searched[0])) if searched else recipes.base.epochs
    if least < epochs:
        raise ZooError(f"recipes: have {least} epochs, of which the rounds of the plan train {epochs}; make them equal")


@cache
def opened(data: str, seed: int, subset: Path | None) -> Dataset:
    """The data, which is looked through once a process."""
    return find_dataset(data, seed=seed, subset=subset)


def _build(arch: AnyArch, recipe: Recipe, data: Dataset) -> Network:
    generator = torch.Generator().manual_seed(recipe.seed)
    arch = replace(arch, num_classes=len(data.class_names), in_channels=len(data.mean))
    return create(arch, drop_rate=recipe.dropout, drop_path_rate=recipe.stochastic_depth, generator=generator)


def check_model(model: str) -> None:
    """Raise unless ``model`` is a published name, an arch JSON file or a model of torchvision that can be built."""
    if is_torchvision(model):
        find_torchvision(model)
    else:
        find_arch(model)
