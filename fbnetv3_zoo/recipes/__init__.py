"""Training recipes as values, and the named ones."""

from .fitting import fit_detection_recipe, fit_recipe
from .presets import NAMED, OWN, RECIPES, find_recipe
from .recipe import (
    SGD,
    AdamW,
    Augmentation,
    AutoAugment,
    CosineDecay,
    Distillation,
    ExponentialDecay,
    Optimizer,
    PolicyData,
    RandAugment,
    Recipe,
    RMSProp,
)

__all__ = [
    "AdamW",
    "Augmentation",
    "AutoAugment",
    "CosineDecay",
    "Distillation",
    "ExponentialDecay",
    "NAMED",
    "OWN",
    "Optimizer",
    "PolicyData",
    "RECIPES",
    "RMSProp",
    "RandAugment",
    "Recipe",
    "SGD",
    "find_recipe",
    "fit_detection_recipe",
    "fit_recipe",
]
