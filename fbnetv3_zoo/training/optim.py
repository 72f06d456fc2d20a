"""The optimizers, TensorFlow's RMSProp among them, and the moving average of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import assert_never
from ..recipes import SGD, AdamW, Recipe, RMSProp
from ..utils.log import LOG


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer for ``model``, without weight decay for norms and biases (tensors with one axis)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate, settings = recipe.learning_rate, recipe.optimizer
    on_gpu = bool(parameters) and all(p.is_cuda for p in parameters)
    at_once = {"fused": True} if on_gpu else {"foreach": True}  # all tensors; on a CPU, foreach equals one by one
    if isinstance(settings, SGD):
        nesterov = settings.nesterov and settings.momentum > 0
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=nesterov, **at_once)
    if isinstance(settings, AdamW):
        return torch.optim.AdamW(
            groups, lr=rate, betas=(settings.beta1, settings.beta2), eps=settings.epsilon, **at_once
        )
    if isinstance(settings, RMSProp):
        return RMSPropTF(
            groups, lr=rate, momentum=settings.momentum, smoothing=settings.smoothing, epsilon=settings.epsilon
        )  # fmt: skip
    assert_never(settings)


def build_average(model: nn.Module, recipe: Recipe) -> MovingAverage | None:
    """The moving average of ``model``'s parameters and buffers; None if the recipe has none."""
    return MovingAverage(model, recipe) if recipe.ema_decay else None


class MovingAverage(nn.Module):
    """The moving average of ``model``'s parameters and buffers, in :attr:`module`.

    The first update copies all values, later ones copy integers; ``n_averaged`` counts updates and is part of the
    state. PyTorch's AveragedModel goes over all modules in every update, which for small networks takes longer than
    the averaging: here the tensors are collected once, and must stay those of ``model``.
    """

    n_averaged: Tensor

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.module = deepcopy(model)
        self.register_buffer("n_averaged", torch.tensor(0))
        self._recipe = recipe
        pairs = [
            (one.detach(), other.detach()) for one, other in zip(_values(self.module), _values(model), strict=True)
        ]
        self._averaged, self._copied = (
            [pair for pair in pairs if pair[0].is_floating_point() == floating] for floating in (True, False)
        )

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the present values of the model."""
        updates = int(self.n_averaged)
        decay = average_decay(self._recipe, updates) if updates else 0.0
        for pairs, kept in ((self._averaged, decay), (self._copied, 0.0)):
            averaged, current = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            if pairs and kept:
                torch._foreach_lerp_(averaged, current, 1 - kept)
            elif pairs:
                torch._foreach_copy_(averaged, current)
        self.n_averaged += 1


def _values(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


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


class RMSPropTF(torch.optim.Optimizer):
    """TensorFlow's RMSProp, which differs from :class:`torch.optim.RMSprop` in three points.

    ``epsilon`` is added inside the root, the mean square of the gradients starts at 1 instead of 0, and the momentum
    includes the learning rate (so that a change of rate affects new gradients only). For a parameter p with gradient
    g (+ ``weight_decay`` x p)::

        s = smoothing x s + (1 - smoothing) x g^2
        m = momentum x m + lr x g / sqrt(s + epsilon)
        p = p - m
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float, momentum: float = 0.9, smoothing: float = 0.9,
        epsilon: float = 1e-3, weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        defaults = {"lr": lr, "momentum": momentum, "smoothing": smoothing, "epsilon": epsilon}
        super().__init__(params, {**defaults, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step, after calling ``closure``, if given, to compute the loss and gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if parameters := [p for p in group["params"] if p.grad is not None]:
                self._update(group, parameters)
        return loss

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        gradients: Any = [p.grad for p in parameters]
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        squares = [self._slot(p, "square_average", 1.0) for p in parameters]
        momenta = [self._slot(p, "momentum_buffer", 0.0) for p in parameters]
        torch._foreach_mul_(squares, group["smoothing"])
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - group["smoothing"])
        roots = torch._foreach_add(squares, group["epsilon"])
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_addcdiv_(momenta, gradients, roots, value=group["lr"])
        torch._foreach_sub_(parameters, momenta)

    def _slot(self, parameter: Tensor, name: str, initial: float) -> Tensor:
        slots = self.state[parameter]
        if name not in slots:
            slots[name] = torch.full_like(parameter, initial, memory_format=torch.preserve_format)
        slot: Tensor = slots[name]
        return slot
