"""``fbnetv3 subset``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Json, output_file, print_json, target_of, written
from .output import say


def subset(
    data: Annotated[str, typer.Argument(help="The dataset to choose from, as for --data elsewhere.")],
    output: Annotated[
        Path | None, output_file("JSON file to write (default: subset.json).", "fbnetv3_zoo.subset")
    ] = None,
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 200,
    held_out: Annotated[int, typer.Option(help="Number of training images to hold out for validation.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the choice, and of the splits of data without any.")] = 0,
    as_json: Json = False,
) -> None:
    """Choose classes of a dataset, and training images to hold out, for a search.

    Example: fbnetv3 subset /data/imagenet --classes 200 --held-out 10000 --output subset.json
    """
    from ..training.data import SPLITS, choose_subset, find_dataset
    from ..utils.atomic_write import replacing
    from ..utils.paths import check_outside

    output = target_of(output, Path("subset.json"), "fbnetv3_zoo.subset")
    whole = find_dataset(data, seed=seed)
    check_outside(output, whole.root)
    chosen = choose_subset(whole, classes=classes, held_out=held_out, seed=seed)
    part = chosen.apply(whole)
    with replacing(output) as temporary:
        temporary.write_text(chosen.to_json() + "\n")
    counts = {split: len(part[split]) for split in SPLITS}
    if as_json:
        print_json({"file": output, "name": part.name, "classes": len(part.class_names), **counts})
        return
    say(f"{part.name}: {', '.join(f'{count:,} images for {split}' for split, count in counts.items())}")
    say(written(output))
