"""What autograd keeps for the backward pass."""

from __future__ import annotations

from torch import Tensor, nn


class Saved:
    """Sizes of the storages that autograd keeps, but for those of ``network``."""

    def __init__(self, network: nn.Module) -> None:
        owned = [*network.parameters(), *network.buffers()]
        self._owned = {tensor.untyped_storage().data_ptr() for tensor in owned}
        self._alive: list[Tensor] = []
        self.sizes: dict[int, int] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        self._alive.append(tensor)
        if (place := tensor.untyped_storage().data_ptr()) not in self._owned:
            self.sizes[place] = tensor.untyped_storage().nbytes()
        return tensor
