"""Recipes fitted to the number of training images: the defaults for data of one's own.

The rules, and what has been measured of them: docs/fine-tuning.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from ..errors import check_whole
from .presets import CHOSEN, OWN, RecipePreset
from .recipe import SGD, Augmentation, CosineDecay, Recipe

_RULE = f"{OWN}: docs/fine-tuning.md"
_LEAST_AVERAGED = 40
DETECTION_STEPS = 500
"""Steps in which a detector learns from random weights to find about half of what there is (docs/fine-tuning.md)."""


def fit_recipe(images: int, *, epochs: int | None = None, pretrained: bool = False) -> RecipePreset:
    """A recipe for ``images`` training images, with the source of each value.

    Args:
        images: number of training images.
        epochs: number of epochs, to which the schedule is fitted (default: by the number of images).
        pretrained: whether training starts from trained weights, which takes fewer steps at a lower rate.
    """
    check_whole("images", images, at_least=2, at_most=1 << 40)
    batch = _batch_size(images, least=8, most=64)
    steps, length = images // batch, CHOSEN
    if epochs is None:
        length = _by(images, f"from {'trained' if pretrained else 'random'} weights")
        wanted, least, most = (500, 10, 60) if pretrained else (1500, 30, 200)
        epochs = _within(math.ceil(wanted / steps), least, most)
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch,
        optimizer=SGD(),
        learning_rate=(0.05 if pretrained else 0.1) * batch / 64,
        augmentation=Augmentation(crop_area=0.7, shift=True),
        schedule=CosineDecay(0.01),
        warmup_epochs=_warmup(epochs),
        weight_decay=1e-4,
        ema_decay=_average(epochs * steps),
        label_smoothing=0.1,
        dropout=0.2,
    )
    start = "trained weights" if pretrained else "random weights"
    sources = {"batch_size": _by(images, "an eighth of them, 8 to 64"), "epochs": length}
    return RecipePreset(recipe, f"{images:,} images, from {start}", _sources(sources))


def fit_detection_recipe(images: int, *, epochs: int | None = None) -> RecipePreset:
    """A recipe to train a detector on ``images`` images with boxes; see :func:`fit_recipe`."""
    check_whole("images", images, at_least=2, at_most=1 << 40)
    batch = _batch_size(images, least=4, most=8)
    steps, length = images // batch, CHOSEN
    if epochs is None:
        length = _by(images, f"{DETECTION_STEPS} steps, 12 to 250")
        epochs = _within(math.ceil(DETECTION_STEPS / steps), 12, 250)
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch,
        optimizer=SGD(),
        learning_rate=0.05 * batch / 8,
        augmentation=Augmentation(flip=0.5),
        schedule=CosineDecay(0.01),
        warmup_epochs=_warmup(epochs),
        weight_decay=1e-4,
        ema_decay=_average(epochs * steps),
        clip_norm=10.0,
    )
    sources = {"batch_size": _by(images, "an eighth of them, 4 or 8"), "epochs": length}
    return RecipePreset(recipe, f"{images:,} images with boxes", _sources(sources))


def _batch_size(images: int, *, least: int, most: int) -> int:
    """The power of two nearest to an eighth of ``images``, within bounds; all images where they are fewer."""
    return min(images, _within(2 ** round(math.log2(images / 8)), least, most))


def _warmup(epochs: int) -> int:
    """A twentieth of the epochs, 1 to 5; none in a single epoch."""
    return min(epochs - 1, _within(round(epochs / 20), 1, 5))


def _average(steps: int) -> float:
    """A moving average over a tenth of the steps, at most 5,000; none in very short runs."""
    return 0.0 if steps < _LEAST_AVERAGED else 1 - max(10 / steps, 1 / 5000)


def _within(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))


def _by(images: int, rule: str) -> str:
    return f"{OWN}, for {images:,} images: {rule}"


def _sources(own: Mapping[str, str]) -> Mapping[str, str]:
    ruled = ("learning_rate", "schedule", "schedule.final", "ema_decay", "warmup_epochs")
    augmented = ("augmentation.crop_area", "augmentation.shift", "augmentation.flip")
    measured = dict.fromkeys((*ruled, *augmented), _RULE)
    return MappingProxyType({**measured, **own})
