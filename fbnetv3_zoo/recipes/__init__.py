"""Training recipes as values, and the named ones."""

from .fitting import fit_detection_recipe, fit_recipe
from .presets import NAMED, OWN, RECIPES, RecipePreset, find_preset, find_recipe, preset_of
from .recipe import (
    OPTIMIZERS,
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
    Schedule,
)

__all__ = [
    "AdamW",
    "Augmentation",
    "AutoAugment",
    "CosineDecay",
    "Distillation",
    "ExponentialDecay",
    "NAMED",
    "OPTIMIZERS",
    "OWN",
    "Optimizer",
    "PolicyData",
    "RECIPES",
    "RMSProp",
    "RandAugment",
    "Recipe",
    "RecipePreset",
    "SGD",
    "Schedule",
    "find_preset",
    "find_recipe",
    "fit_detection_recipe",
    "fit_recipe",
    "preset_of",
]
