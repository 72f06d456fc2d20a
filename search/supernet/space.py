"""The spaces of supernets: layers, each with candidate blocks, output widths and expansions to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np

from fbnetv3_zoo.arch import Activation, Arch, Block, Conv, InvertedResidual, PoolingHead, Row, Skip, settle
from fbnetv3_zoo.arch.cost import Table, map_sizes, tabulate, tabulate_blocks
from fbnetv3_zoo.arch.latency import BlockKey, distinct_blocks
from fbnetv3_zoo.errors import ZooError, assert_never, check_number, check_whole

from ..space import Choice, Codes, Dimension, Levels, SearchSpace, Value, listed


@dataclass(frozen=True)
class Layer:
    """The choices for one block of the network.

    ``candidates``: rows of one block each, all of the same stride. ``channels``: output widths in rising order that
    replace the candidates'; if empty, all candidates must have the same, and keep it. ``expansions``: likewise for
    candidates that are inverted residuals or pooling heads.
    """

    candidates: tuple[Row, ...]
    channels: tuple[int, ...] = ()
    expansions: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.candidates:
            raise ZooError("Layer.candidates is empty; give at least one row")
        if len(set(self.candidates)) < len(self.candidates):
            raise ZooError("Layer.candidates has a row twice")
        for row in self.candidates:
            if not isinstance(row, PoolingHead) and row.repeats != 1:
                raise ZooError(f"Layer.candidates: a row has {row.repeats} repeats; a layer is one block, write it out")
        if len({getattr(row, "stride", 1) for row in self.candidates}) > 1:
            raise ZooError("Layer.candidates: rows differ in stride, so that their maps cannot be added")
        if len({isinstance(row, PoolingHead) for row in self.candidates}) > 1:
            raise ZooError("Layer.candidates: a pooling head stands beside rows that give maps")
        if not self.channels and len({row.out_channels for row in self.candidates}) > 1:
            raise ZooError("Layer.candidates: rows differ in out_channels; give the widths as channels")
        for width in self.channels:
            check_whole("Layer.channels", width)
        for expansion in self.expansions:
            check_number("Layer.expansions", expansion, above=0)
        for field in ("channels", "expansions"):
            values = getattr(self, field)
            if any(a >= b for a, b in pairwise(values)):
                raise ZooError(f"Layer.{field} is {values!r}; give them in rising order")
        if self.expansions and not any(isinstance(row, (InvertedResidual, PoolingHead)) for row in self.candidates):
            raise ZooError("Layer.expansions: none of the candidates has an expansion")

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """All output widths."""
        return self.channels or (self.candidates[0].out_channels,)

    @cached_property
    def activations(self) -> frozenset[Activation]:
        """The activations of its candidates; identities have none."""
        return frozenset(row.activation for row in self.candidates if not isinstance(row, Skip))

    def row(self, candidate: int, width: int, expansion: int) -> Row:
        """The row of these choices, each given by its index."""
        row = self.candidates[candidate]
        if self.channels:
            row = replace(row, out_channels=self.channels[width])
        if self.expansions and isinstance(row, (InvertedResidual, PoolingHead)):
            row = replace(row, expansion=self.expansions[expansion])
        return row


class LayerDimensions(NamedTuple):
    """The indices of a layer's choices among the dimensions of its space; None for a choice with a single value."""

    candidate: int | None
    channels: int | None
    expansion: int | None


