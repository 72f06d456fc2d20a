"""A run's figures for TensorBoard, in the format of its event files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.training.run import Epoch, Observer, Step

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Observer):
    """Writes loss, learning rate and images/s by step, losses and accuracy by epoch, below ``folder``.

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
        self._steps = 0

    def on_step(self, step: Step) -> None:
        """Three figures."""
        self._steps = (step.epoch - 1) * step.steps + step.step
        for name in ("loss", "learning_rate", "images_per_second"):
            self._add(f"step/{name}", getattr(step, name))

    def on_epoch(self, epoch: Epoch) -> None:
        """The epoch's figures, at the step that it ended with."""
        for name in ("train_loss", "validation_loss", "validation_top1", "skipped"):
            self._add(f"epoch/{name}", getattr(epoch, name))
        self._opened().flush()

    def _add(self, name: str, value: float) -> None:
        self._opened().add_scalar(name, value, self._steps)

    def _opened(self) -> SummaryWriter:
        if self._writer is None:
            self._writer = self._open(self._folder, purge_step=self._steps)
        return self._writer
