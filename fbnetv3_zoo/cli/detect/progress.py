"""Progress of detector training on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, TextColumn

from ...errors import printable
from ..progress import EpochBar, header_of, recipe_lines, spread

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

    def on_epoch(self, epoch: DetectionEpoch) -> None:
        """Print the epoch's line."""
        skipped = f"  {epoch.skipped} images unreadable" if epoch.skipped else ""
        self.epoch_line(
            f"epoch {epoch.epoch:>3}/{self._epochs}  train loss {epoch.train_loss:.3f}  AP {epoch.ap:.3f}  "
            f"AP50 {epoch.ap50:.3f}  {epoch.seconds:.1f} s{skipped}",
            epoch.epoch,
            epoch.seconds,
        )


def header(
    images: str, spec: DetectorSpec, source: FBNet | None, recipe: Recipe, count: int, execution: Execution,
    output: Path, *, named: str,
) -> list[str]:  # fmt: skip
    """Lines that describe a run on ``count`` images: images, detector, recipe (``named``), device, output folder."""
    import torch

    trained = recipe_lines(recipe, count, named)
    threads = execution.threads or torch.get_num_threads()
    lines = [f"images   {images}", *header_of(_network(spec, source), trained, execution, threads, output)]
    return lines if source is not None else [*lines, *_note(recipe, count)]


def _note(recipe: Recipe, count: int) -> list[str]:
    """A line if ``recipe`` is too short for random weights."""
    from ...recipes.fitting import DETECTION_STEPS

    each = max(1, count // recipe.batch_size)
    if recipe.epochs * each >= DETECTION_STEPS:
        return []
    enough = math.ceil(DETECTION_STEPS / each)
    few = f"{recipe.epochs * each} steps are few for random weights"
    return [f"note     {few}: --epochs {enough} has {enough * each} (docs/fine-tuning.md)"]


def _network(spec: DetectorSpec, source: FBNet | None) -> str:
    import torch

    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in spec.build().parameters())
    sides = f"images scaled to {spec.settings.min_size} pixels, at most {spec.settings.max_size}"
    if spec.kind.value == "c4":
        sides += f", anchors of {spread(spec.settings.anchor_sizes)}"
    start = "random weights" if source is None else source.weights or "given weights"
    about = f"{spec.network} ({spec.kind.value.upper()}), {sides}, {parameters / 1e6:,.2f} M parameters"
    return f"{printable(about)}; starts from {printable(start)}"
