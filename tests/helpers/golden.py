"""Stand-ins for the official checkpoints, and the logits that the official implementation gives with them.

``data/<name>.json`` lists the official parameter names and shapes of one network and the official logits for
:func:`golden_input` (evaluation mode, float32, CPU). The values are reproducible.
``data/architectures.json`` states every network's rows.

Under these weights the signal fades on its way: the logits hardly depend on the input (those of FBNetV3 not at all, to
1e-6), so that they judge the late stages only. ``reference.py`` judges the rest.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from folders import DATA
from torch import Tensor

GOLDEN = ("dmasking_f1", "fbnet_a", "fbnetv2_f1", "fbnetv3_a", "fbnetv3_d", "fbnetv3_g")


@cache
def facts() -> dict[str, Any]:
    """The networks as the publishers state them, by name; not to be changed by a test."""
    data: dict[str, Any] = json.loads((DATA / "architectures.json").read_text())
    return data


def official_state_dict(name: str, salt: str = "") -> dict[str, Tensor]:
    """Parameters and buffers of network ``name`` under their official names."""
    return {key: draw(key, shape, salt) for key, shape in _record(name)["state_dict"]}


def official_checkpoint(name: str) -> dict[str, Any]:
    """The official file's layout: the averaged weights under ``model_ema`` are the ones to load."""
    raw, averaged = official_state_dict(name, "raw:"), official_state_dict(name)
    return {"state_dict": _prefixed(raw), "model_ema": _prefixed(averaged), "epoch": 399}


def golden_input(name: str) -> Tensor:
    """A normalized batch of shape (2, 3, R, R), R being the network's published resolution."""
    side = _record(name)["resolution"]
    return torch.from_numpy(np.random.RandomState(2020).normal(0, 1, (2, 3, side, side)).astype(np.float32))


def expected_logits(name: str) -> Tensor:
    """The official implementation's logits for :func:`golden_input`, shape (2, 1000); right to 1e-5."""
    return torch.tensor(_record(name)["logits"], dtype=torch.float32)


def draw(key: str, shape: Sequence[int], salt: str = "") -> Tensor:
    """The value of the parameter or buffer ``key``: the same for the same key, shape and salt."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(1000, dtype=torch.int64)
    draw = np.random.RandomState(zlib.crc32((salt + key).encode()))
    if key.endswith("running_var"):
        array = draw.uniform(0.5, 1.5, shape)
    elif key.endswith("pwl.bn.weight"):  # small, so that stacked residual branches stay bounded
        array = draw.uniform(0.05, 0.25, shape)
    elif key.endswith("bn.weight"):
        array = draw.uniform(0.5, 1.5, shape)
    elif len(shape) == 1:  # running means and biases
        array = draw.normal(0.0, 0.1, shape)
    else:
        array = draw.normal(0.0, (2.0 / np.prod(shape[1:])) ** 0.5, shape)
    return torch.from_numpy(array.astype(np.float32))


def _record(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return record


def _prefixed(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{key}": value for key, value in state_dict.items()}
