"""The cost of a supernet's networks, as a differentiable function of the weights of their choices.

A network's cost is a sum over its blocks, and a block's cost a table over its own choices, the input's width and the
resolution. The expected cost under independent choices is linear in the weights of each: FBNet's latency loss (arXiv
1812.03443, section 3.3) is the case of one choice a layer, and the effective shapes of FBNetV2 (2004.05565, section
3.4) are the case in which the table is a product of shapes. The tables here are filled by :mod:`fbnetv3_zoo.arch.cost`,
so that rounded widths and widths that depend on each other are exact as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fbnetv3_zoo.arch.cost import pool_cost
from fbnetv3_zoo.arch.latency import LatencyTable
from fbnetv3_zoo.errors import ZooError, nearest

from ..space import Codes
from .space import LayerSpace

Doubles = npt.NDArray[np.float64]
COSTS = ("macs", "parameters", "latency_ms")


@dataclass(frozen=True)
class CostTables:
    """One cost of every part of every network of ``space``.

    ``layers``: an array for each layer, of shape (candidates, input widths, expansions, output widths, resolutions);
    ``classifier``: (output widths of the last layer, resolutions); ``constant`` is a cost of every network.
    """

    space: LayerSpace
    cost: str
    layers: tuple[Doubles, ...]
    classifier: Doubles
    constant: float = 0.0

    @classmethod
    def of(cls, space: LayerSpace, cost: str, latency: LatencyTable | None = None) -> CostTables:
        """The tables of ``cost``: "macs", "parameters", or with a table of measured blocks "latency_ms"."""
        if cost not in COSTS:
            raise ZooError(f"there is no cost {cost!r}{nearest(cost, COSTS)}; known: {', '.join(COSTS)}")
        if cost == "latency_ms":
            return _of_latency(space, latency)
        layers = []
        for number in range(len(space.layers)):
            counted = pool_cost(space.tabulate_layer(number))
            counts = counted.block_macs if cost == "macs" else counted.block_parameters
            layers.append(_reshaped(space, number, counts[:, 0].astype(np.float64)))
        features, area = _last_maps(space)
        last = (
            features * (area + space.num_classes) if cost == "macs" else (features + 1) * space.num_classes + 0 * area
        )
        return cls(space, cost, tuple(layers), last.astype(np.float64))

    def of_codes(self, codes: Codes) -> Doubles:
        """The cost of every point of ``codes``, shape (points,)."""
        sides = codes[:, 0] if len(self.space.resolutions) > 1 else np.zeros(len(codes), np.int64)
        total, before = np.full(len(codes), self.constant), np.zeros(len(codes), np.int64)
        for table, where in zip(self.layers, self.space.places, strict=True):
            candidate, width, expansion = (
                np.zeros(len(codes), np.int64) if at is None else codes[:, at] for at in where
            )
            total = total + table[candidate, before, expansion, width, sides]
            before = width
        return total + self.classifier[before, sides]


class ExpectedCost:
    """The expected cost of networks whose choices are drawn independently, differentiable in their weights."""

    def __init__(self, tables: CostTables) -> None:
        self.tables = tables
        self._layers = [torch.from_numpy(table) for table in tables.layers]
        self._classifier = torch.from_numpy(tables.classifier)
        self._one = torch.ones(1, dtype=torch.float64)

    def __call__(self, weights: Sequence[Tensor]) -> Tensor:
        """The cost, a double; ``weights`` has one number a value for every dimension of the space."""
        weights = [weight.double().cpu() for weight in weights]
        space = self.tables.space
        sides = weights[0] if len(space.resolutions) > 1 else self._one
        before, total = self._one, torch.tensor(self.tables.constant, dtype=torch.float64)
        for table, where in zip(self._layers, space.places, strict=True):
            candidate, width, expansion = (self._one if at is None else weights[at] for at in where)
            total = total + torch.einsum("cieor,c,i,e,o,r->", table, candidate, before, expansion, width, sides)
            before = width
        return total + torch.einsum("or,o,r->", self._classifier, before, sides)


def _last_maps(space: LayerSpace) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Widths and areas of the map before the classifier, shapes (widths, 1) and (1, resolutions)."""
    return np.array(space.layers[-1].widths)[:, None], np.array(space.sides[-1])[None] ** 2


def _reshaped(space: LayerSpace, number: int, values: Doubles) -> Doubles:
    return values.reshape(*space.shape(number), len(space.resolutions))


def _of_latency(space: LayerSpace, latency: LatencyTable | None) -> CostTables:
    if latency is None:
        raise ZooError("latency_ms needs a table of measured blocks; make one with `fbnetv3 search lut` and give it")
    check_activation(space, latency)
    layers = tuple(
        _reshaped(space, number, latency.of_blocks(space.tabulate_layer(number))[:, 0])
        for number in range(len(space.layers))
    )
    last = latency.of_classifiers(space.tabulate_classifiers()).reshape(-1, len(space.resolutions))
    return CostTables(space, "latency_ms", layers, last, latency.scale * latency.call)


def check_activation(space: LayerSpace, latency: LatencyTable) -> None:
    """Raise unless all blocks of ``space`` have the activation of the table's blocks."""
    if space.activations - {latency.activation}:
        others = ", ".join(sorted(activation.value for activation in space.activations))
        raise ZooError(
            f"the latency table is of {latency.activation.value} blocks, space {space.name} has {others}; "
            "a table has blocks of one activation"
        )


def effective_shapes(space: LayerSpace, weights: Sequence[Tensor]) -> list[tuple[float, float]]:
    """The effective width and map side of every layer's output (FBNetV2, section 3.4): means under ``weights``."""
    sides = weights[0].double() if len(space.resolutions) > 1 else torch.ones(1, dtype=torch.float64)
    shapes = []
    for layer, where, side in zip(space.layers, space.places, space.sides[1:], strict=True):
        width = torch.tensor(layer.widths, dtype=torch.float64)
        mean = width[0] if where.channels is None else weights[where.channels].double() @ width
        shapes.append((float(mean), float(sides @ torch.tensor(side, dtype=torch.float64))))
    return shapes
