"""Differentiable search: weights and choices of a supernet trained in turn, and the network that comes out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fbnetv3_zoo.arch.latency import LatencyTable
from fbnetv3_zoo.errors import ZooError, check_type
from fbnetv3_zoo.training.callbacks import Callback, tell_looked
from fbnetv3_zoo.training.data import Dataset, Example
from fbnetv3_zoo.training.data.dataset import take
from fbnetv3_zoo.training.data.image_headers import look_before_run
from fbnetv3_zoo.training.distributed import World, join
from fbnetv3_zoo.training.engine import Engine
from fbnetv3_zoo.training.evaluation import Evaluation
from fbnetv3_zoo.training.execution import Execution, Precision
from fbnetv3_zoo.training.loader import Batch, TrainingBatches, seed_of
from fbnetv3_zoo.training.optim import warn_of_long_average
from fbnetv3_zoo.training.run_folder import check_run, claimed, own_randomness
from fbnetv3_zoo.utils.paths import CONFIG, check_outside

from .decoding import Doubles, check_target, draw, likeliest
from .expected_cost import CostTables
from .learner import SupernetLearner
from .page import write_report
from .plan import SupernetPlan
from .result import REPORT, SampledNetwork, SupernetEpoch, SupernetResult, result_files
from .supernet import Supernet


def search_supernet(
    plan: SupernetPlan, data: Dataset, folder: str | Path, *, latency: LatencyTable | None = None,
    resume: bool = False, execution: Execution = Execution(), callbacks: Sequence[Callback] = (), report: bool = True,
) -> SupernetResult:  # fmt: skip
    """Carry out ``plan`` on ``data``, with the result and a report in ``folder``; under ``torchrun``, in all processes.

    Args:
        plan: what to search, and how.
        data: images; those of its training part are divided between weights and choices.
        folder: where the files go; must not hold a search unless ``resume``.
        latency: blocks measured on the device, for plans whose cost is ``latency_ms``.
        resume: continue the search in ``folder`` after its newest checkpoint, with the result of one that was never
            interrupted.
        execution: where and how to compute.
        callbacks: called after every step and epoch, in the leading process.
        report: write ``report.html`` at the end.

    Raises :class:`ZooError` for input that does not fit and a target that cannot be reached, before there is a folder,
    and where the loss explodes (the batch is then in ``folder``); :class:`Interrupted` where SIGTERM ends the search,
    after a checkpoint.
    """
    check_run(folder, execution, callbacks)
    check_type("plan", plan, SupernetPlan, "a SupernetPlan")
    check_type("data", data, Dataset, "a Dataset, as find_dataset() and as_dataset() give")
    check_outside(folder, data.root)
    if execution.precision is Precision.FLOAT16:
        raise ZooError("supernets are trained in float32 or bf16, not fp16")
    tables = CostTables.of(plan.space, plan.cost, latency)
    if plan.target is not None:
        check_target(tables, plan.target)
    with join(execution.device) as world, own_randomness(world):
        search = _SupernetSearch(plan, data, Path(folder), tables, execution, world)
        search.prepare(latency)
        with claimed(Path(folder), world, (*result_files(plan), REPORT, CONFIG)), closing(search):
            look_before_run(
                data, search.preprocess, plan.recipe, execution=execution, world=world,
                looked=partial(tell_looked, callbacks),
            )  # fmt: skip
            search.begin(resume=resume, epoch=lambda **fields: SupernetEpoch.from_plain(fields))
            result = search.run(callbacks)
        if report and world.leads:
            write_report(result, result.folder / REPORT)
        return result


class _SupernetSearch(Engine[Batch, SupernetResult]):
    learner: SupernetLearner

    def __init__(
        self, plan: SupernetPlan, data: Dataset, folder: Path, tables: CostTables, execution: Execution, world: World
    ) -> None:
        self.plan, self.data, self.folder, self.tables = plan, data, folder, tables
        self.preprocess = data.preprocess(plan.space.resolutions[-1])
        batches, self.choice_batches = (
            TrainingBatches(examples, self.preprocess, plan.recipe, execution=execution, world=world)
            for examples in self._parts_of_data()
        )
        super().__init__(plan.recipe, batches, folder, execution=execution, world=world)

    def _parts_of_data(self) -> Iterator[Sequence[Example]]:
        """The images for the weights, and those for the choices."""
        count, seed = len(self.data["train"]), self.plan.recipe.seed
        order = np.random.default_rng([seed, 0]).permutation(count)
        for_choices = max(2, round(self.plan.choice_share * count))
        if count - for_choices < 2 or not self.data["validation"]:
            raise ZooError(f"{self.data.name}: needs at least 4 images to train on and 1 to validate on")
        for part in (order[for_choices:], order[:for_choices]):
            yield take(self.data["train"], np.sort(part), np.arange(len(self.data.class_names)))

    def prepare(self, latency: LatencyTable | None) -> None:
        """Build the supernet."""
        space = self.plan.space.fitted(num_classes=len(self.data.class_names), in_channels=len(self.data.mean))
        generator = torch.Generator().manual_seed(self.recipe.seed)
        supernet = Supernet(space, drop_rate=self.recipe.dropout, generator=generator)
        supernet.preprocess = self.preprocess
        self.learner = SupernetLearner(supernet, self.plan, self.tables, execution=self.execution, world=self.world)
        measured = "" if latency is None else hashlib.sha256(latency.to_json().encode()).hexdigest()
        self.identity = {"plan": self.plan.to_json(), "data": self.data.fingerprint, "latency table": measured}
        if self.world.leads:
            warn_of_long_average(self.recipe, self.batches.steps)

    def close(self) -> None:
        """Release the worker processes."""
        super().close()
        del self.choice_batches
        self.learner.close()

    def steps_in(self, epoch: int) -> int:
        """Number of steps for the weights, and from the plan's ``choice_epoch`` on for the choices."""
        return self.batches.steps + (self.choice_batches.steps if epoch >= self.plan.choice_epoch else 0)

    def parts_in(self, epoch: int, first_step: int) -> Iterator[list[Batch]]:
        """First the parts for the weights, then those for the choices."""
        self.learner.set_temperature(self.plan.temperature_at(epoch))
        own = self.batches.steps
        if first_step < own:
            yield from self.batches.epoch(epoch, first_step=first_step)
        if max(own, first_step) < self.steps_in(epoch):
            yield from self.choice_batches.epoch(epoch, first_step=max(0, first_step - own))

    def rate_at(self, epoch: int, step: int) -> float:
        """The recipe's for the weights, the plan's for the choices."""
        return super().rate_at(epoch, step) if step < self.batches.steps else self.plan.choice_rate

    def gradients(self, parts: Sequence[Batch], seed: int) -> Tensor:
        """Compute the gradients of the weights or of the choices, with the same noise in every process."""
        noise = seed_of(seed_of(self.recipe.seed, self.progress.epoch, self.step, 0), 1)
        if self.step < self.batches.steps:
            return self.learner.gradients(parts, seed=seed, noise=noise)
        return self.learner.choice_gradients(parts, seed=seed, noise=noise)

    def update(self, rate: float) -> None:
        """Apply the gradients to the weights or to the choices."""
        if self.step < self.batches.steps:
            self.learner.update(rate)
        else:
            self.learner.update_choices()

    def measure_epoch(self) -> SupernetEpoch:
        """Validate, and record the probabilities of the choices."""
        at, measured = self.progress, self._measure()
        if not math.isfinite(measured.loss):
            raise ZooError(f"validation loss is {measured.loss} in epoch {at.epoch + 1}; lower learning_rate")
        probabilities = self._probabilities()
        code = likeliest(self.tables, probabilities, None)
        return SupernetEpoch(
            epoch=at.epoch + 1,
            temperature=self.plan.temperature_at(at.epoch),
            learning_rate=self.recipe.learning_rate_at(at.epoch, 1.0),
            train_loss=self.train_loss,
            validation_loss=measured.loss,
            validation_top1=measured.fraction,
            cost=float(self.learner.expected([torch.from_numpy(p) for p in probabilities])),
            likeliest=float(self.tables.of_codes(np.array([code]))[0]),
            code=code,
            probabilities=tuple(tuple(p.tolist()) for p in probabilities),
            seconds=self.seconds,
        )

    def _probabilities(self) -> list[Doubles]:
        return [p.cpu().numpy() for p in self.learner.averaged.probabilities()]

    def _measure(self, code: tuple[int, ...] | None = None) -> Evaluation:
        """The supernet on the validation images, all choices weighted or those of ``code``."""
        self.learner.averaged.code = code
        try:
            return self.learner.evaluate(self.data, "validation", reduced=True)
        finally:
            self.learner.averaged.code = None

    def finish(self) -> SupernetResult:
        """Choose the network, measure it and others that are drawn, and write the result."""
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
        if self.world.leads:
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
