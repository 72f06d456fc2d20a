"""torchvision's residual networks with other widths and depths; imports torchvision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn
from torchvision.models.resnet import ResNet

from ..arch import round_width


class ScaledResNet(ResNet):  # type: ignore[misc]
    """A ResNet, ResNeXt or Wide ResNet of torchvision, with ``width`` times its channels, in multiples of 8.

    Stem, blocks and the input of the classifier are all scaled. ``layers`` has the number of blocks of each of the four
    stages.
    """

    def __init__(self, block: type[nn.Module], layers: Sequence[int], *, width: float, **settings: Any) -> None:
        self._width = width
        self.inplanes: int
        self.conv1: nn.Conv2d
        super().__init__(block, list(layers), **settings)
        self.fc = nn.Linear(self.inplanes, settings["num_classes"])

    def _make_layer(self, block: type[nn.Module], planes: int, *rest: Any, **named: Any) -> nn.Sequential:
        """A stage of scaled width; the first one comes when only the stem is there, which is scaled before it."""
        if not hasattr(self, "layer1"):
            self.inplanes, old = self._scaled(self.inplanes), self.conv1
            form = {"kernel_size": old.kernel_size, "stride": old.stride, "padding": old.padding, "bias": False}
            self.conv1 = nn.Conv2d(old.in_channels, self.inplanes, **form)  # type: ignore[arg-type]
            self.bn1 = self._norm_layer(self.inplanes)
        stage: nn.Sequential = super()._make_layer(block, self._scaled(planes), *rest, **named)
        return stage

    def _scaled(self, channels: int) -> int:
        return round_width(channels * self._width, 8)


def scaled_resnet(plain: ResNet, *, width: float, depth: float, num_classes: int) -> ScaledResNet:
    """The network ``plain`` with other channels, and ``depth`` times the blocks of each stage, rounded up."""
    stages = [plain.layer1, plain.layer2, plain.layer3, plain.layer4]
    layers = [math.ceil(len(stage) * depth) for stage in stages]
    return ScaledResNet(
        type(stages[0][0]), layers, width=width, num_classes=num_classes, groups=plain.groups,
        width_per_group=plain.base_width,
    )  # fmt: skip
