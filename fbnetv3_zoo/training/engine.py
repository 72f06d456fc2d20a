"""The training loop of all kinds of runs: resuming, epochs, learning rate, checkpoints, SIGTERM, callbacks.

All randomness is derived from the recipe's seed, the epoch and the step, so that a resumed run ends with exactly the
same weights as an uninterrupted one.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from ..errors import ZooError, printable
from ..recipes import Recipe
from ..utils.log import LOG
from ..weights.serialization import write_tensors
from .callbacks import Callback, Step
from .checkpoint import Checkpoints, Progress, restore
from .distributed import World
from .execution import Execution, computing_on
from .learner import BaseLearner
from .loader import AnyBatch, Batches, seed_of
from .preemption import Termination
from .run_folder import CHECKPOINTS

EXPLODED = 1000.0
"""Loss in nats above which a run fails, since it does not recover."""

READ_EVERY = 10
"""Steps on a GPU after which their losses are read together."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Unread:
    """A step with its learning rate, the loss that has not been read yet, and its unreadable images."""

    rate: float
    loss: Tensor
    bad: list[tuple[str, str]]


class ExplodedLossError(ZooError):
    """The loss of a step is NaN or too high."""


class Engine(ABC, Generic[AnyBatch, Result]):
    """A run in this process of ``world``. Subclasses define what is trained and evaluated, and the result.

    A subclass sets ``learner`` and ``identity`` (what must be the same on resuming) before :meth:`begin`. If ``output``
    is None, the run stays in memory: it writes no files and does not handle SIGTERM. ``epochs``: the number to train,
    if not the recipe's.
    """

    learner: BaseLearner[AnyBatch]
    identity: Mapping[str, str]
    highest_loss: ClassVar[float] = EXPLODED
    equal_sizes: ClassVar[bool] = True
    """Whether all batches have the same shape, for which cuDNN tries out its algorithms."""
    resumes_anyway: ClassVar[bool] = False
    """Whether ``resume`` is always given, so that it says nothing about what is expected."""

    def __init__(
        self, recipe: Recipe, batches: Batches[AnyBatch], output: Path | None, *, execution: Execution,
        world: World, epochs: int | None = None,
    ) -> None:  # fmt: skip
        self.recipe, self.batches, self.execution, self.world = recipe, batches, execution, world
        self.progress = Progress()
        self._epochs, self._output = recipe.epochs if epochs is None else epochs, output
        self._checkpoints: Checkpoints | None = None
        self._resumed: Path | None = None
        if output is not None:
            self._checkpoints = Checkpoints(output / CHECKPOINTS, keep=execution.keep_checkpoints)
        self._termination, self._last_write, self._measuring_since, self._began = Termination(), 0.0, 0.0, 0.0
        self._unread: list[_Unread] = []
        self._read_every = 1 if world.device.type == "cpu" else READ_EVERY

    # Defined by subclasses

    @abstractmethod
    def measure_epoch(self) -> Any:
        """Evaluate after an epoch; its record, a dataclass of numbers, becomes a line of ``metrics.jsonl``."""

    @abstractmethod
    def finish(self) -> Result:
        """The result of the run, after its last epoch."""

    @property
    def ends_early(self) -> bool:
        """Whether the run ends before its last epoch."""
        return False

    @property
    def threads(self) -> int:
        """Number of threads that PyTorch computes on; 0 in ``execution`` leaves it as it is."""
        return self.execution.threads or torch.get_num_threads()

    def steps_in(self, epoch: int) -> int:
        """Number of steps in ``epoch`` (from 0); only the first ``batches.steps`` count in the training loss."""
        return self.batches.steps

    def parts_in(self, epoch: int, first_step: int) -> Iterator[list[AnyBatch]]:
        """The parts of each step of ``epoch`` for this process, starting at ``first_step``."""
        return self.batches.epoch(epoch, first_step=first_step)

    def rate_at(self, epoch: int, step: int) -> float:
        """The learning rate of this step."""
        return self.recipe.learning_rate_at(epoch, (step + 1) / self.batches.steps)

    def gradients(self, parts: Sequence[AnyBatch], seed: int) -> Tensor:
        """Compute the gradients of a step and return the loss of this process, a number on its device."""
        return self.learner.gradients(parts, seed=seed)

    def update(self, rate: float) -> None:
        """Apply the gradients."""
        self.learner.update(rate)

    @property
    def step(self) -> int:
        """The step of the epoch that is computed, from 0."""
        return self.progress.step + len(self._unread)

    def on_unreadable(self, images: Sequence[tuple[str, str]]) -> None:
        """Called after each step with key and error of the images that it replaced, in all processes."""

    # For the records of epochs

    @property
    def train_loss(self) -> float:
        """Mean loss of the epoch's steps."""
        return self.progress.loss / self.batches.steps

    @property
    def images_per_second(self) -> float:
        """Training images per second, over all processes."""
        return round(self.batches.steps * self.batches.batch_size / self.progress.seconds, 2)

    @property
    def seconds(self) -> float:
        """Duration of the epoch so far: its steps and the evaluation."""
        return round(self.progress.seconds + time.monotonic() - self._measuring_since, 2)

    @property
    def remedy(self) -> str:
        """Advice for a loss that explodes."""
        return f"lower learning_rate ({self.recipe.learning_rate:g})"

    # The loop

    def check_folder(self, *, resume: bool) -> None:
        """Raise :class:`ZooError` where the folder holds a run that is not to be resumed, or that cannot be."""
        assert self._checkpoints is not None
        if self.world.leads:
            self._checkpoints.check(resume=resume)

    def begin(self, *, resume: bool, epoch: Callable[..., Any]) -> None:
        """Resume from the newest checkpoint, if any; ``epoch`` makes a record of an epoch from its fields."""
        assert self._output is not None
        assert self._checkpoints is not None
        found = self._checkpoints.begin(resume=resume) if self.world.leads else None
        self._resumed = found.path if found else None
        if resume and found is None and self.world.leads and not self.resumes_anyway:
            LOG.warning("%s: holds no run to continue; one begins", self._output)
        data = self.world.share(found.data if found else None)
        if data is not None:
            self.progress = restore(data, self.learner, identity=self.identity, place=self._output, epoch=epoch)

    def run(self, callbacks: Sequence[Callback] = ()) -> Result:
        """Run the remaining epochs and return the result; ``callbacks`` are called in the leading process."""
        if not self.world.leads:
            callbacks = ()
        if self._resumed is not None:
            for callback in callbacks:
                callback.on_resume(self.progress.epoch, self.progress.step, self._resumed)
        self._last_write = time.monotonic()
        with (
            computing_on(self.threads, tried_out=self.equal_sizes),
            self._termination if self._output else nullcontext(),
        ):
            while self.progress.epoch < self._epochs and not self.ends_early:
                self._train_epoch(callbacks)
                epoch = self._end_epoch()
                for callback in callbacks:
                    callback.on_epoch(epoch)
            self._write_metrics()
            return self.finish()

    def close(self) -> None:
        """Release the worker processes, which a reference from an exception would keep alive."""
        del self.batches

    def _train_epoch(self, callbacks: Sequence[Callback]) -> None:
        self._began = time.monotonic()
        for parts in self.parts_in(self.progress.epoch, self.progress.step):
            self._step(parts)
            if self._is_to_be_read():
                self._read(callbacks)
                self._write_if_due()

    def _step(self, parts: list[AnyBatch]) -> None:
        epoch, step = self.progress.epoch, self.step
        rate = self.rate_at(epoch, step)
        loss = self.gradients(parts, seed_of(self.recipe.seed, epoch, step, self.world.rank))
        self.update(rate)
        bad = [(printable(key), complaint) for part in parts for key, complaint in part.bad]
        self._unread.append(_Unread(rate, loss, bad))

    def _is_to_be_read(self) -> bool:
        """Whether the losses of the last steps are read, which is the same in all processes."""
        taken = self.progress.epoch * self.batches.steps + self.step
        return (
            len(self._unread) >= self._read_every
            or self.step == self.steps_in(self.progress.epoch)
            or self.execution.checkpoint_due(taken, 0.0)
        )

    def _read(self, callbacks: Sequence[Callback]) -> None:
        """Read the losses of the last steps, and tell of them."""
        steps, world = self._unread, self.world
        self._unread = []
        own = torch.stack([step.loss for step in steps]).tolist()
        table = [[loss, len(step.bad), self._termination.requested] for loss, step in zip(own, steps, strict=True)]
        sums = world.total(torch.tensor(table, dtype=torch.float64)).tolist()
        unreadable = world.gather([step.bad for step in steps]) if any(bad for _, bad, _ in sums) else []
        seconds = (time.monotonic() - self._began) / len(steps)
        self._termination.agreed = sums[-1][2] > 0
        for number, (step, (total, _, _)) in enumerate(zip(steps, sums, strict=True)):
            at, loss = self.progress, total / world.size
            if not loss <= self.highest_loss:
                self._refuse(loss, step.rate)
            images = [image for of_process in unreadable for image in of_process[number]]
            self.on_unreadable(images)
            counted = loss if at.step < self.batches.steps else 0.0
            self.progress = at.after_step(counted, seconds, [key for key, _ in images])
            speed = self.batches.batch_size / seconds
            done = Step(at.epoch + 1, at.step + 1, self.steps_in(at.epoch), loss, step.rate, speed)
            for callback in callbacks:
                callback.on_step(done)
        self._began = time.monotonic()

    def _refuse(self, loss: float, rate: float) -> None:
        """Fail because of the loss, after writing the batch to a file: it is made once more."""
        at, where = self.progress, ""
        if self._output is not None:
            parts = next(iter(self.parts_in(at.epoch, at.step)))
            path = self._output / f"failed-batch-{self.world.rank}.safetensors"
            tensors = {f"{name}.{n}": tensor for n, part in enumerate(parts) for name, tensor in part.tensors().items()}
            about = {"epoch": at.epoch + 1, "step": at.step + 1, "learning_rate": rate, "loss": loss}
            write_tensors(path, tensors, {key: str(value) for key, value in about.items()})
            where = f"; the batch is in {path}"
        raise ExplodedLossError(
            f"loss is {loss:.4g} in epoch {at.epoch + 1}, step {at.step + 1}, at learning rate {rate:.4g}; "
            f"{self.remedy}{where}"
        )

    def _end_epoch(self) -> Any:
        self._measuring_since = time.monotonic()
        epoch = self.measure_epoch()
        self.progress = self.progress.after_epoch(epoch)
        self._write_metrics()
        self._write()
        return epoch

    def _write_if_due(self) -> None:
        taken = self.progress.epoch * self.batches.steps + self.progress.step
        ends = self._termination.agreed or (self.world.size == 1 and self._termination.requested)
        if ends or self.execution.checkpoint_due(taken, time.monotonic() - self._last_write):
            self._write()
        if ends:
            raise self.progress.interrupted()

    def _write(self) -> None:
        if self._checkpoints is not None and self.world.leads:
            self._checkpoints.write(self.learner, self.progress, identity=self.identity)
        self._last_write = time.monotonic()

    def _write_metrics(self) -> None:
        if self._output is not None and self.world.leads:
            self.progress.write_metrics(self._output)
