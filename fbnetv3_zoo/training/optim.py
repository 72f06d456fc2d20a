"""Optimizers and the moving average, as a recipe says."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fbnetv3_zoo.recipe import Optimizer, Recipe

Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over ``model``; norms and biases (tensors of one axis) without weight decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate, momentum = recipe.learning_rate, recipe.momentum
    if recipe.optimizer is Optimizer.SGD:
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0)
    return torch.optim.RMSprop(groups, lr=rate, momentum=momentum, alpha=0.9, eps=1e-3)


def build_average(model: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """The moving average of ``model``'s parameters and buffers; None where the recipe has none."""
    if recipe.ema_decay == 0:
        return None

    def update(averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:
        steps = int(updates)
        decay = min(recipe.ema_decay, (1 + steps) / (10 + steps))
        get_ema_multi_avg_fn(decay)(averaged, current, updates)  # type: ignore[no-untyped-call]

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
