"""The named recipes, with the source of each value, which may be this project's own choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from ..errors import ZooError, check_type
from ..utils.paths import read_file
from ..utils.serialization import find, format_of, from_json, in_file, to_json
from .recipe import SGD, Augmentation, ExponentialDecay, RandAugment, Recipe, RMSProp

PAPER = "FBNetV3 paper (arXiv 2006.02049)"
OWN = "this project's choice"
"""The source of a value that no paper states."""

CHOSEN = "chosen for this run"


@dataclass(frozen=True, slots=True)
class RecipePreset:
    """A recipe with its purpose and the sources of its values (None: not known)."""

    recipe: Recipe
    purpose: str
    sources: Mapping[str, str] | None

    def __post_init__(self) -> None:
        check_type("RecipePreset.recipe", self.recipe, Recipe, "a Recipe")

    def source_of(self, field: str) -> str:
        """Source of the value of ``field``, a dotted name of :meth:`Recipe.values`."""
        return (self.sources or {}).get(field, OWN)

    @property
    def all_sources(self) -> dict[str, str]:
        """The source of every value, by field; empty if they are not known."""
        return {} if self.sources is None else {field: self.source_of(field) for field in self.recipe.values()}

    def changed(self, recipe: Recipe, *, source: str = CHOSEN) -> RecipePreset:
        """This preset with another ``recipe``; values that differ from this one's have this ``source``."""
        if self.sources is None:
            return replace(self, recipe=recipe)
        own, values = self.recipe.values(), recipe.values()
        sources = {field: self.source_of(field) if own.get(field) == values[field] else source for field in values}
        return replace(self, recipe=recipe, sources=MappingProxyType(sources))

    def to_json(self) -> str:
        """All values as JSON, with their sources if they are known, for :func:`find_preset`."""
        if self.sources is None:
            return self.recipe.to_json()
        return to_json(replace(self, sources=self.all_sources), defaults=True)


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

# The searched values of B to E are in an unpublished appendix. Here, larger networks get more regularization.
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
"""The recipes of ``fbnetv3 recipe list`` by name, with their purposes and the sources of their values."""

RECIPES: Mapping[str, Recipe] = MappingProxyType({name: named.recipe for name, named in _NAMED.items()})
"""The recipes of ``fbnetv3 recipe list`` by name."""


def find_recipe(source: str | Path | Recipe) -> Recipe:
    """The recipe given by ``source``: a :class:`Recipe`, a name in :data:`RECIPES`, or the path of a JSON file.

    The file may hold sources, as the ``recipe.json`` of a run does. Raises :class:`ZooError` for an unknown name and
    for a file that cannot be read.
    """
    return source if isinstance(source, Recipe) else find_preset(source).recipe


def find_preset(source: str | Path | RecipePreset) -> RecipePreset:
    """The same as :func:`find_recipe`, with the sources of its values."""
    if isinstance(source, (str, Path)) and str(source) not in NAMED and Path(source).suffix == ".json":
        return _read(Path(source))
    return find(RecipePreset, source, NAMED, what="recipe", rest=f"known are {', '.join(RECIPES)}")


def _read(path: Path) -> RecipePreset:
    data = read_file(path, "a JSON file with a recipe")
    try:
        if format_of(data, "recipe JSON") == "fbnetv3_zoo.recipe_preset":
            return from_json(RecipePreset, data)
        return RecipePreset(Recipe.from_json(data), "a recipe of your own", None)
    except ZooError as error:
        raise in_file(path, error) from None


OF_A_RUN = ("epochs", "batch_size", "learning_rate", "ema_decay", "seed")
"""Values that change with the machine and the time there is; a recipe keeps its name with others."""


def preset_of(recipe: Recipe, *, arch: str = "") -> RecipePreset:
    """The named recipe that ``recipe`` is, with other values of :data:`OF_A_RUN` perhaps; else one without sources.

    Where several have the same values, the one named like ``arch`` is meant.
    """
    own = {field: getattr(recipe, field) for field in OF_A_RUN}
    for key in sorted(NAMED, key=lambda key: key != arch):
        if recipe == replace(NAMED[key].recipe, **own):
            return NAMED[key].changed(recipe)
    return RecipePreset(recipe, "a recipe of your own", None)
