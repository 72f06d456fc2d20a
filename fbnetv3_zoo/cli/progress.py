"""Training on the screen."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from fbnetv3_zoo.training import Epoch


class TrainingProgress:
    """A bar over all epochs on standard error, and a line for each finished one. Use as a context manager."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        console = Console(stderr=True)
        columns = (TextColumn("epoch {task.fields[epoch]}/{task.total:g}"), BarColumn(), TextColumn("loss"))
        times = (TextColumn("{task.fields[loss]:.3f}"), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, *times, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=epochs, epoch=1, loss=float("nan"))
        self._console = console

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=epoch - 1 + step / steps, epoch=epoch, loss=loss)

    def on_epoch(self, epoch: Epoch) -> None:
        """Print the epoch's line."""
        self._console.print(
            f"epoch {epoch.epoch:>3}/{self._epochs}  train loss {epoch.train_loss:.3f}  "
            f"validation loss {epoch.validation_loss:.3f}  top-1 {epoch.validation_top1:7.2%}  {epoch.seconds:.1f} s",
            highlight=False,
        )
