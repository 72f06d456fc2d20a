"""The published FBNetV3 detectors A to G as values: a separate family, not the ImageNet networks with another head.

Source: the definitions in the public detection zoo (project d2go, Apache-2.0) and Table 5 of FBNetV3 (arXiv
2006.02049). Their blocks differ from the ImageNet networks': ReLU, squeeze-excite with a quarter of the expanded width
and a sigmoid gate, and a depthwise convolution without norm or activation. No torch in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fbnetv3_zoo.arch import Activation, Conv, Gate, InvertedResidual, SqueezeExcite
from fbnetv3_zoo.errors import ZooError, nearest

from .detector import Detector

_RELU = Activation.RELU
_SE = SqueezeExcite(reduces="expanded", gate=Gate.SIGMOID)


def _ir(
    kernel_size: int, out_channels: int, stride: int, repeats: int, expansion: float, se: SqueezeExcite | None = None
) -> InvertedResidual:
    return InvertedResidual(kernel_size, out_channels, stride, repeats, expansion, _RELU, se, depthwise_norm=False)


def _stem(out_channels: int) -> Conv:
    return Conv(3, out_channels, 2, _RELU)


# fmt: off
# columns of _ir: kernel, width, stride, blocks, expansion, squeeze-excite
DETECTORS: Mapping[str, Detector] = MappingProxyType({d.name: d for d in (
    Detector("fbnetv3_a_detector", (
        (_stem(16), _ir(3,  16, 1, 2, 1)),
        (_ir(5,  24, 2, 1, 4),      _ir(5,  24, 1, 3, 3)),
        (_ir(5,  32, 2, 1, 4, _SE), _ir(3,  32, 1, 3, 3, _SE)),
        (_ir(5,  64, 2, 1, 4),      _ir(3,  64, 1, 3, 3),
         _ir(5, 112, 1, 1, 4, _SE), _ir(5, 112, 1, 5, 3, _SE)),
    ), (_ir(5, 184, 2, 1, 4, _SE), _ir(3, 184, 1, 4, 4, _SE), _ir(5, 200, 1, 1, 6, _SE))),
    Detector("fbnetv3_b_detector", (
        (_stem(16), _ir(3,  16, 1, 2, 1)),
        (_ir(5,  24, 2, 1, 4),      _ir(5,  24, 1, 3, 2)),
        (_ir(5,  40, 2, 1, 5, _SE), _ir(5,  40, 1, 4, 3, _SE)),
        (_ir(5,  72, 2, 1, 5),      _ir(3,  72, 1, 4, 3),
         _ir(3, 120, 1, 1, 5, _SE), _ir(5, 120, 1, 5, 3, _SE)),
    ), (_ir(3, 184, 2, 1, 6, _SE), _ir(5, 184, 1, 5, 4, _SE), _ir(5, 224, 1, 1, 6, _SE))),
    Detector("fbnetv3_c_detector", (
        (_stem(16), _ir(3,  16, 1, 2, 1)),
        (_ir(5,  24, 2, 1, 5),      _ir(3,  24, 1, 4, 3)),
        (_ir(5,  48, 2, 1, 5, _SE), _ir(5,  48, 1, 4, 2, _SE)),
        (_ir(5,  88, 2, 1, 4),      _ir(3,  88, 1, 4, 3),
         _ir(3, 120, 1, 1, 4, _SE), _ir(5, 120, 1, 5, 3, _SE)),
    ), (_ir(5, 216, 2, 1, 5, _SE), _ir(5, 216, 1, 5, 5, _SE), _ir(5, 216, 1, 1, 6, _SE))),
    Detector("fbnetv3_d_detector", (
        (_stem(24), _ir(3,  16, 1, 2, 1)),
        (_ir(3,  24, 2, 1, 5),      _ir(3,  24, 1, 5, 2)),
        (_ir(5,  40, 2, 1, 4, _SE), _ir(3,  40, 1, 4, 3, _SE)),
        (_ir(3,  72, 2, 1, 5),      _ir(3,  72, 1, 4, 3),
         _ir(3, 128, 1, 1, 5, _SE), _ir(5, 128, 1, 6, 3, _SE)),
    ), (_ir(3, 208, 2, 1, 6, _SE), _ir(5, 208, 1, 5, 5, _SE), _ir(5, 240, 1, 1, 6, _SE))),
    Detector("fbnetv3_e_detector", (
        (_stem(24), _ir(3,  16, 1, 3, 1)),
        (_ir(5,  24, 2, 1, 4),      _ir(5,  24, 1, 4, 2)),
        (_ir(5,  48, 2, 1, 4, _SE), _ir(5,  48, 1, 4, 3, _SE)),
        (_ir(5,  80, 2, 1, 5),      _ir(3,  80, 1, 4, 3),
         _ir(3, 128, 1, 1, 5, _SE), _ir(5, 128, 1, 7, 3, _SE)),
    ), (_ir(3, 216, 2, 1, 6, _SE), _ir(5, 216, 1, 5, 5, _SE), _ir(5, 240, 1, 1, 6, _SE))),
    Detector("fbnetv3_f_detector", (
        (_stem(24), _ir(3,  24, 1, 3, 1)),
        (_ir(5,  32, 2, 1, 4),      _ir(5,  32, 1, 4, 2)),
        (_ir(5,  56, 2, 1, 4, _SE), _ir(5,  56, 1, 4, 3, _SE)),
        (_ir(5,  88, 2, 1, 5),      _ir(3,  88, 1, 4, 3),
         _ir(3, 144, 1, 1, 5, _SE), _ir(5, 144, 1, 8, 3, _SE)),
    ), (_ir(3, 248, 2, 1, 6, _SE), _ir(5, 248, 1, 6, 5, _SE), _ir(5, 272, 1, 1, 6, _SE))),
    Detector("fbnetv3_g_detector", (
        (_stem(32), _ir(3,  24, 1, 3, 1)),
        (_ir(5,  40, 2, 1, 4),      _ir(5,  40, 1, 4, 2)),
        (_ir(5,  56, 2, 1, 4, _SE), _ir(5,  56, 1, 4, 3, _SE)),
        (_ir(5, 104, 2, 1, 5),      _ir(3, 104, 1, 4, 3),
         _ir(3, 160, 1, 1, 5, _SE), _ir(5, 160, 1, 8, 3, _SE)),
    ), (_ir(3, 264, 2, 1, 6, _SE), _ir(5, 264, 1, 6, 5, _SE), _ir(5, 288, 1, 2, 6, _SE))),
)})
# fmt: on
"""The published detectors by name, A to G, for :func:`faster_rcnn_c4`; their checkpoints are in detectron2's layout."""


def find_detector(name: str) -> Detector:
    """The published detector of this name. Raises :class:`ZooError` for an unknown name, and suggests the nearest."""
    if name not in DETECTORS:
        raise ZooError(f"unknown detector {name!r}{nearest(name, DETECTORS)}; there are {', '.join(DETECTORS)}")
    return DETECTORS[name]
