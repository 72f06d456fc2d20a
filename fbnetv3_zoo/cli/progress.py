"""Training on the screen."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fbnetv3_zoo.cli.running import leads
from fbnetv3_zoo.training.run import Observer

if TYPE_CHECKING:
    from fbnetv3_zoo.training import Epoch, Step


class TrainingProgress(Observer):
    """A bar over all epochs on standard error, and a line for each finished one. Use as a context manager.

    The bar shows the loss of the last step, images/s, the time passed and the time that is left; there is none where
    standard error is no terminal, and under torchrun only the leading process draws one.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        console = Console(stderr=True)
        columns = (TextColumn("epoch {task.fields[epoch]}/{task.total:g}"), BarColumn(), TextColumn("loss"))
        figures = (TextColumn("{task.fields[loss]:.3f}"), TextColumn("{task.fields[speed]:.0f} images/s"))
        times = (*figures, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._progress = Progress(*columns, *times, console=console, disable=not (console.is_terminal and leads()))
        self._task = self._progress.add_task("", total=epochs, epoch=1, loss=float("nan"), speed=0.0)
        self._console = console

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def announce(self, name: str) -> None:
        """Print that the lines that follow are those of the run ``name``."""
        if leads():
            self._console.print(f"{name}:", highlight=False, markup=False)

    def on_step(self, step: Step) -> None:
        """Move the bar."""
        done = step.epoch - 1 + step.step / step.steps
        self._progress.update(
            self._task, completed=done, epoch=step.epoch, loss=step.loss, speed=step.images_per_second
        )

    def on_epoch(self, epoch: Epoch) -> None:
        """Print the epoch's line."""
        self._console.print(
            f"epoch {epoch.epoch:>3}/{self._epochs}  train loss {epoch.train_loss:.3f}  "
            f"validation loss {epoch.validation_loss:.3f}  top-1 {epoch.validation_top1:7.2%}  {epoch.seconds:.1f} s"
            + (f"  {epoch.skipped} images could not be read" if epoch.skipped else ""),
            highlight=False,
        )
