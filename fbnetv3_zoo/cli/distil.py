"""``fbnetv3 distil``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ZooError
from ..utils.paths import check_outside
from . import training_options as training
from .common import Json, leads, output_folder, print_json
from .option_groups import ArchOptions, DataOptions, configurable
from .output import say

if TYPE_CHECKING:
    from ..recipes import Recipe
    from ..training.distill import Family


@configurable
def distil(
    *,
    output: Annotated[Path, output_folder("Folder, in which each network gets a folder.")],
    models: Annotated[str, typer.Option(help="Comma-separated published names or arch JSON files.")],
    shape: ArchOptions,
    data: DataOptions,
    subset: training.SubsetFile = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Use this network as teacher instead of the largest of the models.", rich_help_panel="Recipe"
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="As for train; 'own': for each network the recipe of its name (as in the paper).",
            rich_help_panel="Recipe",
        ),
    ] = None,
    changes: training.ClassifierRecipeOptions,
    running: training.TrainingOptions,
    as_json: Json = False,
) -> None:
    """Train a family in two steps: the largest network on labels, then all of them with it as teacher.

    Example: fbnetv3 distil --models fbnetv3_a,fbnetv3_g --recipe own /data/imagenet --output runs/family
    """
    from ..training import find_dataset
    from ..training.distill import Member
    from ..training.distill import distil as distil_family
    from .progress import TrainingProgress

    names = [name.strip() for name in models.split(",")]
    own = {name: _own_recipe(name) for name in names} if recipe == "own" else {}
    preset = None if own else training.given_preset(recipe)
    given = own[names[0]] if own else preset.recipe if preset else None
    images = find_dataset(data.source, seed=changes.data_seed(given), subset=subset, val_split=data.val_split)
    check_outside(output, images.root)
    if not own:
        _, common = training.named_preset(recipe, preset, data.source, images, changes, pretrained=False)
        own = dict.fromkeys(names, common.recipe)
    count = len(images["train"])
    members = [Member(shape.arch_of(name), changes.applied(own[name], images=count)) for name in names]
    with TrainingProgress(max(member.recipe.epochs for member in members)) as progress:
        family = distil_family(
            members, images, output, teacher=teacher, resume=running.resume, execution=running.execution(),
            callbacks=[progress], begins=progress.announce,
        )  # fmt: skip
    if leads():
        _print_family(family, as_json=as_json)


def _print_family(family: Family, *, as_json: bool) -> None:
    runs = ({"teacher": family.teacher} if family.teacher else {}) | family.students
    if as_json:
        print_json({name: training.outcome(run) for name, run in runs.items()})
        return
    for name, run in runs.items():
        how = "on labels alone" if run is family.teacher else "with the teacher"
        accuracy = f"test accuracy {run.test}" if run.test else f"validation {run.epochs[-1].validation_top1:.2%}"
        say(f"{name} ({run.model.arch.name}, {how}): {accuracy}")
        say(f"  {run.folder / 'report.html'}")
        training.tell_of_trouble(run)


def _own_recipe(model: str) -> Recipe:
    from ..recipes import RECIPES

    if model not in RECIPES:
        raise ZooError(f"--recipe own: there is no recipe {model!r}; choose one for all (`fbnetv3 recipe list`)")
    return RECIPES[model]
