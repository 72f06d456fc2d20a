"""RMSProp as in TensorFlow, the variant commonly used to train networks of this kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class RMSPropTF(Optimizer):
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
