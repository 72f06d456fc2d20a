"""The shipped spaces of supernets: FBNet's, one like FBNetV2's, and tiny ones for 32 x 32 images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from fbnetv3_zoo.arch import Activation, Conv, InvertedResidual, PoolingHead, Row, Skip, SqueezeExcite
from fbnetv3_zoo.utils.serialization import find

from .space import Layer, LayerSpace, fixed

RELU, HSWISH = Activation.RELU, Activation.HARD_SWISH
SE = SqueezeExcite(reduces="expanded")


def _v1_candidates(out_channels: int, stride: int) -> tuple[Row, ...]:
    """FBNet, Table 2: kernel, expansion, groups of the 1x1 convolutions; and the identity."""
    kinds = [(k, e, g) for k in (3, 5) for e, g in ((1, 1), (1, 2), (3, 1), (6, 1))]
    blocks = (InvertedResidual(k, out_channels, stride, 1, e, RELU, conv_bias=True, groups_1x1=g) for k, e, g in kinds)
    return (*blocks, Skip(out_channels, stride))


def _v1_stage(*rows: tuple[int, int, int]) -> tuple[Layer, ...]:
    """A stage of (width, layers, stride of the first)."""
    return tuple(
        Layer(_v1_candidates(width, stride if n == 0 else 1)) for width, layers, stride in rows for n in range(layers)
    )


def _v1(name: str, head: int) -> LayerSpace:
    return LayerSpace(name, (224,), (
        fixed(Conv(3, 16, 2, RELU)),
        _v1_stage(( 16, 1, 1)),
        _v1_stage(( 24, 4, 2)),
        _v1_stage(( 32, 4, 2)),
        _v1_stage(( 64, 4, 2), (112, 4, 1)),
        _v1_stage((184, 4, 2), (352, 1, 1)),
        fixed(Conv(1, head, 1, RELU)),
    ))  # fmt: skip


V1 = _v1("v1", 1984)
"""FBNet, Table 1: 22 layers of 9 candidates, 9.8e20 networks; FBNet-B and -C are two of them."""

V1_A = _v1("v1_a", 1504)
"""The same with the narrower head of FBNet-A."""


def _masked(
    channels: tuple[int, ...], expansions: tuple[float, ...], stride: int, *, activations: tuple[Activation, ...],
    skip: bool = True,
) -> Layer:  # fmt: skip
    """Kernel, squeeze-excite and activation as candidates, identity too; width and expansion by masks."""
    kinds = [(k, se, act) for k in (3, 5) for se in (None, SE) for act in activations]
    width = channels[-1]
    blocks = (
        InvertedResidual(k, width, stride, 1, expansions[-1], act, se, zero_init_last_norm=True) for k, se, act in kinds
    )
    return Layer((*blocks, *([Skip(width, stride)] if skip else [])), channels, expansions)


def _v2_stage(low: int, high: int, step: int, layers: int, stride: int, *acts: Activation) -> list[Layer]:
    """Layers of widths ``low`` to ``high``; the first has ``stride`` and cannot be skipped."""
    widths = tuple(range(low, high + 1, step))
    expansions = tuple(1.75 + 0.5 * n for n in range(10))
    return [_masked(widths, expansions, stride if n == 0 else 1, activations=acts, skip=n > 0) for n in range(layers)]


V2 = LayerSpace("v2", (128, 160, 192, 224, 256, 288), (
    (Layer((Conv(3, 24, 2, HSWISH),), (8, 16, 24)),),
    (Layer(tuple(InvertedResidual(k, 24, 1, 1, 1, act, zero_init_last_norm=True)
                 for k in (3, 5) for act in (RELU, HSWISH)), (8, 16, 24)),),
    tuple(_v2_stage( 16,  32,  8, 4, 2, RELU, HSWISH)),
    tuple(_v2_stage( 24,  48,  8, 4, 2, RELU, HSWISH)),
    (*_v2_stage( 48,  80,  8, 4, 2, HSWISH), *_v2_stage( 80, 128, 16, 6, 1, HSWISH)),
    (*_v2_stage(144, 192, 16, 5, 2, HSWISH), *_v2_stage(208, 240, 16, 1, 1, HSWISH)),
    (Layer((PoolingHead(1984, 6, HSWISH),), (1600, 1984)),),
))  # fmt: skip
"""A space like FBNetV2's, around the widths of its networks; not the paper's own table."""

_TINY_KINDS = [(k, e) for k in (3, 5) for e in (1, 2, 4)]


def _tiny_layer(width: int, stride: int, se: SqueezeExcite | None) -> Layer:
    blocks = (InvertedResidual(k, width, stride, 1, e, HSWISH, se) for k, e in _TINY_KINDS)
    return Layer((*blocks, *([Skip(width)] if stride == 1 else [])))


TINY_DNAS = LayerSpace("tiny_dnas", (32,), (
    fixed(Conv(3, 16, 2, HSWISH)),
    (_tiny_layer(16, 1, None),),
    (_tiny_layer(24, 2, None), _tiny_layer(24, 1, None), _tiny_layer(24, 1, None)),
    (_tiny_layer(40, 2, SE), _tiny_layer(40, 1, SE), _tiny_layer(40, 1, SE)),
    (_tiny_layer(64, 2, SE), _tiny_layer(64, 1, SE)),
    fixed(PoolingHead(192, 3, HSWISH)),
), num_classes=10)  # fmt: skip
"""Networks of 0.2 to 2 MMACs for 32 x 32 images."""


def _tiny_masked(channels: tuple[int, ...], stride: int) -> Layer:
    return _masked(channels, (2, 3, 4), stride, activations=(HSWISH,), skip=stride == 1)


TINY_DMASKING = LayerSpace("tiny_dmasking", (24, 32), (
    (Layer((Conv(3, 16, 2, HSWISH),), (8, 12, 16)),),
    (_tiny_masked((8, 12, 16), 1),),
    (_tiny_masked((8, 16, 24), 2), _tiny_masked((8, 16, 24), 1)),
    (_tiny_masked((16, 24, 32, 40), 2), _tiny_masked((16, 24, 32, 40), 1)),
    (_tiny_masked((24, 32, 48, 64), 2),),
    (Layer((PoolingHead(192, 3, HSWISH),), (64, 128, 192)),),
), num_classes=10)  # fmt: skip
"""The widths of the joint search's space ``tiny`` under masks, and two resolutions."""

LAYER_SPACES: Mapping[str, LayerSpace] = MappingProxyType(
    {space.name: space for space in (V1, V1_A, V2, TINY_DNAS, TINY_DMASKING)}
)


def find_layer_space(source: str | Path | LayerSpace) -> LayerSpace:
    """A space from a value, a name in :data:`LAYER_SPACES`, or the path of a JSON file."""
    rest = f"shipped are {', '.join(LAYER_SPACES)}, others are JSON files"
    return find(LayerSpace, source, LAYER_SPACES, what="space", rest=rest)
