"""A network as a backbone: images in, feature maps out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from ..errors import ZooError, check_type
from .fbnet import FBNet, admit
from .network import FeatureInfo


class FBNetFeatures(nn.Module):
    """The trunk of a network, which returns feature maps; as timm's ``features_only=True``.

    Args:
        model: the network. Its blocks are shared, not copied; what no returned map depends on is left out.
        out_indices: positions in ``model.feature_info``, that is 0 for stride 2, 1 for stride 4 and so on; negative
            ones count from the end (default: all).

    Attributes:
        feature_info: name, channels and stride of each map that is returned; ``feature_info.channels()`` and
            ``feature_info.reduction()`` list them.
        arch, preprocess, weights, license: those of ``model``.

    Names in the state dict are those of ``model``. Raises :class:`ZooError` for an index that ``model`` lacks.
    """

    def __init__(self, model: FBNet, out_indices: Sequence[int] | None = None) -> None:
        super().__init__()
        maps = model.feature_info
        check_type("out_indices", out_indices, Sequence | None, "a list, such as [2, 3, 4]")
        indices = range(len(maps)) if out_indices is None else out_indices
        for index in indices:
            if not isinstance(index, int) or not -len(maps) <= index < len(maps):
                raise ZooError(f"out_indices has {index!r}; {model.arch.name} has maps 0 to {len(maps) - 1}")
        if len(indices) == 0:
            raise ZooError("out_indices is empty; name at least one map")
        self.arch, self.preprocess = model.arch, model.preprocess
        self.weights, self.license = model.weights, model.license
        self.feature_info = FeatureInfo(maps[index] for index in indices)
        deepest = max(self.feature_info.reduction())
        trunk = [block for block in self.arch.blocks if block.stage < self.arch.trunk_depth]
        self._reductions = [block.reduction for block in trunk if block.reduction <= deepest]
        self._returned = self.feature_info.reduction()
        modules = {
            (block.stage, block.index): model.get_submodule(f"stages.{block.stage}.{block.index}")
            for block in trunk[: len(self._reductions)]
        }
        stages = [list(keys) for _, keys in groupby(modules, key=lambda key: key[0])]
        self.stages = nn.Sequential(*(nn.Sequential(*(modules[key] for key in keys)) for keys in stages))

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps of ``feature_info``, each of shape (batch, channels, height / stride, width / stride).

        ``images`` has shape (batch, channels, height, width). Raises :class:`ZooError` as :meth:`FBNet.forward` does.
        """
        x = images
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            x = admit(self.arch, images)
        maps: dict[int, Tensor] = {}
        position = 0
        for stage in self.stages:  # no generators, zip or enumerate: TorchScript's language lacks them or their nesting
            for block in stage:  # type: ignore[attr-defined]
                x = block(x)
                maps[self._reductions[position]] = x
                position += 1
        return [maps[reduction] for reduction in self._returned]
