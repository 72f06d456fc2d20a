"""The columns from which the costs of many networks of a space are counted at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fbnetv3_zoo.arch.cost import COLUMNS, Ints, Table

from .arch_space import ConvChoices, Networks, PoolingChoices, ResidualChoices


def tabulate_networks(networks: Networks, values: Mapping[str, Ints], number: int) -> Table:
    """The table of ``number`` networks, as :func:`fbnetv3_zoo.arch.cost.tabulate` makes it, without building any.

    ``values`` are by dimension, each of shape (networks,). Rows of fewer blocks than the deepest end in identity
    blocks, in the middle of the network.
    """
    parts: list[dict[str, Ints]] = []
    channels = np.full(number, networks.in_channels)
    for row, names in zip(networks.rows, networks.names, strict=True):
        chosen = {short: values[long] for short, long in names.items()}
        parts += _blocks(row, chosen, channels, networks)
        channels = chosen["channels"]
    columns = {name: np.concatenate([part[name] for part in parts], axis=1) for name in COLUMNS}
    return Table(columns, values["resolution"], channels, np.full(number, networks.num_classes))


def _blocks(
    row: ConvChoices | ResidualChoices | PoolingChoices, chosen: Mapping[str, Ints], channels: Ints, networks: Networks
) -> list[dict[str, Ints]]:
    """The columns of the first block of ``row`` and of the rest, each of shape (networks, blocks)."""
    zero, one, out = np.zeros_like(channels), np.ones_like(channels), chosen["channels"]
    plain = dict.fromkeys(COLUMNS, zero) | {"in_channels": channels, "out": out, "stride": one, "groups_1x1": one}
    if isinstance(row, ConvChoices):
        kernel = chosen["kernel_first"]
        dense = {"mid": out, "kernel": kernel, "padding": kernel // 2, "stride": one * row.stride}
        return [_one(plain | dense | {"groups": one, "dense": one, "bias": one})]
    divisor = networks.width_divisor
    if isinstance(row, PoolingChoices):
        mid = _rounded(channels * chosen["expansion_first"], divisor)
        return [_one(plain | {"mid": mid, "kernel": one, "expands": one, "projects": one, "pools": one})]
    first = _residual(row, chosen, "first", channels, divisor)
    if "kernel_rest" not in chosen:
        return [_one(plain | first)]
    rest = plain | _residual(row, chosen, "rest", out, divisor) | {"in_channels": out}
    identity = dict.fromkeys(COLUMNS, 0) | dict.fromkeys(("kernel", "stride", "groups_1x1"), 1)
    there = np.arange(1, max(row.depth.values)) < chosen["depth"][:, None]
    return [_one(plain | first), {name: np.where(there, rest[name][:, None], identity[name]) for name in COLUMNS}]


def _one(block: Mapping[str, Ints]) -> dict[str, Ints]:
    return {name: column[:, None] for name, column in block.items()}


def _residual(
    row: ResidualChoices, chosen: Mapping[str, Ints], which: str, channels: Ints, divisor: int
) -> dict[str, Ints]:
    kernel, expansion, out = chosen[f"kernel_{which}"], chosen[f"expansion_{which}"], chosen["channels"]
    mid = _rounded(channels * expansion, divisor)
    stride = row.stride if which == "first" else 1
    excite = np.zeros_like(mid)
    if row.squeeze_excite:
        excite = _rounded(np.maximum(1, (mid * 0.25 / expansion).astype(np.int64)), divisor)
    return {
        "mid": mid,
        "kernel": kernel,
        "padding": kernel // 2,
        "stride": np.full_like(mid, stride),
        "groups": mid,
        "se": excite,
        "expands": (mid != channels).astype(np.int64),
        "projects": np.ones_like(mid),
        "residual": ((channels == out) & (stride == 1)).astype(np.int64),
    }


def _rounded(width: Ints, divisor: int) -> Ints:
    """:func:`fbnetv3_zoo.arch.rows.round_width` of whole numbers."""
    rounded = np.maximum(divisor, (2 * width + divisor) // (2 * divisor) * divisor)
    widths: Ints = np.where(width % divisor == 0, width, np.where(rounded >= 0.95 * width, rounded, rounded + divisor))
    return widths
