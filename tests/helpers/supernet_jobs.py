"""A small differentiable search in which everything is random, done and killed in processes of its own.

As a script it is a server like that of :mod:`forks`, whose jobs are such searches.
"""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import forks
import numpy as np
import torch
from jobs import INTERRUPTED, tell_parameters
from runs import checkpoints, few_digits, metadata, metrics
from safetensors.torch import load_file

from fbnetv3_zoo.arch import Activation, Conv, InvertedResidual, PoolingHead, Skip, SqueezeExcite
from fbnetv3_zoo.arch.latency import Conditions, LatencyTable
from fbnetv3_zoo.errors import Interrupted
from fbnetv3_zoo.recipes import SGD, Augmentation, Recipe
from fbnetv3_zoo.search.space import parse_constraint
from fbnetv3_zoo.search.supernet import (
    Layer,
    LayerSpace,
    Sum,
    SupernetEpoch,
    SupernetPlan,
    SupernetResult,
    search_supernet,
)
from fbnetv3_zoo.search.supernet.space import fixed
from fbnetv3_zoo.training import Callback, Dataset, Execution, Step
from fbnetv3_zoo.training.data import Example
from fbnetv3_zoo.training.data.dataset import SPLITS
from fbnetv3_zoo.utils.serialization import from_json

search = partial(search_supernet, report=False)
HSWISH = Activation.HARD_SWISH
SPACE = LayerSpace("mixed", (24, 32), (
    (Layer((Conv(3, 16, 2, HSWISH),), (8, 16)),),
    (Layer((InvertedResidual(3, 16, 1, 1, 2, HSWISH), Skip(16),
            InvertedResidual(5, 16, 1, 1, 2, HSWISH, SqueezeExcite("expanded"))), (8, 16)),),
    (Layer((InvertedResidual(3, 24, 2, 1, 3, HSWISH),), (16, 24), (2, 3)),),
    fixed(PoolingHead(32, 2, HSWISH)),
), num_classes=10)  # fmt: skip
"""96 networks: blocks, widths, an expansion and the resolution are to be chosen."""
RECIPE = Recipe(
    4, 18, SGD(), 1.0, Augmentation(shift=True, mixup=0.2), warmup_epochs=1, weight_decay=1e-3, clip_norm=0.5,
    ema_decay=0.8, label_smoothing=0.1, dropout=0.2,
)  # fmt: skip
PLAN = SupernetPlan(
    "mixed", SPACE, RECIPE, loss=Sum(0.002), target=parse_constraint("macs<=160k")[0], choice_epoch=1, choice_rate=0.1,
    choice_share=0.4, draws=5,
)  # fmt: skip
"""An epoch of few digits has 3 steps of the weights, on 54 images, and from the second on 2 of the choices, on 36."""
RESULTS = ("mixed-macs-160k.arch.json", "plan.json", "metrics.jsonl", "found.json")


def measured(space: LayerSpace, seed: int = 0) -> LatencyTable:
    """A table of made-up milliseconds for all blocks of ``space``."""
    keys = [key for key in space.blocks() if key.out]
    drawn = np.random.default_rng(seed).uniform(0.01, 0.1, len(keys)).tolist()
    here = Conditions("a processor", "onnxruntime 1.0", 1, 12)
    return LatencyTable(here, HSWISH, dict(zip(keys, drawn, strict=True)), call=0.02, scale=1.25)


class Stopped(Exception):  # noqa: N818 -- nothing is wrong
    """What a :class:`Halt` raises."""


class Halt(Callback):
    """Calls ``act`` after ``step`` of ``epoch`` (None: after the epoch), both from 1."""

    def __init__(self, epoch: int, step: int | None = None, act: Callable[[], object] | None = None) -> None:
        self.moment, self._act = (epoch, step), act

    def on_step(self, step: Step) -> None:
        self._look(step.epoch, step.step)

    def on_epoch(self, epoch: SupernetEpoch) -> None:
        self._look(epoch.epoch, None)

    def _look(self, *moment: int | None) -> None:
        if moment == self.moment:
            if self._act is None:
                raise Stopped
            self._act()


