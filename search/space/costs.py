"""The costs of points, a whole pool at once, and bounds on them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.arch import Activation
from fbnetv3_zoo.arch.cost import Table, pool_cost
from fbnetv3_zoo.errors import ZooError, check_number, check_type, nearest

from .base import Codes
from .space import Space

Doubles = npt.NDArray[np.float64]
Costs = Mapping[str, Doubles]
"""Numbers by the name of a cost, each of shape (points,)."""


class CostModel(Protocol):
    """Computes the free statistics of points: costs of a network known without training it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The costs it knows."""

    def __call__(self, codes: Codes) -> Costs:
        """The costs of every point of ``codes``, one array a name."""


class PoolLatency(Protocol):
    """Estimates the latency in milliseconds of every network of a table."""

    @property
    def activation(self) -> Activation:
        """The activation of the blocks it knows."""

    def __call__(self, table: Table) -> Doubles:
        """Milliseconds, shape (networks,)."""


class NetworkCosts:
    """``macs``, ``parameters`` and ``peak_activation`` of a space's networks, as :mod:`fbnetv3_zoo.arch.cost` counts.

    With ``latency``, from a look-up table, also ``latency_ms``.
    """

    def __init__(self, space: Space, *, latency: PoolLatency | None = None) -> None:
        if space.networks is None:
            raise ZooError(f"space {space.name}: searches no networks, so there is no cost to bound")
        if latency is not None and latency.activation is not space.networks.activation:
            raise ZooError(
                f"the latency table is of {latency.activation.value} blocks, space {space.name} has "
                f"{space.networks.activation.value}; measure the space with `fbnetv3 search lut`"
            )
        self.space, self.latency = space, latency

    @property
    def names(self) -> tuple[str, ...]:
        """The costs it knows."""
        return ("macs", "parameters", "peak_activation", *(["latency_ms"] if self.latency else []))

    def __call__(self, codes: Codes) -> Costs:
        """The costs of every point of ``codes``, computed in chunks that fit the processor's cache."""
        parts = [self._of(codes[start : start + 1024]) for start in range(0, len(codes), 1024)] or [self._of(codes)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.names}

    def _of(self, codes: Codes) -> Costs:
        table = self.space.tabulate(codes)
        cost = pool_cost(table)
        counts = {"macs": cost.macs, "parameters": cost.parameters, "peak_activation": cost.peak_activation}
        costs = {name: numbers.astype(np.float64) for name, numbers in counts.items()}
        return costs if self.latency is None else {**costs, "latency_ms": self.latency(table)}


@dataclass(frozen=True, slots=True)
class Bound:
    """``at_least`` <= cost <= ``at_most``."""

    cost: str
    at_most: float = np.inf
    at_least: float = 0.0

    def __post_init__(self) -> None:
        check_number(f"bound on {self.cost}: at_least", self.at_least, at_least=0, below=1e18)
        if self.at_most != np.inf:
            check_number(f"bound on {self.cost}: at_most", self.at_most, at_least=self.at_least, below=1e18)

    def __str__(self) -> str:
        low = f"{_number(self.at_least)}<=" if self.at_least else ""
        high = f"<={_number(self.at_most)}" if self.at_most != np.inf else ""
        return f"{low}{self.cost}{high}"

    def contains(self, cost: float) -> bool:
        """Whether ``cost`` satisfies the bound."""
        return self.at_least <= cost <= self.at_most

    @property
    def in_a_name(self) -> str:
        """The bound as part of a file name, such as ``macs-450M``."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", str(self)).strip("-")


Constraint = tuple[Bound, ...]
"""Bounds that must all hold; an empty tuple allows everything."""

_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_NUMBER = r"([0-9]+\.?[0-9]*(?:e[+-]?[0-9]+)?)([kMG]?)"


def _number(value: float) -> str:
    for unit, factor in reversed(_UNITS.items()):
        if value >= factor and float(shown := f"{value / factor:g}") * factor == value:
            return shown + unit
    return repr(value).removesuffix(".0")


def parse_constraint(text: str) -> Constraint:
    """Bounds from text such as ``"400M<=macs<=800M,parameters<=10M"``."""
    check_type("constraint", text, str, "text, such as 'macs<=450M'")
    return tuple(_parse(part.strip()) for part in text.split(",") if part.strip())


def _parse(text: str) -> Bound:
    match = re.fullmatch(rf"(?:{_NUMBER}\s*<=\s*)?([a-z_0-9]+?)(?:\s*<=\s*{_NUMBER})?", text)
    if not match or (match[1] is None and match[4] is None):
        lower = re.fullmatch(rf"([a-z_0-9]+)\s*>=\s*({_NUMBER})", text)
        remedy = f"{lower[2]}<={lower[1]}" if lower else "macs<=450M' or '400M<=macs<=800M,parameters<=10M"
        raise ZooError(f"bound {text!r} cannot be read; write '{remedy}'")
    low, low_unit, cost, high, high_unit = match.groups()
    at_least = float(low) * _UNITS[low_unit] if low else 0.0
    return Bound(cost, float(high) * _UNITS[high_unit] if high else np.inf, at_least)


def check_constraint(constraint: Constraint, names: Sequence[str]) -> None:
    """Raise if a bound is on a cost that is not among ``names``."""
    for bound in constraint:
        if bound.cost not in names:
            known = ", ".join(names) or "none"
            raise ZooError(
                f"bound {bound}: there is no cost {bound.cost!r}{nearest(bound.cost, names)}; known: {known}"
            )


def violation(constraint: Constraint, costs: Costs) -> Doubles:
    """The sum of relative excesses over the bounds, shape (points,); exactly 0 if all bounds hold."""
    total = np.zeros(len(next(iter(costs.values()))) if costs else 0)
    for bound in constraint:
        value = costs[bound.cost]
        total = total + np.maximum(0, value / max(bound.at_most, 1e-12) - 1)
        if bound.at_least:
            total = total + np.maximum(0, 1 - value / bound.at_least)
    return total
