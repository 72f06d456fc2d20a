"""The moving average of a network's weights, kept as buffers inside the network that it follows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fbnetv3_zoo.errors import check_number


class BufferedAverage(nn.Module):
    """Moving average of a module's parameters and stored buffers.

    All is kept as buffers: a checkpoint of a module that holds its average contains it, while optimizers and counts of
    parameters do not see it. A buffer bears the tensor's name with slashes for dots. State without an average, or with
    one that does not fit, may be loaded: the average then begins anew.

    Args:
        module: what to follow. It is not kept, and must not hold this average yet.
        decay: factor of an update, above 0 and below 1.
    """

    updates: Tensor

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        check_number("ema_decay", decay, above=0, below=1)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        for name, tensor in module.state_dict().items():
            self.register_buffer(name.replace(".", "/"), tensor.clone())
        self.register_load_state_dict_pre_hook(_begin_anew_without)  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:  # noqa: D102
        return f"decay={self.decay}"

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the values of ``module`` by 1 - decay; the first ones, and whole numbers always, as they are."""
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
        """The averaged tensors by their names in the module; none before the first update."""
        return dict(self._tensors()) if self.updates else {}

    @contextmanager
    def standing_in_for(self, module: nn.Module) -> Iterator[None]:
        """Inside, ``module`` computes with the averaged tensors; before the first update, with its own.

        What :func:`torch.func.functional_call` does, except that the module may be traced.
        """
        modules, kept = dict(module.named_modules()), []
        try:
            for name, tensor in self.values().items():
                path, _, leaf = name.rpartition(".")
                owner = modules[path]
                place = owner._parameters if leaf in owner._parameters else owner._buffers
                kept.append((place, leaf, place[leaf]))
                place[leaf] = tensor
            yield
        finally:
            for place, leaf, own in kept:
                place[leaf] = own

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.named_buffers():
            if tensor is not self.updates:
                yield name.replace("/", "."), tensor


def _begin_anew_without(average: BufferedAverage, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Before loading: where ``state`` has no whole average, give it the present one, not yet begun."""
    own = {prefix + name: tensor for name, tensor in average.state_dict().items()}
    if not own.keys() <= state.keys():
        state.update({**own, f"{prefix}updates": torch.zeros_like(average.updates)})
