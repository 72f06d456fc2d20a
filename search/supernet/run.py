"""Differentiable search: weights and choices of a supernet trained in turn, and the network that comes out."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from fbnetv3_zoo.arch.latency import LatencyTable
from fbnetv3_zoo.errors import ZooError, printable
from fbnetv3_zoo.training.checkpoint import Checkpoints, Progress, restore
from fbnetv3_zoo.training.data import Dataset
from fbnetv3_zoo.training.data.dataset import take
from fbnetv3_zoo.training.data.image_headers import look_before_run
from fbnetv3_zoo.training.distributed import World, usable
from fbnetv3_zoo.training.evaluate import Evaluation, evaluate
from fbnetv3_zoo.training.execution import Execution, Precision
from fbnetv3_zoo.training.loader import Batch, TrainingBatches, seed_of
from fbnetv3_zoo.training.optim import warn_of_long_average
from fbnetv3_zoo.training.preemption import Termination
from fbnetv3_zoo.training.run_folder import claimed, own_randomness
from fbnetv3_zoo.training.trainer import EXPLODED
from fbnetv3_zoo.utils.paths import check_outside

from .decoding import Doubles, check_target, draw, likeliest
from .expected_cost import CostTables
from .learner import SupernetLearner
from .plan import SupernetPlan
from .result import SampledNetwork, SupernetEpoch, SupernetResult
from .supernet import Supernet


class SupernetCallback:
    """Is told what happens in a search. Override what is of interest."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Step ``step`` of ``steps`` in ``epoch`` is taken, all from 1; ``loss`` is its cross entropy in nats."""

    def on_epoch(self, epoch: SupernetEpoch) -> None:
        """An epoch has ended and its checkpoint is written."""


def search_supernet(
    plan: SupernetPlan, data: Dataset, folder: str | Path, *, latency: LatencyTable | None = None,
    resume: bool = False, execution: Execution = Execution(), observers: Sequence[SupernetCallback] = (),
) -> SupernetResult:  # fmt: skip
    """Carry out ``plan`` on ``data`` and leave the result in ``folder``.

    Args:
        plan: what to search, and how.
        data: images; those of its training part are divided between weights and choices.
        folder: where the files go; must not hold a search unless ``resume``.
        latency: blocks measured on the device, for plans whose cost is ``latency_ms``.
        resume: continue the search in ``folder`` after its newest checkpoint, with the result of one that was never
            interrupted.
        execution: where and how to compute.
        observers: are told of every step and epoch.

    Raises :class:`ZooError` for input that does not fit and a target that cannot be reached, before there is a folder,
    and where the loss explodes; :class:`Interrupted` where SIGTERM ends the search, after a checkpoint.
    """
    check_outside(folder, data.root)
    if execution.precision is Precision.FLOAT16:
        raise ZooError("supernets are trained in float32 or bf16, not fp16")
    tables = CostTables.of(plan.space, plan.cost, latency)
    if plan.target is not None:
        check_target(tables, plan.target)
    world = World(device=usable(execution.device))
    run = _Run(plan, data, Path(folder), tables, execution, world)
    with own_randomness(world):
        run.prepare(latency)
        with claimed(Path(folder), world):
            try:
                look_before_run(data, run.preprocess, plan.recipe, execution=execution)
                run.begin(resume=resume)
                with Termination() as termination:
                    return run.run(observers, termination)
            finally:
                run.close()


