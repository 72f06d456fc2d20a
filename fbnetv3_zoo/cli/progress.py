"""What a training run shows on the terminal: a header, a bar, a line for each epoch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..errors import SHOWN, assert_never, counted, first_few, printable, without_secrets
from ..training.callbacks import Callback
from .common import leads, processes
from .output import console, show_above

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..arch.torchvision_arch import AnyArch
    from ..recipes import Recipe
    from ..training import Dataset, Epoch, Execution, Step
    from ..training.data import Split
    from ..weights.serialization import WeightsFile


MINUTE = 60.0
"""Seconds from which on it is said how long a run still takes."""
FEW = 5
"""Number of training images of a class below which it is said."""
UNEVEN = 10
"""Ratio of the largest to the smallest class from which on it is said."""


class EpochBar(Callback):
    """A progress bar over all epochs on standard error, for use as a context manager.

    It shows ``columns``, which may use epoch, loss and speed of a step, and the elapsed and remaining time. Nothing is
    shown if standard error is not a terminal, and under torchrun only by the leading process. The lines of ``header``
    are printed before the first step or line.
    """

    def __init__(self, epochs: int, *columns: ProgressColumn, header: Sequence[str] = ()) -> None:
        self.console, self._header = console(), header
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        shown = self.console.is_terminal and leads()
        self._progress = Progress(
            TextColumn("{task.fields[note]}"), *columns, *times, console=self.console, disable=not shown
        )
        self._task = self._progress.add_task("", total=epochs, epoch=1, loss="-", speed="-", note="")
        self._epochs, self._left = epochs, TimeLeft(epochs)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_look(self, done: int, total: int) -> None:
        """Show the number of images checked."""
        self.tell(f"checking images: {done:,} of {total:,} ")

    def on_resume(self, epochs: int, steps: int, checkpoint: Path) -> None:
        """Print where the run goes on."""
        step = f"step {steps:,} of epoch {epochs + 1}" if steps else f"epoch {epochs}"
        self.line(f"going on after {step} of {self._epochs} ({checkpoint})")

    def on_step(self, step: Step) -> None:
        """Print the header before the first step, and update the bar."""
        self.line(*self._left.after_step(step, time.monotonic()))
        position, speed = step.epoch - 1 + step.step / step.steps, step.images_per_second
        self._progress.update(
            self._task, completed=position, epoch=step.epoch, loss=f"{step.loss:.3f}", speed=f"{speed:.0f}", note=""
        )

    def line(self, *lines: str) -> None:
        """Print ``lines`` above the bar, after the header."""
        for line in (*self._header, *lines):
            show_above(self.console, line)
        self._header = ()

    def epoch_line(self, line: str, epoch: int, seconds: float) -> None:
        """Print the ``line`` of an epoch, which took so many seconds; after the first one also how long is left."""
        self.line(line, *self._left.after_epoch(epoch, seconds))

    def tell(self, text: str) -> None:
        """Show ``text`` before the bar until the next update."""
        self._progress.update(self._task, note=text)


class TimeLeft:
    """Estimates how long a run of ``epochs`` still takes: a minute after its first step, and after its first epoch.

    Each is a list of one line; it is empty at other times, and if less than a minute is left.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs, self._since, self._steps = epochs, 0.0, 0
        self._awaits_step = self._awaits_epoch = True

    def after_step(self, step: Step, now: float) -> list[str]:
        """The estimate after ``step``, taken at the time ``now`` in seconds; the first step may include compiling."""
        if not self._awaits_step:
            return []
        if self._steps == 0:
            self._since = now
        self._steps += 1
        if now - self._since < MINUTE:
            return []
        self._awaits_step, each = False, (now - self._since) / (self._steps - 1)
        left = (self._epochs - step.epoch + 1) * step.steps - step.step
        return _time_left(f"validation and {counted(left, 'step')}", each * left, each)

    def after_epoch(self, epoch: int, seconds: float) -> list[str]:
        """The estimate after the first epoch of this process, the run's ``epoch``-th, which took so many seconds."""
        self._awaits_step, first, self._awaits_epoch = False, self._awaits_epoch, False
        left = self._epochs - epoch
        return _time_left(counted(left, "epoch"), seconds * left, seconds) if first else []


def _time_left(what: str, seconds: float, each: float) -> list[str]:
    """The line on ``what`` is left, which takes so many ``seconds``, ``each`` of it so many."""
    from ..utils.durations import duration

    if seconds < MINUTE:
        return []
    return [
        f"about {duration(seconds)} left in this run: {what} of {duration(each) if each >= 10 else f'{each:.2g} s'}"
    ]


class TrainingProgress(EpochBar):
    """A progress bar with loss and images/s, and a line for each finished epoch; before the first step, ``header``."""

    def __init__(self, epochs: int, *, header: Sequence[str] = ()) -> None:
        epoch = TextColumn("epoch {task.fields[epoch]}/{task.total:g}")
        loss = TextColumn("loss"), TextColumn("{task.fields[loss]}")
        super().__init__(epochs, epoch, BarColumn(), *loss, TextColumn("{task.fields[speed]} images/s"), header=header)

    def announce(self, name: str) -> None:
        """Print a heading for the run ``name``, whose time is estimated anew."""
        self._left = TimeLeft(self._epochs)
        if leads():
            show_above(self.console, f"{name}:")

    def on_epoch(self, epoch: Epoch) -> None:
        """Print the epoch's line."""
        self.epoch_line(
            f"epoch {epoch.epoch:>3}/{self._epochs}  train loss {epoch.train_loss:.3f}  "
            f"validation loss {epoch.validation_loss:.3f}  top-1 {epoch.validation_top1:7.2%}  {epoch.seconds:.1f} s"
            + (f"  {epoch.skipped} images could not be read" if epoch.skipped else ""),
            epoch.epoch,
            epoch.seconds,
        )


