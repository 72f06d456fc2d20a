"""The moving average of a network's weights, stored as buffers of that network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fbnetv3_zoo.errors import check_number


class BufferedAverage(nn.Module):
    """Moving average of a module's parameters and persistent buffers.

    The average is stored as buffers: checkpoints of a module that holds its average contain it, while optimizers and
    parameter counts ignore it. Buffers are named as their tensors, with slashes for dots. A state dict without an
    average, or with an incomplete one, can be loaded: the average then starts over.

    Args:
        module: the module to average. No reference is kept, and it must not hold this average yet.
        decay: factor of the old average in an update, above 0 and below 1.
    """

    updates: Tensor

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        check_number("ema_decay", decay, above=0, below=1)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        for name, tensor in module.state_dict().items():
            self.register_buffer(name.replace(".", "/"), tensor.clone())
        self.register_load_state_dict_pre_hook(_start_over_without)  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:  # noqa: D102
        return f"decay={self.decay}"

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Average in the values of ``module`` with weight 1 - decay; the first values and integers are copied."""
        first, state = not self.updates, module.state_dict()
        averaged, current = [], []
        for name, average in self._tensors():
            if first or not average.is_floating_point():
                average.copy_(state[name])
            else:
                averaged.append(average)
                current.append(state[name])
        if averaged:
            get_ema_multi_avg_fn(self.decay)(averaged, current, self.updates)  # type: ignore[no-untyped-call]
        self.updates += 1

    def values(self) -> dict[str, Tensor]:
        """The averaged tensors by their names in the module; empty before the first update."""
        return dict(self._tensors()) if self.updates else {}

    @contextmanager
    def standing_in_for(self, module: nn.Module) -> Iterator[None]:
        """In this context ``module`` uses the averaged tensors; before the first update, its own.

        Like :func:`torch.func.functional_call`, but works while the module is traced.
        """
        modules, replaced = dict(module.named_modules()), []
        try:
            for name, tensor in self.values().items():
                path, _, leaf = name.rpartition(".")
                owner = modules[path]
                tensors = owner._parameters if leaf in owner._parameters else owner._buffers
                replaced.append((tensors, leaf, tensors[leaf]))
                tensors[leaf] = tensor
            yield
        finally:
            for tensors, leaf, original in replaced:
                tensors[leaf] = original

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.named_buffers():
            if tensor is not self.updates:
                yield name.replace("/", "."), tensor


def _start_over_without(average: BufferedAverage, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Before loading: if ``state`` has no complete average, add the current one with its updates reset."""
    own = {prefix + name: tensor for name, tensor in average.state_dict().items()}
    if not own.keys() <= state.keys():
        state.update({**own, f"{prefix}updates": torch.zeros_like(average.updates)})
