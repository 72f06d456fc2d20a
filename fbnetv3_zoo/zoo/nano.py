"""A small network of this project's own, in FBNetV3's style, for images of 32 x 32 pixels."""

from __future__ import annotations

from ..arch import Activation, Arch, Conv, InvertedResidual, PoolingHead, SqueezeExcite

_HSWISH = Activation.HARD_SWISH
_SE = SqueezeExcite(reduces="input")


def _block(
    kernel_size: int, out_channels: int, stride: int, repeats: int, expansion: float, se: SqueezeExcite | None
) -> InvertedResidual:
    return InvertedResidual(
        kernel_size, out_channels, stride, repeats, expansion, _HSWISH, se, zero_init_last_norm=True
    )  # fmt: skip


# fmt: off
# columns of _block: kernel, width, stride, blocks, expansion, squeeze-excite
FBNETV3_NANO = Arch("fbnetv3_nano", 32, (
    (Conv(3, 16, 2, _HSWISH),),
    (_block(3, 16, 1, 1, 1, None),),
    (
        _block(3, 24, 2, 1, 4, None),
        _block(3, 24, 1, 1, 3, None),
    ),
    (
        _block(5, 40, 2, 1, 4, _SE),
        _block(5, 40, 1, 2, 3, _SE),
    ),
    (
        _block(3, 64, 1, 1, 4, _SE),
    ),
    (PoolingHead(256, 3, _HSWISH),),
))
# fmt: on
