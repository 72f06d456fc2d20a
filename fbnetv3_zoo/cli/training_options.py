"""Shared by the training commands: options for recipe and execution, and printing of results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import ZooError, first_few
from .common import brings_weights, holds_weights, leads, written
from .output import say

if TYPE_CHECKING:
    from ..recipes import Recipe
    from ..training import Callback, Execution, Run

RecipeSource = Annotated[
    str | None, typer.Option("--recipe", help="A name from `fbnetv3 recipe list`, or a JSON file.")
]
Epochs = Annotated[int | None, typer.Option(help="Number of epochs, if not the recipe's.")]
BatchSize = Annotated[
    int | None, typer.Option(help="Images per step over all processes; scales learning rate and moving average.")
]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate, if not the recipe's.")]
WeightLevels = Annotated[
    int | None, typer.Option(help="Quantisation-aware training with this weight range: 127, or 63 without VNNI.")
]
RunSeed = Annotated[int | None, typer.Option("--seed", help="Seed of the run, if not the recipe's.")]
SubsetFile = Annotated[Path | None, typer.Option("--subset", help="Only this part of the data (`fbnetv3 subset`).")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:1; under torchrun, cuda is each process's own GPU.")]
Workers = Annotated[int, typer.Option(help="Number of processes that load images (0: only this one).")]
PrecisionName = Annotated[Literal["float32", "bf16", "fp16"], typer.Option(help="Precision of the computations.")]
Compile = Annotated[bool, typer.Option("--compile", help="Use torch.compile.")]
Checkpointing = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="Save memory by recomputing in the backward pass.")
]
Accumulation = Annotated[int, typer.Option(help="Number of parts in which a batch is computed.")]
CheckpointSteps = Annotated[int, typer.Option(help="Steps between checkpoints, besides those after every epoch.")]
CheckpointMinutes = Annotated[float, typer.Option(help="Minutes between checkpoints, besides those after every epoch.")]
Keep = Annotated[int, typer.Option("--keep-checkpoints", help="Number of newest checkpoints to keep.")]
OnBad = Annotated[
    Literal["raise", "skip"], typer.Option("--on-bad-image", help="If an image cannot be read, fail or skip it.")
]
SkipImageCheck = Annotated[
    bool, typer.Option("--skip-image-check", help="Do not read the headers of all images before the first epoch.")
]
ToTensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard logs.")]


def execution_of(options: Mapping[str, Any]) -> Execution:
    """The execution that a command's options describe: those of them that are named like its fields."""
    from ..training import Execution, OnBadImage, Precision

    chosen = {f.name: options[f.name] for f in fields(Execution) if f.name in options}
    chosen["precision"] = Precision(chosen["precision"])
    chosen["on_bad_image"] = OnBadImage(chosen["on_bad_image"])
    chosen["check_images"] = not options["skip_image_check"]
    return Execution(**chosen)


def changed(recipe: Recipe, options: Mapping[str, Any], *, images: int | None = None) -> Recipe:
    """``recipe`` with a command's options ``batch_size``, ``epochs`` and so on where it has them and they are given.

    A learning rate that is given counts as it is, so the recipe is fitted to so many ``images`` to train on before.
    """
    if options["batch_size"] is not None:
        recipe = recipe.for_batch_size(options["batch_size"])
    if images is not None and options["learning_rate"] is not None:
        from ..training.loader import fitted

        recipe = fitted(recipe, images, tell=leads(), rate_given=True)
    fields_ = ("epochs", "learning_rate", "weight_levels", "seed")
    return replace(recipe, **{field: options[field] for field in fields_ if options.get(field) is not None})


def recipe_for(source: str | None, data: str) -> Recipe:
    """The recipe of that name or file; by default the one for the kind of data."""
    from ..recipes import find_recipe
    from ..training.data.cifar import find_cifar

    if source is None:
        source = "digits" if data == "digits" else "cifar10" if find_cifar(Path(data)) else "photos"
    return find_recipe(source)


def describes_itself(weights: str) -> bool:
    """Whether ``weights`` is a .safetensors file of this project, which describes its network."""
    from ..weights.serialization import describe, read_tensors

    if not weights.endswith(".safetensors") or "://" in weights:
        return False
    return describe(read_tensors(Path(weights).expanduser())[1], weights) is not None


def first_weights(model: str, weights: str | None, *, pretrained: bool, derived: bool) -> str | None:
    """The weights to start from: ``weights``, the published ones of ``model``, or those in the file ``model``.

    ``derived``: the network differs from ``model``, so that the weights in a file do not fit.
    """
    from ..weights.registry import find_record

    if not holds_weights(model):
        return find_record(model).name if pretrained else weights
    if pretrained:
        raise brings_weights(model)
    if derived and weights in (None, model):
        raise ZooError(f"{model}: its weights only fit its own network; leave out --small-images, --width and --depth")
    return weights or model


def observers_of(folder: Path, *, tensorboard: bool) -> list[Callback]:
    """Who watches the run besides the screen."""
    if not tensorboard:
        return []
    from ..training.tensorboard_writer import TensorBoard

    return [TensorBoard(folder / "tensorboard")] if leads() else []


def outcome(run: Run) -> dict[str, Any]:
    """The result of a run as JSON values."""
    test = run.test.summary() if run.test else None
    told = {"folder": run.folder, "last_epoch": asdict(run.epochs[-1]), "test": test}
    return {**told, "bad_images": list(run.bad_images), "warning": run.warning or None}


def print_outcome(run: Run) -> None:
    """Print the result of a run."""
    last = run.epochs[-1]
    say(f"validation accuracy {last.validation_top1:.2%} after {last.epoch} epochs")
    if run.test:
        say(f"test accuracy {run.test}")
    for name in ("model.safetensors", "best.safetensors", "report.html", "metrics.jsonl", "curve.png"):
        say(written(run.folder / name))
    tell_of_trouble(run)


def tell_of_trouble(run: Run) -> None:
    """Print the images that a run skipped, and warnings about its result, if any."""
    if bad := run.bad_images:
        say(f"{len(bad):,} images could not be used and were left out: {first_few(bad)}")
    if run.warning:
        say(f"warning: {run.warning}")
