"""A search space as one value: its dimensions, its points, and what a point stands for.

A point is a row of whole numbers, one a dimension: which of the dimension's values it takes. Many points are an array
of shape (points, dimensions), here called codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.errors import ZooError, check_whole, nearest
from fbnetv3_zoo.recipes import Recipe
from fbnetv3_zoo.utils.serialization import find, from_json, to_json

from .arch_space import Networks, Values
from .dimension import Choice, Dimension, Part, Value
from .recipe_space import Recipes

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Held:
    """A dimension that is not searched: it keeps ``value``."""

    name: str
    value: Value


@dataclass(frozen=True)
class Candidate:
    """A point of a space, made into what it stands for. ``values`` are by dimension.

    ``arch`` is None where the space has no networks (a table, a function) or where ``model`` names a fixed one that is
    not of this package; ``recipe`` is None where the space has no recipes.
    """

    name: str
    values: Values
    arch: Arch | None = None
    recipe: Recipe | None = None
    model: str = ""


@dataclass(frozen=True)
class Space:
    """What is searched: networks or one fixed ``model``, recipes, and ``others``: dimensions of a table or a function.

    ``model`` is a published name, the path of an arch JSON file, or ``torchvision:NAME``. ``held`` dimensions keep one
    value: an architecture-only or recipe-only search is the same space with the other part held.
    """

    name: str
    networks: Networks | None = None
    recipes: Recipes | None = None
    others: tuple[Dimension, ...] = ()
    model: str = ""
    held: tuple[Held, ...] = ()

    def __post_init__(self) -> None:
        if self.networks is not None and self.model:
            raise ZooError(f"space {self.name}: has networks and the fixed model {self.model!r}; leave one out")
        if not self._all:
            raise ZooError(f"space {self.name}: has no dimensions")
        names = [dimension.name for dimension in self._all]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ZooError(f"space {self.name}: has dimensions of the same name: {', '.join(sorted(twice))}")
        for held in self.held:
            if held.name not in names:
                raise ZooError(f"space {self.name}: has no dimension {held.name!r} to hold{nearest(held.name, names)}")
            self._all[names.index(held.name)].index(held.value)

    @cached_property
    def _all(self) -> tuple[Dimension, ...]:
        networks = self.networks.dimensions if self.networks else ()
        recipes = self.recipes.dimensions if self.recipes else ()
        return (*networks, *recipes, *self.others)

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """All dimensions, those of the architecture first; a held one has one value left."""
        held = {item.name: item.value for item in self.held}
        found = [replace(d, options=Choice((held[d.name],))) if d.name in held else d for d in self._all]
        return tuple(sorted(found, key=lambda d: d.part != "architecture"))

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of values of every dimension."""
        return np.array([len(dimension) for dimension in self.dimensions])

    def count(self, part: Part | None = None) -> int:
        """Number of points, or of those of one part alone; points of rows of one block may give the same network."""
        return math.prod(len(d) for d in self.dimensions if part in (None, d.part))

    def width(self, part: Part | None = None) -> int:
        """Columns of the encoding, all or those of one part; the architecture's come first."""
        return sum(d.width for d in self.dimensions if part in (None, d.part))

    # Points

    def check(self, codes: Codes) -> Codes:
        """``codes`` as an array (points, dimensions); raises for numbers that no dimension has."""
        codes = np.atleast_2d(np.asarray(codes, np.int64))
        if codes.ndim != 2 or codes.shape[1] != len(self.dimensions):
            raise ZooError(f"codes have shape {codes.shape}; space {self.name} has {len(self.dimensions)} dimensions")
        wrong = np.argwhere((codes < 0) | (codes >= self.sizes))
        if len(wrong):
            row, column = wrong[0]
            raise ZooError(
                f"codes[{row}, {column}] is {codes[row, column]}; {self.dimensions[column].name} has "
                f"{self.sizes[column]} values, counted from 0"
            )
        return codes

    def encode(self, codes: Codes) -> Floats:
        """What a predictor sees, shape (points, :meth:`width`): choices one-hot, numbers from 0 to 1."""
        out = np.empty((len(codes), self.width()), np.float32)
        start = 0
        for column, dimension in enumerate(self.dimensions):
            out[:, start : start + dimension.width] = dimension.encoded[codes[:, column]]
            start += dimension.width
        return out

    def decode(self, encoded: Floats) -> Codes:
        """The inverse of :meth:`encode`."""
        out = np.zeros((len(encoded), len(self.dimensions)), np.int64)
        start = 0
        for column, dimension in enumerate(self.dimensions):
            block = encoded[:, start : start + dimension.width]
            if dimension.width == 1:
                out[:, column] = np.rint(block[:, 0] * (len(dimension) - 1))
            elif dimension.width:
                out[:, column] = block.argmax(1)
            start += dimension.width
        return out

    def sample(self, number: int, rng: np.random.Generator, *, method: Literal["sobol", "uniform"] = "sobol") -> Codes:
        """So many points: of a scrambled Sobol sequence (the paper: Niederreiter's, a relative), or independent."""
        check_whole("sample: number", number)
        if method == "uniform":
            drawn: Codes = rng.integers(0, self.sizes, size=(number, len(self.sizes)))
            return drawn
        from scipy.stats import qmc

        engine = qmc.Sobol(len(self.sizes), scramble=True, rng=rng)
        points = engine.random_base2(max(1, math.ceil(math.log2(number))))[:number]
        codes: Codes = np.minimum((points * self.sizes).astype(np.int64), self.sizes - 1)
        return codes

    def mutate(self, codes: Codes, rng: np.random.Generator, rate: float | npt.NDArray[np.float64]) -> Codes:
        """Copies in which every dimension takes another value with probability ``rate`` (a number, or one a point).

        Of a range, half of the time the next value up or down; else any other value is as likely.
        """
        free = self.sizes > 1
        hit = (rng.random(codes.shape) < np.reshape(rate, (-1, 1))) & free
        jump = (codes + rng.integers(1, np.maximum(self.sizes, 2), size=codes.shape)) % self.sizes
        step = np.clip(codes + rng.choice((-1, 1), size=codes.shape), 0, self.sizes - 1)
        near = (rng.random(codes.shape) < 0.5) & self._ordered & (step != codes)
        changed: Codes = np.where(hit, np.where(near, step, jump), codes)
        return changed

    @cached_property
    def _ordered(self) -> npt.NDArray[np.bool_]:
        return np.array([not isinstance(d.options, Choice) for d in self.dimensions])

    # What points stand for

    def values(self, code: Sequence[int] | Codes) -> dict[str, Value]:
        """The value of every dimension at the point ``code``."""
        return {d.name: d.options.values[int(i)] for d, i in zip(self.dimensions, code, strict=True)}

    def code(self, values: Values) -> Codes:
        """The point with these values, shape (dimensions,). Raises for a value that is missing or not of the space."""
        if missing := [d.name for d in self.dimensions if d.name not in values]:
            raise ZooError(f"values lack {', '.join(missing)}")
        return np.array([dimension.index(values[dimension.name]) for dimension in self.dimensions])

    def candidate(self, code: Sequence[int] | Codes, name: str = "candidate") -> Candidate:
        """What the point ``code`` stands for."""
        values = self.values(code)
        arch = self.networks.arch(name, values) if self.networks else None
        if self.model and not self.model.startswith("torchvision:"):
            from fbnetv3_zoo.zoo import find_arch

            arch = find_arch(self.model)
        recipe = self.recipes.recipe(values) if self.recipes else None
        return Candidate(name, values, arch, recipe, self.model)

    def outside(self, arch: Arch) -> list[str]:
        """The reasons why ``arch`` is no network of this space; none where it is one.

        The padding of strided convolutions, in which A and B differ from the space's networks, is not looked at.
        """
        if self.networks is None:
            raise ZooError(f"space {self.name}: searches no networks")
        values, reasons = self.networks.values_of(arch)
        for held in self.held:
            if held.name in values and values[held.name] != held.value:
                reasons.append(f"{held.name} is {values[held.name]}; the space holds it at {held.value}")
        return reasons

    def contains(self, arch: Arch) -> bool:
        """Whether ``arch`` is a network of this space; :meth:`outside` says why not."""
        return not self.outside(arch)

    def arch_values(self, arch: Arch) -> dict[str, Value]:
        """The values that give ``arch``. Raises with the reasons where it lies outside."""
        if reasons := self.outside(arch):
            raise ZooError(f"{arch.name} is no network of space {self.name}: {'; '.join(reasons)}")
        values, _ = self.networks.values_of(arch) if self.networks else ({}, [])
        return values

    # Sub-spaces

    def hold(self, values: Mapping[str, Value]) -> Space:
        """This space with the dimensions in ``values`` held at them."""
        kept = {item.name: item.value for item in self.held} | dict(values)
        return replace(self, held=tuple(Held(name, value) for name, value in kept.items()))

    def hold_part(self, part: Part, code: Sequence[int] | Codes) -> Space:
        """This space with all dimensions of ``part`` held as at the point ``code``; the other part is searched."""
        values = self.values(code)
        return self.hold({d.name: values[d.name] for d in self.dimensions if d.part == part})

    def recipe_only(self, model: str | Arch) -> Space:
        """The recipes alone, for a fixed model: a name, a JSON file, ``torchvision:NAME``, a network of the space."""
        if isinstance(model, Arch):
            return self.hold(self.arch_values(model))
        names = {d.name for d in self.networks.dimensions} if self.networks else set()
        return replace(
            self, networks=None, model=model, held=tuple(item for item in self.held if item.name not in names)
        )

    def with_recipe(self, recipe: Recipe) -> Space:
        """The networks alone, all trained by ``recipe``."""
        names = {d.name for d in self.recipes.dimensions} if self.recipes else set()
        kept = tuple(item for item in self.held if item.name not in names)
        return replace(self, recipes=Recipes(recipe), held=kept)

    def with_epochs(self, epochs: int) -> Space:
        """The same with recipes of so many epochs."""
        if self.recipes is None:
            raise ZooError(f"space {self.name}: has no recipes, so no epochs to change")
        return replace(self, recipes=replace(self.recipes, base=replace(self.recipes.base, epochs=epochs)))

    # Files

    def to_json(self) -> str:
        """This space as JSON text; :meth:`from_json` gives an equal value back."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Space:
        """The space in ``text``. Raises :class:`ZooError` with the place of what is wrong."""
        return from_json(cls, text)


def find_space(source: str | Path | Space) -> Space:
    """The space that ``source`` stands for: a value, a name of :data:`SPACES`, or the path of a JSON file."""
    from .presets import SPACES

    return find(Space, source, SPACES, what="space", rest=f"shipped are {', '.join(SPACES)}, others are JSON files")
