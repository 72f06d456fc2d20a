"""A run's figures for TensorBoard, in the format of its event files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ZooError
from .callbacks import Callback, Epoch, Step

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Callback):
    """Writes loss, learning rate and images/s against the step, losses and accuracy against the epoch, into ``folder``.

    Raises :class:`ZooError` where the package ``tensorboard`` is missing. What a killed run wrote after its last
    checkpoint is replaced when the run is resumed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ZooError("TensorBoard is not installed; pip install 'fbnetv3-zoo[tensorboard]'") from None
        self._open, self._folder = SummaryWriter, Path(folder)
        self._writer: SummaryWriter | None = None

    def on_step(self, step: Step) -> None:
        """Three figures, at the number of steps taken."""
        taken = (step.epoch - 1) * step.steps + step.step
        writer = self._opened(taken)
        for name in ("loss", "learning_rate", "images_per_second"):
            writer.add_scalar(f"step/{name}", getattr(step, name), taken)

    def on_epoch(self, epoch: Epoch) -> None:
        """The epoch's figures, at its number."""
        writer = self._opened(None)
        for name in ("train_loss", "validation_loss", "validation_top1", "skipped"):
            writer.add_scalar(f"epoch/{name}", getattr(epoch, name), epoch.epoch)
        writer.flush()

    def _opened(self, first_step: int | None) -> SummaryWriter:
        """The writer, which replaces what was written from ``first_step`` on (None: nothing) when it is opened."""
        if self._writer is None:
            self._writer = self._open(self._folder, purge_step=first_step)
        return self._writer
