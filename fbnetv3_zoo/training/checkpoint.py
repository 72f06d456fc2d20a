"""The state of a run between two epochs, in one safetensors file: enough to go on as if nothing had happened."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.weights.files import read_tensors, write_tensors

FORMAT = "fbnetv3_zoo.checkpoint"


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The parts of a run that change: all are updated in place by :func:`restore`."""

    model: nn.Module
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer

    def modules(self) -> dict[str, nn.Module]:
        """The modules by the prefix of their tensors' names."""
        return {"model": self.model} if self.average is None else {"model": self.model, "average": self.average}


def store(path: Path, state: TrainingState, *, identity: dict[str, str], history: list[dict[str, Any]]) -> None:
    """Write ``state``. ``identity`` says what the run is (any texts); ``history`` has one entry a finished epoch."""
    tensors = {
        f"{prefix}.{name}": tensor.detach().cpu().contiguous()
        for prefix, module in state.modules().items()
        for name, tensor in module.state_dict().items()
    }
    saved = state.optimizer.state_dict()
    for index, slots in saved["state"].items():
        tensors.update({f"optimizer.{index}.{name}": value.cpu() for name, value in slots.items() if value is not None})
    metadata = {"format": FORMAT, "version": "1", "identity": json.dumps(identity), "history": json.dumps(history)}
    write_tensors(path, tensors, metadata)


def restore(path: Path, state: TrainingState, *, identity: dict[str, str]) -> list[dict[str, Any]]:
    """Load ``state`` from ``path`` and return the history. Raises :class:`ZooError` where ``identity`` differs."""
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise ZooError(f"{path}: is not a checkpoint of a training run")
    stored = json.loads(metadata["identity"])
    differing = [key for key, text in identity.items() if stored.get(key) != text]
    if differing:
        raise ZooError(f"{path}: the run was begun with another {' and '.join(differing)}; give another folder")
    for prefix, module in state.modules().items():
        module.load_state_dict(_under(prefix, tensors))
    _restore_optimizer(state.optimizer, _under("optimizer", tensors))
    history: list[dict[str, Any]] = json.loads(metadata["history"])
    return history


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    slots: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        slots.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
