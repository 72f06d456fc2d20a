"""FBNetV2 (2020, arXiv 2004.05565): the networks F1-F4 and L1-L3 that masked differentiable search found.

Of the four releases of January 2020, three keep their first names, ``dmasking_*``; ``fbnetv2_l3`` is the fourth. They
round no width and do not zero the last norm at initialization.
"""

from __future__ import annotations

from dataclasses import replace

from ..arch import Activation, Arch, Conv, InvertedResidual, PoolingHead, Row, Skip, SqueezeExcite

RELU, HSWISH = Activation.RELU, Activation.HARD_SWISH
NO, SE = None, SqueezeExcite(reduces="expanded")


def _v2(
    kernel_size: int, out_channels: int, stride: int, expansion: float, se: SqueezeExcite | None, act: Activation
) -> InvertedResidual:
    return InvertedResidual(kernel_size, out_channels, stride, 1, expansion, act, se, zero_init_last_norm=True)


def _first_release(arch: Arch, name: str, relu_stages: tuple[int, ...] = ()) -> Arch:
    """``arch`` as released in January 2020: widths not rounded, no zeroed norm, ReLU in ``relu_stages``."""

    def row_then(row: Row, stage: int) -> Row:
        if not isinstance(row, InvertedResidual):
            return row
        activation = RELU if stage in relu_stages else row.activation
        return replace(row, zero_init_last_norm=False, activation=activation)

    stages = tuple(tuple(row_then(row, s) for row in stage) for s, stage in enumerate(arch.stages))
    return replace(arch, name=name, stages=stages, width_divisor=1)


# fmt: off
# columns of _v2: kernel, width, stride, expansion, squeeze-excite, activation
FBNETV2_F1 = Arch("fbnetv2_f1", 128, (
    (Conv(3, 8, 2, HSWISH),),
    (_v2(5,   8, 1,      1, NO, RELU  ),),
    (
        _v2(5,  24, 2, 5.4566, NO, RELU  ),
        _v2(5,  24, 1, 4.7912, NO, RELU  ),
    ),
    (
        _v2(5,  32, 2, 5.3501, SE, RELU  ),
        _v2(5,  24, 1, 4.5379, SE, RELU  ),
    ),
    (
        _v2(5,  56, 2, 5.7133, NO, HSWISH),
        _v2(3,  56, 1, 4.1212, NO, HSWISH),
        _v2(3,  56, 1, 5.1246, SE, HSWISH),
        Skip(80),
        _v2(5,  80, 1,  4.507, SE, HSWISH),
        _v2(5,  80, 1, 1.7712, SE, HSWISH),
    ),
    (
        _v2(3, 144, 2, 4.5685, SE, HSWISH),
        _v2(5, 144, 1,   5.84, SE, HSWISH),
        _v2(5, 144, 1, 6.8754, SE, HSWISH),
        Skip(224),
    ),
    (PoolingHead(1600, 6, HSWISH),),
))
FBNETV2_F2 = replace(FBNETV2_F1, name="fbnetv2_f2", resolution=160)
FBNETV2_F3 = replace(
    FBNETV2_F1, name="fbnetv2_f3", resolution=192, stages=(*FBNETV2_F1.stages[:-1], (PoolingHead(1984, 6, HSWISH),))
)

FBNETV2_F4 = Arch("fbnetv2_f4", 224, (
    (Conv(3, 16, 2, HSWISH),),
    (_v2(3,  16, 1,      1, NO, HSWISH),),
    (
        _v2(5,  24, 2, 5.4566, NO, HSWISH),
        _v2(5,  24, 1, 1.7912, NO, HSWISH),
        _v2(5,  24, 1, 1.7912, NO, HSWISH),
    ),
    (
        _v2(5,  32, 2, 5.3501, SE, RELU  ),
        _v2(5,  32, 1, 3.5379, SE, RELU  ),
        _v2(5,  32, 1, 4.5379, SE, RELU  ),
        _v2(5,  32, 1, 4.5379, SE, RELU  ),
    ),
    (
        _v2(5,  64, 2, 5.7133, NO, HSWISH),
        _v2(3,  64, 1, 2.1212, NO, HSWISH),
        Skip(64),
        _v2(3, 104, 1, 5.0333, NO, HSWISH),
        _v2(5, 104, 1,  2.507, SE, HSWISH),
        _v2(5, 104, 1, 1.7712, SE, HSWISH),
        _v2(5, 112, 1, 3.7712, SE, HSWISH),
    ),
    (
        _v2(3, 184, 2, 5.5685, SE, HSWISH),
        _v2(5, 184, 1,   2.84, SE, HSWISH),
        _v2(5, 184, 1, 4.8754, SE, HSWISH),
        Skip(224),
    ),
    (PoolingHead(1984, 6, HSWISH),),
))

