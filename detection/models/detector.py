"""A detector's network as one value: a trunk up to stride 16, the RPN's feature layers, and the box head.

No torch in here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from fbnetv3_zoo.arch import Arch, Block, InvertedResidual, PoolingHead, Row, settle
from fbnetv3_zoo.errors import ZooError


@dataclass(frozen=True)
class Detector:
    """The network of a Faster R-CNN with a conv4 backbone (C4): a shared ``trunk`` and a ``box_head`` run per region.

    ``trunk`` has stages of rows, as in :class:`Arch`. The RPN repeats the trunk's last row at stride 1.
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
        """The trunk's blocks with every width settled; the stem is the first of stage 0."""
        return settle(self.trunk, in_channels=self.in_channels, width_divisor=self.width_divisor)

    @property
    def out_channels(self) -> int:
        """Channels of the trunk's last map, the input of RPN and box head."""
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
        """The blocks of the box head, whose input has :attr:`out_channels` channels."""
        return settle((self.box_head,), in_channels=self.out_channels, width_divisor=self.width_divisor)


def split(arch: Arch, *, stride: int = 16) -> Detector:
    """Split ``arch`` after ``stride`` into trunk and box head, without the classifier head.

    Padding is made symmetric, so that the trunk's map is ceil(side / stride); the weights still fit. Raises
    :class:`ZooError` if the network has no rows on one side of the split.
    """
    symmetric = arch.with_symmetric_padding()
    stages = symmetric.stages[: symmetric.trunk_depth]
    trunk: list[tuple[Row, ...]] = []
    box_head: list[Row] = []
    reduction = 1
    for stage in stages:
        rows: list[Row] = []
        for row in stage:
            reduction *= 1 if isinstance(row, PoolingHead) else row.stride
            (rows if reduction <= stride else box_head).append(row)
        if rows:
            trunk.append(tuple(rows))
    if not trunk or not box_head:
        raise ZooError(f"{arch.name}: cannot be split at stride {stride}; its maps reach stride {reduction}")
    return Detector(arch.name, tuple(trunk), tuple(box_head), arch.width_divisor, arch.in_channels)
