"""What changes in a run, and the one step that changes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..classify import Floats
from ..errors import ZooError
from ..models.network import Network
from ..recipes import Recipe
from .augmentation import build_mixer
from .data import Dataset, Split
from .distributed import World
from .evaluation import Evaluation, evaluate_images
from .evaluation_images import EvaluationImages
from .execution import Execution, Precision
from .loader import AnyBatch, Batch
from .losses import distilled_loss, labels_loss, map_distance
from .optim import build_average, build_optimizer
from .qat import follow_ranges
from .teacher import Teacher, normalized

AnyModule = TypeVar("AnyModule", bound=nn.Module)
_EVALUATED_AT_ONCE = 64
_DTYPES = {Precision.BFLOAT16: torch.bfloat16, Precision.FLOAT16: torch.float16}


class Student(nn.Module):
    """The network in training, and what fits its last map to the teacher's where maps are compared."""

    def __init__(self, network: Network, map_channels: int | None, generator: torch.Generator | None) -> None:
        super().__init__()
        self.network = network
        self.projector: nn.Module | None = None
        if map_channels is not None:
            own = network.feature_info[-1].channels
            self.projector = nn.Conv2d(own, map_channels, 1, bias=False)
            nn.init.kaiming_normal_(self.projector.weight, generator=generator)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and the last map in as many channels as the teacher's has."""
        if self.projector is None:
            return self.network(images), None
        maps = self.network.forward_features(images)
        return self.network.forward_head(maps), self.projector(maps)


