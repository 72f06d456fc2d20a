"""Every training choice as one frozen value. No torch in here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from fbnetv3_zoo.errors import ZooError, check_number, check_type, check_whole, nearest
from fbnetv3_zoo.plain import from_json, to_json


class Optimizer(Enum):
    """How gradients become steps."""

    RMSPROP = "rmsprop"
    SGD = "sgd"


class Augmentation(Enum):
    """What training images go through before the network sees them.

    ``CROP_FLIP``: random resized crop (8 to 100 % of the area) and horizontal flip, the field's usual one.
    ``SHIFT``: small random rotation, shift and zoom, for images whose content fills the frame and must not be flipped.
    """

    NONE = "none"
    CROP_FLIP = "crop_flip"
    SHIFT = "shift"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained.

    The learning rate rises linearly from 0 over ``warmup_epochs``, then is multiplied by ``decay_per_epoch`` after
    every epoch. ``weight_decay`` (L2) leaves out norms and biases. ``ema_decay`` is the factor per step of the moving
    average over parameters and buffers (0: no average); it begins lower, at (1 + steps) / (10 + steps).
    """

    epochs: int
    batch_size: int
    optimizer: Optimizer
    learning_rate: float
    augmentation: Augmentation
    momentum: float = 0.9
    warmup_epochs: int = 5
    decay_per_epoch: float = 0.9875
    weight_decay: float = 1e-5
    ema_decay: float = 0.0
    label_smoothing: float = 0.0
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("Recipe.epochs", self.epochs)
        check_whole("Recipe.batch_size", self.batch_size, at_least=2)  # batch norm has no statistics of one image
        check_type("Recipe.optimizer", self.optimizer, Optimizer, "an Optimizer")
        check_type("Recipe.augmentation", self.augmentation, Augmentation, "an Augmentation")
        check_number("Recipe.learning_rate", self.learning_rate, above=0)
        check_whole("Recipe.warmup_epochs", self.warmup_epochs, at_least=0)
        check_number("Recipe.decay_per_epoch", self.decay_per_epoch, above=0)
        check_number("Recipe.weight_decay", self.weight_decay, at_least=0)
        for field in ("momentum", "ema_decay", "label_smoothing", "dropout", "stochastic_depth"):
            check_number(f"Recipe.{field}", getattr(self, field), at_least=0, below=1)
        check_whole("Recipe.seed", self.seed, at_least=0, at_most=2**32 - 1)

    def learning_rate_at(self, epoch: int, progress: float) -> float:
        """The learning rate in ``epoch`` (from 0) for the step that completes ``progress`` in (0, 1] of it."""
        if epoch < self.warmup_epochs:
            return self.learning_rate * (epoch + progress) / self.warmup_epochs
        return self.learning_rate * math.pow(self.decay_per_epoch, epoch - self.warmup_epochs)

    def to_json(self) -> str:
        """This recipe as JSON text; :meth:`from_json` gives an equal value back."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Recipe:
        """The recipe in ``text``. Raises :class:`ZooError` with the place of what is wrong."""
        return from_json(cls, text)


# The values of both are this project's choice; the paper's own recipes are for ImageNet.
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "digits": Recipe(
            epochs=24,
            batch_size=64,
            optimizer=Optimizer.SGD,
            learning_rate=0.1,
            augmentation=Augmentation.SHIFT,
            warmup_epochs=3,
            decay_per_epoch=0.88,
            ema_decay=0.98,
            label_smoothing=0.1,
        ),
        "photos": Recipe(
            epochs=100,
            batch_size=64,
            optimizer=Optimizer.SGD,
            learning_rate=0.1,
            augmentation=Augmentation.CROP_FLIP,
            decay_per_epoch=0.96,
            weight_decay=2e-5,
            ema_decay=0.999,
            label_smoothing=0.1,
            dropout=0.2,
        ),
    }
)


def find_recipe(source: str | Path | Recipe) -> Recipe:
    """The recipe that ``source`` stands for: a value, a name of :data:`RECIPES`, or the path of a JSON file."""
    if isinstance(source, Recipe):
        return source
    if str(source) in RECIPES:
        return RECIPES[str(source)]
    path = Path(source)
    if path.suffix != ".json":
        known = ", ".join(RECIPES)
        raise ZooError(f"unknown recipe {str(source)!r}{nearest(str(source), RECIPES)}; known are {known}")
    try:
        return Recipe.from_json(path.read_bytes())
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror})") from None
    except ZooError as error:
        raise ZooError(f"{path}: {error}") from None