FBNETV2_L1 = Arch("fbnetv2_l1", 224, (
    (Conv(3, 16, 2, HSWISH),),
    (_v2(3,  16, 1,      1, NO, HSWISH),),
    (
        _v2(5,  24, 2, 5.4566, NO, HSWISH),
        _v2(5,  24, 1, 1.7912, NO, HSWISH),
        _v2(3,  24, 1, 1.7912, NO, HSWISH),
        _v2(5,  24, 1, 1.7912, NO, HSWISH),
    ),
    (
        _v2(5,  40, 2, 5.3501, SE, HSWISH),
        _v2(5,  32, 1, 3.5379, SE, HSWISH),
        _v2(5,  32, 1, 4.5379, SE, HSWISH),
        _v2(5,  32, 1, 4.5379, SE, HSWISH),
    ),
    (
        _v2(5,  64, 2, 5.7133, NO, HSWISH),
        _v2(3,  64, 1, 2.1212, NO, HSWISH),
        Skip(64),
        _v2(3,  64, 1, 3.1246, NO, HSWISH),
        _v2(3, 112, 1, 5.0333, NO, HSWISH),
        _v2(5, 112, 1,  2.507, SE, HSWISH),
        _v2(5, 112, 1, 1.7712, SE, HSWISH),
        _v2(5, 112, 1, 2.7712, SE, HSWISH),
        _v2(5, 112, 1, 3.7712, SE, HSWISH),
        _v2(5, 112, 1, 3.7712, SE, HSWISH),
    ),
    (
        _v2(3, 184, 2, 5.5685, SE, HSWISH),
        _v2(5, 184, 1,   2.84, SE, HSWISH),
        _v2(5, 184, 1,   2.84, SE, HSWISH),
        _v2(5, 184, 1, 4.8754, SE, HSWISH),
        _v2(5, 184, 1, 4.8754, SE, HSWISH),
        Skip(224),
    ),
    (PoolingHead(1984, 6, HSWISH),),
))
FBNETV2_L2 = replace(FBNETV2_L1, name="fbnetv2_l2", resolution=256)

FBNETV2_L3 = _first_release(Arch("fbnetv2_l3", 288, (
    (Conv(3, 24, 2, HSWISH),),
    (_v2(3,  24, 1,      1, NO, RELU  ),),
    (
        _v2(5,  32, 2, 5.4566, NO, RELU  ),
        _v2(5,  32, 1, 1.7912, NO, RELU  ),
        _v2(3,  32, 1, 1.7912, NO, RELU  ),
        _v2(5,  32, 1, 1.7912, NO, RELU  ),
    ),
    (
        _v2(5,  48, 2, 5.3501, SE, RELU  ),
        _v2(5,  40, 1, 3.5379, SE, RELU  ),
        _v2(5,  40, 1, 4.5379, SE, RELU  ),
        _v2(5,  40, 1, 4.5379, SE, RELU  ),
    ),
    (
        _v2(5,  72, 2, 5.7133, NO, HSWISH),
        _v2(3,  72, 1, 2.1212, NO, HSWISH),
        Skip(72),
        _v2(3,  72, 1, 3.1246, NO, HSWISH),
        _v2(3, 120, 1, 5.0333, NO, HSWISH),
        _v2(5, 120, 1,  2.507, SE, HSWISH),
        _v2(5, 120, 1, 1.7712, SE, HSWISH),
        _v2(5, 120, 1, 2.7712, SE, HSWISH),
        _v2(5, 120, 1, 3.7712, SE, HSWISH),
        _v2(5, 120, 1, 3.7712, SE, HSWISH),
        _v2(5, 120, 1, 3.7712, SE, HSWISH),
    ),
    (
        _v2(3, 192, 2, 5.5685, SE, HSWISH),
        _v2(5, 192, 1,   2.84, SE, HSWISH),
        _v2(5, 192, 1,   2.84, SE, HSWISH),
        _v2(5, 192, 1, 4.8754, SE, HSWISH),
        _v2(5, 192, 1, 4.8754, SE, HSWISH),
        Skip(240),
    ),
    (PoolingHead(1984, 6, HSWISH),),
)), "fbnetv2_l3")
# fmt: on

DMASKING_F1 = _first_release(FBNETV2_F1, "dmasking_f1")
DMASKING_F4 = _first_release(FBNETV2_F4, "dmasking_f4", relu_stages=(1, 2))
DMASKING_L2_HS = _first_release(FBNETV2_L2, "dmasking_l2_hs", relu_stages=(3,))
