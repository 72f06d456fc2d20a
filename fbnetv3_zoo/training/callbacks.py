"""What a run tells while it goes on, and what it leaves."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ZooError, nearest, told
from ..models.network import Network
from .evaluation import Evaluation


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: the ``step``-th (from 1) of ``steps`` in ``epoch`` (from 1), its loss in nats."""

    epoch: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    images_per_second: float


@dataclass(frozen=True, slots=True)
class Epoch:
    """One finished epoch, a line of ``metrics.jsonl``. Losses in nats, accuracy in [0, 1], time in seconds.

    ``skipped`` counts the training images that could not be read in this epoch, each once, and were replaced by others.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_top1: float
    skipped: int
    images_per_second: float
    seconds: float


class Callback:
    """Receives the events of a run of any kind, in the leading process. Override the methods of interest."""

    def on_look(self, done: int, total: int) -> None:
        """The headers of ``done`` of ``total`` images have been looked at, before the first epoch."""

    def on_resume(self, epochs: int, steps: int, checkpoint: Path) -> None:
        """The run goes on after so many whole epochs, and ``steps`` of the next, from the file ``checkpoint``."""

    def on_step(self, step: Step) -> None:
        """A step has been taken."""

    def on_epoch(self, epoch: Any) -> None:
        """An epoch has ended and its checkpoint is written; ``epoch`` is its record, such as an :class:`Epoch`."""


def check_callbacks(callbacks: object, kind: type = Callback, room: str = "training") -> None:
    """Raise :class:`ZooError` unless ``callbacks`` are instances of ``kind``, of a subpackage, that can be called."""
    wanted = f"instances of fbnetv3_zoo.{room}.{kind.__name__}"
    if not isinstance(callbacks, Sequence) or isinstance(callbacks, str):
        raise ZooError(f"callbacks is {told(callbacks)}; it must be a list of {wanted}")
    for number, callback in enumerate(callbacks):
        if not isinstance(callback, kind):
            made = isinstance(callback, type) and issubclass(callback, kind)
            remedy = f", such as {callback.__name__}()" if made else ""
            raise ZooError(f"callbacks[{number}] is {told(callback)}; callbacks must be {wanted}{remedy}")
        _check_events(callback, kind, f"callbacks[{number}]: {type(callback).__name__}")


def _check_events(callback: object, kind: type, place: str) -> None:
    events = {name: method for name, method in vars(kind).items() if name.startswith("on_")}
    for name in dir(type(callback)):
        if name.startswith("on_") and name not in events and callable(getattr(type(callback), name)):
            raise ZooError(f"{place}.{name} is never called{nearest(name, events)}; there are {', '.join(events)}")
    for name, event in events.items():
        wanted = list(inspect.signature(event).parameters)
        try:
            inspect.signature(getattr(callback, name)).bind(*wanted[1:])
        except TypeError:
            raise ZooError(f"{place}.{name} cannot be called; define it as {name}({', '.join(wanted)})") from None
        except ValueError:  # built in: nothing is known
            continue


def tell_looked(callbacks: Sequence[Callback], done: int, total: int) -> None:
    """Call ``on_look`` of all of them."""
    for callback in callbacks:
        callback.on_look(done, total)


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: the trained network (averaged weights, evaluation mode), its epochs, its test.

    ``folder`` holds ``model.safetensors``, ``best.safetensors`` (of the epoch that did best in validation),
    ``results.json``, ``metrics.jsonl``, ``report.html``, ``curve.png`` and ``checkpoints/``. ``test`` is None where the
    data has no test split. ``bad_images`` are the keys of all images that could not be used, each once. ``warning``:
    one line on what to be wary of in the result, ``hint`` on how little it says; empty where there is nothing.
    """

    folder: Path
    model: Network
    epochs: tuple[Epoch, ...]
    test: Evaluation | None
    bad_images: tuple[str, ...] = ()
    warning: str = ""
    hint: str = ""
