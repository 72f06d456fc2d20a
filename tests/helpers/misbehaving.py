"""Evaluators whose candidates do what can go wrong. They are sent to other processes, hence a module of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.search.evaluation import Task
from fbnetv3_zoo.search.space import Candidate


def place(words: str) -> str:
    """``(misbehaving.py, line 3)``: where ``words`` stand first in this file."""
    lines = Path(__file__).read_text().splitlines()
    return (
        f"(misbehaving.py, line {next(n for n, line in enumerate(lines, 1) if words in line and 'place' not in line)})"
    )


def task(number: int, does: str, *, epochs: int = 3) -> Task:
    """A task whose candidate does ``does``, a method of :class:`Misbehaving`."""
    return Task(number, Candidate(f"candidate-{number}", {"does": does, "number": number}), epochs)


@dataclass(frozen=True)
class Misbehaving:
    """Does what its candidate's value ``does`` says; notes of earlier attempts are files in ``folder``."""

    folder: Path

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        return getattr(self, f"_{candidate.values['does']}")(candidate, epochs)

    def attempts(self, number: int) -> int:
        """How many attempts at that candidate have begun, where it takes notes."""
        return len(list(self.folder.glob(f"{number}-*")))

    def _again(self, candidate: Candidate) -> bool:
        number = int(candidate.values["number"])
        (self.folder / f"{number}-{time.monotonic_ns()}-{os.getpid()}").touch()
        return self.attempts(number) > 1

    def _curve(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        rng = np.random.default_rng(int(candidate.values["number"]))
        return rng.random(epochs, np.float32).cumsum() / 7

    def _gpus(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        """Takes time, and returns the numbers of the GPUs that it sees."""
        time.sleep(0.3)
        return [float(gpu) for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "-1").split(",")]

    def _gpus_of_two(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        """Waits until two candidates run, and returns the numbers of the GPUs that it sees."""
        (self.folder / f"gpus-{candidate.name}").touch()
        ends = time.monotonic() + 300
        while len(list(self.folder.glob("gpus-*"))) < 2 and time.monotonic() < ends:
            time.sleep(0.05)
        return [float(gpu) for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "-1").split(",")]

    def _group(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        """Two processes, which return their number."""
        import grouped

        from fbnetv3_zoo.training.distributed import together

        return [float(size) for _, size in together(grouped.introduce, 2)]

    def _group_dies(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        import grouped

        from fbnetv3_zoo.training.distributed import together

        together(grouped.die, 2)
        return []

    def _train(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        return Training()(candidate, epochs)

    def _raise(self, candidate: Candidate, epochs: int) -> NoReturn:
        raise ValueError("no such stride\nand a second\x1b[31m line")

    def _raise_once(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        return self._curve(candidate, epochs) if self._again(candidate) else self._raise(candidate, epochs)

    def _leave(self, candidate: Candidate, epochs: int) -> NoReturn:
        sys.exit("enough")

    def _nan(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        self._again(candidate)
        return [0.5, float("nan"), 0.7]

    def _infinite(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        return [0.5, 0.6, float("-inf")]

    def _short(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        return [0.5]

    def _nothing(self, candidate: Candidate, epochs: int) -> Any:
        return None

    def _memory(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        return bytearray(3_000_000_000)[:epochs]

    def _memory_of_torch(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        import torch

        return torch.ones(750_000_000)[:epochs].tolist()

    def _hang(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        while True:
            with suppress(Exception):
                time.sleep(1000)

    def _hang_once(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        return self._curve(candidate, epochs) if self._again(candidate) else self._hang(candidate, epochs)

    def _child(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        (self.folder / f"child-{child.pid}-of-{os.getpid()}").touch()
        child.wait()
        return []

    def _kill(self, candidate: Candidate, epochs: int) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def _kill_once(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        return self._curve(candidate, epochs) if self._again(candidate) else self._kill(candidate, epochs)

    def _vanish(self, candidate: Candidate, epochs: int) -> NoReturn:
        os._exit(0)


class Training:
    """Trains a small module on noise; torch is not imported before."""

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        import torch

        generator = torch.Generator().manual_seed(int(candidate.values["number"]))
        inputs, weights = torch.randn(256, 64, generator=generator), torch.randn(64, 1, generator=generator)
        layer = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Hardswish(), torch.nn.Linear(128, 1))
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
        curve = []
        for _ in range(epochs):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(layer(inputs), inputs @ weights)
            loss.backward()
            optimizer.step()
            curve.append(-loss.item())
        return curve


def threads(candidate: Candidate, epochs: int) -> Sequence[float]:
    """Threads of PyTorch, whether somebody had imported it before, OMP_NUM_THREADS when the process began."""
    loaded = "torch" in sys.modules
    import torch

    began = dict(entry.partition("=")[::2] for entry in Path("/proc/self/environ").read_text().split("\0"))
    return [float(torch.get_num_threads()), float(loaded), float(began.get("OMP_NUM_THREADS", 0))]


def ignore_everything(candidate: Candidate, epochs: int) -> Sequence[float]:
    """Catches whatever would end it, for two seconds."""
    ended = time.monotonic() + 2
    while time.monotonic() < ended:
        with suppress(BaseException):
            time.sleep(10)
    return [0.0] * epochs


def wait(candidate: Candidate, epochs: int) -> Sequence[float]:
    """Sleeps for ``seconds`` of the candidate."""
    time.sleep(float(candidate.values["seconds"]))
    return [float(candidate.values["number"])] * epochs


class Unloadable:
    """Can be pickled and not loaded."""

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        raise AssertionError

    def __setstate__(self, state: object) -> None:
        raise ImportError("No module named 'elsewhere'")

    def __getstate__(self) -> object:
        return {"elsewhere": 1}


class OnData:
    """Reads data that the variable NODE_DATA of its machine names."""

    def __call__(self, candidate: Candidate, epochs: int) -> Sequence[float]:
        raise AssertionError

    def fingerprint(self) -> str:
        data = os.environ.get("NODE_DATA", "")
        if not data:
            raise ZooError("/data/photos: no such folder")
        return data
