"""Every training choice as one frozen value. No torch in here. The named ones stand in ``presets.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import Any, TypeAlias

from ..errors import check_flag, check_number, check_type, check_whole
from ..utils.serialization import from_json, to_json


@dataclass(frozen=True, slots=True)
class SGD:
    """Stochastic gradient descent with momentum, Nesterov's form unless ``nesterov`` is False."""

    momentum: float = 0.9
    nesterov: bool = True

    def __post_init__(self) -> None:
        check_number("SGD.momentum", self.momentum, at_least=0, below=1)
        check_flag("SGD.nesterov", self.nesterov)


@dataclass(frozen=True, slots=True)
class RMSProp:
    """RMSProp as TensorFlow has it: ``epsilon`` inside the root, the mean square begins at 1, momentum over steps.

    ``smoothing`` is the factor per step of the mean square.
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
"""How gradients become steps; learning rate and weight decay belong to the recipe."""


@dataclass(frozen=True, slots=True)
class ExponentialDecay:
    """After the warm-up the learning rate is multiplied by ``factor`` after every epoch."""

    factor: float = 0.9875

    def __post_init__(self) -> None:
        check_number("ExponentialDecay.factor", self.factor, above=0)


@dataclass(frozen=True, slots=True)
class CosineDecay:
    """After the warm-up the learning rate falls along half a cosine, every step, to ``final`` times the peak."""

    final: float = 0.0

    def __post_init__(self) -> None:
        check_number("CosineDecay.final", self.final, at_least=0, below=1)


Schedule: TypeAlias = ExponentialDecay | CosineDecay
"""How the learning rate falls after the warm-up."""


class PolicyData(Enum):
    """What an AutoAugment policy was found on."""

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
    """So many ``operations`` an image drawn at random, of ``magnitude`` 0 to 30 (arXiv 1909.13719)."""

    operations: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        check_whole("RandAugment.operations", self.operations)
        check_whole("RandAugment.magnitude", self.magnitude, at_least=0, at_most=30)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What training images go through before the network sees them, in this order.

    ``crop_area``: the smallest share of the image's area that a random resized crop takes (aspect 3:4 to 4:3; 1.0: the
    crop of evaluation instead). ``flip``: probability of mirroring. ``shift``: random rotation (8 degrees), shift (8 %)
    and zoom (10 %), for images whose content fills the frame. ``policy``: AutoAugment or RandAugment. ``erasing``:
    probability that a random rectangle is made grey. ``mixup`` and ``cutmix``: the parameter of the Beta distribution
    from which the share of a second image is drawn, once a batch (0: off; where both are on, one or the other by an
    even chance). ``repeats``: how often each image of an epoch is taken, augmented anew; the epoch keeps its length.
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
    """How the loss is made where there is a teacher.

    Loss = ``weight`` x divergence from the teacher's answers + (1 - ``weight``) x cross entropy with the labels
    (+ ``feature_weight`` x distance of the last maps). The divergence is Kullback and Leibler's of the softmaxes of
    logits / ``temperature``, times temperature squared.
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

    ``batch_size`` counts the images of one optimizer step over all processes; where there are fewer to train on, a run
    takes the recipe :meth:`for_images`. ``learning_rate`` is the peak: the rate
    rises linearly from 0 over ``warmup_epochs``, then falls as ``schedule`` says. ``weight_decay`` leaves out norms and
    biases; it is added to the gradient (L2), with AdamW decoupled. Gradients longer than ``clip_norm`` together are
    shortened to it (0: never). ``ema_decay`` is the factor per step of the moving average over parameters and buffers
    (0: no average); with ``ema_warmup`` it begins lower, at (1 + steps) / (10 + steps). ``stochastic_depth`` is the
    probability of the last block's branch to be left out. ``distillation`` matters where there is a teacher.
    ``weight_levels`` trains for int8: maps are rounded to 8 bits, weights to whole numbers from minus this to this, as
    the int8 form will have them (0: nothing is rounded; 127; 63 for x86 without VNNI).
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
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("Recipe.epochs", self.epochs)
        check_whole("Recipe.batch_size", self.batch_size, at_least=2)  # batch norm has no statistics of one image
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
        check_whole("Recipe.seed", self.seed, at_least=0, at_most=2**32 - 1)

    def learning_rate_at(self, epoch: int, progress: float) -> float:
        """The learning rate in ``epoch`` (from 0) for the step that completes ``progress`` in (0, 1] of it."""
        if epoch < self.warmup_epochs:
            return self.learning_rate * (epoch + progress) / self.warmup_epochs
        if isinstance(self.schedule, ExponentialDecay):
            return self.learning_rate * math.pow(self.schedule.factor, epoch - self.warmup_epochs)
        passed = (epoch + progress - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        final = self.schedule.final
        return self.learning_rate * (final + (1 - final) * (1 + math.cos(math.pi * min(1.0, passed))) / 2)

    def for_batch_size(self, batch_size: int) -> Recipe:
        """This recipe with other batches: what counts by the step is scaled so that an epoch does as much as before.

        The learning rate grows in proportion (arXiv 1706.02677), with AdamW by the square root (2205.10287); the decay
        of the moving average is raised to the power of the ratio (2307.13813).
        """
        check_whole("batch_size", batch_size, at_least=2)
        ratio = batch_size / self.batch_size
        rate = self.learning_rate * (math.sqrt(ratio) if isinstance(self.optimizer, AdamW) else ratio)
        return replace(self, batch_size=batch_size, learning_rate=rate, ema_decay=self.ema_decay**ratio)

    def for_images(self, count: int) -> Recipe:
        """This recipe for so many images to train on: with batches of all of them where one of its own has more."""
        return self if count >= self.batch_size or count < 2 else self.for_batch_size(count)

    def values(self) -> dict[str, Any]:
        """Every single choice by its dotted name, ``optimizer.momentum`` and so on, defaults included."""
        return dict(_values(self, ""))

    def to_json(self) -> str:
        """This recipe as JSON text; :meth:`from_json` gives an equal value back."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Recipe:
        """The recipe in ``text``. Raises :class:`ZooError` with the place of what is wrong."""
        return from_json(cls, text)


def _values(value: Any, prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for field in fields(value):
        item, name = getattr(value, field.name), f"{prefix}{field.name}"
        if is_dataclass(item):
            found.append((name, type(item).__name__))
            found += _values(item, f"{name}.")
        else:
            found.append((name, item.value if isinstance(item, Enum) else item))
    return found
