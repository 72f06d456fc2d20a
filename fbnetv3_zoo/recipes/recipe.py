"""Every training choice as one frozen value; named recipes are in ``presets.py``. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeAlias

from ..errors import ZooError, assert_never, check_flag, check_number, check_type, check_whole
from ..utils.serialization import from_json, to_json
from ..utils.tables import in_notebook, table


@dataclass(frozen=True, slots=True)
class SGD:
    """Stochastic gradient descent with momentum, in Nesterov's form unless ``nesterov`` is False."""

    momentum: float = 0.9
    nesterov: bool = True

    def __post_init__(self) -> None:
        check_number("SGD.momentum", self.momentum, at_least=0, below=1)
        check_flag("SGD.nesterov", self.nesterov)


@dataclass(frozen=True, slots=True)
class RMSProp:
    """RMSProp as in TensorFlow: ``epsilon`` inside the root, mean square initialized to 1, momentum of steps.

    ``smoothing`` is the decay of the mean square per step.
    """

    momentum: float = 0.9
    smoothing: float = 0.9
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        check_number("RMSProp.momentum", self.momentum, at_least=0, below=1)
        check_number("RMSProp.smoothing", self.smoothing, at_least=0, below=1)
        check_number("RMSProp.epsilon", self.epsilon, above=0)


@dataclass(frozen=True, slots=True)
class AdamW:
    """Adam with decoupled weight decay (arXiv 1711.05101)."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        check_number("AdamW.beta1", self.beta1, at_least=0, below=1)
        check_number("AdamW.beta2", self.beta2, at_least=0, below=1)
        check_number("AdamW.epsilon", self.epsilon, above=0)


Optimizer: TypeAlias = SGD | RMSProp | AdamW
"""An :class:`SGD`, :class:`RMSProp` or :class:`AdamW`; learning rate and weight decay are fields of the recipe."""

OPTIMIZERS: Mapping[str, type[Optimizer]] = MappingProxyType({"rmsprop": RMSProp, "sgd": SGD, "adamw": AdamW})
"""The optimizers by the name that command line and search spaces have for them."""


@dataclass(frozen=True, slots=True)
class ExponentialDecay:
    """After warm-up, the learning rate is multiplied by ``factor`` after every epoch."""

    factor: float = 0.9875

    def __post_init__(self) -> None:
        check_number("ExponentialDecay.factor", self.factor, above=0)


@dataclass(frozen=True, slots=True)
class CosineDecay:
    """After warm-up, the learning rate falls along half a cosine, step by step, to ``final`` times the peak."""

    final: float = 0.0

    def __post_init__(self) -> None:
        check_number("CosineDecay.final", self.final, at_least=0, below=1)


Schedule: TypeAlias = ExponentialDecay | CosineDecay
"""How the learning rate falls after warm-up: an :class:`ExponentialDecay` or a :class:`CosineDecay`."""


class PolicyData(Enum):
    """The data on which an AutoAugment policy was found."""

    IMAGENET = "imagenet"
    CIFAR10 = "cifar10"


@dataclass(frozen=True, slots=True)
class AutoAugment:
    """A published policy of pairs of operations (arXiv 1805.09501)."""

    found_on: PolicyData = PolicyData.IMAGENET

    def __post_init__(self) -> None:
        check_type("AutoAugment.found_on", self.found_on, PolicyData, "a PolicyData")


@dataclass(frozen=True, slots=True)
class RandAugment:
    """A number of random ``operations`` per image, of ``magnitude`` 0 to 30 (arXiv 1909.13719)."""

    operations: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        check_whole("RandAugment.operations", self.operations)
        check_whole("RandAugment.magnitude", self.magnitude, at_least=0, at_most=30)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Augmentation of training images, in this order.

    ``crop_area``: smallest share of the image's area in a random resized crop (aspect ratio 3:4 to 4:3; 1.0: the crop
    of evaluation instead). ``flip``: probability of a horizontal flip. ``shift``: random rotation (8 degrees),
    translation (8 %) and zoom (10 %), for images whose content fills the frame. ``policy``: AutoAugment or RandAugment.
    ``erasing``: probability of random erasing, with gray. ``mixup`` and ``cutmix``: parameter of the Beta distribution
    of the share of a second image, drawn once per batch (0: off; if both are on, either with equal chance).
    ``repeats``: number of times each image of an epoch is used, augmented anew; the epoch keeps its length.
    """

    crop_area: float = 1.0
    flip: float = 0.0
    shift: bool = False
    policy: AutoAugment | RandAugment | None = None
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    repeats: int = 1

    def __post_init__(self) -> None:
        check_number("Augmentation.crop_area", self.crop_area, above=0, at_most=1)
        for field in ("flip", "erasing"):
            check_number(f"Augmentation.{field}", getattr(self, field), at_least=0, at_most=1)
        check_flag("Augmentation.shift", self.shift)
        if self.policy is not None:
            check_type(
                "Augmentation.policy", self.policy, AutoAugment | RandAugment, "AutoAugment, RandAugment or None"
            )
        for field in ("mixup", "cutmix"):
            check_number(f"Augmentation.{field}", getattr(self, field), at_least=0)
        check_whole("Augmentation.repeats", self.repeats)