class _Run:
    def __init__(
        self, plan: SupernetPlan, data: Dataset, folder: Path, tables: CostTables, execution: Execution, world: World
    ) -> None:
        self.plan, self.data, self.folder, self.tables = plan, data, folder, tables
        self.execution, self.world, self.recipe = execution, world, plan.recipe
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=execution.keep_checkpoints)
        self.progress = Progress()
        self.preprocess = data.preprocess(plan.space.resolutions[-1])
        self.weight_batches, self.choice_batches = (self._batches(part) for part in self._parts())

    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        """The places of the images that the weights and the choices are trained on."""
        count = len(self.data["train"])
        order = np.random.default_rng([self.recipe.seed, 0]).permutation(count)
        for_choices = max(2, round(self.plan.choice_share * count))
        if count - for_choices < 2 or not self.data["validation"]:
            raise ZooError(f"{self.data.name}: needs at least 4 images to train on and 1 to validate on")
        return np.sort(order[for_choices:]), np.sort(order[:for_choices])

    def _batches(self, chosen: np.ndarray) -> TrainingBatches:
        examples = take(self.data["train"], chosen, np.arange(len(self.data.class_names)))
        return TrainingBatches(examples, self.preprocess, self.recipe, execution=self.execution, world=self.world)

    def prepare(self, latency: LatencyTable | None) -> None:
        """Build the supernet."""
        space = self.plan.space.fitted(num_classes=len(self.data.class_names), in_channels=len(self.data.mean))
        generator = torch.Generator().manual_seed(self.recipe.seed)
        supernet = Supernet(space, drop_rate=self.recipe.dropout, generator=generator)
        supernet.preprocess = self.preprocess
        self.learner = SupernetLearner(supernet, self.plan, self.tables, execution=self.execution, world=self.world)
        measured = "" if latency is None else hashlib.sha256(latency.to_json().encode()).hexdigest()
        self.identity: Mapping[str, str] = {
            "plan": self.plan.to_json(), "data": self.data.fingerprint, "latency table": measured,
        }  # fmt: skip
        warn_of_long_average(self.recipe, self.weight_batches.steps)

    def begin(self, *, resume: bool) -> None:
        """Take up the newest checkpoint where there is one."""
        if (data := self.checkpoints.begin(resume=resume)) is not None:
            self.progress = restore(
                data,
                self.learner,
                identity=self.identity,
                place=self.folder,
                epoch=lambda **entry: SupernetEpoch.from_plain(entry),
            )

    def run(self, observers: Sequence[SupernetCallback], termination: Termination) -> SupernetResult:
        """All epochs that are left, then the result."""
        self._last_write = time.monotonic()
        while self.progress.epoch < self.recipe.epochs:
            self._epoch(observers, termination)
            told = self._end_epoch()
            for observer in observers:
                observer.on_epoch(told)
        return self._finish()

    def close(self) -> None:
        """Let go of the processes that prepare images."""
        del self.weight_batches, self.choice_batches

    def _epoch(self, observers: Sequence[SupernetCallback], termination: Termination) -> None:
        """First the weights on their images, then the choices on theirs."""
        epoch, first, own = self.progress.epoch, self.progress.step, self.weight_batches.steps
        self.learner.set_temperature(self.plan.temperature_at(epoch))
        choosing = self.choice_batches.steps if epoch >= self.plan.choice_epoch else 0
        kinds = [(self.weight_batches, min(first, own), own), (self.choice_batches, max(0, first - own), choosing)]
        for batches, start, steps in kinds:
            if start >= steps:
                continue
            began = time.monotonic()
            for parts in batches.epoch(epoch, first_step=start):
                loss = self._step(parts, began)
                for observer in observers:
                    observer.on_step(epoch + 1, self.progress.step, own + choosing, loss)
                self._write_if_due(termination)
                began = time.monotonic()

    def _step(self, parts: list[Batch], began: float) -> float:
        """One step, of the weights or of the choices; returns its cross entropy. Only the weights' is added up."""
        at, steps = self.progress, self.weight_batches.steps
        seed = seed_of(self.recipe.seed, at.epoch, at.step, self.world.rank)
        if at.step < steps:
            rate = self.recipe.learning_rate_at(at.epoch, (at.step + 1) / steps)
            loss = self.learner.weight_step(parts, seed=seed, rate=rate)
        else:
            loss = self.learner.choice_step(parts, seed=seed)
        if not loss <= EXPLODED:
            raise ZooError(
                f"loss is {loss:.4g} in epoch {at.epoch + 1}, step {at.step + 1}; lower the recipe's learning_rate "
                f"({self.recipe.learning_rate:g})"
            )
        counted = loss if at.step < steps else 0.0
        bad = [printable(key) for batch in parts for key, _ in batch.bad]
        self.progress = at.after_step(counted, time.monotonic() - began, bad)
        return loss

    def _write_if_due(self, termination: Termination) -> None:
        taken = self.progress.epoch * self.weight_batches.steps + self.progress.step
        termination.agreed = termination.asked
        if self.execution.checkpoint_due(taken, time.monotonic() - self._last_write) or termination.agreed:
            self._write()
        if termination.agreed:
            raise self.progress.interrupted()

    def _write(self) -> None:
        self.checkpoints.write(self.learner, self.progress, identity=self.identity)
        self._last_write = time.monotonic()

    def _end_epoch(self) -> SupernetEpoch:
        began, at = time.monotonic(), self.progress
        measured = self._measure()
        if not math.isfinite(measured.loss):
            raise ZooError(f"validation loss is {measured.loss} in epoch {at.epoch + 1}; lower learning_rate")
        probabilities = self._probabilities()
        code = likeliest(self.tables, probabilities, None)
        told = SupernetEpoch(
            epoch=at.epoch + 1,
            temperature=self.plan.temperature_at(at.epoch),
            learning_rate=self.recipe.learning_rate_at(at.epoch, 1.0),
            train_loss=at.loss / self.weight_batches.steps,
            validation_loss=measured.loss,
            validation_top1=measured.fraction,
            cost=float(self.learner.expected([torch.from_numpy(p) for p in probabilities])),
            likeliest=float(self.tables.of_codes(np.array([code]))[0]),
            code=code,
            probabilities=tuple(tuple(p.tolist()) for p in probabilities),
            seconds=round(at.seconds + time.monotonic() - began, 2),
        )
        self.progress = at.after_epoch(told)
        self.progress.write_metrics(self.folder)
        self._write()
        return told

    def _probabilities(self) -> list[Doubles]:
        return [p.cpu().numpy() for p in self.learner.averaged.probabilities()]

    def _measure(self, code: tuple[int, ...] | None = None) -> Evaluation:
        """The supernet on the validation images, all choices weighted or those of ``code``."""
        self.learner.averaged.code = code
        try:
            return evaluate(
                self.learner.predict, self.data["validation"], self.preprocess, class_names=self.data.class_names,
                workers=self.execution.workers, on_bad_image=self.execution.on_bad_image,
            )  # fmt: skip
        finally:
            self.learner.averaged.code = None

    def _finish(self) -> SupernetResult:
        probabilities, target = self._probabilities(), self.plan.target
        self.learner.set_temperature(self.plan.temperature_at(self.recipe.epochs - 1))
        first = likeliest(self.tables, probabilities, target)
        rng = np.random.default_rng([self.recipe.seed, 1])
        wanted = self.plan.draws + 1 if self.plan.draws else 0  # the first may be among them
        others = draw(self.tables, probabilities, wanted, rng, target=target).tolist()
        codes = [first, *(tuple(code) for code in others if tuple(code) != first)][: self.plan.draws + 1]
        shown = [self._drawn(code, probabilities) for code in codes]
        found = max(shown, key=self._rank)  # between two bounds only a drawn one may lie
        drawn = tuple(one for one in shown if one is not found)
        record = SupernetResult(self.folder, self.plan, self.data.name, self.progress.history, found, drawn)
        self.progress.write_metrics(self.folder)
        record.write()
        return record

    def _rank(self, one: SampledNetwork) -> tuple[bool, float]:
        """Those that meet the target come before all others, then the more probable ones."""
        target = self.plan.target
        return target is None or target.contains(one.cost), one.log_probability

    def _drawn(self, code: tuple[int, ...], probabilities: Sequence[Doubles]) -> SampledNetwork:
        chance = sum(math.log(max(1e-30, p[n])) for p, n in zip(probabilities, code, strict=True))
        return SampledNetwork(
            code, chance, float(self.tables.of_codes(np.array([code]))[0]), self._measure(code).fraction
        )
