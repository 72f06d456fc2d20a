"""A small network of this project's own, in FBNetV3's style, for images of 32 x 32 pixels."""

from __future__ import annotations

from ..arch import Arch, Conv, PoolingHead
from .fbnetv3 import HSWISH, NO, SE, v3_block

# fmt: off
# columns of v3_block: kernel, width, stride, blocks, expansion, squeeze-excite
FBNETV3_NANO = Arch("fbnetv3_nano", 32, (
    (Conv(3, 16, 2, HSWISH),),
    (v3_block(3, 16, 1, 1, 1, NO),),
    (
        v3_block(3, 24, 2, 1, 4, NO),
        v3_block(3, 24, 1, 1, 3, NO),
    ),
    (
        v3_block(5, 40, 2, 1, 4, SE),
        v3_block(5, 40, 1, 2, 3, SE),
    ),
    (
        v3_block(3, 64, 1, 1, 4, SE),
    ),
    (PoolingHead(256, 3, HSWISH),),
))
# fmt: on
