"""The shipped spaces: the paper's, and a tiny one for small images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from fbnetv3_zoo.recipes import RECIPES, SGD, ExponentialDecay, Recipe

from .arch_space import ConvChoices, Networks, PoolingChoices, ResidualChoices, choices
from .dimension import Levels, Range
from .recipe_space import RateFactors, Recipes, Setting
from .space import Space

ONE, THREE, K35 = choices(1), choices(3), choices(3, 5)
UP, MID = Range(4, 7), Range(2, 5)
NO, SE = False, True

# fmt: off
# FBNetV3, Table 2. Columns: kernel, expansion of the first block, of the rest, channels, depth, stride, squeeze-excite
_TABLE_2 = Networks(Range(224, 272, 8), (
    (ConvChoices(THREE,               Range( 16,  24, 2),               2),),
    (ResidualChoices(K35,  ONE,  ONE, Range( 16,  24, 2), Range(1,  4), 1, NO),),
    (ResidualChoices(K35,   UP,  MID, Range( 20,  32, 4), Range(4,  7), 2, NO),),
    (ResidualChoices(K35,   UP,  MID, Range( 24,  48, 4), Range(4,  7), 2, SE),),
    (
        ResidualChoices(K35, UP, MID, Range( 56,  84, 4), Range(4,  8), 2, NO, shared="x"),
        ResidualChoices(K35, UP, MID, Range( 96, 144, 4), Range(6, 10), 1, SE, shared="x"),
    ),
    (
        ResidualChoices(K35, UP,  UP, Range(180, 224, 4), Range(5,  9), 2, SE),
        ResidualChoices(K35, choices(6), choices(6), Range(180, 224, 4), ONE, 1, SE),
    ),
    (PoolingChoices(choices(6), choices(1984)),),
))

# A base of which every network trains in seconds: 32 pixels, four halvings
_TINY = Networks(choices(32), (
    (ConvChoices(THREE,                  Range(8, 16, 4),              2),),
    (ResidualChoices(K35, ONE, ONE,      Range(8, 16, 4), Range(1, 2), 1, NO),),
    (ResidualChoices(K35, MID, MID,      Range(8, 24, 4), Range(1, 3), 2, NO),),
    (ResidualChoices(K35, MID, MID,     Range(16, 40, 8), Range(1, 3), 2, SE),),
    (ResidualChoices(K35, MID, MID,     Range(24, 64, 8), Range(1, 2), 2, SE),),
    (PoolingChoices(choices(2, 3, 4), choices(64, 128, 192)),),
), num_classes=10)

# The same for gray letters; widths and depths spread wider, as do their accuracies
_LETTERS = Networks(choices(32), (
    (ConvChoices(THREE,                  Range(8, 24, 4),              2),),
    (ResidualChoices(K35, ONE, ONE,      Range(8, 24, 4), Range(1, 2), 1, NO),),
    (ResidualChoices(K35, MID, MID,      Range(8, 32, 4), Range(1, 3), 2, NO),),
    (ResidualChoices(K35, MID, MID,     Range(16, 56, 8), Range(1, 3), 2, SE),),
    (ResidualChoices(K35, MID, MID,     Range(24, 88, 8), Range(1, 2), 2, SE),),
    (PoolingChoices(choices(2, 3, 4), choices(64, 128, 192)),),
), in_channels=1, num_classes=34)
# fmt: on

_SEARCHED = (
    Setting("learning_rate", Range(20, 30, unit=1e-3)),
    Setting("optimizer", choices("rmsprop", "sgd")),
    Setting("dropout", Range(1, 31, unit=1e-2)),
    Setting("stochastic_depth", Range(10, 31, unit=1e-2)),
    Setting("augmentation.mixup", Range(0, 41, unit=1e-2)),
    Setting("weight_decay", Range(7, 21, unit=1e-6)),
)
_PROXY = RECIPES["proxy"]
_EMA = Setting("ema_decay", choices(_PROXY.ema_decay, 0.0))

_DIGITS = replace(RECIPES["digits"], epochs=6, warmup_epochs=1, label_smoothing=0.0)
_SEARCHED_TINY = (
    Setting("learning_rate", Range(1, 12, unit=1e-2)),
    Setting("optimizer", choices("rmsprop", "sgd", "adamw")),
    Setting("ema_decay", choices(0.98, 0.0)),
    Setting("dropout", Range(0, 6, unit=0.05)),
    Setting("stochastic_depth", Range(0, 6, unit=0.05)),
    Setting("augmentation.mixup", Range(0, 4, unit=0.1)),
    Setting("augmentation.shift", choices(True, False)),
    Setting("label_smoothing", Range(0, 4, unit=0.05)),
    Setting("weight_decay", Range(0, 10, unit=1e-5)),
)

_LETTERS_BASE = Recipe(12, 128, SGD(), 0.1, schedule=ExponentialDecay(0.8), warmup_epochs=2)
_RATES = Levels((0.002, 0.0028, 0.004, 0.0056, 0.008, 0.0113, 0.016, 0.0226, 0.032, 0.0453, 0.064))
_SEARCHED_LETTERS = (
    Setting("learning_rate", _RATES),
    Setting("optimizer", choices("rmsprop", "sgd", "adamw")),
    Setting("ema_decay", choices(0.95, 0.0)),
    Setting("dropout", Range(0, 6, unit=0.05)),
    Setting("stochastic_depth", Range(0, 6, unit=0.05)),
    Setting("augmentation.mixup", Range(0, 4, unit=0.1)),
    Setting("augmentation.shift", choices(True, False)),
    Setting("augmentation.crop_area", Levels((0.5, 0.7, 1.0))),
    Setting("label_smoothing", Range(0, 4, unit=0.05)),
    Setting("weight_decay", Levels((0.0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3))),
)

_FACTORS = RateFactors(sgd=4.0)

PAPER = Space("paper", _TABLE_2, Recipes(_PROXY, _SEARCHED, _FACTORS))
"""Table 2: the joint search. The moving average is always on."""

PAPER_RECIPE = Space("paper_recipe", recipes=Recipes(_PROXY, (*_SEARCHED, _EMA), _FACTORS), model="fbnetv2_l3")
"""Table 2's recipes, moving average included, for FBNetV2-L3: the paper's recipe-only search (section 4.1, Table 3)."""

TINY = Space("tiny", _TINY, Recipes(_DIGITS, _SEARCHED_TINY, RateFactors(rmsprop=0.05, adamw=0.25)))
"""Networks of 0.2 to 3 MMACs for 32 x 32 images, and recipes of six epochs: a search in minutes."""

LETTERS = Space("letters", _LETTERS, Recipes(_LETTERS_BASE, _SEARCHED_LETTERS, RateFactors(sgd=20.0, adamw=0.6)))
"""Networks of 0.1 to 6 MMACs for gray images of 32 x 32 pixels, and recipes of twelve epochs: drawn letters."""

SPACES: Mapping[str, Space] = MappingProxyType({space.name: space for space in (PAPER, PAPER_RECIPE, TINY, LETTERS)})
"""The joint spaces by name, as ``fbnetv3 search space`` shows them."""
