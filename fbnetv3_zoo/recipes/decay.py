"""What another number of epochs does to a schedule."""

from __future__ import annotations

from dataclasses import replace

from ..utils.log import LOG
from .recipe import ExponentialDecay, Recipe


def warn_of_decay(recipe: Recipe, epochs: int) -> None:
    """Log a warning if the learning rate of ``recipe`` falls very differently in so many epochs."""
    scaled = recipe.for_epochs(epochs).schedule
    if not isinstance(recipe.schedule, ExponentialDecay) or not isinstance(scaled, ExponentialDecay):
        return
    meant, found = (_end(recipe, number) for number in (recipe.epochs, epochs))
    if not 0.5 * meant <= found <= 2 * meant:  # both may be too small for a float
        LOG.warning(
            "the learning rate falls x %g an epoch, made for %d epochs: after %d it ends at %.1g of its peak instead "
            "of %.1g; to fall as far, set schedule.factor to %.4g in a recipe file (`fbnetv3 recipe show NAME --json`)",
            recipe.schedule.factor, recipe.epochs, epochs, found, meant, scaled.factor,
        )  # fmt: skip


def _end(recipe: Recipe, epochs: int) -> float:
    """The share of the peak rate that is left in the last of so many epochs."""
    return replace(recipe, epochs=epochs).learning_rate_at(epochs - 1, 1.0) / recipe.learning_rate