@dataclass(frozen=True, slots=True)
class Distillation:
    """The loss with a teacher.

    Loss = ``weight`` x divergence from the teacher + (1 - ``weight``) x cross entropy with the labels
    (+ ``feature_weight`` x distance of the last feature maps). The divergence is the Kullback-Leibler divergence of the
    softmaxes of logits / ``temperature``, times ``temperature`` squared.
    """

    weight: float = 0.8
    temperature: float = 1.0
    feature_weight: float = 0.0

    def __post_init__(self) -> None:
        check_number("Distillation.weight", self.weight, at_least=0, at_most=1)
        check_number("Distillation.temperature", self.temperature, above=0)
        check_number("Distillation.feature_weight", self.feature_weight, at_least=0)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained.

    ``batch_size`` is the number of images of one optimizer step over all processes; with fewer training images a run
    uses the recipe :meth:`for_images`. ``learning_rate`` is the peak: the rate rises linearly from 0 over
    ``warmup_epochs``, then follows ``schedule``. ``weight_decay`` does not apply to norms and biases; it is added to
    the gradient (L2), or decoupled with AdamW. Gradients are clipped to a total norm of ``clip_norm`` (0: never).
    ``ema_decay`` is the decay per step of the moving average of parameters and buffers (0: no average); with
    ``ema_warmup`` it is at most (1 + steps) / (10 + steps). ``dropout`` is the ``drop_rate`` of the network,
    ``stochastic_depth`` its ``drop_path_rate``. ``distillation`` applies if there is a teacher. ``weight_levels``
    trains for int8: activations are rounded to 8 bits, weights to integers of at most this magnitude, as in the int8
    model (0: no rounding; 127; 63 for x86 without VNNI). With ``balanced``, the loss of each class is weighted
    inversely to its number of training images. The first ``frozen_stages`` stages keep their initial weights and
    statistics. After ``patience`` epochs without a better validation accuracy, the run ends (0: never).
    """

    epochs: int
    batch_size: int
    optimizer: Optimizer
    learning_rate: float
    augmentation: Augmentation = Augmentation()
    schedule: Schedule = ExponentialDecay()
    warmup_epochs: int = 5
    weight_decay: float = 1e-5
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    ema_warmup: bool = True
    label_smoothing: float = 0.0
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    distillation: Distillation = Distillation()
    weight_levels: int = 0
    balanced: bool = False
    frozen_stages: int = 0
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("Recipe.epochs", self.epochs)
        check_whole("Recipe.batch_size", self.batch_size, at_least=2)  # batch norm needs two images
        check_type("Recipe.optimizer", self.optimizer, Optimizer, "SGD, RMSProp or AdamW")
        check_number("Recipe.learning_rate", self.learning_rate, above=0)
        check_type("Recipe.augmentation", self.augmentation, Augmentation, "an Augmentation")
        check_type("Recipe.schedule", self.schedule, Schedule, "ExponentialDecay or CosineDecay")
        check_whole("Recipe.warmup_epochs", self.warmup_epochs, at_least=0)
        for field in ("weight_decay", "clip_norm"):
            check_number(f"Recipe.{field}", getattr(self, field), at_least=0)
        for field in ("ema_decay", "label_smoothing", "dropout", "stochastic_depth"):
            check_number(f"Recipe.{field}", getattr(self, field), at_least=0, below=1)
        check_flag("Recipe.ema_warmup", self.ema_warmup)
        check_type("Recipe.distillation", self.distillation, Distillation, "a Distillation")
        check_whole("Recipe.weight_levels", self.weight_levels, at_least=0, at_most=127)
        check_flag("Recipe.balanced", self.balanced)
        for field in ("frozen_stages", "patience"):
            check_whole(f"Recipe.{field}", getattr(self, field), at_least=0)
        if self.frozen_stages and self.weight_levels:
            raise ZooError("Recipe.frozen_stages: training for int8 (weight_levels) changes all stages; set one to 0")
        check_whole("Recipe.seed", self.seed, at_least=0, at_most=2**32 - 1)

    def learning_rate_at(self, epoch: int, progress: float) -> float:
        """The learning rate in ``epoch`` (from 0) of the step that completes the share ``progress`` in (0, 1] of it."""
        if epoch < self.warmup_epochs:
            return self.learning_rate * (epoch + progress) / self.warmup_epochs
        if isinstance(self.schedule, ExponentialDecay):
            return self.learning_rate * math.pow(self.schedule.factor, epoch - self.warmup_epochs)
        if isinstance(self.schedule, CosineDecay):
            passed = (epoch + progress - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
            final = self.schedule.final
            return self.learning_rate * (final + (1 - final) * (1 + math.cos(math.pi * min(1.0, passed))) / 2)
        assert_never(self.schedule)

    def for_batch_size(self, batch_size: int) -> Recipe:
        """This recipe with another batch size: values per step are scaled so that an epoch has the same effect.

        The learning rate is scaled linearly (arXiv 1706.02677), with AdamW by the square root (2205.10287); the decay
        of the moving average is raised to the power of the ratio (2307.13813).
        """
        check_whole("batch_size", batch_size, at_least=2)
        ratio = batch_size / self.batch_size
        rate = self.learning_rate * (math.sqrt(ratio) if isinstance(self.optimizer, AdamW) else ratio)
        return replace(self, batch_size=batch_size, learning_rate=rate, ema_decay=self.ema_decay**ratio)

    def for_epochs(self, epochs: int) -> Recipe:
        """This recipe with another number of epochs, over which an exponential decay falls as far as before."""
        check_whole("epochs", epochs)
        schedule = self.schedule
        if isinstance(schedule, ExponentialDecay):
            before, after = (max(1, number - self.warmup_epochs) for number in (self.epochs, epochs))
            schedule = ExponentialDecay(schedule.factor ** (before / after))
        elif not isinstance(schedule, CosineDecay):
            assert_never(schedule)
        return replace(self, epochs=epochs, schedule=schedule)

    def for_images(self, count: int) -> Recipe:
        """This recipe for ``count`` training images: the batch size is reduced to ``count`` if it is larger."""
        return self if count >= self.batch_size or count < 2 else self.for_batch_size(count)

    def values(self) -> dict[str, Any]:
        """All values by dotted name, such as ``optimizer.momentum``, defaults included."""
        return dict(_values(self, ""))

    def __str__(self) -> str:
        """All values by dotted name, as a table."""
        return table([("value of", "recipe"), *self.values().items()], left=2)

    def _repr_html_(self) -> str:
        return in_notebook(str(self))

    def to_json(self) -> str:
        """This recipe as JSON with every field, for :meth:`from_json`."""
        return to_json(self, defaults=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Recipe:
        """The recipe in the JSON ``text``. Raises :class:`ZooError` naming the key that is wrong."""
        return from_json(cls, text)


def _values(value: Any, prefix: str) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for field in fields(value):
        item, name = getattr(value, field.name), f"{prefix}{field.name}"
        if is_dataclass(item):
            pairs.append((name, type(item).__name__))
            pairs += _values(item, f"{name}.")
        else:
            pairs.append((name, item.value if isinstance(item, Enum) else item))
    return pairs
