"""The networks of a search space: stages of rows as in the paper's Table 2, with the values of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from fbnetv3_zoo.arch import Activation, Arch, Block, Conv, InvertedResidual, PoolingHead, Row, SqueezeExcite
from fbnetv3_zoo.errors import ZooError, check_flag, check_whole

from .dimension import Choice, Dimension, Options, Value, listed

Values: TypeAlias = Mapping[str, Value]
NAMES = ("kernel_first", "kernel_rest", "expansion_first", "expansion_rest", "channels", "depth")


@dataclass(frozen=True)
class ConvChoices:
    """A convolution with norm and activation; one block."""

    kernel_size: Options
    channels: Options
    stride: int

    def dimensions(self) -> dict[str, Options]:
        """The options, by short name."""
        return {"kernel_first": self.kernel_size, "channels": self.channels}

    def rows(self, chosen: Values, activation: Activation) -> Iterator[Row]:
        """The row with the values ``chosen``."""
        yield Conv(chosen["kernel_first"], chosen["channels"], self.stride, activation)


@dataclass(frozen=True)
class ResidualChoices:
    """Inverted residuals: ``depth`` blocks, of which the first has ``stride`` and values of its own.

    Rows with the same non-empty ``shared`` have the same expansions. The first block and the rest have separate kernel
    sizes, as in the published networks; the table does not say so.
    """

    kernel_size: Options
    expansion_first: Options
    expansion_rest: Options
    channels: Options
    depth: Options
    stride: int
    squeeze_excite: bool
    shared: str = ""

    def __post_init__(self) -> None:
        check_flag("ResidualChoices.squeeze_excite", self.squeeze_excite)

    def dimensions(self) -> dict[str, Options]:
        """The options, by short name."""
        options = {"kernel_first": self.kernel_size, "kernel_rest": self.kernel_size}
        options |= {"expansion_first": self.expansion_first, "expansion_rest": self.expansion_rest}
        options |= {"channels": self.channels, "depth": self.depth}
        if max(self.depth.values) == 1:
            del options["kernel_rest"], options["expansion_rest"]
        return options

    def rows(self, chosen: Values, activation: Activation) -> Iterator[Row]:
        """One row for the first block, and one for the rest."""
        for number, repeats in (("first", 1), ("rest", chosen["depth"] - 1)):
            if repeats:
                yield InvertedResidual(
                    chosen[f"kernel_{number}"], chosen["channels"], self.stride if number == "first" else 1, repeats,
                    chosen[f"expansion_{number}"], activation,
                    SqueezeExcite(reduces="input") if self.squeeze_excite else None, zero_init_last_norm=True,
                )  # fmt: skip


@dataclass(frozen=True)
class PoolingChoices:
    """The pooling head ("MBPool")."""

    expansion: Options
    channels: Options

    def dimensions(self) -> dict[str, Options]:
        """The options, by short name."""
        return {"expansion_first": self.expansion, "channels": self.channels}

    def rows(self, chosen: Values, activation: Activation) -> Iterator[Row]:
        """The row with the values ``chosen``."""
        yield PoolingHead(chosen["channels"], chosen["expansion_first"], activation)


RowChoices: TypeAlias = ConvChoices | ResidualChoices | PoolingChoices


@dataclass(frozen=True)
class Networks:
    """All networks of a space.

    ``stages`` are grouped as in :class:`Arch`; rows are numbered from 1 across them, as in the table. Convolutions are
    padded by half their kernel.
    """

    resolution: Options
    stages: tuple[tuple[RowChoices, ...], ...]
    activation: Activation = Activation.HARD_SWISH
    width_divisor: int = 8
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        for field in ("width_divisor", "in_channels", "num_classes"):
            check_whole(f"Networks.{field}", getattr(self, field))
        if not self.stages or not all(self.stages):
            raise ZooError("Networks.stages has an empty stage; every stage needs a row")
        for dimension in self.dimensions:
            for value in dimension.options.values:
                check_whole(f"{dimension.name}", value)
        self.arch("smallest", {d.name: min(d.options.values) for d in self.dimensions})  # refuses what cannot be built

    @cached_property
    def rows(self) -> tuple[RowChoices, ...]:
        """The rows of all stages."""
        return tuple(row for stage in self.stages for row in stage)

    @cached_property
    def names(self) -> tuple[dict[str, str], ...]:
        """For every row, the dimension of each of its short names; rows that share one have the same."""
        names = []
        for number, row in enumerate(self.rows, start=1):
            shared = row.shared if isinstance(row, ResidualChoices) else ""
            names.append(
                {
                    short: f"shared_{shared}.{short}" if shared and "expansion" in short else f"row{number}.{short}"
                    for short in row.dimensions()
                }
            )
        return tuple(names)

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """All dimensions, the resolution first, then row by row."""
        dimensions = {"resolution": Dimension("resolution", self.resolution, "architecture")}
        for names, row in zip(self.names, self.rows, strict=True):
            for short, options in row.dimensions().items():
                dimension = Dimension(names[short], options, "architecture")
                if dimensions.setdefault(dimension.name, dimension) != dimension:
                    raise ZooError(f"rows that share {dimension.name} have different values for it")
        return tuple(dimensions.values())

    def arch(self, name: str, values: Values) -> Arch:
        """The network with these values, by dimension."""
        stages, number = [], 0
        for stage in self.stages:
            rows: list[Row] = []
            for row in stage:
                chosen = {short: values[long] for short, long in self.names[number].items()}
                rows += row.rows(chosen, self.activation)
                number += 1
            stages.append(tuple(rows))
        return Arch(name, values["resolution"], tuple(stages), self.width_divisor, self.in_channels, self.num_classes)

    def values_of(self, arch: Arch) -> tuple[dict[str, Value], list[str]]:
        """The values that give ``arch``, and the reasons why it lies outside, none if it lies inside.

        The padding of strided convolutions, which is not a dimension of the space, is ignored.
        """
        if len(arch.stages) != len(self.stages):
            return {}, [f"it has {len(arch.stages)} stages; the networks of the space have {len(self.stages)}"]
        values: dict[str, Value] = {"resolution": arch.resolution}
        reasons = _outside("resolution", self.resolution, arch.resolution)
        if arch.width_divisor != self.width_divisor:
            reasons.append(f"width_divisor is {arch.width_divisor}, not {self.width_divisor}")
        first = 0
        for s, stage in enumerate(self.stages):
            blocks = [block for block in arch.blocks if block.stage == s]
            best: tuple[list[str], dict[str, Value]] | None = None
            for parts in _cuts(blocks, len(stage)):
                read, why = self._match(first, stage, parts, values)
                if best is None or len(why) < len(best[0]):
                    best = why, read
            if best is None:
                return {}, [*reasons, f"stage {s} has {len(blocks)} blocks for {len(stage)} rows"]
            reasons += best[0]
            values |= best[1]
            first += len(stage)
        return values, reasons

    def _match(
        self, first: int, stage: Sequence[RowChoices], parts: Sequence[Sequence[Block]], known: Values
    ) -> tuple[dict[str, Value], list[str]]:
        values, reasons = dict(known), []
        for number, (row, blocks) in enumerate(zip(stage, parts, strict=True), start=first):
            read, why = _read(row, blocks, self.activation)
            reasons += [f"row {number + 1}: {reason}" for reason in why]
            for short, options in row.dimensions().items():
                name = self.names[number][short]
                value = read.get(short, values.get(name, options.values[0]))
                reasons += _outside(f"row {number + 1}: {short}", options, value)
                if values.setdefault(name, value) != value:
                    reasons.append(
                        f"row {number + 1}: {short} is {value}, not {values[name]} as in the row it shares with"
                    )
        return values, reasons


def _outside(name: str, options: Options, value: Value) -> list[str]:
    return [] if value in options.values else [f"{name} is {value}, not among {listed(options.values)}"]


def _cuts(blocks: Sequence[Block], parts: int) -> Iterator[list[Sequence[Block]]]:
    """All ways to cut ``blocks`` into ``parts`` non-empty parts."""
    if parts == 1:
        if blocks:
            yield [blocks]
        return
    for size in range(1, len(blocks) - parts + 2):
        for rest in _cuts(blocks[size:], parts - 1):
            yield [blocks[:size], *rest]


def _read(row: RowChoices, blocks: Sequence[Block], activation: Activation) -> tuple[dict[str, Value], list[str]]:
    """The values of ``blocks`` by short names, and the reasons why no values of ``row`` give them."""
    kinds = {ConvChoices: Conv, ResidualChoices: InvertedResidual, PoolingChoices: PoolingHead}
    kind = kinds[type(row)]
    if not all(isinstance(block.row, kind) for block in blocks):
        return {}, [f"has blocks that are no {kind.__name__}"]
    start, *rest = blocks
    values: dict[str, Value] = {"channels": start.out_channels, "kernel_first": start.kernel_size, "depth": len(blocks)}
    if not isinstance(row, ConvChoices):
        values["expansion_first"] = _whole(start)
    reasons = [f"has {len(blocks)} blocks"] if rest and not isinstance(row, ResidualChoices) else []
    if rest:
        values |= {"kernel_rest": rest[0].kernel_size, "expansion_rest": _whole(rest[0])}
    elif isinstance(row, ResidualChoices):  # a row of one block: the rest's values have no effect
        values |= {"kernel_rest": row.kernel_size.values[0], "expansion_rest": row.expansion_rest.values[0]}
        values = {short: value for short, value in values.items() if not (row.shared and short == "expansion_rest")}
    for block in blocks:
        reasons += _unusual(block, row, activation)
    if len({(block.kernel_size, _whole(block)) for block in rest}) > 1:
        reasons.append("has blocks after the first that differ in kernel size or expansion")
    if len({block.out_channels for block in blocks}) > 1:
        reasons.append(f"has blocks of {listed(sorted({b.out_channels for b in blocks}))} channels")
    stride = 1 if isinstance(row, PoolingChoices) else row.stride
    if start.stride != stride or any(block.stride != 1 for block in rest):
        reasons.append(f"has stride {start.stride}, not {stride}" if start.stride != stride else "has a later stride 2")
    return values, list(dict.fromkeys(reasons))


def _whole(block: Block) -> Value:
    expansion = getattr(block.row, "expansion", 1)
    return int(expansion) if expansion == int(expansion) else expansion


def _unusual(block: Block, row: RowChoices, activation: Activation) -> list[str]:
    """How ``block`` differs from all blocks of ``row``, whatever their values."""
    actual = block.row
    reasons = [] if getattr(actual, "activation", None) is activation else [f"its activation is not {activation.value}"]
    if isinstance(actual, InvertedResidual) and isinstance(row, ResidualChoices):
        excite = SqueezeExcite(reduces="input") if row.squeeze_excite else None
        if actual.squeeze_excite != excite:
            reasons.append("has other squeeze-excite" if actual.squeeze_excite and excite else
                           "has squeeze-excite" if excite is None else "has no squeeze-excite")  # fmt: skip
        if actual.conv_bias or actual.groups_1x1 != 1 or actual.channels_per_group != 1:
            reasons.append("has convolutions with bias or groups")
    if isinstance(actual, Conv) and not actual.bias:
        reasons.append("has a convolution without bias")
    return reasons


def choices(*values: Value) -> Choice:
    """Shorthand for :class:`Choice`."""
    return Choice(values)
