"""``fbnetv3 train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..utils.paths import check_outside
from . import training_options as training
from .common import Json, leads, output_folder, print_json
from .options import ArchOptions, DataOptions, grouped


@grouped
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
        str | None, typer.Option(help="Teacher for distillation: a published name, a .safetensors or .onnx file.")
    ] = None,
    running: training.TrainingOptions,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard logs.")] = False,
    as_json: Json = False,
) -> None:
    """Train a network on labelled images. Interrupted runs continue with --resume.

    On several GPUs or machines: torchrun --nproc-per-node 8 -m fbnetv3_zoo train --device cuda ...

    Example: fbnetv3 train photos --model fbnetv3_e --pretrained --output runs/photos
    """
    from ..recipes import find_recipe
    from ..training import find_dataset

    given = find_recipe(recipe) if recipe else None
    arch, weights = start.network(shape)
    images = find_dataset(data.source, seed=changes.data_seed(given), subset=subset)
    check_outside(output, images.root)
    from ..training import train as run_training  # torch, which wrong paths need not wait for
    from .progress import TrainingProgress, print_header

    name, base = training.named_recipe(recipe, data.source, images, changes, pretrained=weights is not None)
    chosen = changes.applied(base, images=len(images["train"]))
    execution, callbacks = running.execution(), training.callbacks_of(output, tensorboard=tensorboard)
    if not as_json:
        print_header(arch, weights, images, chosen, execution, output, named=name)
    with TrainingProgress(chosen.epochs) as progress:
        run = run_training(
            arch, images, chosen, output, teacher=teacher, pretrained=weights or False, resume=running.resume,
            execution=execution, callbacks=[progress, *callbacks],
        )  # fmt: skip
    if as_json and leads():
        print_json(training.outcome(run))
    elif leads():
        training.print_outcome(run)
