"""The memory that training takes, counted from the description of a network: nothing is computed.

PyTorch's fake tensors have shapes and types but no contents. A training step on them keeps for its backward pass what a
real one would, so that the count is exact, for any device and batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from ..arch import Arch
from ..errors import ZooError, assert_never
from ..models.fbnet import FBNet
from ..recipes import SGD, AdamW, Recipe, RMSProp
from .execution import Execution
from .learner import reduced_precision
from .loader import images_at_once

GIB = 1 << 30
USABLE = 0.9
"""The share of a device's memory that a training may take; the rest is for gradients of activations, and fragments."""
_PARTS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes in a process: ``activations`` are what a step keeps for its backward pass, for ``images`` images at a time.

    The rest stays from step to step. Not counted: gradients of activations (some percent of the activations), the
    device's libraries, fragments between tensors.
    """

    images: int
    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.average + self.activations

    def __str__(self) -> str:
        """One line, in GiB."""
        rest = self.total - self.activations
        return (
            f"{self.total / GIB:.1f} GiB ({self.activations / GIB:.1f} for the activations of {self.images:,} images, "
            f"{rest / GIB:.2f} for weights, gradients, optimizer and average)"
        )


def training_memory(
    arch: Arch, recipe: Recipe, *, execution: Execution = Execution(), processes: int = 1
) -> TrainingMemory:
    """The memory of training ``arch`` by ``recipe``, in each of ``processes`` processes.

    Raises :class:`ZooError` if a batch cannot be divided among them.
    """
    images = images_at_once(recipe.batch_size, processes, execution.accumulation, least=2)
    with FakeTensorMode():
        network = FBNet(arch, drop_rate=recipe.dropout, drop_path_rate=recipe.stochastic_depth).train()
        blocks = [block for stage in network.stages.children() for block in stage.children()]
        shape = images, arch.in_channels, arch.resolution, arch.resolution
        return module_memory(network, shape, recipe, execution, blocks)


def module_memory(
    network: nn.Module, shape: tuple[int, int, int, int], recipe: Recipe, execution: Execution, blocks: list[nn.Module]
) -> TrainingMemory:
    """The memory of training ``network``, made of fake tensors, on images of ``shape``; for where these are in use.

    ``blocks``: those parts in order that gradient checkpointing computes anew.
    """
    weights = sum(parameter.nbytes for parameter in network.parameters())
    buffers = sum(buffer.nbytes for buffer in network.buffers())
    kept = _Kept(network, blocks)
    with kept.counting(), reduced_precision(execution.precision, "cpu"):
        logits = network(torch.empty(shape).contiguous(memory_format=torch.channels_last))
        F.cross_entropy(logits.float(), torch.zeros(shape[0], dtype=torch.long))
    return TrainingMemory(
        shape[0], weights + buffers, weights, _slots(recipe) * weights, weights + buffers if recipe.ema_decay else 0,
        kept.recomputed if execution.gradient_checkpointing else kept.total,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fit:
    """How a training fits a device: how it is computed, its memory then, and that for batches in one part."""

    what: str
    execution: Execution
    memory: TrainingMemory
    whole: TrainingMemory

    def __str__(self) -> str:
        """One line."""
        accumulation = self.execution.accumulation
        if accumulation == 1:
            return f"{self.what} {self.whole}"
        return f"{self.what} {self.whole.total / GIB:.1f} GiB for a whole batch; in {accumulation} parts, {self.memory}"


def fit(
    what: str, needed: Callable[[int], TrainingMemory], execution: Execution, available: float, *, choose: bool
) -> Fit:
    """How a training that needs ``needed(parts)`` fits ``available`` bytes; ``what``: the beginning of a line about it.

    With ``choose``, batches are divided into as many parts as it takes. Raises :class:`ZooError` with the figures if
    they do not fit.
    """
    whole = memory = needed(1)
    for parts in _PARTS if choose else (execution.accumulation,):
        if choose and whole.total - whole.activations * (1 - 1 / parts) > available and parts < _PARTS[-1]:
            continue  # counting takes seconds
        memory = whole if parts == 1 else needed(parts)
        if memory.total <= USABLE * available:
            return Fit(what, replace(execution, accumulation=parts), memory, whole)
    least = "" if memory.images == whole.images else f", and {memory.total / GIB:.1f} GiB in parts of {memory.images}"
    raise ZooError(
        f"{what} {whole.total / GIB:.1f} GiB for batches of {whole.images:,} images{least}, more than {USABLE:.0%} of "
        f"the {available / GIB:.0f} GiB of the device; give more parts (--accumulation), --precision bf16 or "
        "--gradient-checkpointing"
    )


def _slots(recipe: Recipe) -> int:
    """Numbers that the optimizer keeps for a weight."""
    if isinstance(recipe.optimizer, SGD):
        return int(recipe.optimizer.momentum > 0)
    if isinstance(recipe.optimizer, (RMSProp, AdamW)):
        return 2  # mean square and momentum; mean and mean square
    assert_never(recipe.optimizer)


class _Kept:
    """What autograd keeps of a forward pass, by the block in which it is kept first."""

    def __init__(self, network: nn.Module, blocks: list[nn.Module]) -> None:
        self._owned = {_storage(tensor) for tensor in [*network.parameters(), *network.buffers()]}
        self._blocks = blocks
        self._tensors: list[Tensor] = []  # alive, so that no two have the same place
        self._bytes: list[dict[int, int]] = [{}]
        self._seen: set[int] = set()
        self._inputs: dict[int, int] = {}

    @contextmanager
    def counting(self) -> Iterator[None]:
        hooks = [block.register_forward_pre_hook(self._begin) for block in self._blocks]
        hooks += [self._blocks[-1].register_forward_hook(self._end)]
        with saved_tensors_hooks(self._keep, lambda tensor: tensor):
            yield
        for hook in hooks:
            hook.remove()

    @property
    def total(self) -> int:
        return sum(sum(part.values()) for part in self._bytes)

    @property
    def recomputed(self) -> int:
        """With gradient checkpointing: the blocks' inputs, what lies outside, and the largest block, computed anew."""
        outside = {**self._bytes[0], **self._bytes[-1], **self._inputs}
        return sum(outside.values()) + max(sum(part.values()) for part in self._bytes[1:-1])

    def _begin(self, block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._bytes.append({})
        self._tensors.append(inputs[0])
        self._inputs[_storage(inputs[0])] = inputs[0].untyped_storage().nbytes()

    def _end(self, *_: Any) -> None:
        self._bytes.append({})

    def _keep(self, tensor: Tensor) -> Tensor:
        self._tensors.append(tensor)
        place = _storage(tensor)
        if place not in self._owned and place not in self._seen:
            self._seen.add(place)
            self._bytes[-1][place] = tensor.untyped_storage().nbytes()
        return tensor


def _storage(tensor: Tensor) -> int:
    place: int = tensor.untyped_storage()._cdata
    return place
