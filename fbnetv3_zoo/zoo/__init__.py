"""The published networks as values, one module per paper, and a small one; :data:`ARCHS` maps their names to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ..arch import Arch
from ..arch.cost import Cost, arch_cost
from ..arch.torchvision_arch import is_torchvision
from ..errors import ZooError
from ..utils.serialization import find
from . import fbnet, fbnetv2, fbnetv3, nano
from .published import PUBLISHED, Published

__all__ = ["ARCHS", "PUBLISHED", "Published", "cost_of", "find_arch"]

ARCHS: Mapping[str, Arch] = MappingProxyType(
    {
        arch.name: arch
        for arch in (
            fbnet.FBNET_A,
            fbnet.FBNET_B,
            fbnet.FBNET_C,
            fbnetv2.FBNETV2_F1,
            fbnetv2.FBNETV2_F2,
            fbnetv2.FBNETV2_F3,
            fbnetv2.FBNETV2_F4,
            fbnetv2.FBNETV2_L1,
            fbnetv2.FBNETV2_L2,
            fbnetv2.FBNETV2_L3,
            fbnetv2.DMASKING_F1,
            fbnetv2.DMASKING_F4,
            fbnetv2.DMASKING_L2_HS,
            fbnetv3.FBNETV3_A0,
            fbnetv3.FBNETV3_A,
            fbnetv3.FBNETV3_B,
            fbnetv3.FBNETV3_C,
            fbnetv3.FBNETV3_D,
            fbnetv3.FBNETV3_E,
            fbnetv3.FBNETV3_F,
            fbnetv3.FBNETV3_G,
            fbnetv3.FBNETV3_20G,
            nano.FBNETV3_NANO,
        )
    }
)


def cost_of(source: str | Path | Arch, *, resolution: int | None = None) -> Cost:
    """The cost of the network that :func:`find_arch` gives for ``source``, at its own or another ``resolution``."""
    return arch_cost(find_arch(source), resolution=resolution)


def find_arch(source: str | Path | Arch) -> Arch:
    """The network given by ``source``: an :class:`Arch`, a published name, or the path of a JSON file.

    Raises :class:`ZooError` for an unknown name (with the nearest known one) or an unreadable file.
    """
    if is_torchvision(source):
        raise ZooError(f"{source}: is a model of torchvision; this is for networks of this project (`fbnetv3 list`)")
    return find(Arch, source, ARCHS, what="model", rest="`fbnetv3 list` shows all")
