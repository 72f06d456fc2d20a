"""Exact cost of networks, computed from their values: multiply-accumulates, weights, parameters, activation memory.

The formulas work on arrays of shape (networks, blocks), so that one network and a pool of many thousands share them.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ZooError, assert_never, check_whole
from .arch import Arch
from .blocks import Block
from .rows import Conv, InvertedResidual, PoolingHead, Skip

Ints = npt.NDArray[np.int64]

# Columns of Table.columns. "mid" is the width after the k x k convolution (or, without one, before the projection);
# flags are 0 or 1; "bare" is a k x k convolution without norm; groups is 0 where there is no k x k convolution.
COLUMNS = (
    "in_channels", "mid", "out", "kernel", "stride", "padding", "groups", "groups_1x1", "se",
    "dense", "expands", "projects", "pools", "bias", "bias_1x1", "bare", "residual",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """A pool of networks as integers.

    ``columns[name]`` has shape (networks, blocks) for every name in :data:`COLUMNS`; shorter networks are padded with
    identity blocks. ``resolution`` (pixels), ``features`` (classifier input width) and ``classes``: shape (networks,).
    """

    columns: dict[str, Ints]
    resolution: Ints
    features: Ints
    classes: Ints


@dataclass(frozen=True, slots=True)
class PoolCost:
    """Costs of a pool. Totals have shape (networks,); the rest (networks, blocks).

    ``sizes`` is the side in pixels of each block's output; see :class:`Cost` for the rest.
    """

    macs: Ints
    conv_weights: Ints
    parameters: Ints
    peak_activation: Ints
    block_macs: Ints
    block_parameters: Ints
    sizes: Ints


@dataclass(frozen=True, slots=True)
class BlockCost:
    """Cost of one block: side of its output in pixels, multiply-accumulates, parameters."""

    block: Block
    size: int
    macs: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one network for one image of ``resolution`` x ``resolution`` pixels.

    ``macs``: multiply-accumulates of every convolution and the classifier, plus one per element entering a global
    average pool (as in the published records). ``conv_weights``: weights of convolutions and classifier, without
    biases and norms. ``parameters``: elements of all learnable tensors. ``peak_activation``: most elements alive at
    once when convolutions run one after another (input, output, and the block's input if a residual add needs it).
    """

    resolution: int
    macs: int
    conv_weights: int
    parameters: int
    peak_activation: int
    blocks: tuple[BlockCost, ...]


def arch_cost(arch: Arch, *, resolution: int | None = None) -> Cost:
    """Cost of ``arch`` at ``resolution`` pixels (default: its own). Raises :class:`ZooError` if that is too small."""
    side = arch.resolution if resolution is None else resolution
    check_whole("resolution", side)
    if side < arch.min_resolution:
        raise ZooError(
            f"{arch.name}: resolution is {side}; its strides and padding need at least {arch.min_resolution}"
        )
    pool = pool_cost(tabulate([arch], resolution=side))
    lines = zip(arch.blocks, pool.sizes[0], pool.block_macs[0], pool.block_parameters[0], strict=True)
    return Cost(
        resolution=side,
        macs=int(pool.macs[0]),
        conv_weights=int(pool.conv_weights[0]),
        parameters=int(pool.parameters[0]),
        peak_activation=int(pool.peak_activation[0]),
        blocks=tuple(BlockCost(block, int(size), int(macs), int(params)) for block, size, macs, params in lines),
    )


def tabulate(archs: Sequence[Arch], *, resolution: int | None = None) -> Table:
    """The table of ``archs``, each at its own resolution unless ``resolution`` is given."""
    if not archs:
        raise ZooError("archs is empty; give at least one network")
    depth = max(len(arch.blocks) for arch in archs)
    rows = np.zeros((len(archs), depth, len(COLUMNS)), dtype=np.int64)
    rows[:, :, [COLUMNS.index(name) for name in ("kernel", "stride", "groups_1x1")]] = 1
    for n, arch in enumerate(archs):
        rows[n, : len(arch.blocks)] = [_integers(block) for block in arch.blocks]
    return Table(
        columns=_by_column(rows),
        resolution=np.array([resolution or arch.resolution for arch in archs], dtype=np.int64),
        features=np.array([arch.blocks[-1].out_channels for arch in archs], dtype=np.int64),
        classes=np.array([arch.num_classes for arch in archs], dtype=np.int64),
    )


def tabulate_blocks(blocks: Sequence[Block], resolution: Ints) -> Table:
    """A table with one network per block, without a classifier; ``resolution``: side of each input, shape (blocks,).

    ``block_macs`` and ``block_parameters`` are the same as inside a network.
    """
    rows = np.array([_integers(block) for block in blocks], dtype=np.int64).reshape(len(blocks), 1, len(COLUMNS))
    none = np.zeros(len(blocks), dtype=np.int64)
    return Table(_by_column(rows), np.asarray(resolution, dtype=np.int64), none, none)


def _by_column(rows: Ints) -> dict[str, Ints]:
    """``rows`` of shape (networks, blocks, columns) as the columns of a :class:`Table`."""
    return dict(zip(COLUMNS, np.ascontiguousarray(np.moveaxis(rows, 2, 0)), strict=True))


