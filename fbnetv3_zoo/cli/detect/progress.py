"""Progress of detector training on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, TextColumn

from ...errors import printable
from ..output import show_above
from ..progress import EpochBar, header_of, recipe_lines

if TYPE_CHECKING:
    from fbnetv3_zoo.detection.models.serialization import DetectorSpec
    from fbnetv3_zoo.detection.training.train import DetectionEpoch

    from ...models.fbnet import FBNet
    from ...recipes import Recipe
    from ...training import Execution


class DetectionProgress(EpochBar):
    """A progress bar with the loss, and a line for each finished epoch; before the first step, ``header``."""

    def __init__(self, epochs: int, *, header: Sequence[str] = ()) -> None:
        super().__init__(epochs, BarColumn(), TextColumn("loss {task.fields[loss]}"), header=header)
        self._epochs = epochs

    def on_epoch(self, epoch: DetectionEpoch) -> None:
        """Print the epoch's line."""
        skipped = f"  {epoch.skipped} images unreadable" if epoch.skipped else ""
        show_above(
            self.console,
            f"epoch {epoch.epoch:>3}/{self._epochs}  train loss {epoch.train_loss:.3f}  AP {epoch.ap:.3f}  "
            f"AP50 {epoch.ap50:.3f}  {epoch.seconds:.1f} s{skipped}",
        )


def header(
    images: str, spec: DetectorSpec, source: FBNet | None, recipe: Recipe, count: int, execution: Execution,
    output: Path, *, named: str,
) -> list[str]:  # fmt: skip
    """Lines that describe a run on ``count`` images: images, detector, recipe (``named``), device, output folder."""
    import torch

    trained = recipe_lines(recipe, count, named)
    threads = execution.threads or torch.get_num_threads()
    return [f"images   {images}", *header_of(_network(spec, source), trained, execution, threads, output)]


def _network(spec: DetectorSpec, source: FBNet | None) -> str:
    import torch

    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in spec.build().parameters())
    sides = f"images scaled to {spec.settings.min_size} pixels, at most {spec.settings.max_size}"
    start = "random weights" if source is None else source.weights or "given weights"
    about = f"{spec.network} ({spec.kind.value.upper()}), {sides}, {parameters / 1e6:,.2f} M parameters"
    return f"{printable(about)}; starts from {printable(start)}"
