"""A joint search space as one value: its dimensions, its points, and the network and recipe of a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.arch import Activation, Arch
from fbnetv3_zoo.arch.cost import Table
from fbnetv3_zoo.arch.latency import BlockKey, distinct_blocks
from fbnetv3_zoo.arch.torchvision_arch import is_torchvision
from fbnetv3_zoo.errors import ZooError, nearest
from fbnetv3_zoo.recipes import Recipe
from fbnetv3_zoo.utils.serialization import find

from .arch_space import Networks, Values
from .base import Codes, SearchSpace
from .block_choices import block_choices, combinations
from .dimension import Choice, Dimension, Part, Value
from .recipe_space import Recipes
from .tabulation import tabulate_networks

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Held:
    """A dimension fixed at ``value`` instead of searched."""

    name: str
    value: Value


@dataclass(frozen=True)
class Candidate:
    """The network and recipe of a point. ``values`` are by dimension.

    ``arch`` is None if the space has no networks (a table, a function) or ``model`` names a fixed one from outside this
    package; ``recipe`` is None if the space has no recipes.
    """

    name: str
    values: Values
    arch: Arch | None = None
    recipe: Recipe | None = None
    model: str = ""


@dataclass(frozen=True)
class Space(SearchSpace):
    """A joint space: networks or one fixed ``model``, recipes, and ``others``, dimensions of a table or a function.

    ``model`` is a published name, the path of an arch JSON file, or ``torchvision:NAME``. ``held`` dimensions are
    fixed: a search of architectures or recipes alone uses the same space with the other part held.
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
        dimensions = [replace(d, options=Choice((held[d.name],))) if d.name in held else d for d in self._all]
        return tuple(sorted(dimensions, key=lambda d: d.part != "architecture"))

    def _describe_size(self) -> str:
        return (
            f"{self.count('architecture'):.4g} architectures x {self.count('recipe'):.4g} recipes (points, every "
            "value\nof every dimension counted; rows of one block have values without effect)"
        )

    def width(self, part: Part | None = None) -> int:
        """Number of columns of the encoding, in total or of one part; the architecture's come first."""
        return sum(d.width for d in self.dimensions if part in (None, d.part))

    # Points

    def encode(self, codes: Codes) -> Floats:
        """The encoding of points, shape (points, :meth:`width`): choices one-hot, numbers in [0, 1]."""
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

    def mutate(self, codes: Codes, rng: np.random.Generator, rate: float | npt.NDArray[np.float64]) -> Codes:
        """Copies in which every dimension takes another value with probability ``rate`` (a number, or one a point).

        Half of the changes of ordered dimensions are to the next value up or down; other changes are uniform.
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

    # The values of points

    def code(self, values: Values) -> Codes:
        """The point with these values, shape (dimensions,). Raises if a value is missing or outside the space."""
        if missing := [d.name for d in self.dimensions if d.name not in values]:
            raise ZooError(f"values lack {', '.join(missing)}")
        return np.array([dimension.index(values[dimension.name]) for dimension in self.dimensions])

    def candidate(self, code: Sequence[int] | Codes, name: str = "candidate") -> Candidate:
        """The network and recipe at the point ``code``."""
        values = self.values(code)
        arch = self.networks.arch(name, values) if self.networks else None
        if self.model and not is_torchvision(self.model):
            from fbnetv3_zoo.zoo import find_arch

            arch = find_arch(self.model)
        recipe = self.recipes.recipe(values) if self.recipes else None
        return Candidate(name, values, arch, recipe, self.model)

    # Networks

    @property
    def activation(self) -> Activation:
        """The activation of all blocks."""
        return self._networks.activation

    @property
    def _networks(self) -> Networks:
        if self.networks is None:
            raise ZooError(f"space {self.name}: searches no networks")
        return self.networks

    def at_resolution(self, resolution: int) -> Space:
        """This space with images of one size, in pixels."""
        return self.hold({"resolution": resolution})

    def tabulate(self, codes: Codes) -> Table:
        """The table of the networks at ``codes``, without building any."""
        columns = {d.name: d.numbers[codes[:, n]] for n, d in enumerate(self.dimensions) if d.part == "architecture"}
        return tabulate_networks(self._networks, columns, len(codes))

    def blocks(self) -> tuple[BlockKey, ...]:
        """Every block of every network at every resolution, each once, sorted; the classifiers too."""
        blocks: set[BlockKey] = set()
        for chosen in block_choices(self._networks):
            blocks |= set(distinct_blocks(self.tabulate(combinations(self.dimensions, chosen))))
        return tuple(sorted(blocks))

    def locate(self, arch: Arch) -> tuple[dict[str, Value], list[str]]:
        """The values that give ``arch``, and the reasons why it lies outside this space; none if it lies inside.

        The padding of strided convolutions, in which A and B differ from the space's networks, is ignored.
        """
        values, reasons = self._networks.values_of(arch)
        for held in self.held:
            if held.name in values and values[held.name] != held.value:
                reasons.append(f"{held.name} is {values[held.name]}; the space holds it at {held.value}")
        return values, reasons

    # Sub-spaces

    def hold(self, values: Mapping[str, Value]) -> Space:
        """This space with the dimensions in ``values`` held at them."""
        held = {item.name: item.value for item in self.held} | dict(values)
        return replace(self, held=tuple(Held(name, value) for name, value in held.items()))

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
        """The networks alone, all trained with ``recipe``."""
        names = {d.name for d in self.recipes.dimensions} if self.recipes else set()
        held = tuple(item for item in self.held if item.name not in names)
        return replace(self, recipes=Recipes(recipe), held=held)

    def with_epochs(self, epochs: int) -> Space:
        """This space with recipes of ``epochs`` epochs."""
        if self.recipes is None:
            raise ZooError(f"space {self.name}: has no recipes, so no epochs to change")
        return replace(self, recipes=replace(self.recipes, base=replace(self.recipes.base, epochs=epochs)))


def find_space(source: str | Path | Space) -> Space:
    """A space from a value, a name in :data:`SPACES`, or the path of a JSON file."""
    from .presets import SPACES

    return find(Space, source, SPACES, what="space", rest=f"shipped are {', '.join(SPACES)}, others are JSON files")
