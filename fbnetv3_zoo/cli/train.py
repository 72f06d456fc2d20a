"""``fbnetv3 train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ZooError
from ..utils.paths import check_outside
from . import training_options as running
from .common import (
    DataSource,
    Depth,
    Json,
    Resolution,
    SmallImages,
    Width,
    derived_arch,
    leads,
    output_folder,
    print_json,
)


def train(
    output: Annotated[Path, output_folder("Folder for model, report, metrics and checkpoints.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="A published name, an arch JSON file, or a .safetensors file to fine-tune (default: the file of "
            "--weights, or fbnetv3_a)."
        ),
    ] = None,
    data: DataSource = "digits",
    subset: running.SubsetFile = None,
    recipe: running.RecipeSource = None,
    epochs: running.Epochs = None,
    batch_size: running.BatchSize = None,
    learning_rate: running.LearningRate = None,
    weight_levels: running.WeightLevels = None,
    seed: running.RunSeed = None,
    teacher: Annotated[
        str | None, typer.Option(help="Teacher for distillation: a published name, a .safetensors or .onnx file.")
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from the published weights of the model (fine-tune).")
    ] = False,
    weights: Annotated[
        str | None, typer.Option(help="Weights to start from: a file, a tag, a URL, hf-hub:owner/name.")
    ] = None,
    small_images: SmallImages = False,
    width: Width = 1.0,
    depth: Depth = 1.0,
    resolution: Resolution = None,
    resume: running.Resume = False,
    device: running.Device = "cpu",
    workers: running.Workers = 0,
    precision: running.PrecisionName = "float32",
    compile: running.Compile = False,
    gradient_checkpointing: running.Checkpointing = False,
    accumulation: running.Accumulation = 1,
    checkpoint_steps: running.CheckpointSteps = 0,
    checkpoint_minutes: running.CheckpointMinutes = 0.0,
    keep_checkpoints: running.Keep = 2,
    on_bad_image: running.OnBad = "raise",
    skip_image_check: running.SkipImageCheck = False,
    tensorboard: running.ToTensorBoard = False,
    as_json: Json = False,
) -> None:
    """Train a network on labelled images. Interrupted runs continue with --resume.

    On several GPUs or machines: torchrun --nproc-per-node 8 -m fbnetv3_zoo train --device cuda ...

    Example: fbnetv3 train --model fbnetv3_a --small-images --width 0.5 --depth 0.5 --output runs/digits
    """
    options = dict(locals())
    from ..training import find_dataset
    from ..training import train as run_training
    from .progress import TrainingProgress

    asked = running.recipe_for(recipe, data)
    if pretrained and weights is not None:
        raise ZooError("--pretrained and --weights both give weights to start from; give only one")
    model = model or (weights if weights and running.describes_itself(weights) else "fbnetv3_a")
    arch = derived_arch(model, small_images=small_images, width=width, depth=depth, resolution=resolution)
    derived = small_images or (width, depth) != (1, 1)
    start = running.first_weights(model, weights, pretrained=pretrained, derived=derived)
    images = find_dataset(data, seed=asked.seed if seed is None else seed, subset=subset)
    check_outside(output, images.root)
    chosen = running.changed(asked, options, images=len(images["train"]))
    with TrainingProgress(chosen.epochs) as progress:
        run = run_training(
            arch, images, chosen, output, teacher=teacher, pretrained=start or False, resume=resume,
            execution=running.execution_of(options),
            observers=[progress, *running.observers_of(output, tensorboard=tensorboard)],
        )  # fmt: skip
    if as_json and leads():
        print_json(running.outcome(run))
    elif leads():
        running.print_outcome(run)
