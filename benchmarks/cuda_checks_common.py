"""What the checks of ``cuda_check.py`` share: where they run, their rows, timing, networks and other processes."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.recipes import SGD, Recipe
from fbnetv3_zoo.training.distributed import World
from fbnetv3_zoo.training.execution import Execution, Precision
from fbnetv3_zoo.training.learner import Learner
from fbnetv3_zoo.training.loader import Batch
from fbnetv3_zoo.zoo import ARCHS

Figures = dict[str, Any]
RATE = 0.01
STEPPING = Recipe(10**4, 2, SGD(), RATE)  # of whose values a learner reads the optimizer's alone


@dataclass(frozen=True)
class Row:
    """One result: what was looked at, what came out in words and in figures; ``ok`` is None where nothing is judged."""

    what: str
    measured: str
    ok: bool | None = None
    figures: Figures = field(default_factory=dict)


@dataclass
class Setting:
    """The device of all checks, whether sizes are tiny, and when time is up.

    Later checks need ``known``, the seconds of our training steps, and ``peak``, the operations a second of a product.
    """

    device: torch.device
    quick: bool
    ends: float
    known: dict[str, float] = field(default_factory=dict)
    peak: float = 0.0

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def world(self) -> World:
        return World(device=self.device)

    def left(self) -> float:
        """Seconds until time is up."""
        return self.ends - time.monotonic()

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def free(self) -> None:
        """Give back the memory of what is no longer referred to."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()


@contextmanager
def full_float32() -> Iterator[None]:
    """A context without TF32, which convolutions use by default."""
    backends: list[Any] = [torch.backends.cudnn, torch.backends.cuda.matmul]
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def timed(setting: Setting, work: Callable[[], object], steps: int) -> float:
    """Mean seconds of one of ``steps``."""
    setting.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        work()
    setting.synchronize()
    return (time.perf_counter() - began) / steps


def interleaved(
    setting: Setting, works: Sequence[Callable[[], object]], *, rounds: int = 7, chunk: float = 0.4
) -> list[list[float]]:
    """Seconds of a step of each of ``works``, ``rounds`` times in turn, each time over about ``chunk`` seconds."""
    for work in works:
        timed(setting, work, 1 if setting.quick else 3)
    first = [timed(setting, work, 1) for work in works]
    steps = [max(1, min(50, round(chunk / seconds))) for seconds in first]
    if setting.quick:
        rounds, steps = 2, [1] * len(works)
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, part, number in zip(works, times, steps, strict=True):
            part.append(timed(setting, work, number))
    return times


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def arch_of(name: str, side: int | None = None, **changes: Any) -> Arch:
    """The published network ``name``, with other values where they are given."""
    arch = ARCHS[name]
    return replace(arch, resolution=arch.resolution if side is None else side, **changes)


def learner_for(
    setting: Setting, arch: Arch, recipe: Recipe = STEPPING, *, precision: Precision = Precision.FLOAT32, **how: Any
) -> Learner:
    """A learner of ``arch`` with drawn weights, always the same ones; ``how`` are fields of Execution."""
    network = FBNet(arch, generator=torch.Generator().manual_seed(0))
    execution = Execution(str(setting.device), precision=precision, **how)
    return Learner(network, recipe, execution=execution, world=setting.world)


def drawn_batch(setting: Setting, arch: Arch, size: int) -> Batch:
    """Random pixels with random labels, always the same ones, as the loader would give them."""
    generator = torch.Generator().manual_seed(1)
    shape = (size, arch.resolution, arch.resolution, arch.in_channels)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).movedim(-1, 1)
    batch = Batch(images, torch.randint(0, arch.num_classes, (size,), generator=generator))
    return batch.pin_memory() if setting.cuda else batch


def step_of(learner: Learner, batch: Batch) -> Callable[[], float]:
    """A function that takes a step of training and returns its loss."""

    def step() -> float:
        loss = float(learner.gradients([batch], seed=0))
        learner.update(RATE)
        return loss

    return step


def largest_difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """The largest difference of any value of two state dicts."""
    pairs = ((ours[name].detach().cpu().double(), theirs[name].detach().cpu().double()) for name in ours)
    return max(float((one - other).abs().max()) for one, other in pairs if one.numel())


class ChildError(RuntimeError):
    """Another process has failed."""


def children(jobs: Sequence[Mapping[str, Any]], seconds: float, **environment: str) -> list[Any]:
    """What ``cuda_checks_child.py`` answers to each of ``jobs``, all at once; all end after ``seconds``."""
    command = [sys.executable, str(Path(__file__).with_name("cuda_checks_child.py"))]
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        running = []
        try:
            for number, job in enumerate(jobs):
                env = {**os.environ, **environment, **job.get("environment", {})}
                with open(Path(folder) / f"{number}.txt", "w") as output:
                    running.append(
                        subprocess.Popen([*command, json.dumps(job)], stdout=output, stderr=subprocess.STDOUT, env=env)
                    )
            _wait(running, deadline)
        finally:
            for process in running:
                process.kill()
                process.wait()
        texts = [(Path(folder) / f"{n}.txt").read_text(errors="replace") for n in range(len(jobs))]
    ended = sorted(zip((p.returncode for p in running), range(len(jobs)), texts, strict=True), key=lambda e: e[0] <= 0)
    answers = {number: _answer(status, text) for status, number, text in ended}  # errors first: they end the others
    return [answers[number] for number in range(len(jobs))]


def _wait(running: Sequence[subprocess.Popen[bytes]], deadline: float) -> None:
    """Wait until all have ended, one has failed, or it is too late."""
    while time.monotonic() < deadline:
        states = [process.poll() for process in running]
        if None not in states or any(states):
            return
        time.sleep(0.05)


def _answer(status: int | None, text: str) -> Any:
    lines = [line for line in text.splitlines() if line.strip()]
    answers = [line for line in lines if line.startswith("ANSWER ")]
    if status == 0 and answers:
        return json.loads(answers[-1].removeprefix("ANSWER "))
    if status is not None and status < 0:
        raise ChildError(f"a process was ended (no answer in time, or another one failed): {' | '.join(lines[-2:])}")
    raise ChildError(next((line for line in reversed(lines) if "Error" in line), " | ".join(lines[-2:]) or "no output"))
