"""FBNetV3 (2020, arXiv 2006.02049): A to G from the joint search and its scaling, the small A0, the giant 20G."""

from __future__ import annotations

from dataclasses import replace

from ..arch import Activation, Arch, Conv, InvertedResidual, PoolingHead, SqueezeExcite

HSWISH = Activation.HARD_SWISH
NO, SE = None, SqueezeExcite(reduces="input")


def v3_block(
    kernel_size: int, out_channels: int, stride: int, repeats: int, expansion: float, se: SqueezeExcite | None,
    per_group: int = 1, *, pad: int | None = None,
) -> InvertedResidual:  # fmt: skip
    """A row of FBNetV3's inverted residuals; ``pad`` is the padding of its first block (None: half the kernel)."""
    return InvertedResidual(
        kernel_size, out_channels, stride, repeats, expansion, HSWISH, se,
        depthwise_padding=pad, channels_per_group=per_group, zero_init_last_norm=True,
    )  # fmt: skip


# fmt: off
# columns of v3_block: kernel, width, stride, blocks, expansion, squeeze-excite (20G: channels per group)
FBNETV3_A0 = Arch("fbnetv3_a0", 224, (
    (Conv(3, 12, 2, HSWISH),),
    (v3_block(3,  12, 1,  1, 1, NO),),
    (
        v3_block(3,  24, 2,  1, 4, NO),
        v3_block(3,  24, 1,  2, 2, NO),
    ),
    (
        v3_block(3,  40, 2,  1, 4, SE),
        v3_block(3,  40, 1,  2, 2, SE),
    ),
    (
        v3_block(5,  72, 2,  1, 4, NO),
        v3_block(3,  72, 1,  2, 3, NO),
        v3_block(3, 104, 1,  1, 4, SE),
        v3_block(5, 104, 1,  3, 3, SE),
    ),
    (
        v3_block(3, 176, 2,  1, 4, SE),
        v3_block(3, 176, 1,  3, 4, SE),
        v3_block(3, 208, 1,  1, 5, SE),
    ),
    (PoolingHead(1984, 5, HSWISH),),
))

FBNETV3_A = Arch("fbnetv3_a", 224, (
    (Conv(3, 16, 2, HSWISH),),
    (v3_block(3,  16, 1,  2, 1, NO),),
    (
        v3_block(5,  24, 2,  1, 4, NO),
        v3_block(5,  24, 1,  3, 2, NO),
    ),
    (
        v3_block(5,  40, 2,  1, 5, SE),
        v3_block(5,  40, 1,  4, 3, SE),
    ),
    (
        v3_block(5,  72, 2,  1, 5, NO, pad=1),
        v3_block(3,  72, 1,  4, 3, NO),
        v3_block(3, 120, 1,  1, 5, SE),
        v3_block(5, 120, 1,  5, 3, SE),
    ),
    (
        v3_block(3, 184, 2,  1, 6, SE, pad=0),
        v3_block(5, 184, 1,  5, 4, SE),
        v3_block(5, 224, 1,  1, 6, SE),
    ),
    (PoolingHead(1984, 6, HSWISH),),
))
FBNETV3_B = replace(FBNETV3_A, name="fbnetv3_b", resolution=248)

FBNETV3_C = Arch("fbnetv3_c", 248, (
    (Conv(3, 16, 2, HSWISH),),
    (v3_block(3,  16, 1,  2, 1, NO),),
    (
        v3_block(5,  24, 2,  1, 5, NO),
        v3_block(3,  24, 1,  4, 3, NO),
    ),
    (
        v3_block(5,  48, 2,  1, 5, SE),
        v3_block(5,  48, 1,  4, 2, SE),
    ),
    (
        v3_block(5,  88, 2,  1, 4, NO, pad=1),
        v3_block(3,  88, 1,  4, 3, NO),
        v3_block(3, 120, 1,  1, 4, SE),
        v3_block(5, 120, 1,  5, 3, SE),
    ),
    (
        v3_block(5, 216, 2,  1, 5, SE, pad=1),
        v3_block(5, 216, 1,  5, 5, SE),
        v3_block(5, 216, 1,  1, 6, SE),
    ),
    (PoolingHead(1984, 6, HSWISH),),
))

