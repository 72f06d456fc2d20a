"""Published figures of each network: cost, accuracy, and how it was evaluated.

Source of every figure: the official FBNet model records (project mobile-vision), where the counts of FBNet a, b and c
are rounded to ten. None are published for FBNetV3-A0 and 20G.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Published:
    """Published figures of one network.

    ``macs`` counts every convolution's multiply-accumulates at ``resolution`` (pixels) plus one per element entering
    each global average pool; ``conv_weights`` convolution and classifier weights alone. ``resize`` is the side in
    pixels that the shorter image side is resized to before the center crop of ``resolution`` (None: not stated).
    ``top1`` and ``top5`` are ImageNet validation accuracies in percent.
    """

    resolution: int
    resize: int | None
    macs: int
    conv_weights: int
    top1: float
    top5: float


# fmt: off
PUBLISHED: Mapping[str, Published] = MappingProxyType({
    #                            resolution resize      macs  conv_weights  top-1    top-5
    "fbnet_a":         Published(    224,  None,  244526360,  4270290,   73.298,  90.9239),
    "fbnet_b":         Published(    224,  None,  291101640,  4766670,  74.5441,  91.7846),
    "fbnet_c":         Published(    224,  None,  378233440,  5525420,  75.2499,  92.2925),
    "fbnetv2_f1":      Published(    128,   151,   56410560,  5999408,   68.278,    87.83),
    "fbnetv2_f2":      Published(    160,   179,   85441392,  5999408,  70.9759,   89.598),
    "fbnetv2_f3":      Published(    192,   208,  121824000,  6899504,  73.0319,  90.8068),
    "fbnetv2_f4":      Published(    224,   251,  238351984,  6994824,   75.818,   92.342),
    "fbnetv2_l1":      Published(    224,   256,  326023008,  8496520,   77.038,  93.3624),
    "fbnetv2_l2":      Published(    256,   287,  423912768,  8496520,  78.2429,  93.8059),
    "fbnetv2_l3":      Published(    288,   324,  753163968,  9394060,  78.8668,  94.3318),
    "dmasking_f1":     Published(    128,   146,   56274952,  5992970,    68.33,    87.84),
    "dmasking_f4":     Published(    224,   256,  235882786,  6991688,  75.5238,  92.4504),
    "dmasking_l2_hs":  Published(    256,   288,  419064776,  8492858,  77.6631,   93.736),
    "fbnetv3_a":       Published(    224,   242,  356598280,  8542224,   79.574,   94.712),
    "fbnetv3_b":       Published(    248,   266,  461550136,  8542224,   80.206,   94.944),
    "fbnetv3_c":       Published(    248,   272,  556969904,  9907136,   80.826,   95.286),
    "fbnetv3_d":       Published(    248,   277,  644420352, 10237552,   81.042,   95.436),
    "fbnetv3_e":       Published(    264,   291,  762046336, 10699464,   81.254,   95.488),
    "fbnetv3_f":       Published(    272,   296, 1181644520, 13803072,   82.062,   95.874),
    "fbnetv3_g":       Published(    320,   325, 2129656384, 16513648,   82.794,     96.3),
})
# fmt: on
