"""How a run is executed, depending on the machine; what is learned is determined by the recipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from ..arch.torchvision_arch import AnyArch
from ..errors import check_flag, check_member, check_number, check_type, check_whole
from ..recipes import Recipe


class Precision(Enum):
    """Precision of the network's computations; weights, moving average and loss stay in 32 bits."""

    FLOAT32 = "float32"
    BFLOAT16 = "bf16"
    FLOAT16 = "fp16"


class OnBadImage(Enum):
    """What to do if an image cannot be read: raise an error, or skip the image and count it."""

    RAISE = "raise"
    SKIP = "skip"


SKIPPING = "with --on-bad-image skip (on_bad_image=OnBadImage.SKIP)"
"""What an error about an image suggests, in a command and in Python."""


@dataclass(frozen=True, slots=True)
class Execution:
    """Where and how a run computes.

    ``device``: a torch device; under ``torchrun``, ``cuda`` is each process's own GPU. ``workers``: number of processes
    that load images for each training process (0: none, it loads them itself). ``accumulation``: number of parts in
    which a batch is computed, each normalized on its own. ``channels_last``: memory layout of the maps (None: the
    faster one for the device). ``checkpoint_steps`` and ``checkpoint_minutes``: intervals of checkpoints besides those
    after every epoch (0: none). ``keep_checkpoints``: number of newest checkpoints to keep. ``check_images``: whether
    to read the headers of all images before the first epoch. ``threads``: number of threads that compute on the CPU
    (0: for a classifier by the size of a step, see :func:`threads_for`; otherwise PyTorch's number, which in a search
    the executor sets).
    """

    device: str = "cpu"
    workers: int = 0
    precision: Precision = Precision.FLOAT32
    compile: bool = False
    channels_last: bool | None = None
    gradient_checkpointing: bool = False
    accumulation: int = 1
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 0.0
    keep_checkpoints: int = 2
    on_bad_image: OnBadImage = OnBadImage.RAISE
    check_images: bool = True
    threads: int = 0

    def __post_init__(self) -> None:
        check_type("Execution.device", self.device, str, "text, such as 'cpu' or 'cuda'")
        check_whole("Execution.workers", self.workers, at_least=0)
        check_member("Execution.precision", self.precision, Precision)
        check_flag("Execution.compile", self.compile)
        if self.channels_last is not None:
            check_flag("Execution.channels_last", self.channels_last)
        check_flag("Execution.gradient_checkpointing", self.gradient_checkpointing)
        check_whole("Execution.accumulation", self.accumulation)
        check_whole("Execution.checkpoint_steps", self.checkpoint_steps, at_least=0)
        check_number("Execution.checkpoint_minutes", self.checkpoint_minutes, at_least=0)
        check_whole("Execution.keep_checkpoints", self.keep_checkpoints)
        check_flag("Execution.check_images", self.check_images)
        check_whole("Execution.threads", self.threads, at_least=0, at_most=1024)
        check_member("Execution.on_bad_image", self.on_bad_image, OnBadImage)

    def checkpoint_due(self, steps: int, waited: float) -> bool:
        """Whether a checkpoint is due after ``steps`` steps of the run, ``waited`` seconds after the last one."""
        every, minutes = self.checkpoint_steps, self.checkpoint_minutes
        return (every > 0 and steps % every == 0) or (minutes > 0 and waited >= 60 * minutes)


MACS_PER_THREAD = 300_000_000
"""Multiply-accumulates of a step for each thread. Below, a second one brings nothing, and on a busy machine it costs
time, since threads wait for one another: docs/training.md has the measurements."""


def threads_for(macs: float, execution: Execution) -> int:
    """Number of threads for steps of ``macs`` multiply-accumulates, the forward pass alone.

    What ``execution.threads`` or the variable OMP_NUM_THREADS says is kept, and so is everything on a GPU.
    """
    import torch

    most = torch.get_num_threads()
    if execution.threads:
        return execution.threads
    if "OMP_NUM_THREADS" in os.environ or execution.device.partition(":")[0] != "cpu":
        return most
    return max(1, min(most, int(macs / MACS_PER_THREAD)))


def step_macs(arch: AnyArch, recipe: Recipe, execution: Execution, processes: int = 1) -> float:
    """Multiply-accumulates of the forward pass that a process computes at once."""
    from ..models.size import size_of

    return size_of(arch).macs * recipe.batch_size / (processes * execution.accumulation)


@contextmanager
def computing_on(threads: int, *, tried_out: bool = False) -> Iterator[None]:
    """A context in which PyTorch computes on ``threads`` threads.

    ``tried_out``: cuDNN times its algorithms for every new shape and takes the fastest, unless PyTorch is to compute
    deterministically.
    """
    import torch

    before, cudnn = torch.get_num_threads(), torch.backends.cudnn
    tried_before = cudnn.benchmark
    torch.set_num_threads(threads)
    if tried_out and not (cudnn.deterministic or torch.are_deterministic_algorithms_enabled()):
        cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_num_threads(before)
        cudnn.benchmark = tried_before
