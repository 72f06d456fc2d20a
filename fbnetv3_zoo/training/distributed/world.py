"""The processes of a run: one by default, several if started by ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from ...errors import ZooError, in_short
from .rendezvous import agree

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """This process among those of a run: its ``rank`` (from 0), their number ``size``, and its ``device``."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of all processes' ``values`` (equal shapes), which are not modified."""
        if self.size == 1:
            return values
        summed = values.to(self.device, copy=True)
        dist.all_reduce(summed)
        return summed.to(values.device)

    def gather(self, value: T) -> list[T]:
        """Every process's ``value``, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def share(self, value: T) -> T:
        """The ``value`` of the leading process."""
        if self.size == 1:
            return value
        box: list[T] = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def share_buffers(self, module: nn.Module) -> None:
        """Copy the leading process's buffers to ``module``: running statistics differ without synchronized norms."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)


@contextmanager
def join(device: str = "cpu") -> Iterator[World]:
    """The world of this process: as set up by ``torchrun``, or this process alone.

    Processes communicate over NCCL if ``device`` is ``cuda`` (each uses the GPU of its local rank), else over gloo.
    Raises :class:`ZooError` if the device cannot be used.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield World(device=usable(device))
        return
    own = usable(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device)
    initialized = dist.is_initialized()
    if not initialized:
        _init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), own)
    finally:
        if not initialized:
            dist.destroy_process_group()


def _init_process_group(backend: str) -> None:
    """Join the other processes, under a name that no earlier run of these or of replaced ones has had."""
    store, rank, size = _launched()
    own_store = PrefixStore(agree(store, rank, size), store)
    dist.init_process_group(backend, store=own_store, rank=rank, world_size=size)


@cache
def _launched() -> tuple[Store, int, int]:
    """The launcher's store, this process's rank and the number of processes.

    Opened once: where the leading process serves it, it lives as long as that keeps it.
    """
    launched: tuple[Store, int, int] = next(rendezvous("env://"))
    return launched


def usable(name: str) -> torch.device:
    """The torch device ``name``, the current GPU for ``cuda``. Raises :class:`ZooError` if it cannot compute."""
    try:
        computed = torch.zeros(1, device=torch.device(name))
        computed.item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        absent = isinstance(error, (NotImplementedError, ImportError))  # torch's own message is about operators then
        reason = "this build of PyTorch does not support it" if absent else in_short(error)
        gpu = "a GPU is called 'cuda'; " if name.lower().startswith(("gpu", "nvidia")) else ""
        raise ZooError(f"device {name!r} cannot be used ({reason}); {gpu}choose from {', '.join(_devices())}") from None
    device = computed.device  # with the number of a GPU, for which set_device() asks
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _devices() -> list[str]:
    """The devices of this machine supported by torch."""
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{n}" for n in range(cuda)), *mps]
