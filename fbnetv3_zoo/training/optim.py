"""The optimizer and the moving average of a recipe."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..recipes import SGD, AdamW, Recipe
from ..utils.log import LOG
from .rmsprop import RMSPropTF

Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer for ``model``, without weight decay for norms and biases (tensors with one axis)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate, settings = recipe.learning_rate, recipe.optimizer
    if isinstance(settings, SGD):
        nesterov = settings.nesterov and settings.momentum > 0
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=nesterov)
    if isinstance(settings, AdamW):
        return torch.optim.AdamW(groups, lr=rate, betas=(settings.beta1, settings.beta2), eps=settings.epsilon)
    return RMSPropTF(
        groups, lr=rate, momentum=settings.momentum, smoothing=settings.smoothing, epsilon=settings.epsilon
    )  # fmt: skip


def build_average(model: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """The moving average of ``model``'s parameters and buffers; None if the recipe has none.

    The first update copies all values, later ones copy integers; ``n_averaged`` counts updates and is part of the
    state.
    """
    if recipe.ema_decay == 0:
        return None

    def update(averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:
        decay = average_decay(recipe, int(updates)) if averaged[0].is_floating_point() else 0.0
        get_ema_multi_avg_fn(decay)(averaged, current, updates)  # type: ignore[no-untyped-call]

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def average_decay(recipe: Recipe, updates: int) -> float:
    """The decay of the moving average after ``updates`` updates."""
    return min(recipe.ema_decay, (1 + updates) / (10 + updates)) if recipe.ema_warmup else recipe.ema_decay


def warn_of_long_average(recipe: Recipe, steps_per_epoch: int) -> None:
    """Log a warning if the moving average covers more steps than the run has."""
    steps, horizon = recipe.epochs * steps_per_epoch, 1 / (1 - recipe.ema_decay)
    if recipe.ema_decay > 0 and horizon > steps:
        LOG.warning(
            "ema_decay %g averages over about %.0f steps, but the run has %d, so the average will lag behind; "
            "train longer, or set ema_decay in a recipe file to %s (`fbnetv3 recipe show NAME --json` writes one)",
            recipe.ema_decay, horizon, steps, f"at most {1 - 10 / steps:.4g}" if steps > 10 else "0, which is none",
        )  # fmt: skip
