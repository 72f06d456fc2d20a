"""What a training command prints before the first epoch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import counted, printable
from .common import leads
from .output import complain

if TYPE_CHECKING:
    from ..arch import Arch
    from ..recipes import Recipe
    from ..training import Dataset, Execution
    from ..training.data import Split
    from ..weights.serialization import WeightsFile


def print_header(
    arch: Arch, weights: str | WeightsFile | None, images: Dataset, recipe: Recipe, execution: Execution, output: Path,
    *, named: str,
) -> None:  # fmt: skip
    """Print images, network, recipe (``named``) and device to standard error, in the leading process."""
    if leads():
        complain(f"images   {_images(images)}")
        complain(f"network  {_network(arch, weights, images)}")
        complain(f"recipe   {printable(named)}: {_recipe(recipe, images)}")
        complain(f"device   {execution.device}{_threads(execution)}")
        complain(f"output   {printable(str(output))}")


def _images(images: Dataset) -> str:
    counts = images.counts("train")
    least, most = int(counts.min()), int(counts.max())
    each = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    splits = ", ".join(f"{len(images[name]):,} {purpose}" for name, purpose in _PURPOSES.items() if images[name])
    return f"{splits}; {len(images.class_names):,} classes with {each} training images each"


_PURPOSES: dict[Split, str] = {"train": "to train on", "validation": "to validate on", "test": "to test on"}


def _network(arch: Arch, weights: str | WeightsFile | None, images: Dataset) -> str:
    from ..arch.cost import cost_of

    cost = cost_of(replace(arch, num_classes=len(images.class_names), in_channels=len(images.mean)))
    start = "random weights" if weights is None else weights if isinstance(weights, str) else weights.name
    size = f"{cost.parameters / 1e6:,.2f} M parameters, {cost.macs / 1e6:,.1f} M MACs"
    return f"{arch.name}, {arch.resolution} x {arch.resolution} pixels, {size}; starts from {printable(start)}"


def _recipe(recipe: Recipe, images: Dataset) -> str:
    recipe = recipe.for_images(len(images["train"]))
    steps = counted(len(images["train"]) // recipe.batch_size, "step")
    rate = f"{type(recipe.optimizer).__name__}, learning rate {recipe.learning_rate:.4g}"
    return f"{counted(recipe.epochs, 'epoch')} of {steps} of {recipe.batch_size:,} images; {rate}"


def _threads(execution: Execution) -> str:
    import torch

    return f", {counted(torch.get_num_threads(), 'thread')}" if execution.device == "cpu" else ""
