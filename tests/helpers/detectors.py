"""A small detector, and how it is trained in a test."""

from __future__ import annotations

import shapes

from fbnetv3_zoo.detection import RCNNSettings
from fbnetv3_zoo.detection.models.serialization import DetectorSpec
from fbnetv3_zoo.recipes import SGD, Augmentation, CosineDecay, Recipe
from fbnetv3_zoo.zoo import ARCHS

ARCH = ARCHS["fbnetv3_a"].scaled(width=0.25, depth=0.25)
SETTINGS = RCNNSettings(
    min_size=64, max_size=64, anchor_sizes=(12, 18), aspect_ratios=(1.0,), proposals=20, proposals_in_training=50,
    regions_in_training=16,
)  # fmt: skip
SPEC = DetectorSpec(shapes.KINDS, arch=ARCH, settings=SETTINGS)
RECIPE = Recipe(
    4, 2, SGD(), 0.05, Augmentation(flip=0.5), schedule=CosineDecay(), weight_decay=1e-4, clip_norm=10.0, ema_decay=0.8
)
# Parameters with 80 classes, from the public modules: backbone, RPN, box head, predictor, all
PARAMETERS = {
    "fbnetv3_a_detector": (972_960, 729_075, 3_524_072, 80_601, 5_306_708),
    "fbnetv3_b_detector": (1_218_872, 809_915, 4_407_624, 90_225, 6_526_636),
    "fbnetv3_c_detector": (1_280_480, 809_915, 7_273_600, 87_017, 9_451_012),
    "fbnetv3_d_detector": (1_507_264, 1_108_491, 6_994_176, 96_641, 9_706_572),
    "fbnetv3_e_detector": (1_809_192, 1_291_627, 7_472_312, 96_641, 10_669_772),
    "fbnetv3_f_detector": (2_528_448, 1_880_315, 11_204_304, 109_473, 15_722_540),
    "fbnetv3_g_detector": (3_093_600, 2_273_515, 15_208_912, 115_889, 20_691_916),
}
