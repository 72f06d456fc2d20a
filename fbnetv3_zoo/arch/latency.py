"""Latency of networks from a lookup table of blocks, as in FBNet V1 (arXiv 1812.03443, section 3.3).

The table is measured once on a device (:mod:`fbnetv3_zoo.export.onnx.latency`); the latency of a network is the sum
over its blocks, computed for a whole pool at once. Imports no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import LARGEST, ZooError, check_number, check_type, check_whole, shown
from ..utils.atomic_write import replacing
from ..utils.paths import read_file
from ..utils.serialization import from_plain, in_file, json_text, parse_json, to_plain
from .cost import Ints, Table, map_sizes
from .rows import Activation

Doubles = npt.NDArray[np.float64]
_FORMAT = "fbnetv3_zoo.latency_table"
LARGEST_FILE = 64 << 20
"""Largest file in bytes; a block takes 170, and the paper's space has 25,000."""

MOST_BLOCKS = 200_000


class BlockKey(NamedTuple):
    """Everything that determines a block's computation: columns of :class:`~fbnetv3_zoo.arch.cost.Table`, input side.

    A classifier is a block as well, of ``in_channels`` features and ``out`` classes; it ``pools`` unless the network
    has a pooling head.
    """

    in_channels: int = 0
    mid: int = 0
    out: int = 0
    kernel: int = 0
    stride: int = 0
    padding: int = 0
    groups: int = 0
    groups_1x1: int = 0
    se: int = 0
    dense: int = 0
    expands: int = 0
    projects: int = 0
    pools: int = 0
    residual: int = 0
    classifier: int = 0
    side: int = 0

    @property
    def side_out(self) -> int:
        """Side of the output in pixels."""
        if self.pools or self.classifier:
            return 1
        return (self.side + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def text(self) -> str:
        """The fields that are not 0, as in ``in_channels=24 mid=96 out=40 kernel=5 ... side=112``."""
        return " ".join(f"{name}={value}" for name, value in self._asdict().items() if value)

    @classmethod
    def parse(cls, text: str) -> BlockKey:
        """The key whose :attr:`text` is ``text``. Raises :class:`ZooError` if there is none."""
        pairs = [pair.partition("=") for pair in text.split()]
        values = {
            name: int(value) for name, _, value in pairs if name in cls._fields and re.fullmatch("[0-9]{1,7}", value)
        }
        key = cls(**values)
        if key.text != text:
            raise ZooError(f"block {shown(text)} cannot be read; write latency tables with to_json()")
        return key

    def __str__(self) -> str:
        """The block in words."""
        if self.classifier:
            return f"classifier of {self.in_channels} features and {self.out} classes"
        kind = "pooling head" if self.pools else "convolution" if self.dense else "inverted residual"
        kind = kind if self.groups or self.pools else "skip"
        through = f" over {self.mid}" if self.expands else ""
        excited = f", squeeze-excite of {self.se}" if self.se else ""
        shape = "" if self.pools else f"{self.kernel}x{self.kernel} "
        strided = f" of stride {self.stride}" if self.stride > 1 else ""
        wide = f"from {self.in_channels}{through} to {self.out} channels"
        return f"{shape}{kind}{strided} {wide}{excited}, at {self.side} pixels"


def distinct_blocks(table: Table) -> tuple[BlockKey, ...]:
    """The distinct blocks of the networks in ``table``, classifiers included, sorted."""
    columns, idle = _columns(table)
    return tuple(sorted(_distinct([columns[name][~idle] for name in BlockKey._fields])))


def network_blocks(table: Table) -> list[tuple[BlockKey, ...]]:
    """The blocks of every network in ``table``, in order, the classifier last."""
    columns, idle = _columns(table)
    rows = np.stack([columns[name] for name in BlockKey._fields], axis=2)
    return [tuple(BlockKey(*row) for row in rows[n][~idle[n]].tolist()) for n in range(len(rows))]


def _columns(table: Table) -> tuple[dict[str, Ints], npt.NDArray[np.bool_]]:
    """Every field of :class:`BlockKey` as an array (networks, blocks + 1), and a mask of idle blocks."""
    c = table.columns
    side_in, side_out = map_sizes(table)
    zero = np.zeros_like(table.features)
    last = dict.fromkeys(BlockKey._fields, zero) | {"in_channels": table.features, "out": table.classes}
    last |= {"classifier": zero + 1, "pools": 1 - c["pools"].max(1), "side": side_out[:, -1]}
    blocks = {**c, "side": side_in, "classifier": np.zeros_like(side_in)}
    columns = {name: np.concatenate([blocks[name], last[name][:, None]], axis=1) for name in BlockKey._fields}
    idle = (columns["groups"] + columns["projects"] + columns["classifier"]) == 0
    return columns, idle


@dataclass(frozen=True, slots=True)
class Conditions:
    """How blocks were measured: the lower quartile of ``rounds`` runs each."""

    processor: str
    runtime: str
    threads: int
    rounds: int

    def __post_init__(self) -> None:
        for field in ("processor", "runtime"):
            check_type(f"Conditions.{field}", getattr(self, field), str, "text")
        for field in ("threads", "rounds"):
            check_whole(f"Conditions.{field}", getattr(self, field))

    def __str__(self) -> str:
        return f"{self.processor}, {self.runtime}, {self.threads} thread{'s' if self.threads > 1 else ''}"


@dataclass(frozen=True, slots=True)
class LatencyCheck:
    """Estimates compared with ``networks`` whole networks measured under the same conditions.

    ``bias`` is the mean relative error of plain sums over blocks, ``error`` the mean absolute relative error,
    ``scaled_error`` the same after scaling by the ratio of the other networks; ``kendall`` is the rank correlation (NaN
    if all are equal). ``shortest`` and ``longest`` are measured milliseconds.
    """

    networks: int
    error: float
    bias: float
    scaled_error: float
    kendall: float
    shortest: float
    longest: float

    def __post_init__(self) -> None:
        if self.kendall is None:  # JSON has no nan
            object.__setattr__(self, "kendall", math.nan)

    def __str__(self) -> str:
        return (
            f"{self.networks} whole networks of {self.shortest:.3g} to {self.longest:.3g} ms: error of plain sums "
            f"{self.error:.1%} (bias {self.bias:+.1%}), scaled {self.scaled_error:.1%}; Kendall {self.kendall:.2f}"
        )


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of single blocks on one device for one image; call the table to estimate networks.

    All blocks have the same ``activation``. ``call`` is the overhead of a call to ONNX Runtime; ``scale`` multiplies
    all estimates and is 1 unless whole networks were measured.
    """

    conditions: Conditions
    activation: Activation
    blocks: Mapping[BlockKey, float]
    call: float = 0.0
    scale: float = 1.0
    check: LatencyCheck | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", dict(self.blocks))
        for key, milliseconds in self.blocks.items():
            if type(milliseconds) is not float or not 0 <= milliseconds < LARGEST:  # the check's text takes its time
                check_number(f"milliseconds of the {key}", milliseconds, at_least=0)
        check_number("LatencyTable.call", self.call, at_least=0)
        check_number("LatencyTable.scale", self.scale, above=0)

    def __call__(self, table: Table) -> Doubles:
        """Estimated milliseconds of every network in ``table``, shape (networks,).

        Raises :class:`ZooError` for blocks that were not measured.
        """
        estimates: Doubles = self.scale * (self.call + self._looked_up(*_columns(table)).sum(1))
        return estimates

    def _looked_up(self, columns: Mapping[str, Ints], idle: npt.NDArray[np.bool_]) -> Doubles:
        """Milliseconds of blocks, 0 for those that are ``idle``."""
        where = self._find(columns)
        missing = (where < 0) & ~idle
        if missing.any():
            lacking = _distinct([columns[name][missing] for name in BlockKey._fields])
            raise ZooError(
                f"latency table of {self.conditions}: lacks {len(lacking)} of the blocks asked for, such as: "
                f"{min(lacking)}; measure them with `fbnetv3 search lut --space SPACE --output TABLE`"
            )
        return np.where(idle, 0.0, self._milliseconds[where])

    def of_blocks(self, table: Table) -> Doubles:
        """Estimated milliseconds of the blocks in ``table``, shape (networks, blocks), without call and classifier.

        Raises :class:`ZooError` for blocks that were not measured.
        """
        columns, idle = _columns(table)
        return self.scale * self._looked_up({name: of[:, :-1] for name, of in columns.items()}, idle[:, :-1])

    def of_classifiers(self, table: Table) -> Doubles:
        """Estimated milliseconds of the classifiers in ``table``, shape (networks,)."""
        columns, idle = _columns(table)
        return self.scale * self._looked_up({name: of[:, -1:] for name, of in columns.items()}, idle[:, -1:])[:, 0]

    def lacks(self, blocks: Sequence[BlockKey]) -> list[BlockKey]:
        """The ``blocks`` that were not measured, in order."""
        return [key for key in blocks if key not in self.blocks]

    # Many blocks are looked up by a hash of their columns, then compared column by column.

    @cached_property
    def _rows(self) -> Ints:
        rows = np.array(list(self.blocks), dtype=np.int64).reshape(len(self.blocks), len(BlockKey._fields))
        return rows[np.argsort(_hash(list(rows.T)))]

    @cached_property
    def _known(self) -> dict[str, Ints]:
        return dict(zip(BlockKey._fields, np.ascontiguousarray(self._rows.T), strict=True))

    @cached_property
    def _hashes(self) -> npt.NDArray[np.uint64]:
        return _hash(list(self._known.values()))

    @cached_property
    def _milliseconds(self) -> Doubles:
        return np.array([self.blocks[BlockKey(*row)] for row in self._rows.tolist()] or [0.0])

    def _find(self, columns: Mapping[str, Ints]) -> Ints:
        """Positions of the blocks in :attr:`_milliseconds`; -1 for those that are missing."""
        nowhere = np.full(columns["side"].shape, -1)
        if not self.blocks:
            return nowhere
        where = np.searchsorted(self._hashes, _hash([columns[name] for name in BlockKey._fields]))
        where = np.minimum(where, len(self._hashes) - 1)
        same = np.ones(where.shape, dtype=np.bool_)
        for name in BlockKey._fields:
            same &= self._known[name][where] == columns[name]
        return np.where(same, where, nowhere)

    # Files

    def to_json(self) -> str:
        """This table as JSON, one line per block, for :meth:`from_json`."""
        head = {"format": _FORMAT, "version": 1, "conditions": to_plain(self.conditions)}
        head |= {"activation": self.activation.value, "call": self.call, "scale": self.scale}
        if self.check is not None:
            head["check"] = to_plain(self.check)
        return json_text({**head, "blocks": {key.text: ms for key, ms in sorted(self.blocks.items())}}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> LatencyTable:
        """The table in the JSON ``text``. Raises :class:`ZooError` naming the key that is wrong."""
        data = parse_json(text, "latency table")
        if not isinstance(data, dict) or data.pop("format", None) != _FORMAT:
            raise ZooError(f'latency table lacks "format": "{_FORMAT}"; `fbnetv3 search lut` writes such files')
        if (version := data.pop("version", None)) != 1:
            raise ZooError(f"latency table has version {shown(version)}; this release reads version 1")
        blocks = data.pop("blocks", None)
        if not isinstance(blocks, dict):
            raise ZooError("latency table lacks 'blocks'")
        if len(blocks) > MOST_BLOCKS:
            raise ZooError(f"latency table has {len(blocks)} blocks; at most {MOST_BLOCKS} are read")
        head = from_plain(_Head, data, "latency_table")
        keys = {BlockKey.parse(key): milliseconds for key, milliseconds in blocks.items()}
        return cls(head.conditions, head.activation, keys, head.call, head.scale, head.check)

    def save(self, path: str | Path) -> None:
        """Write the table to ``path`` atomically."""
        with replacing(path) as temporary:
            temporary.write_text(self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """The table in the file ``path``. Raises :class:`ZooError` if it cannot be read."""
        data = read_file(path, "a latency table", at_most=LARGEST_FILE)
        try:
            return cls.from_json(data)
        except ZooError as error:
            raise in_file(path, error) from None


@dataclass(frozen=True)
class _Head:
    """The fields of a file other than its blocks."""

    conditions: Conditions
    activation: Activation
    call: float
    scale: float
    check: LatencyCheck | None = None


_FACTORS = np.random.default_rng(0).integers(1, 2**63, len(BlockKey._fields), dtype=np.uint64) | np.uint64(1)


def _hash(columns: Sequence[Ints]) -> npt.NDArray[np.uint64]:
    """A hash of each block; collisions are possible but rare."""
    total = np.zeros(columns[0].shape, dtype=np.uint64)
    for column, factor in zip(columns, _FACTORS, strict=True):
        total += column.astype(np.uint64) * factor
    return total


def _distinct(columns: Sequence[Ints]) -> set[BlockKey]:
    """The distinct blocks in ``columns``, each of shape (blocks,)."""
    _, first, inverse = np.unique(_hash(columns), return_index=True, return_inverse=True)
    if not all((column[first][inverse] == column).all() for column in columns):  # two blocks with one hash
        first = np.arange(len(columns[0]))
    return set(map(BlockKey._make, np.stack(columns, axis=1)[first].tolist()))
