"""The published networks a second time, straight from the facts: plain functions under the official parameter names.

Nothing here is shared with the library. The golden records prove these functions (names, shapes and logits), and they
in turn prove the library where the records cannot: for all 22 networks, and with weights that keep the signal alive.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from golden import draw
from torch import Tensor
from torch.nn import functional as F

Row = dict[str, Any]


class Weights(dict[str, Tensor]):
    """Tensors by official name. What is missing is drawn when asked for, in float64.

    Drawn running statistics are those of the maps that pass, slightly off: every layer then shows in the logits.
    """

    def take(self, key: str, *shape: int) -> Tensor:
        if key not in self:
            self[key] = draw(key, shape).double()
        assert self[key].shape == shape
        return self[key]

    def settle(self, prefix: str, x: Tensor) -> None:
        if f"{prefix}.running_mean" not in self:
            deviation = x.std((0, 2, 3))
            self[f"{prefix}.running_mean"] = x.mean((0, 2, 3)) + deviation * draw(prefix + "off", x.shape[1:2])
            self[f"{prefix}.running_var"] = deviation**2 + 1e-3
            self[f"{prefix}.num_batches_tracked"] = torch.tensor(1)


def reference_logits(record: Row, images: Tensor, weights: Weights) -> Tensor:
    """Logits of the network that ``record`` of the facts describes, in evaluation mode."""
    x, divisor = images, record["width_divisor"]
    for s, stage in enumerate(record["stages"]):
        blocks = [
            {**row, **({"stride": 1, "depthwise_padding": None} if n else {})} for row in stage for n in _times(row)
        ]
        for b, row in enumerate(blocks):
            x = _BLOCKS[row["op"]](row, x, f"backbone.stages.xif{s}_{b}.", weights, divisor)
    x = x.mean((2, 3), keepdim=True)
    return _conv(x, "head.conv", 1000, weights, bias=True).flatten(1)


def _times(row: Row) -> range:
    return range(row["repeats"])


def _conv_block(row: Row, x: Tensor, prefix: str, weights: Weights, divisor: int) -> Tensor:
    k = row["kernel_size"]
    shape = {"kernel": k, "stride": row["stride"], "padding": k // 2}
    x = _conv(x, f"{prefix}conv", row["out_channels"], weights, bias=True, **shape)
    return _activate(_norm(x, f"{prefix}bn", weights), row["activation"])


def _inverted_residual(row: Row, x: Tensor, prefix: str, weights: Weights, divisor: int) -> Tensor:
    entry, width, k = x, _round(x.shape[1] * row["expansion"], divisor), row["kernel_size"]
    bias, groups, override = row.get("conv_bias", False), row.get("groups_1x1", 1), row.get("depthwise_padding")
    if width != x.shape[1]:
        x = _conv(x, f"{prefix}pw.conv", width, weights, groups=groups, bias=bias)
        x = _activate(_norm(x, f"{prefix}pw.bn", weights), row["activation"])
    x = x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
    padding, per_group = k // 2 if override is None else override, row.get("depthwise_channels_per_group", 1)
    shape = {"kernel": k, "stride": row["stride"], "padding": padding, "groups": width // per_group}
    x = _conv(x, f"{prefix}dw.conv", width, weights, bias=bias, **shape)
    x = _activate(_norm(x, f"{prefix}dw.bn", weights), row["activation"])
    if row["squeeze_excite"] is not None:
        x = x * _gate(row, x, f"{prefix}se.se.", weights, divisor)
    x = _conv(x, f"{prefix}pwl.conv", row["out_channels"], weights, groups=groups, bias=bias)
    x = _norm(x, f"{prefix}pwl.bn", weights)
    return x + entry if row["stride"] == 1 and x.shape[1] == entry.shape[1] else x


def _gate(row: Row, x: Tensor, prefix: str, weights: Weights, divisor: int) -> Tensor:
    width = x.shape[1] * 0.25 / (row["expansion"] if row["se_reduces"] == "input" else 1)
    y = _conv(x.mean((2, 3), keepdim=True), f"{prefix}0.conv", _round(int(width), divisor), weights, bias=True)
    y = _conv(_activate(y, row["activation"]), f"{prefix}1", x.shape[1], weights, bias=True)
    return F.relu6(y + 3) / 6


def _pooling_head(row: Row, x: Tensor, prefix: str, weights: Weights, divisor: int) -> Tensor:
    x = _conv(x, f"{prefix}pw.conv", _round(x.shape[1] * row["expansion"], divisor), weights)
    x = _activate(_norm(x, f"{prefix}pw.bn", weights), row["activation"])
    x = _conv(x.mean((2, 3), keepdim=True), f"{prefix}pwl.conv", row["out_channels"], weights)
    return _activate(x, row["activation"])


def _skip(row: Row, x: Tensor, prefix: str, weights: Weights, divisor: int) -> Tensor:
    if row["stride"] == 1 and row["out_channels"] == x.shape[1]:
        return x
    x = _conv(x, f"{prefix}conv.conv", row["out_channels"], weights, stride=row["stride"])
    return F.relu(_norm(x, f"{prefix}conv.bn", weights))


_BLOCKS = {
    "conv": _conv_block,
    "inverted_residual": _inverted_residual,
    "pooling_head": _pooling_head,
    "skip": _skip,
}


def _conv(
    x: Tensor, name: str, out: int, weights: Weights, *, kernel: int = 1, stride: int = 1, padding: int = 0,
    groups: int = 1, bias: bool = False,
) -> Tensor:  # fmt: skip
    weight = weights.take(f"{name}.weight", out, x.shape[1] // groups, kernel, kernel)
    offset = weights.take(f"{name}.bias", out) if bias else None
    return F.conv2d(x, weight, offset, stride, padding, groups=groups)


def _norm(x: Tensor, prefix: str, weights: Weights) -> Tensor:
    scale, offset = (weights.take(f"{prefix}.{part}", x.shape[1]) for part in ("weight", "bias"))
    weights.settle(prefix, x)
    mean, variance = weights[f"{prefix}.running_mean"], weights[f"{prefix}.running_var"]
    mean, variance, scale, offset = (value[:, None, None] for value in (mean, variance, scale, offset))
    return (x - mean) / (variance + 1e-5).sqrt() * scale + offset


def _activate(x: Tensor, name: str) -> Tensor:
    return {"relu": F.relu, "hard_swish": lambda y: y * F.relu6(y + 3) / 6}[name](x)


def _round(width: float, divisor: int) -> int:
    if width % divisor == 0:
        return int(width)
    nearest = max(divisor, math.floor((width + divisor / 2) / divisor) * divisor)
    return nearest + divisor if nearest < 0.95 * width else nearest
