"""The parts of a detector as modules: trunk, RPN head, box head and predictor.

Maps have shape (batch, channels, height, width).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from fbnetv3_zoo.arch import Block
from fbnetv3_zoo.errors import ZooError, check_whole
from fbnetv3_zoo.models.blocks import build_block, laid_out
from fbnetv3_zoo.models.fbnet import FBNet


def build_stages(blocks: Sequence[Block]) -> nn.Sequential:
    """The modules of ``blocks``, stage by stage, named as in :class:`fbnetv3_zoo.FBNet`."""
    stages: list[list[nn.Module]] = [[] for _ in range(blocks[-1].stage + 1)]
    for block in blocks:
        stages[block.stage].append(build_block(block))
    return nn.Sequential(*(nn.Sequential(*stage) for stage in stages))


class Trunk(nn.Module):
    """Blocks as a backbone, which returns the last map of each of ``strides``.

    Args:
        blocks: the blocks to build; padding must be symmetric, so that maps are ceil(side / stride).
        strides: strides of the maps to return; the map of stride 16 is named ``"stride16"``.
    """

    def __init__(self, blocks: Sequence[Block], strides: Sequence[int]) -> None:
        super().__init__()
        last = {block.reduction: number for number, block in enumerate(blocks)}
        if missing := [stride for stride in strides if stride not in last]:
            raise ZooError(f"no map has stride {missing[0]}; there are {', '.join(map(str, last))}")
        if asymmetric := [block for block in blocks if 2 * block.padding != block.kernel_size - 1]:
            block = asymmetric[0]
            raise ZooError(
                f"stage {block.stage}, block {block.index} pads {block.kernel_size} x {block.kernel_size} by "
                f"{block.padding}; a backbone needs arch.with_symmetric_padding()"
            )
        self.stages = build_stages(blocks)
        self.channels = {f"stride{stride}": blocks[last[stride]].out_channels for stride in strides}
        self._outputs = {last[stride]: f"stride{stride}" for stride in strides}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The maps by name, in order of stride."""
        x, maps = laid_out(images), {}
        blocks = (block for stage in self.stages for block in stage)  # type: ignore[attr-defined]
        for number, block in enumerate(blocks):
            x = block(x)
            if name := self._outputs.get(number):
                maps[name] = x
        return maps


class RegionHead(nn.Module):
    """RPN head: feature blocks, then 1x1 convolutions to logits and box deltas per anchor (normal init, std 0.01)."""

    def __init__(self, blocks: Sequence[Block], anchors: int) -> None:
        super().__init__()
        self.feature = build_stages(blocks)
        width = blocks[-1].out_channels
        self.logits, self.deltas = nn.Conv2d(width, anchors, 1), nn.Conv2d(width, 4 * anchors, 1)
        for layer in (self.logits, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (batch, anchors, ...) and deltas (batch, 4 x anchors, ...) of every map."""
        features = [self.feature(x) for x in maps]
        return [self.logits(x) for x in features], [self.deltas(x) for x in features]


class BoxHead(nn.Module):
    """Blocks on the pooled map of every region, then the average over its pixels: (regions, channels).

    Pooled maps are channels-first; on a CPU the blocks take a fifth to a third less time channels-last (measured).
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.stages = build_stages(blocks)
        self.out_channels = blocks[-1].out_channels

    def forward(self, regions: Tensor) -> Tensor:  # noqa: D102
        features: Tensor = self.stages(laid_out(regions)).mean((2, 3))
        return features


class BoxPredictor(nn.Module):
    """Logits (regions, 1 + classes), background first, and box deltas per class (regions, 4 x (1 + classes)).

    The background's deltas are never read: they have no weights and are zeros.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.logits, self.deltas = nn.Linear(in_channels, 1 + num_classes), nn.Linear(in_channels, 4 * num_classes)
        for layer, std in ((self.logits, 0.01), (self.deltas, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return self.logits(x), F.pad(self.deltas(x), (4, 0))


def take_weights(parts: Sequence[nn.Sequential], source: FBNet, *, after: int = 0) -> None:
    """Copy weights and statistics from the blocks of ``source``, from ``after`` on, to those of ``parts`` in order."""
    sources = [block for stage in source.stages.children() for block in stage.children()][after:]
    targets = [block for part in parts for stage in part.children() for block in stage.children()]
    for target, block in zip(targets, sources, strict=False):
        target.load_state_dict(block.state_dict())


def freeze_stages(trunk: Trunk, number: int) -> None:
    """Freeze the weights and statistics of the first ``number`` stages of ``trunk``."""
    check_whole("freeze_at", number, at_least=0, at_most=len(trunk.stages))
    for index in range(number):
        freeze_norms(trunk.stages[index])
        trunk.stages[index].requires_grad_(False)


def freeze_norms(module: nn.Module) -> None:
    """Replace every batch norm in ``module`` by one with fixed statistics and scale."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, _frozen(child))
        else:
            freeze_norms(child)


def _frozen(norm: nn.BatchNorm2d) -> FrozenBatchNorm2d:
    frozen = FrozenBatchNorm2d(norm.num_features, eps=norm.eps)
    state = {name: tensor for name, tensor in norm.state_dict().items() if name != "num_batches_tracked"}
    frozen.load_state_dict(state)
    return frozen.to(norm.weight.device)
