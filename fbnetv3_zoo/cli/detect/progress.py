"""Progress of detector training on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, TextColumn

from ..output import show_above
from ..progress import EpochBar

if TYPE_CHECKING:
    from fbnetv3_zoo.detection.training.train import DetectionEpoch


class DetectionProgress(EpochBar):
    """A progress bar with the loss, and a line for each finished epoch."""

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs, BarColumn(), TextColumn("loss {task.fields[loss]}"))
        self._epochs = epochs

    def on_epoch(self, epoch: DetectionEpoch) -> None:
        """Print the epoch's line."""
        skipped = f"  {epoch.skipped} images unreadable" if epoch.skipped else ""
        show_above(
            self.console,
            f"epoch {epoch.epoch:>3}/{self._epochs}  train loss {epoch.train_loss:.3f}  AP {epoch.ap:.3f}  "
            f"AP50 {epoch.ap50:.3f}  {epoch.seconds:.1f} s{skipped}",
        )