def noting(data: Dataset, note: Callable[[Example], object]) -> Dataset:
    """The same data; ``note`` is called with every image that is read."""

    def noted(example: Example) -> Example:
        def read(*least: Any) -> Any:
            note(example)
            return example.read(*least)

        return replace(example, read=read)

    return replace(data, splits=MappingProxyType({split: tuple(map(noted, data[split])) for split in SPLITS}))


def content(record: SupernetResult) -> SupernetResult:
    """All of a record but the folder and the times."""
    epochs = tuple(replace(epoch, seconds=0.0) for epoch in record.epochs)
    return replace(record, folder=Path(), epochs=epochs)


def assert_same(one: Path, other: Path) -> None:
    """Equal to the last bit, but for the time it took."""
    ends = [checkpoints(folder)[0] for folder in (one, other)]
    first, second = (load_file(end) for end in ends)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert metadata(ends[0])["identity"] == metadata(ends[1])["identity"]
    assert metrics(one) == metrics(other)
    for name in RESULTS:
        if name != "metrics.jsonl":
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert sorted(path.name for path in one.iterdir()) == sorted([".fbnetv3-zoo.lock", "checkpoints", *RESULTS])
    assert not any((one / "checkpoints").glob(".*"))


class _Teller(Callback):
    """Tells every step and epoch.

    Where ``dies`` is [epoch, step], the process kills itself there; where ``ends`` is, SIGTERM asks it to end.
    """

    def __init__(self, tell: forks.Tell, dies: list[int | None] | None, ends: list[int | None] | None) -> None:
        self._tell, self._dies, self._ends = tell, dies, ends

    def on_step(self, step: Step) -> None:
        self._told(f"step {step.epoch} {step.step}", [step.epoch, step.step])

    def on_epoch(self, epoch: SupernetEpoch) -> None:
        self._told(f"epoch {epoch.epoch}", [epoch.epoch, None])

    def _told(self, line: str, moment: list[int | None]) -> None:
        self._tell(line)
        if moment == self._dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == self._ends:
            signal.raise_signal(signal.SIGTERM)


def do(job: forks.Job, tell: forks.Tell) -> int:
    """Search in the job's folder; several processes in two epochs alone, and they tell parameters and result.

    Where ``reads`` is a number, the process kills itself after so many images read to validate; where ``terminated``,
    it sends a SIGTERM to its whole group at the first of them. Where ``flushes`` is a number, it kills itself when it
    has written so many files, the last of which is not in its place.
    """
    logging.disable()
    if "flushes" in job:
        _die_at_flush(job["flushes"])
    data, group = few_digits(), os.getpgid(0)
    to_validate, left = {example.key for example in data["validation"]}, iter(range(job.get("reads", 0)))

    def count(example: Example) -> None:
        if example.key in to_validate and next(left, None) is None:
            if "reads" in job:
                os.kill(os.getpid(), signal.SIGKILL)
            flag = Path(job["folder"]) / "terminated"
            if job.get("terminated") and not flag.exists():
                flag.touch()
                os.killpg(group, signal.SIGTERM)

    data = noting(data, count)
    execution, callback = from_json(Execution, job["execution"]), _Teller(tell, job.get("dies"), job.get("ends"))
    plan = PLAN
    if job["size"] > 1:
        tell_parameters(tell)
        plan = replace(PLAN, recipe=replace(RECIPE, epochs=2), draws=2)
    try:
        found = search(plan, data, job["folder"], resume=True, execution=execution, callbacks=[callback])
    except Interrupted as error:
        tell(f"interrupted: {error}")
        return INTERRUPTED
    if job["size"] > 1:
        tell(f"result {content(found)}")
    return 0


def _die_at_flush(number: int) -> None:
    """Kill this process at so many calls of :func:`os.fsync` for a file; those for folders follow its move."""
    flush, left = os.fsync, iter(range(number - 1))

    def dying(file: int) -> None:
        if stat.S_ISREG(os.fstat(file).st_mode) and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(file)

    os.fsync = dying  # type: ignore[assignment]


@contextmanager
def serving() -> Iterator[forks.Server]:
    """A server of searches while the block lasts."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, __file__], stdin=pipe, stdout=pipe, env=forks.ENVIRONMENT, text=True, start_new_session=True
    ) as process:
        try:
            yield forks.Server(process)
        finally:
            process.kill()


if __name__ == "__main__":
    forks.do = do
    forks._serve()
