"""``fbnetv3 train``."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from fbnetv3_zoo.cli.common import (
    DataSource,
    Depth,
    Json,
    Resolution,
    SmallImages,
    Width,
    derived_arch,
    print_json,
    written,
)
from fbnetv3_zoo.errors import ZooError


def train(
    output: Annotated[Path, typer.Option(help="Folder for model, metrics, curve and checkpoint.")],
    model: Annotated[str, typer.Option(help="A published name, or the path of an arch JSON file.")] = "fbnetv3_a",
    data: DataSource = "digits",
    recipe: Annotated[
        str | None, typer.Option(help="'digits', 'photos' or a JSON file (default: by the data).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs, if not the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step, if not the recipe's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate, if not the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run, if not the recipe's.")] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from the published weights of the model (fine-tune).")
    ] = False,
    weights: Annotated[
        str | None, typer.Option(help="Weights to start from: a file, a tag, an address, hf-hub:owner/name.")
    ] = None,
    small_images: SmallImages = False,
    width: Width = 1.0,
    depth: Depth = 1.0,
    resolution: Resolution = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1 ...")] = "cpu",
    workers: Annotated[int, typer.Option(help="Processes that prepare images.")] = 0,
    as_json: Json = False,
) -> None:
    """Train a network on labelled images. Interrupted runs continue with --resume.

    Example: fbnetv3 train --model fbnetv3_a --small-images --width 0.5 --depth 0.5 --output runs/digits
    """
    from fbnetv3_zoo.cli.progress import TrainingProgress
    from fbnetv3_zoo.recipe import find_recipe
    from fbnetv3_zoo.training import find_dataset
    from fbnetv3_zoo.training import train as run_training
    from fbnetv3_zoo.weights.records import find_record

    chosen = find_recipe(recipe or ("digits" if data == "digits" else "photos"))
    changes = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    chosen = replace(chosen, **{field: value for field, value in changes.items() if value is not None})  # type: ignore[arg-type]
    arch = derived_arch(model, small_images=small_images, width=width, depth=depth, resolution=resolution)
    if pretrained and weights is not None:
        raise ZooError("--pretrained and --weights name two sets of weights to start from; give one")
    start = find_record(model).name if pretrained else weights
    images = find_dataset(data, seed=chosen.seed)
    with TrainingProgress(chosen.epochs) as progress:
        run = run_training(
            arch, images, chosen, output, pretrained=start or False, resume=resume, device=device, workers=workers,
            on_step=progress.on_step, on_epoch=progress.on_epoch,
        )  # fmt: skip
    last = run.epochs[-1]
    if as_json:
        test = {**asdict(run.test), "interval": run.test.interval} if run.test else None
        print_json({"folder": run.folder, "last_epoch": asdict(last), "test": test})
        return
    print(f"validation accuracy {last.validation_top1:.2%} after {last.epoch} epochs")
    if run.test:
        print(f"test accuracy {run.test}")
    for name in ("model.safetensors", "metrics.jsonl", "curve.png"):
        print(written(output / name))