@dataclass(frozen=True)
class LayerSpace(SearchSpace):
    """All networks of a supernet, as one value.

    ``resolutions``: image sides in pixels, in rising order. ``stages`` are grouped as in :class:`Arch`.
    """

    name: str
    resolutions: tuple[int, ...]
    stages: tuple[tuple[Layer, ...], ...]
    width_divisor: int = 8
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if not self.resolutions or any(a >= b for a, b in pairwise(self.resolutions)):
            raise ZooError(f"{self.name}: resolutions is {self.resolutions!r}; give at least one, in rising order")
        if not self.stages or not all(self.stages):
            raise ZooError(f"{self.name}: stages has an empty stage; every stage needs a layer")
        for n in range(max([len(d) for d in self.dimensions], default=1)):  # refuses what cannot be built
            self.arch([min(n, len(d) - 1) for d in self.dimensions], "network")
        for number, layer in enumerate(self.layers):
            for candidate in range(len(layer.candidates)):
                self._check_masks(number, candidate)

    def _check_masks(self, number: int, candidate: int) -> None:
        blocks = [self.block(number, candidate, *at) for at in np.ndindex(*self.shape(number)[1:])]
        name = f"{self.name}: layer {number + 1}, candidate {candidate + 1}"
        row = blocks[0].row
        if len({block.expands for block in blocks}) > 1:
            raise ZooError(
                f"{name}: some of its expansions need a 1x1 convolution and some do not; make those that do not a "
                "candidate of their own"
            )
        if len(blocks) > 1 and isinstance(row, InvertedResidual) and row.groups_1x1 * row.channels_per_group > 1:
            raise ZooError(f"{name}: widths of grouped convolutions cannot be chosen; leave its layer one width")
        if len({(block.kernel_size - 2 * block.padding, block.stride) for block in self._firsts(number)}) > 1:
            raise ZooError(f"{name}: its map is not as large as those of the other candidates; change their padding")

    def _firsts(self, number: int) -> list[Block]:
        return [self.block(number, c, 0, 0, 0) for c in range(len(self.layers[number].candidates))]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of all stages."""
        return tuple(layer for stage in self.stages for layer in stage)

    @cached_property
    def activations(self) -> frozenset[Activation]:
        """The activations of all blocks."""
        return frozenset().union(*(layer.activations for layer in self.layers))

    @cached_property
    def sides(self) -> tuple[tuple[int, ...], ...]:
        """Sides in pixels of every layer's input map and of the last one's output, for each resolution."""
        networks = [self.arch([0] * len(self.dimensions), "network")]
        if len(self.resolutions) > 1:
            others = [0] * (len(self.dimensions) - 1)
            networks = [self.arch([n, *others], "network") for n in range(len(self.resolutions))]
        before, after = map_sizes(tabulate(networks))
        return tuple(map(tuple, np.concatenate([before, after[:, -1:]], axis=1).T.tolist()))

    @cached_property
    def _choices(self) -> tuple[tuple[Dimension, ...], tuple[LayerDimensions, ...]]:
        dimensions = (
            [Dimension("resolution", Levels(self.resolutions), "architecture")] if len(self.resolutions) > 1 else []
        )
        places = []
        for number, layer in enumerate(self.layers, start=1):
            parts = {"expansion": not layer.expansions, "activation": len(layer.activations) > 1}
            names = tuple(label_of(row, **parts) for row in layer.candidates)
            names = names if len(set(names)) == len(names) else tuple(f"{n + 1} {x}" for n, x in enumerate(names))
            options = {"candidate": names, "channels": layer.channels, "expansion": layer.expansions}
            columns: dict[str, int | None] = {}
            for choice, values in options.items():
                columns[choice] = len(dimensions) if len(values) > 1 else None
                if len(values) > 1:
                    kind = Choice(values) if choice == "candidate" else Levels(values)
                    dimensions.append(Dimension(f"layer{number}.{choice}", kind, "architecture"))
            places.append(LayerDimensions(**columns))
        return tuple(dimensions), tuple(places)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """All choices with more than one value: the resolution first, then layer by layer."""
        return self._choices[0]

    @property
    def places(self) -> tuple[LayerDimensions, ...]:
        """For every layer, the indices of its choices among the dimensions."""
        return self._choices[1]

    def shape(self, number: int) -> tuple[int, int, int, int]:
        """Numbers of candidates, input widths, expansions and output widths of layer ``number`` (from 0)."""
        layer = self.layers[number]
        before = len(self.layers[number - 1].widths) if number else 1
        return len(layer.candidates), before, max(1, len(layer.expansions)), len(layer.widths)

    def block(self, number: int, candidate: int, before: int, expansion: int, width: int) -> Block:
        """The settled block of layer ``number`` (from 0) with these choices, each given by its index."""
        channels = self.layers[number - 1].widths[before] if number else self.in_channels
        row = self.layers[number].row(candidate, width, expansion)
        (block,) = settle([[row]], in_channels=channels, width_divisor=self.width_divisor)
        return block

    def arch(self, code: Sequence[int] | Codes, name: str) -> Arch:
        """The network at the point ``code``. Raises :class:`ZooError` if it is no point of this space."""
        code = [int(n) for n in code]
        if not self.is_point(code):
            raise ZooError(f"space {self.name}: {code} is no point of it; it has {len(self.dimensions)} dimensions")
        rows = iter(
            layer.row(*(0 if at is None else code[at] for at in columns))
            for layer, columns in zip(self.layers, self.places, strict=True)
        )
        stages = tuple(tuple(next(rows) for _ in stage) for stage in self.stages)
        side = self.resolutions[code[0] if len(self.resolutions) > 1 else 0]
        return Arch(name, side, stages, self.width_divisor, self.in_channels, self.num_classes)

    def code(self, arch: Arch) -> tuple[int, ...]:
        """The point that gives ``arch``. Raises :class:`ZooError` with the reasons if it lies outside."""
        values = self.arch_values(arch)
        return tuple(dimension.index(values[dimension.name]) for dimension in self.dimensions)

    def locate(self, arch: Arch) -> tuple[dict[str, Value], list[str]]:
        """The values that give ``arch``, and the reasons why it lies outside this space; none if it lies inside."""
        code, reasons = [0] * len(self.dimensions), []
        if arch.resolution not in self.resolutions:
            reasons.append(f"resolution is {arch.resolution}, not among {listed(self.resolutions)}")
        elif len(self.resolutions) > 1:
            code[0] = self.resolutions.index(arch.resolution)
        for field in ("width_divisor", "in_channels", "num_classes"):
            if getattr(arch, field) != getattr(self, field):
                reasons.append(f"{field} is {getattr(arch, field)}, not {getattr(self, field)}")
        lengths = [sum(block.stage == number for block in arch.blocks) for number in range(len(arch.stages))]
        if lengths != [len(stage) for stage in self.stages]:
            return {}, [*reasons, f"its stages have {lengths} blocks"]
        for number, (layer, columns, block) in enumerate(
            zip(self.layers, self.places, arch.blocks, strict=True), start=1
        ):
            row = block.row if isinstance(block.row, PoolingHead) else replace(block.row, repeats=1)
            indices = _find(layer, row)
            if indices is None:
                reasons.append(f"layer {number} is {label_of(row, activation=True)} of {row.out_channels} channels")
            for at, n in zip(columns, indices or (), strict=indices is not None):
                if at is not None:
                    code[at] = n
        return self.values(code), reasons

    def _sample_uniform(self, number: int, rng: np.random.Generator) -> Codes:
        drawn = [rng.integers(len(d), size=number) for d in self.dimensions]
        return np.stack(drawn, axis=1).astype(np.int64) if drawn else np.zeros((number, 0), np.int64)

    def _describe_size(self) -> str:
        return f"{self.count():.4g} points of {len(self.layers)} layers"

    @property
    def activation(self) -> Activation:
        """The activation of all blocks. Raises :class:`ZooError` if there are several."""
        if len(self.activations) != 1:
            names = ", ".join(sorted(activation.value for activation in self.activations)) or "none"
            raise ZooError(f"space {self.name}: its blocks have the activations {names}; a latency table has one")
        return next(iter(self.activations))

    def at_resolution(self, resolution: int) -> LayerSpace:
        """This space with images of one size, in pixels."""
        if resolution not in self.resolutions:
            known = listed(self.resolutions)
            raise ZooError(f"space {self.name}: resolution {resolution} is not among {known}")
        return replace(self, resolutions=(resolution,))

    def tabulate(self, codes: Codes) -> Table:
        """The table of the networks at ``codes``."""
        return tabulate([self.arch(code, "network") for code in codes])

    def tabulate_layer(self, number: int) -> Table:
        """All blocks of layer ``number`` (from 0) at all resolutions, each a network of its own.

        Their order is that of an array of shape (candidates, input widths, expansions, output widths, resolutions).
        """
        blocks = [self.block(number, *at) for at in np.ndindex(*self.shape(number))]
        sides = self.sides[number]
        repeated = [block for block in blocks for _ in sides]
        return tabulate_blocks(repeated, np.tile(np.array(sides, np.int64), len(blocks)))

    def tabulate_classifiers(self) -> Table:
        """The last layer's blocks at all its widths and resolutions, with their classifiers."""
        number, sides = len(self.layers) - 1, self.sides[-2]
        blocks = [self.block(number, 0, 0, 0, width) for width in range(len(self.layers[-1].widths)) for _ in sides]
        table = tabulate_blocks(blocks, np.tile(np.array(sides, np.int64), len(blocks) // len(sides)))
        features = np.array([block.out_channels for block in blocks], np.int64)
        return Table(table.columns, table.resolution, features, np.full(len(blocks), self.num_classes))

    def blocks(self) -> tuple[BlockKey, ...]:
        """Every block of every network at every resolution, each once, sorted; the classifiers too."""
        tables = [self.tabulate_layer(number) for number in range(len(self.layers))]
        keys = {key for table in tables for key in distinct_blocks(table) if not key.classifier}
        return tuple(sorted(keys | {key for key in distinct_blocks(self.tabulate_classifiers()) if key.classifier}))

    def fitted(self, *, num_classes: int, in_channels: int) -> LayerSpace:
        """This space for other images and classes."""
        return replace(self, num_classes=num_classes, in_channels=in_channels)


def label_of(row: Row, *, expansion: bool = True, activation: bool = False) -> str:
    """A short name of ``row``, such as ``k5_e6_se``, which distinguishes the candidates of a layer."""
    if isinstance(row, Conv):
        return f"conv_k{row.kernel_size}"
    if isinstance(row, PoolingHead):
        return "pooling_head"
    if isinstance(row, Skip):
        return "skip"
    if not isinstance(row, InvertedResidual):
        assert_never(row)
    groups = f"_g{row.groups_1x1}" if row.groups_1x1 > 1 else ""
    excited = "_se" if row.squeeze_excite else ""
    expanded = f"_e{row.expansion:g}" if expansion else ""
    activated = f"_{row.activation.value}" if activation else ""
    return f"k{row.kernel_size}{expanded}{groups}{excited}{activated}"


def fixed(*rows: Row) -> tuple[Layer, ...]:
    """Layers with a single candidate each."""
    return tuple(Layer((row,)) for row in rows)


def _find(layer: Layer, row: Row) -> tuple[int, int, int] | None:
    """The indices of candidate, width and expansion that give ``row``; None if none do."""
    ranges = (range(len(layer.candidates)), range(len(layer.widths)), range(max(1, len(layer.expansions))))
    return next((at for at in product(*ranges) if layer.row(*at) == row), None)
