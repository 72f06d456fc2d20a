"""What every search space offers: its dimensions and points, what their networks cost, and its JSON file.

A point is a row of whole numbers, one a dimension: the index of one of the dimension's values. Many points are an
array of shape (points, dimensions), called codes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.arch import Activation, Arch
from fbnetv3_zoo.arch.cost import Table
from fbnetv3_zoo.arch.latency import BlockKey
from fbnetv3_zoo.errors import ZooError, check_whole
from fbnetv3_zoo.utils.serialization import from_json, to_json

from .dimension import Dimension, Part, Value

if TYPE_CHECKING:
    from typing_extensions import Self

Codes = npt.NDArray[np.int64]


class SearchSpace(ABC):
    """A set of points: the base class of joint spaces and of the spaces of supernets."""

    name: str

    @property
    @abstractmethod
    def dimensions(self) -> tuple[Dimension, ...]:
        """What there is to choose."""

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of values of every dimension."""
        return np.array([len(dimension) for dimension in self.dimensions], np.int64)

    def count(self, part: Part | None = None) -> int:
        """Number of points, or of those of one part alone; several points may give the same network."""
        return math.prod(len(d) for d in self.dimensions if part in (None, d.part))

    def describe(self) -> str:
        """The dimensions with their values, a line each, and how many points there are."""
        width = 2 + max((len(d.name) for d in self.dimensions), default=0)
        lines = [f"{d.name:{width}}{', '.join(map(str, d.options.values))}" for d in self.dimensions]
        return "\n".join([*lines, self._describe_size()])

    @abstractmethod
    def _describe_size(self) -> str:
        """How many points there are."""

    # Points

    def is_point(self, code: Sequence[int]) -> bool:
        """Whether ``code`` is a point of this space."""
        return len(code) == len(self.dimensions) and all(
            0 <= n < len(dimension) for n, dimension in zip(code, self.dimensions, strict=True)
        )

    def check(self, codes: Codes) -> Codes:
        """``codes`` as an array (points, dimensions). Raises :class:`ZooError` unless all are points of this space."""
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

    def values(self, code: Sequence[int] | Codes) -> dict[str, Value]:
        """The value of every dimension at the point ``code``."""
        return {d.name: d.options.values[int(n)] for d, n in zip(self.dimensions, code, strict=True)}

    def sample(self, number: int, rng: np.random.Generator, *, method: Literal["sobol", "uniform"] = "sobol") -> Codes:
        """Random points: of a scrambled Sobol sequence (the paper: Niederreiter's, a relative), or independent."""
        check_whole("sample: number", number)
        if method == "uniform":
            return self._sample_uniform(number, rng)
        from scipy.stats import qmc

        engine = qmc.Sobol(len(self.sizes), scramble=True, rng=rng)
        points = engine.random_base2(max(1, math.ceil(math.log2(number))))[:number]
        codes: Codes = np.minimum((points * self.sizes).astype(np.int64), self.sizes - 1)
        return codes

    def _sample_uniform(self, number: int, rng: np.random.Generator) -> Codes:
        codes: Codes = rng.integers(0, self.sizes, size=(number, len(self.sizes)))
        return codes

    # Networks

    @property
    @abstractmethod
    def activation(self) -> Activation:
        """The activation of all blocks. Raises :class:`ZooError` if there are several, or no networks."""

    @abstractmethod
    def at_resolution(self, resolution: int) -> Self:
        """This space with images of one size, in pixels."""

    @abstractmethod
    def tabulate(self, codes: Codes) -> Table:
        """The table of the networks at ``codes``, from which :func:`fbnetv3_zoo.arch.cost.pool_cost` counts costs."""

    @abstractmethod
    def blocks(self) -> tuple[BlockKey, ...]:
        """Every block of every network at every resolution, each once, sorted; the classifiers too."""

    @abstractmethod
    def locate(self, arch: Arch) -> tuple[dict[str, Value], list[str]]:
        """The values that give ``arch``, and the reasons why it lies outside this space; none if it lies inside."""

    def outside(self, arch: Arch) -> list[str]:
        """The reasons why ``arch`` is no network of this space; none if it is one."""
        return self.locate(arch)[1]

    def contains(self, arch: Arch) -> bool:
        """Whether ``arch`` is a network of this space; :meth:`outside` says why not."""
        return not self.outside(arch)

    def arch_values(self, arch: Arch) -> dict[str, Value]:
        """The values that give ``arch``. Raises :class:`ZooError` with the reasons if it lies outside."""
        values, reasons = self.locate(arch)
        if reasons:
            raise ZooError(f"{arch.name} is no network of space {self.name}: {'; '.join(reasons)}")
        return values

    # Files

    def to_json(self) -> str:
        """This space as JSON text; :meth:`from_json` gives an equal value back."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The space in ``text``. Raises :class:`ZooError` with the place of what is wrong."""
        return from_json(cls, text)
