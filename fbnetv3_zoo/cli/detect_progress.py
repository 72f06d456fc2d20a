"""Training of a detector on the screen."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fbnetv3_zoo.detection.train import DetectionObserver

if TYPE_CHECKING:
    from fbnetv3_zoo.detection.train import DetectionEpoch


class DetectionProgress(DetectionObserver):
    """A bar over all epochs on standard error (a terminal), and a line for each. Use as a context manager."""

    def __init__(self, epochs: int) -> None:
        self._epochs, self._console = epochs, Console(stderr=True)
        columns = (BarColumn(), TextColumn("loss {task.fields[loss]:.3f}"), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._progress.add_task("", total=epochs, loss=float("nan"))

    def __enter__(self) -> DetectionProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=epoch - 1 + step / steps, loss=loss)

    def on_epoch(self, epoch: DetectionEpoch) -> None:
        """Print the epoch's line."""
        self._console.print(
            f"epoch {epoch.epoch:>3}/{self._epochs}  train loss {epoch.train_loss:.3f}  AP {epoch.ap:.3f}  "
            f"AP50 {epoch.ap50:.3f}  {epoch.seconds:.1f} s",
            highlight=False,
        )
