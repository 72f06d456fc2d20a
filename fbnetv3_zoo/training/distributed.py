"""The processes of one run: alone by default, several when started by ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from ..errors import ZooError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """This process among those of a run: number ``rank`` (from 0) of ``size``, computing on ``device``."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of all processes' ``values`` (equal shapes), which are left alone."""
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
        """Give ``module`` the leading process's buffers: running statistics differ where norms are not synchronised."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)


@contextmanager
def join(device: str = "cpu") -> Iterator[World]:
    """The world of this process: what ``torchrun`` has set up, or this process alone.

    Processes meet over NCCL where ``device`` is ``cuda`` (each takes the GPU of its local rank), else over gloo. Raises
    :class:`ZooError` for a device that cannot be used.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield World(device=usable(device))
        return
    place = usable(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device)
    joined_before = dist.is_initialized()
    if not joined_before:
        _meet("nccl" if place.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), place)
    finally:
        if not joined_before:
            dist.destroy_process_group()


def _meet(backend: str) -> None:
    """Join the other processes. Torchrun keeps its store over restarts, and what has ended left addresses in it."""
    store, rank, size = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    apart = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=apart, rank=rank, world_size=size)


def usable(device: str) -> torch.device:
    """``device`` as torch has it; raises :class:`ZooError` where nothing can be computed on it."""
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        absent = isinstance(error, (NotImplementedError, ImportError))  # of which torch speaks in operators and modules
        reason = "this build of PyTorch has none" if absent else str(error).splitlines()[0]
        raise ZooError(f"device {device!r} cannot be used ({reason}); here there is {', '.join(_devices())}") from None
    if place.type == "cuda":
        torch.cuda.set_device(place)
    return place


def _devices() -> list[str]:
    """The devices of this machine that torch computes on."""
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{n}" for n in range(cuda)), *mps]
