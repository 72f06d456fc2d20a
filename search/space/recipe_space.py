"""The recipes of a search space: a base recipe, and the values of some of its fields."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from fbnetv3_zoo.errors import ZooError, check_number, nearest
from fbnetv3_zoo.recipes import SGD, AdamW, Recipe, RMSProp

from .arch_space import Values
from .dimension import MOST_VALUES, Dimension, Options, Value

OPTIMIZERS = {"rmsprop": RMSProp(), "sgd": SGD(), "adamw": AdamW()}


@dataclass(frozen=True)
class Setting:
    """A field of :class:`Recipe`, dotted as in ``augmentation.mixup``, and its values; optimizers are named."""

    field: str
    options: Options


@dataclass(frozen=True)
class Recipes:
    """All recipes of a space: ``base`` with every one of ``settings`` at one of its values.

    ``sgd_rate_factor`` multiplies the learning rate if the optimizer is SGD (Table 2: 4).
    """

    base: Recipe
    settings: tuple[Setting, ...] = ()
    sgd_rate_factor: float = 1.0

    def __post_init__(self) -> None:
        check_number("Recipes.sgd_rate_factor", self.sgd_rate_factor, above=0)
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
        if isinstance(recipe.optimizer, SGD):
            recipe = replace(recipe, learning_rate=round(recipe.learning_rate * self.sgd_rate_factor, 12))
        return recipe

    def values_of(self, recipe: Recipe) -> tuple[dict[str, Value], list[str]]:
        """The values that give ``recipe``, and the reasons why it lies outside."""
        if isinstance(recipe.optimizer, SGD):
            recipe = replace(recipe, learning_rate=round(recipe.learning_rate / self.sgd_rate_factor, 12))
        own, searched = recipe.values(), {setting.field for setting in self.settings}
        values: dict[str, Value] = {}
        reasons = []
        for dimension in self.dimensions:
            field = dimension.name.removeprefix("recipe.")
            value = type(recipe.optimizer).__name__.lower() if field == "optimizer" else own[field]
            values[dimension.name] = value
            try:
                dimension.index(value)
            except ZooError as error:
                reasons.append(str(error))
        fixed = {key: value for key, value in self.base.values().items() if not key.startswith(tuple(searched))}
        others = {key: own.get(key) for key in fixed}
        reasons += [f"{key} is {others[key]}, not {fixed[key]}" for key in fixed if others[key] != fixed[key]]
        return values, reasons


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
        setting = OPTIMIZERS[setting]
    return replace(value, **{name: setting})