FBNETV3_D = Arch("fbnetv3_d", 248, (
    (Conv(3, 24, 2, HSWISH),),
    (v3_block(3,  16, 1,  2, 1, NO),),
    (
        v3_block(3,  24, 2,  1, 5, NO),
        v3_block(3,  24, 1,  5, 2, NO),
    ),
    (
        v3_block(5,  40, 2,  1, 4, SE),
        v3_block(3,  40, 1,  4, 3, SE),
    ),
    (
        v3_block(3,  72, 2,  1, 5, NO),
        v3_block(3,  72, 1,  4, 3, NO),
        v3_block(3, 128, 1,  1, 5, SE),
        v3_block(5, 128, 1,  6, 3, SE),
    ),
    (
        v3_block(3, 208, 2,  1, 6, SE),
        v3_block(5, 208, 1,  5, 5, SE),
        v3_block(5, 240, 1,  1, 6, SE),
    ),
    (PoolingHead(1984, 6, HSWISH),),
))

FBNETV3_E = Arch("fbnetv3_e", 264, (
    (Conv(3, 24, 2, HSWISH),),
    (v3_block(3,  16, 1,  3, 1, NO),),
    (
        v3_block(5,  24, 2,  1, 4, NO),
        v3_block(5,  24, 1,  4, 2, NO),
    ),
    (
        v3_block(5,  48, 2,  1, 4, SE),
        v3_block(5,  48, 1,  4, 3, SE),
    ),
    (
        v3_block(5,  80, 2,  1, 5, NO, pad=1),
        v3_block(3,  80, 1,  4, 3, NO),
        v3_block(3, 128, 1,  1, 5, SE),
        v3_block(5, 128, 1,  7, 3, SE),
    ),
    (
        v3_block(3, 216, 2,  1, 6, SE),
        v3_block(5, 216, 1,  5, 5, SE),
        v3_block(5, 240, 1,  1, 6, SE),
    ),
    (PoolingHead(1984, 6, HSWISH),),
))

FBNETV3_F = Arch("fbnetv3_f", 272, (
    (Conv(3, 24, 2, HSWISH),),
    (v3_block(3,  24, 1,  3, 1, NO),),
    (
        v3_block(5,  32, 2,  1, 4, NO),
        v3_block(5,  32, 1,  4, 2, NO),
    ),
    (
        v3_block(5,  56, 2,  1, 4, SE),
        v3_block(5,  56, 1,  4, 3, SE),
    ),
    (
        v3_block(5,  88, 2,  1, 5, NO),
        v3_block(3,  88, 1,  4, 3, NO),
        v3_block(3, 144, 1,  1, 5, SE),
        v3_block(5, 144, 1,  8, 3, SE),
    ),
    (
        v3_block(3, 248, 2,  1, 6, SE, pad=0),
        v3_block(5, 248, 1,  6, 5, SE),
        v3_block(5, 272, 1,  1, 6, SE),
    ),
    (PoolingHead(1984, 6, HSWISH),),
))

FBNETV3_G = Arch("fbnetv3_g", 320, (
    (Conv(3, 32, 2, HSWISH),),
    (v3_block(3,  24, 1,  3, 1, NO),),
    (
        v3_block(5,  40, 2,  1, 4, NO),
        v3_block(5,  40, 1,  4, 2, NO),
    ),
    (
        v3_block(5,  56, 2,  1, 4, SE),
        v3_block(5,  56, 1,  4, 3, SE),
    ),
    (
        v3_block(5, 104, 2,  1, 5, NO),
        v3_block(3, 104, 1,  4, 3, NO),
        v3_block(3, 160, 1,  1, 5, SE),
        v3_block(5, 160, 1,  8, 3, SE),
    ),
    (
        v3_block(3, 264, 2,  1, 6, SE),
        v3_block(5, 264, 1,  6, 5, SE),
        v3_block(5, 288, 1,  2, 6, SE),
    ),
    (PoolingHead(1984, 6, HSWISH),),
))

FBNETV3_20G = Arch("fbnetv3_20g", 256, (
    (Conv(3, 32, 2, HSWISH),),
    (
        v3_block(3,  32, 1,  1, 1, NO,  32),
        v3_block(3,  32, 1,  1, 1, NO,  32),
    ),
    (
        v3_block(5, 108, 2,  1, 4, NO,  64),
        v3_block(5, 108, 1,  5, 1, NO,  54),
    ),
    (
        v3_block(5, 160, 2,  1, 2, SE, 108),
        v3_block(5, 160, 1,  5, 2, SE,  80),
    ),
    (
        v3_block(5, 256, 2,  1, 2, NO,  80),
        v3_block(3, 256, 1,  6, 2, NO, 128),
        v3_block(3, 348, 1,  1, 2, SE, 116),
        v3_block(5, 348, 1,  9, 2, SE, 116),
    ),
    (
        v3_block(3, 580, 2,  1, 2, SE, 116),
        v3_block(5, 580, 1,  7, 2, SE, 116),
        v3_block(5, 580, 1,  3, 2, SE, 116),
    ),
    (PoolingHead(3200, 6, HSWISH),),
))
# fmt: on