def _integers(block: Block) -> list[int]:
    shared = {
        "in_channels": block.in_channels,
        "mid": block.expanded_channels,
        "out": block.out_channels,
        "kernel": block.kernel_size,
        "stride": block.stride,
        "padding": block.padding,
        "groups_1x1": 1,
        "se": block.se_channels,
    }
    values = dict.fromkeys(COLUMNS, 0) | shared | _of_kind(block)
    return [int(values[name]) for name in COLUMNS]


def _of_kind(block: Block) -> dict[str, int]:
    """The columns that depend on the kind of row, where they are not 0 or as in all blocks."""
    row = block.row
    if isinstance(row, Conv):
        return {"mid": block.out_channels, "groups": block.groups, "dense": 1, "bias": row.bias}
    if isinstance(row, InvertedResidual):
        return {
            "groups": block.groups, "groups_1x1": row.groups_1x1, "expands": block.expands, "projects": 1,
            "bias": row.conv_bias, "bias_1x1": row.conv_bias, "bare": not row.depthwise_norm,
            "residual": block.keeps_shape,
        }  # fmt: skip
    if isinstance(row, PoolingHead):
        return {"expands": 1, "projects": 1, "pools": 1}
    if isinstance(row, Skip):
        return {"projects": not block.keeps_shape}
    assert_never(row)


def pool_cost(table: Table) -> PoolCost:
    """Costs of every network of ``table``."""
    c = table.columns
    size_in, size_out = map_sizes(table)
    area_in, area_out = size_in**2, size_out**2
    weights = _weights(c)
    has_se = (c["se"] > 0).astype(np.int64)
    block_macs = (
        weights["expand"] * area_in
        + (weights["depthwise"] + weights["project"] + has_se * c["mid"]) * area_out
        + weights["squeeze_excite"]
        + c["pools"] * c["mid"] * area_in
    )
    block_weights = sum(weights.values(), start=np.zeros_like(block_macs))
    block_parameters = block_weights + _biases_and_norms(c)
    pooled = table.features * area_out[:, -1]
    classifier = table.features * table.classes
    return PoolCost(
        macs=block_macs.sum(1) + pooled + classifier,
        conv_weights=block_weights.sum(1) + classifier,
        parameters=block_parameters.sum(1) + classifier + table.classes,
        peak_activation=_peak_activation(c, area_in, area_out),
        block_macs=block_macs,
        block_parameters=block_parameters,
        sizes=size_out,
    )


def map_sizes(table: Table) -> tuple[Ints, Ints]:
    """Side in pixels of every block's input and output, each of shape (networks, blocks)."""
    c = table.columns
    sizes = np.empty((c["kernel"].shape[0], c["kernel"].shape[1] + 1), dtype=np.int64)
    sizes[:, 0] = table.resolution
    for b in range(c["kernel"].shape[1]):
        convolved = (sizes[:, b] + 2 * c["padding"][:, b] - c["kernel"][:, b]) // c["stride"][:, b] + 1
        sizes[:, b + 1] = np.where(c["pools"][:, b], 1, convolved)
    return sizes[:, :-1], sizes[:, 1:]


def _weights(c: dict[str, Ints]) -> dict[str, Ints]:
    """Convolution weights of every block, by part."""
    fan_in = np.where(c["dense"], c["in_channels"], c["mid"])
    return {
        "expand": c["expands"] * c["in_channels"] * c["mid"] // c["groups_1x1"],
        "depthwise": (c["groups"] > 0) * c["kernel"] ** 2 * fan_in * c["mid"] // np.maximum(c["groups"], 1),
        "squeeze_excite": 2 * c["mid"] * c["se"],
        "project": c["projects"] * c["mid"] * c["out"] // c["groups_1x1"],
    }


def _biases_and_norms(c: dict[str, Ints]) -> Ints:
    has_kxk, has_se = c["groups"] > 0, c["se"] > 0
    expand = c["expands"] * c["mid"] * (2 + c["bias_1x1"])
    depthwise = has_kxk * c["mid"] * (2 * (1 - c["bare"]) + c["bias"])
    squeeze_excite = has_se * (c["se"] + c["mid"])
    project = c["projects"] * c["out"] * (2 * (1 - c["pools"]) + c["bias_1x1"])
    total: Ints = expand + depthwise + squeeze_excite + project
    return total


def _peak_activation(c: dict[str, Ints], area_in: Ints, area_out: Ints) -> Ints:
    before, between, after = c["in_channels"] * area_in, c["mid"] * area_in, c["out"] * area_out
    held = c["residual"] * before
    expand = c["expands"] * (before + between)
    depthwise_in = np.where(c["expands"], between + held, before)
    depthwise = (c["groups"] > 0) * (depthwise_in + c["mid"] * area_out)
    project_in = np.where(c["groups"] > 0, c["mid"] * area_out + held, np.where(c["pools"], c["mid"], before))
    project = c["projects"] * (project_in + after)
    peak: Ints = np.maximum(np.maximum(expand, depthwise), project).max(1)
    return peak
