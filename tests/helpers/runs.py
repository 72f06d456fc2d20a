"""A small run in which everything is random, and what two runs are compared by."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from fbnetv3_zoo.recipes import SGD, Augmentation, RandAugment, Recipe, RMSProp
from fbnetv3_zoo.training import Callback, Dataset, Step
from fbnetv3_zoo.training import train as train_and_report
from fbnetv3_zoo.training.checkpoint import Checkpoints
from fbnetv3_zoo.training.data import digits

RECIPE = Recipe(
    3, 16, RMSProp(), 0.004, Augmentation(shift=True, policy=RandAugment(), mixup=0.2), warmup_epochs=1,
    weight_decay=1e-3, clip_norm=5.0, ema_decay=0.8, label_smoothing=0.1, dropout=0.2, stochastic_depth=0.2,
)  # fmt: skip
PLAIN = Recipe(2, 16, SGD(), 0.05, warmup_epochs=1, weight_decay=1e-3)

train = partial(train_and_report, report=False)
"""Training alone: drawing a report takes longer than a small run."""


def few_digits(seed: int = 0, every: int = 12) -> Dataset:
    """A twelfth of the digits, in all ten classes: 90 to train on (5 steps), 31 to validate, 31 to test."""
    data = digits(seed=seed)
    return replace(data, splits=MappingProxyType({split: tuple(data[split])[::every] for split in data.splits}))


class Stopped(Exception):  # noqa: N818 -- nothing is wrong
    """What a :class:`Stopper` raises."""


class Stopper(Callback):
    """Ends the run, as a kill would, after ``step`` of ``epoch``."""

    def __init__(self, epoch: int, step: int) -> None:
        self.moment = epoch, step

    def on_step(self, step: Step) -> None:
        if (step.epoch, step.step) == self.moment:
            raise Stopped


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of the run in ``folder``, the newest first."""
    return Checkpoints(folder / "checkpoints", keep=1).paths()


def metadata(path: Path) -> dict[str, Any]:
    """What the checkpoint at ``path`` says beside its tensors."""
    with safe_open(path, framework="pt") as file:
        found = dict(file.metadata())
    return {**found, **{key: json.loads(found[key]) for key in ("identity", "progress", "scaler")}}


def tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors that a finished run leaves: of the model, the best model and the newest checkpoint."""
    files = {"model": folder / "model.safetensors", "best": folder / "best.safetensors", "now": checkpoints(folder)[0]}
    return {f"{kind}.{name}": tensor for kind, file in files.items() for name, tensor in load_file(file).items()}


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` without what no two runs share."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]


def assert_same(one: Path, other: Path) -> None:
    """Equal to the last bit, but for the time it took."""
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert metrics(one) == metrics(other)
    ends = [metadata(checkpoints(folder)[0]) for folder in (one, other)]
    assert ends[0]["identity"] == ends[1]["identity"]
    assert ends[0]["scaler"] == ends[1]["scaler"]
