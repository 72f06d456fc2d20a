"""The recipes of a search space: a base recipe, and the values of some of its fields."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from fbnetv3_zoo.errors import ZooError, check_number, nearest
from fbnetv3_zoo.recipes import OPTIMIZERS, Optimizer, Recipe

from .arch_space import Values
from .dimension import MOST_VALUES, Dimension, Options, Value


@dataclass(frozen=True)
class Setting:
    """A field of :class:`Recipe`, dotted as in ``augmentation.mixup``, and its values; optimizers are named."""

    field: str
    options: Options


@dataclass(frozen=True)
class RateFactors:
    """What the searched learning rate is multiplied by with each of :data:`OPTIMIZERS`, as their good rates differ."""

    rmsprop: float = 1.0
    sgd: float = 1.0
    adamw: float = 1.0

    def __post_init__(self) -> None:
        for name, factor in asdict(self).items():
            check_number(f"RateFactors.{name}", factor, above=0)

    def of(self, optimizer: Optimizer) -> float:
        """The factor with ``optimizer``."""
        factor: float = getattr(self, _name(optimizer))
        return factor


@dataclass(frozen=True)
class Recipes:
    """All recipes of a space: ``base`` with every one of ``settings`` at one of its values.

    A recipe's learning rate is the searched one times its optimizer's ``rate_factors`` (Table 2: 4 with SGD).
    """

    base: Recipe
    settings: tuple[Setting, ...] = ()
    rate_factors: RateFactors = RateFactors()

    def __post_init__(self) -> None:
        if (number := sum(len(setting.options.values) for setting in self.settings)) > MOST_VALUES:
            raise ZooError(f"recipes: settings have {number} values together; at most {MOST_VALUES} can be tried")
        known = [*self.base.values()]
        for setting in self.settings:
            if setting.field not in known:
                raise ZooError(f"recipes: {setting.field!r} is no field of a recipe{nearest(setting.field, known)}")
            for value in setting.options.values:
                try:
                    _with(self.base, setting.field, value)
                except ZooError as error:
                    raise ZooError(f"recipes: {setting.field}: {error}") from None
        names = [setting.field for setting in self.settings]
        if len(set(names)) < len(names):
            raise ZooError(f"recipes: settings {names} name a field twice")

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """All dimensions; names begin with ``recipe.``."""
        return tuple(Dimension(f"recipe.{setting.field}", setting.options, "recipe") for setting in self.settings)

    def recipe(self, values: Values) -> Recipe:
        """The recipe with these values, by dimension."""
        recipe = self.base
        for setting in self.settings:
            recipe = _with(recipe, setting.field, values[f"recipe.{setting.field}"])
        factor = self.rate_factors.of(recipe.optimizer)
        return replace(recipe, learning_rate=round(recipe.learning_rate * factor, 12))

    def values_of(self, recipe: Recipe) -> tuple[dict[str, Value], list[str]]:
        """The values that give ``recipe``, and the reasons why it lies outside."""
        factor = self.rate_factors.of(recipe.optimizer)
        recipe = replace(recipe, learning_rate=round(recipe.learning_rate / factor, 12))
        own, searched = recipe.values(), {setting.field for setting in self.settings}
        values: dict[str, Value] = {}
        reasons = []
        for dimension in self.dimensions:
            field = dimension.name.removeprefix("recipe.")
            value = _name(recipe.optimizer) if field == "optimizer" else own[field]
            values[dimension.name] = value
            try:
                dimension.index(value)
            except ZooError as error:
                reasons.append(str(error))
        fixed = {key: value for key, value in self.base.values().items() if not key.startswith(tuple(searched))}
        others = {key: own.get(key) for key in fixed}
        reasons += [f"{key} is {others[key]}, not {fixed[key]}" for key in fixed if others[key] != fixed[key]]
        return values, reasons


def _name(optimizer: Optimizer) -> str:
    return type(optimizer).__name__.lower()


def _with(value: Any, field: str, setting: Value) -> Any:
    """``value`` with its dotted ``field`` set."""
    name, _, inner = field.partition(".")
    if inner:
        part = getattr(value, name)
        if not is_dataclass(part) or inner.partition(".")[0] not in [f.name for f in fields(part)]:
            raise ZooError(f"{field} cannot be set on {part!r}")
        return replace(value, **{name: _with(part, inner, setting)})
    if name == "optimizer" and isinstance(setting, str):
        if setting not in OPTIMIZERS:
            raise ZooError(f"optimizer is {setting!r}; choose from {', '.join(OPTIMIZERS)}")
        return replace(value, optimizer=OPTIMIZERS[setting]())
    return replace(value, **{name: setting})
