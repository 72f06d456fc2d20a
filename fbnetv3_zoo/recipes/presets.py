"""The named recipes, with the source of each value, which may be this project's own choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from ..utils.serialization import find
from .recipe import SGD, Augmentation, ExponentialDecay, RandAugment, Recipe, RMSProp

PAPER = "FBNetV3 paper (arXiv 2006.02049)"
OWN = "this project's choice"


@dataclass(frozen=True, slots=True)
class RecipePreset:
    """A recipe with its purpose and the sources of its values."""

    recipe: Recipe
    purpose: str
    sources: Mapping[str, str]

    def source_of(self, field: str) -> str:
        """Source of the value of ``field``, a dotted name of :meth:`Recipe.values`."""
        return self.sources.get(field, OWN)


_FINAL = f"{PAPER}, final training"
_STATED = {
    "epochs": f"{_FINAL}: 400",
    "warmup_epochs": f"{_FINAL}: 5",
    "schedule": f"{_FINAL}: x 0.9875 an epoch",
    "schedule.factor": f"{_FINAL}: x 0.9875 an epoch",
    "ema_decay": f"{OWN}; {PAPER}, final training: that there is a moving average",
    "distillation.weight": f"{_FINAL}: 0.8 distillation + 0.2 cross entropy",
}
_SEARCHED = {
    "optimizer": f"{OWN}, one of the two of Table 2",
    **dict.fromkeys(
        ("learning_rate", "weight_decay", "dropout", "stochastic_depth", "augmentation.mixup"),
        f"{OWN}, within the range of Table 2",
    ),
}

# The searched values of B to E are in an unpublished appendix. Here, larger networks get more regularisation.
_B = Recipe(
    epochs=400,
    batch_size=1024,
    optimizer=RMSProp(),
    learning_rate=0.026,
    augmentation=Augmentation(crop_area=0.08, flip=0.5, policy=RandAugment(), erasing=0.2, mixup=0.2),
    weight_decay=1e-5,
    ema_decay=0.9998,
    label_smoothing=0.1,
    dropout=0.2,
    stochastic_depth=0.1,
)
_C = replace(_B, dropout=0.23, stochastic_depth=0.13)
_D = replace(_B, dropout=0.26, stochastic_depth=0.16)
_E = replace(_B, dropout=0.3, stochastic_depth=0.2)
_SCALED = {**_SEARCHED, "stochastic_depth": f"{_FINAL}: F and G use E's recipe with stochastic depth 0.2"}


def _imagenet(recipe: Recipe, letter: str, note: str, sources: Mapping[str, str]) -> RecipePreset:
    return RecipePreset(recipe, f"FBNetV3-{letter} on ImageNet{note}", {**_STATED, **sources})


_NAMED = {
    "fbnetv3_a": _imagenet(_B, "A", " (B's, as the paper says)", _SEARCHED),
    "fbnetv3_b": _imagenet(_B, "B", "", _SEARCHED),
    "fbnetv3_c": _imagenet(_C, "C", "", _SEARCHED),
    "fbnetv3_d": _imagenet(_D, "D", "", _SEARCHED),
    "fbnetv3_e": _imagenet(_E, "E", "", _SEARCHED),
    "fbnetv3_f": _imagenet(replace(_E, stochastic_depth=0.2), "F", " (E's, as the paper says)", _SCALED),
    "fbnetv3_g": _imagenet(replace(_E, stochastic_depth=0.2), "G", " (E's, as the paper says)", _SCALED),
    "proxy": RecipePreset(
        replace(_B, epochs=150, schedule=ExponentialDecay(0.963)),
        "the search's proxy task: 200 classes of ImageNet, 10,000 training images held out (`fbnetv3 subset`)",
        {
            **_SEARCHED,
            "epochs": f"{PAPER}, proxy task: 150",
            "schedule": f"{PAPER}, proxy task: x 0.963 an epoch",
            "schedule.factor": f"{PAPER}, proxy task: x 0.963 an epoch",
        },
    ),
    "cifar10": RecipePreset(
        Recipe(
            epochs=400,
            batch_size=128,
            optimizer=SGD(),
            learning_rate=0.1,
            augmentation=Augmentation(crop_area=0.25, flip=0.5, policy=RandAugment(), mixup=0.2),
            weight_decay=2e-5,
            ema_decay=0.9995,
            label_smoothing=0.1,
            dropout=0.2,
            stochastic_depth=0.1,
        ),
        "CIFAR-10 and CIFAR-100, networks in their small-image form; the paper distils nothing here: give no teacher",
        {},
    ),
    "digits": RecipePreset(
        Recipe(
            epochs=16,
            batch_size=64,
            optimizer=SGD(),
            learning_rate=0.1,
            augmentation=Augmentation(shift=True),
            schedule=ExponentialDecay(0.82),
            warmup_epochs=3,
            ema_decay=0.98,
            label_smoothing=0.1,
        ),
        "the handwritten digits of scikit-learn",
        {"distillation.weight": _STATED["distillation.weight"]},
    ),
}

NAMED: Mapping[str, RecipePreset] = MappingProxyType(_NAMED)
RECIPES: Mapping[str, Recipe] = MappingProxyType({name: named.recipe for name, named in _NAMED.items()})


def find_recipe(source: str | Path | Recipe) -> Recipe:
    """The recipe given by ``source``: a :class:`Recipe`, a name in :data:`RECIPES`, or the path of a JSON file.

    Raises :class:`ZooError` for an unknown name and for a file that cannot be read.
    """
    return find(Recipe, source, RECIPES, what="recipe", rest=f"known are {', '.join(RECIPES)}")
