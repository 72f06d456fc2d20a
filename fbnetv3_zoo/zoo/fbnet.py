"""FBNet (2018, arXiv 1812.03443): the networks A, B and C that its differentiable search found."""

from __future__ import annotations

from ..arch import Activation, Arch, Conv, InvertedResidual, Skip

RELU = Activation.RELU


def _v1(kernel_size: int, out_channels: int, stride: int, expansion: float, groups: int) -> InvertedResidual:
    return InvertedResidual(kernel_size, out_channels, stride, 1, expansion, RELU, conv_bias=True, groups_1x1=groups)


# fmt: off
# columns of _v1: kernel, width, stride, expansion, groups of the 1x1 convolutions
FBNET_A = Arch("fbnet_a", 224, (
    (Conv(3, 16, 2, RELU),),
    (Skip(16),),
    (
        _v1(3,  24, 2, 3, 1),
        _v1(3,  24, 1, 1, 1),
        Skip(24),
        Skip(24),
    ),
    (
        _v1(5,  32, 2, 6, 1),
        _v1(3,  32, 1, 3, 1),
        _v1(5,  32, 1, 1, 1),
        _v1(3,  32, 1, 3, 1),
    ),
    (
        _v1(5,  64, 2, 6, 1),
        _v1(5,  64, 1, 3, 1),
        _v1(5,  64, 1, 1, 2),
        _v1(5,  64, 1, 6, 1),
        _v1(3, 112, 1, 6, 1),
        _v1(5, 112, 1, 1, 2),
        _v1(5, 112, 1, 3, 1),
        _v1(3, 112, 1, 1, 2),
    ),
    (
        _v1(5, 184, 2, 6, 1),
        _v1(5, 184, 1, 6, 1),
        _v1(5, 184, 1, 3, 1),
        _v1(5, 184, 1, 6, 1),
        _v1(5, 352, 1, 6, 1),
    ),
    (Conv(1, 1504, 1, RELU),),
))

FBNET_B = Arch("fbnet_b", 224, (
    (Conv(3, 16, 2, RELU),),
    (_v1(3,  16, 1, 1, 1),),
    (
        _v1(3,  24, 2, 6, 1),
        _v1(5,  24, 1, 1, 1),
        _v1(3,  24, 1, 1, 1),
        _v1(3,  24, 1, 1, 1),
    ),
    (
        _v1(5,  32, 2, 6, 1),
        _v1(5,  32, 1, 3, 1),
        _v1(3,  32, 1, 6, 1),
        _v1(5,  32, 1, 6, 1),
    ),
    (
        _v1(5,  64, 2, 6, 1),
        _v1(5,  64, 1, 6, 1),
        Skip(64),
        _v1(5,  64, 1, 3, 1),
        _v1(5, 112, 1, 6, 1),
        _v1(3, 112, 1, 1, 1),
        _v1(5, 112, 1, 1, 1),
        _v1(5, 112, 1, 3, 1),
    ),
    (
        _v1(5, 184, 2, 6, 1),
        _v1(5, 184, 1, 1, 1),
        _v1(5, 184, 1, 6, 1),
        _v1(5, 184, 1, 6, 1),
        _v1(3, 352, 1, 6, 1),
    ),
    (Conv(1, 1984, 1, RELU),),
))

FBNET_C = Arch("fbnet_c", 224, (
    (Conv(3, 16, 2, RELU),),
    (_v1(3,  16, 1, 1, 1),),
    (
        _v1(3,  24, 2, 6, 1),
        Skip(24),
        _v1(3,  24, 1, 1, 1),
        _v1(3,  24, 1, 1, 1),
    ),
    (
        _v1(5,  32, 2, 6, 1),
        _v1(5,  32, 1, 3, 1),
        _v1(5,  32, 1, 6, 1),
        _v1(3,  32, 1, 6, 1),
    ),
    (
        _v1(5,  64, 2, 6, 1),
        _v1(5,  64, 1, 3, 1),
        _v1(5,  64, 1, 6, 1),
        _v1(5,  64, 1, 6, 1),
        _v1(5, 112, 1, 6, 1),
        _v1(5, 112, 1, 6, 1),
        _v1(5, 112, 1, 6, 1),
        _v1(5, 112, 1, 3, 1),
    ),
    (
        _v1(5, 184, 2, 6, 1),
        _v1(5, 184, 1, 6, 1),
        _v1(5, 184, 1, 6, 1),
        _v1(5, 184, 1, 6, 1),
        _v1(3, 352, 1, 6, 1),
    ),
    (Conv(1, 1984, 1, RELU),),
))
# fmt: on
