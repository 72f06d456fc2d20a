"""``fbnetv3 train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import training_options as training
from .common import Json, output_folder
from .option_groups import ArchOptions, DataOptions, configurable

if TYPE_CHECKING:
    from ..training import Run


@configurable
def train(
    *,
    output: Annotated[Path, output_folder("Folder for model, report, metrics and checkpoints.")],
    start: training.StartOptions,
    shape: ArchOptions,
    data: DataOptions,
    subset: training.SubsetFile = None,
    recipe: training.RecipeSource = None,
    changes: training.ClassifierRecipeOptions,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Teacher for distillation: a published name, a .safetensors or .onnx file.", rich_help_panel="Recipe"
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1, help="Number of runs, of successive seeds, for a mean with an interval.", rich_help_panel="Recipe"
        ),
    ] = 1,
    running: training.TrainingOptions,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard logs.")] = False,
    as_json: Json = False,
) -> None:
    """Train a network on labeled images. Interrupted runs continue with --resume.

    On several GPUs or machines: torchrun --nproc-per-node 8 -m fbnetv3_zoo train --device cuda ...

    Example: fbnetv3 train photos --model fbnetv3_e --pretrained --output runs/photos
    """
    from ..training import find_dataset

    given = training.given_preset(recipe)
    arch, weights = start.network(shape)
    seed = changes.data_seed(given.recipe if given else None)
    images = find_dataset(data.source, seed=seed, subset=subset, val_split=data.val_split)
    from ..training import train as run_training  # torch, which wrong paths need not wait for
    from .progress import TrainingProgress, header

    name, base = training.named_preset(recipe, given, data.source, images, changes, pretrained=weights is not None)
    chosen = base.changed(changes.applied(base.recipe, images=len(images["train"])))
    execution = running.execution()
    lines = [] if as_json else header(arch, weights, images, chosen.recipe, execution, output, named=name)
    runs: list[Run] = []
    for folder, seeded in training.folders(output, chosen, seeds):
        if runs:  # a run owns the tensors that it starts from, and has a split by its own seed
            weights = start.network(shape)[1]
            images = find_dataset(data.source, seed=seeded.recipe.seed, subset=subset, val_split=data.val_split)
        lines = lines if seeds == 1 else [*lines, f"{folder.name}:"]
        with TrainingProgress(chosen.recipe.epochs, header=lines) as progress:
            run = run_training(
                arch, images, seeded, folder, teacher=teacher, pretrained=weights or False, resume=running.resume,
                execution=execution, callbacks=[progress, *training.callbacks_of(folder, tensorboard=tensorboard)],
            )  # fmt: skip
        runs.append(run)
        lines = []
    training.print_runs(runs, as_json=as_json)
