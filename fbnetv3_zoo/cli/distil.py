"""``fbnetv3 distil``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from .output import say

if TYPE_CHECKING:
    from ..recipes import Recipe


def distil(
    output: Annotated[Path, output_folder("Folder, in which each network gets a folder.")],
    models: Annotated[str, typer.Option(help="Comma-separated published names or arch JSON files.")],
    data: DataSource = "digits",
    subset: running.SubsetFile = None,
    teacher: Annotated[
        str | None, typer.Option(help="Use this network as teacher instead of the largest of the models.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="As for train; 'own': for each network the recipe of its name (as in the paper)."),
    ] = None,
    epochs: running.Epochs = None,
    batch_size: running.BatchSize = None,
    learning_rate: running.LearningRate = None,
    seed: running.RunSeed = None,
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
    as_json: Json = False,
) -> None:
    """Train a family in two steps: the largest network on labels, then all of them with it as teacher.

    Example: fbnetv3 distil --models fbnetv3_a,fbnetv3_g --recipe own --data /data/imagenet --output runs/family
    """
    options = dict(locals())
    from ..training import find_dataset
    from ..training.distill import Member
    from ..training.distill import distil as distil_family
    from .progress import TrainingProgress

    members = []
    for model in map(str.strip, models.split(",")):
        arch = derived_arch(model, small_images=small_images, width=width, depth=depth, resolution=resolution)
        chosen = _own_recipe(model) if recipe == "own" else running.recipe_for(recipe, data)
        members.append(Member(arch, chosen))
    images = find_dataset(data, seed=members[0].recipe.seed if seed is None else seed, subset=subset)
    check_outside(output, images.root)
    count = len(images["train"])
    members = [replace(one, recipe=running.changed(one.recipe, options, images=count)) for one in members]
    with TrainingProgress(max(member.recipe.epochs for member in members)) as progress:
        family = distil_family(
            members, images, output, teacher=teacher, resume=resume, execution=running.execution_of(options),
            observers=[progress], begins=progress.announce,
        )  # fmt: skip
    runs = ({"teacher": family.teacher} if family.teacher else {}) | family.students
    if not leads():
        return
    if as_json:
        print_json({name: running.outcome(run) for name, run in runs.items()})
        return
    for name, run in runs.items():
        how = "on labels alone" if run is family.teacher else "with the teacher"
        found = f"test accuracy {run.test}" if run.test else f"validation {run.epochs[-1].validation_top1:.2%}"
        say(f"{name} ({run.model.arch.name}, {how}): {found}")
        say(f"  {run.folder / 'report.html'}")
        running.tell_of_trouble(run)


def _own_recipe(model: str) -> Recipe:
    from ..recipes import RECIPES

    if model not in RECIPES:
        raise ZooError(f"--recipe own: there is no recipe {model!r}; choose one for all (`fbnetv3 recipe list`)")
    return RECIPES[model]
