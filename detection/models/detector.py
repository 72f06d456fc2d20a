"""A detector's network as one value: a trunk up to stride 16, the RPN's feature, the head that is run on every region.

No torch in here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from fbnetv3_zoo.arch import Arch, Block, InvertedResidual, PoolingHead, Row, settle
from fbnetv3_zoo.errors import ZooError


@dataclass(frozen=True)
class Detector:
    """The network of a Faster R-CNN with conv4 backbone (C4): shared ``trunk``, ``box_head`` for every region.

    ``trunk`` has stages of rows, as an :class:`Arch` has. The RPN's feature is the trunk's last row again, at stride 1.
    """

    name: str
    trunk: tuple[tuple[Row, ...], ...]
    box_head: tuple[Row, ...]
    width_divisor: int = 8
    in_channels: int = 3

    def __post_init__(self) -> None:
        if not self.trunk or not self.box_head:
            raise ZooError(f"{self.name}: a detector needs a trunk and a box head of at least one row each")

    @cached_property
    def trunk_blocks(self) -> tuple[Block, ...]:
        """The trunk's blocks, every width settled; the stem is stage 0's first."""
        return settle(self.trunk, in_channels=self.in_channels, width_divisor=self.width_divisor)

    @property
    def out_channels(self) -> int:
        """Channels of the trunk's last map, which RPN and box head take."""
        return self.trunk_blocks[-1].out_channels

    @property
    def stride(self) -> int:
        """Stride of the trunk's last map relative to the image."""
        return self.trunk_blocks[-1].reduction

    @cached_property
    def rpn_blocks(self) -> tuple[Block, ...]:
        """The blocks before the RPN's two 1x1 convolutions."""
        last = self.trunk[-1][-1]
        assert not isinstance(last, PoolingHead)
        row = replace(last, stride=1)
        row = replace(row, depthwise_padding=None) if isinstance(row, InvertedResidual) else row
        return settle(((row,),), in_channels=self.out_channels, width_divisor=self.width_divisor)

    @cached_property
    def box_blocks(self) -> tuple[Block, ...]:
        """The blocks of the box head, for a map of :attr:`out_channels`."""
        return settle((self.box_head,), in_channels=self.out_channels, width_divisor=self.width_divisor)


def split(arch: Arch, *, stride: int = 16) -> Detector:
    """``arch`` cut after ``stride``: before it the trunk, after it the box head, without the classifier's own head.

    Padding is made symmetric, so that the trunk's map is ceil(side / stride); the weights fit all the same. Raises
    :class:`ZooError` where the network has no rows on one of the two sides.
    """
    symmetric = arch.with_symmetric_padding()
    stages = symmetric.stages[: symmetric.trunk_depth]
    trunk: list[tuple[Row, ...]] = []
    rest: list[Row] = []
    reduction = 1
    for stage in stages:
        kept: list[Row] = []
        for row in stage:
            reduction *= 1 if isinstance(row, PoolingHead) else row.stride
            (kept if reduction <= stride else rest).append(row)
        if kept:
            trunk.append(tuple(kept))
    if not trunk or not rest:
        raise ZooError(f"{arch.name}: cannot be split at stride {stride}; its maps reach stride {reduction}")
    return Detector(arch.name, tuple(trunk), tuple(rest), arch.width_divisor, arch.in_channels)
