"""The dimensions of a search space: choices from a list, evenly spaced numbers, or ordered numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.errors import ZooError, check_number, check_whole

Value: TypeAlias = Any  # int, float, str or bool
Part: TypeAlias = Literal["architecture", "recipe"]


MOST_VALUES, MOST_CHOICES = 10_000, 1_000
"""Maximum number of values of a dimension, and of one that is encoded one-hot."""


def _check_number_of(name: str, values: Sequence[Value], most: int) -> None:
    if len(values) > most:
        raise ZooError(f"{name} has {len(values)} values; at most {most} can be chosen from")


@dataclass(frozen=True)
class Choice:
    """One of ``values``, unordered: encoded one-hot."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.values, (tuple, list)) or not self.values:
            raise ZooError(f"Choice.values is {self.values!r}; give at least one value")
        _check_number_of("Choice", self.values, MOST_CHOICES)
        for value in self.values:
            if not isinstance(value, (bool, int, float, str)):
                raise ZooError(f"Choice.values has {value!r}; values are numbers, text, true and false")
        object.__setattr__(self, "values", tuple(self.values))
        keys = [(type(value).__name__, value) for value in self.values]
        if len(set(keys)) < len(keys):
            raise ZooError(f"Choice.values {self.values!r} has a value twice")


@dataclass(frozen=True)
class Range:
    """The numbers ``low``, ``low + step``, ... ``high``, each times ``unit``: encoded as one number from 0 to 1."""

    low: int
    high: int
    step: int = 1
    unit: float = 1

    def __post_init__(self) -> None:
        check_whole("Range.low", self.low, at_least=0)
        check_whole("Range.high", self.high, at_least=self.low)
        check_whole("Range.step", self.step)
        check_number("Range.unit", self.unit, above=0)
        if (self.high - self.low) % self.step:
            raise ZooError(f"Range from {self.low} to {self.high}: {self.step} does not divide it into whole steps")
        _check_number_of("Range", range(self.low, self.high + 1, self.step), MOST_VALUES)

    @cached_property
    def values(self) -> tuple[Value, ...]:
        """All numbers, smallest first."""
        numbers = range(self.low, self.high + 1, self.step)
        return tuple(numbers) if self.unit == 1 else tuple(round(n * self.unit, 12) for n in numbers)


@dataclass(frozen=True)
class Levels:
    """One of ``values``, numbers in rising order: encoded as one number, the index scaled to [0, 1]."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        _check_number_of("Levels", self.values, MOST_VALUES)
        for value in self.values:
            check_number("Levels.values", value)
        if not self.values or any(a >= b for a, b in pairwise(self.values)):
            raise ZooError(f"Levels.values is {self.values!r}; give numbers in rising order")


Options: TypeAlias = Choice | Range | Levels
"""The values of a dimension."""


@dataclass(frozen=True)
class Dimension:
    """A dimension of a space: its name, its values, and whether it belongs to the architecture or the recipe."""

    name: str
    options: Options
    part: Part = "recipe"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ZooError(f"Dimension.name is {self.name!r}; give it a name")
        if self.part not in ("architecture", "recipe"):
            raise ZooError(f"dimension {self.name}: part is {self.part!r}; choose from architecture, recipe")

    def __len__(self) -> int:
        return len(self.options.values)

    @property
    def width(self) -> int:
        """Columns of the encoding: 0 if there is a single value."""
        if len(self) == 1:
            return 0
        return len(self) if isinstance(self.options, Choice) else 1

    @cached_property
    def encoded(self) -> npt.NDArray[np.float32]:
        """The encoding of every value, shape (values, :attr:`width`)."""
        if len(self) == 1:
            return np.zeros((1, 0), np.float32)
        if isinstance(self.options, Choice):
            return np.eye(len(self), dtype=np.float32)
        return np.linspace(0, 1, len(self), dtype=np.float32)[:, None]

    @cached_property
    def numbers(self) -> npt.NDArray[Any]:
        """All values as an array, in order."""
        return np.array(self.options.values)

    def index(self, value: Value) -> int:
        """The index of ``value``. Raises :class:`ZooError` if it is not a value of this dimension."""
        for index, known in enumerate(self.options.values):
            if known == value and isinstance(known, bool) == isinstance(value, bool):
                return index
        raise ZooError(f"{self.name}: {value!r} is not among {listed(self.options.values)}")


def listed(values: Sequence[Value]) -> str:
    """``values`` for a message, without the middle of long lists."""
    shown = [str(value) for value in values]
    return ", ".join(shown if len(shown) <= 9 else [*shown[:3], "...", shown[-1]])
