"""Parameters and multiply-accumulates of any network: exact for ours, counted by torch for torchvision's."""

from __future__ import annotations

from typing import NamedTuple

from ..arch.cost import arch_cost
from ..arch.torchvision_arch import AnyArch, TorchvisionArch


class NetworkSize(NamedTuple):
    """``parameters``: elements of all learnable tensors; ``macs``: multiply-accumulates for one image."""

    parameters: int
    macs: int


def size_of(arch: AnyArch, *, resolution: int | None = None) -> NetworkSize:
    """The size of ``arch`` for images of ``resolution`` pixels (default: its own).

    For a model of torchvision, the multiply-accumulates are those of its convolutions and products of matrices. Raises
    :class:`ZooError` for a resolution that it cannot compute.
    """
    if not isinstance(arch, TorchvisionArch):
        cost = arch_cost(arch, resolution=resolution)
        return NetworkSize(cost.parameters, cost.macs)
    from torch.utils.flop_counter import FlopCounterMode

    from .torchvision_model import check_side, skeleton

    with FlopCounterMode(display=False) as counter:
        check_side(arch, resolution)
    parameters = sum(parameter.numel() for parameter in skeleton(arch).parameters())
    return NetworkSize(parameters, counter.get_total_flops() // 2)