class BaseLearner(ABC, Generic[AnyBatch]):
    """Module, optimizer and moving average of a run, in this process of ``world``.

    ``student`` is the trained module, on its device; ``result`` the part of it that the run returns (default: all),
    which is averaged.
    """

    def __init__(
        self, student: nn.Module, recipe: Recipe, *, execution: Execution, world: World, result: nn.Module | None = None
    ) -> None:
        self.recipe, self.execution, self.world = recipe, execution, world
        self.student, self._result = student, student if result is None else result
        self.average = build_average(self._result, recipe)
        self.optimizer = build_optimizer(student, recipe)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=execution.precision is Precision.FLOAT16)
        student.train()
        if execution.compile:
            student.compile()
        self._exact = torch.float32 if world.device.type == "mps" else torch.float64
        self._forward = (
            student
            if world.size == 1
            else DistributedDataParallel(student, broadcast_buffers=has_statistics_of_its_own(student))
        )

    @abstractmethod
    def _loss(self, batch: AnyBatch) -> Tensor:
        """The loss of a batch, computed by :attr:`_forward`."""

    @property
    def result(self) -> nn.Module:
        """The network that the run returns: the average, if there is one."""
        return self._result if self.average is None else self.average.module

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The optimizer, by its name in a checkpoint."""
        return {"optimizer": self.optimizer}

    def gradients(self, parts: Sequence[AnyBatch], *, seed: int) -> Tensor:
        """Compute the gradients of the mean loss of ``parts`` and return that loss (this process's, in nats).

        All randomness (mixing, dropout, stochastic depth) comes from ``seed``. The loss is a number on the device:
        reading it would wait for all that a GPU has been given to do.
        """
        torch.manual_seed(seed)
        self.optimizer.zero_grad()
        total = torch.zeros((), dtype=self._exact, device=self.world.device)
        for number, batch in enumerate(parts, start=1):
            with self._exchanging(number == len(parts)):
                loss = self._loss(batch) / len(parts)
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def update(self, rate: float) -> None:
        """Apply the gradients at this learning rate, and let the average follow."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.recipe.clip_norm > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.student.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        follow_ranges(self.student)
        self._follow()

    def _follow(self) -> None:
        """Update the moving average."""
        if self.average is not None:
            self.average.update()

    def _exchanging(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged between processes once a step, with its last part."""
        if last or not isinstance(self._forward, DistributedDataParallel):
            return nullcontext()
        return self._forward.no_sync()

    def _reduced_precision(self) -> AbstractContextManager[None]:
        return reduced_precision(self.execution.precision, self.world.device.type)


class Learner(BaseLearner[Batch]):
    """Network, optimizer, moving average and teacher of a run, in this process of ``world``.

    ``network`` is trained in place: moved to the device, its norms synchronized where several GPUs share a batch.
    ``class_weights``: factor
    of the loss for each class.
    """

    student: Student

    def __init__(
        self, network: Network, recipe: Recipe, *, teacher: Teacher | None = None, execution: Execution = Execution(),
        world: World = World(), generator: torch.Generator | None = None, class_weights: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.teacher, self.preprocess = teacher, network.preprocess
        self._class_weights = None if class_weights is None else class_weights.to(world.device)
        self._format = _memory_format(execution, world)
        maps = _map_channels(teacher, recipe)
        network.set_gradient_checkpointing(execution.gradient_checkpointing)
        student = Student(synchronized(network, world), maps, generator)
        student = student.to(world.device, memory_format=self._format)  # type: ignore[call-overload]
        super().__init__(student, recipe, execution=execution, world=world, result=student.network)
        self._mix = build_mixer(recipe.augmentation, network.num_classes)
        self._images: dict[Split, EvaluationImages] = {}

    def predict(self, images: Floats, *, reduced: bool = False) -> Floats:
        """Logits of a batch (images, channels, height, width) by :attr:`result`, in evaluation mode.

        ``reduced``: in the precision of the training instead of 32 bits.
        """
        precision = self._reduced_precision() if reduced else nullcontext()
        with self._evaluating(), torch.inference_mode(), precision:
            pixels = torch.from_numpy(images).to(self.world.device, non_blocking=True)
            logits: Floats = self.result(pixels).float().cpu().numpy()
        return logits

    def evaluate(self, data: Dataset, split: Split, *, reduced: bool = False) -> Evaluation:
        """Evaluate :attr:`result` on a split of ``data`` by :meth:`predict`, in all processes together.

        What reads the images stays for the next time, until :meth:`close`.
        """
        if split not in self._images:
            self._images[split] = EvaluationImages(
                data[split], self.preprocess, batch_size=self._evaluated_at_once(), workers=self.execution.workers,
                world=self.world,
            )  # fmt: skip
        self.world.share_buffers(self.result)
        with self._evaluating():
            return evaluate_images(
                partial(self.predict, reduced=reduced), self._images[split], class_names=data.class_names,
                on_bad_image=self.execution.on_bad_image, world=self.world,
            )  # fmt: skip

    def close(self) -> None:
        """End the processes that read images."""
        self._images.clear()

    def _evaluated_at_once(self) -> int:
        """Number of images: on a GPU as many as fit it in training."""
        if self.world.device.type == "cpu":
            return _EVALUATED_AT_ONCE
        return max(_EVALUATED_AT_ONCE, self.recipe.batch_size // (self.world.size * self.execution.accumulation))

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """:attr:`result` in evaluation mode; going over all its modules for every batch would take time."""
        network = self.result
        if not network.training:
            yield
            return
        network.eval()
        try:
            yield
        finally:
            network.train()

    def _loss(self, batch: Batch) -> Tensor:
        device, recipe = self.world.device, self.recipe
        pixels = batch.images.to(device, non_blocking=True).float().div_(255)
        pixels, targets = self._mix(pixels, batch.labels.to(device, non_blocking=True))
        images = normalized(pixels, self.preprocess, in_place=self.teacher is None)
        images = images.contiguous(memory_format=self._format)
        with self._reduced_precision():
            logits, maps = self._forward(images)
            answers, teacher_maps = (None, None) if self.teacher is None else self.teacher(pixels)
        loss = labels_loss(logits.float(), targets, recipe.label_smoothing, self._class_weights)
        if answers is not None:
            loss = distilled_loss(loss, logits.float(), answers, recipe.distillation)
        if maps is not None and teacher_maps is not None:
            loss = loss + recipe.distillation.feature_weight * map_distance(maps.float(), teacher_maps.float())
        return loss


def reduced_precision(precision: Precision, device: str) -> AbstractContextManager[None]:
    """A context in which the type of ``device`` computes in ``precision``."""
    if (dtype := _DTYPES.get(precision)) is None:
        return nullcontext()
    return torch.autocast(device, dtype)


def synchronized(module: AnyModule, world: World) -> AnyModule:
    """``module`` with synchronized batch norms if several GPUs share a batch."""
    if world.size == 1 or world.device.type != "cuda":
        return module
    converted: AnyModule = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return converted


def has_statistics_of_its_own(module: nn.Module) -> bool:
    """Whether a batch norm in ``module`` counts its statistics in this process alone."""
    return any(
        isinstance(part, nn.modules.batchnorm._BatchNorm) and not isinstance(part, nn.SyncBatchNorm)
        for part in module.modules()
    )


def _memory_format(execution: Execution, world: World) -> torch.memory_format:
    last = execution.channels_last
    if last is None:  # tensor cores work in it; on a CPU the network itself takes no other (see FBNet)
        last = world.device.type == "cpu" or execution.precision is not Precision.FLOAT32
    return torch.channels_last if last else torch.contiguous_format


def _map_channels(teacher: Teacher | None, recipe: Recipe) -> int | None:
    if teacher is None or recipe.distillation.feature_weight == 0:
        return None
    if teacher.map_channels is None:
        raise ZooError(f"teacher {teacher.name}: has no maps to compare; set distillation.feature_weight to 0")
    return teacher.map_channels