def header(
    arch: AnyArch, weights: str | WeightsFile | None, images: Dataset, recipe: Recipe, execution: Execution,
    output: Path, *, named: str,
) -> list[str]:  # fmt: skip
    """Lines that describe a run: images, network, recipe (``named``), device and output folder."""
    from ..training.execution import step_macs, threads_for

    recipe, count = recipe.for_images(len(images["train"])), len(images["train"])
    threads = threads_for(step_macs(arch, recipe, execution, processes()), execution)
    return [
        f"images   {printable(images.name)}: {_images(images)}",
        *_few(images),
        *_uneven(images, recipe),
        *header_of(_network(arch, weights, images), recipe_lines(recipe, count, named), execution, threads, output),
    ]


def header_of(network: str, recipe: Sequence[str], execution: Execution, threads: int, output: Path) -> list[str]:
    """The lines of a header that are the same for all kinds of runs; ``recipe`` has those of :func:`recipe_lines`."""
    computing = f", {counted(threads, 'thread')}" if execution.device == "cpu" else ""
    return [
        f"network  {network}",
        *recipe,
        f"device   {execution.device}{computing}",
        f"output   {printable(str(output))}",
    ]


def _images(images: Dataset) -> str:
    counts = images.counts("train")
    each = spread(counts.tolist())
    splits = ", ".join(f"{len(images[name]):,} {purpose}" for name, purpose in _PURPOSES.items() if images[name])
    return f"{splits}; {len(images.class_names):,} classes with {each} training images each"


def _few(images: Dataset) -> list[str]:
    """A line on classes with very few training images."""
    counts = images.counts("train")
    small = [n for n in counts.argsort(kind="stable") if counts[n] < FEW]
    if not small:
        return []
    names = first_few([f"{printable(images.class_names[n])} {counts[n]}" for n in small])
    return [f"         fewer than {FEW} training images: {names}; a few more help such classes most"]


def _uneven(images: Dataset, recipe: Recipe) -> list[str]:
    """A line on classes of very different size, and what helps."""
    counts = images.counts("train")
    if counts.max() <= UNEVEN * max(1, counts.min()):
        return []
    order = counts.argsort(kind="stable")
    smallest = [f"{printable(images.class_names[n])} {counts[n]:,}" for n in order[:SHOWN]]
    remedy = "" if recipe.balanced else "; --balanced weights them alike"
    return [f"         classes differ more than {UNEVEN} times in size, smallest: {', '.join(smallest)}{remedy}"]


def spread(counts: Sequence[int]) -> str:
    """The least and the greatest of ``counts``: "9 to 17"."""
    least, most = min(counts), max(counts)
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


_PURPOSES: dict[Split, str] = {"train": "to train on", "validation": "to validate on", "test": "to test on"}


def _network(arch: AnyArch, weights: str | WeightsFile | None, images: Dataset) -> str:
    from ..models.size import size_of

    cost = size_of(replace(arch, num_classes=len(images.class_names), in_channels=len(images.mean)))
    start = "random weights" if weights is None else weights if isinstance(weights, str) else weights.name
    start = printable(without_secrets(start))
    size = f"{cost.parameters / 1e6:,.2f} M parameters, {cost.macs / 1e6:,.1f} M MACs"
    return f"{arch.name}, {arch.resolution} x {arch.resolution} pixels, {size}; starts from {start}"


def recipe_lines(recipe: Recipe, images: int, named: str) -> list[str]:
    """The recipe in three lines: its name and steps on so many training images; the optimizer; what else is done."""
    steps = counted(images // recipe.batch_size, "step")
    rate = f"{type(recipe.optimizer).__name__}, learning rate {recipe.learning_rate:.4g}"
    average = f"average of weights {recipe.ema_decay:.4g}" if recipe.ema_decay else "no average of weights"
    return [
        f"recipe   {printable(named)}: {counted(recipe.epochs, 'epoch')} of {steps} of {recipe.batch_size:,} images",
        f"         {rate}, {_schedule(recipe)}, {average}",
        f"         {_augmentation(recipe)}",
    ]


def _schedule(recipe: Recipe) -> str:
    from ..recipes import CosineDecay, ExponentialDecay

    if isinstance(recipe.schedule, CosineDecay):
        fall = "cosine"
    elif isinstance(recipe.schedule, ExponentialDecay):
        fall = f"x {recipe.schedule.factor:g} an epoch"
    else:
        assert_never(recipe.schedule)
    return f"{fall} after {counted(recipe.warmup_epochs, 'epoch')} of warm-up" if recipe.warmup_epochs else fall


def _augmentation(recipe: Recipe) -> str:
    """What is done to the images, and against overfitting."""
    given, parts = recipe.augmentation, []
    if given.crop_area < 1:
        parts.append(f"crops of {given.crop_area:.0%} or more")
    if given.flip:
        parts.append("flips")
    if given.shift:
        parts.append("small shifts")
    if given.policy is not None:
        parts.append(type(given.policy).__name__)
    for name in ("erasing", "mixup", "cutmix"):
        if value := getattr(given, name):
            parts.append(f"{name} {value:g}")
    for field, name in (("label_smoothing", "label smoothing"), ("dropout", "dropout")):
        if value := getattr(recipe, field):
            parts.append(f"{name} {value:g}")
    if recipe.balanced:
        parts.append("classes weighted alike")
    return ", ".join(parts) or "images as they are"
