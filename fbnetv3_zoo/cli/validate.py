"""``fbnetv3 validate``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fbnetv3_zoo.cli.common import DataSource, Json, Pretrained, Seed, open_classifier, print_json, some_of
from fbnetv3_zoo.cli.output import console, say
from fbnetv3_zoo.errors import ZooError, printable

if TYPE_CHECKING:
    from fbnetv3_zoo.description import Description
    from fbnetv3_zoo.training import Dataset, Evaluation
    from fbnetv3_zoo.training.evaluate import ClassAccuracy, Floats, Predict


def validate(
    model: Annotated[
        str,
        typer.Argument(
            help="A .safetensors, .onnx, .ort, .xml or .pte file, hf-hub:owner/name, or a name with --pretrained."
        ),
    ],
    pretrained: Pretrained = False,
    data: DataSource = "digits",
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Images to measure on.")] = "test",
    seed: Seed = 0,
    subset: Annotated[
        Path | None, typer.Option(help="Measure on this part of the data only, a file of `fbnetv3 subset`.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare images (0: none beside this one).")] = 0,
    on_bad_image: Annotated[
        Literal["raise", "skip"], typer.Option(help="Where an image cannot be read: end, or leave it out and count it.")
    ] = "raise",
    per_class: Annotated[bool, typer.Option("--per-class", help="Show every class, the worst first.")] = False,
    as_json: Json = False,
) -> None:
    """Measure a model's accuracy on labelled images, with 95 % intervals, and how fast it is answered.

    Example: fbnetv3 validate demo/model.onnx --data digits --per-class
    """
    from fbnetv3_zoo.training import OnBadImage, evaluate, find_dataset

    classifier = open_classifier(model, pretrained=pretrained)
    images = find_dataset(data, seed=seed, subset=subset)
    names = _shared_names(model, classifier.description, data, images)
    with _counted(classifier.logits, len(images[split])) as predict:
        found = evaluate(
            predict, images[split], classifier.description.preprocess, class_names=names, batch_size=batch_size,
            workers=workers, on_bad_image=OnBadImage(on_bad_image),
        )  # fmt: skip
    if as_json:
        print_json({"model": model, "data": data, "split": split, **_plain(found)})
        return
    _print_summary(split, found)
    if per_class:
        _print_classes(found.per_class)


@contextmanager
def _counted(predict: Predict, total: int) -> Iterator[Predict]:
    """``predict`` with a bar on the terminal that counts the images answered."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    screen = console()
    columns = ("images", MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    silent = not screen.is_terminal
    with Progress(  # refreshed from here: processes are forked meanwhile, and threads do not survive that
        *columns, console=screen, disable=silent, transient=True, auto_refresh=False
    ) as progress:
        task = progress.add_task("", total=total)

        def counting(images: Floats) -> Floats:
            logits = predict(images)
            progress.update(task, advance=len(images), refresh=True)
            return logits

        yield counting


def _shared_names(model: str, description: Description, data: str, images: Dataset) -> tuple[str, ...]:
    """The names of the classes that network and data agree on."""
    names, count = description.class_names, description.arch.num_classes
    if names is not None and names != images.class_names and not _named_by_wordnet(names, images.class_names):
        raise ZooError(f"{model}: tells apart {some_of(names)}; {data} has {some_of(images.class_names)}")
    if count != len(images.class_names):
        raise ZooError(f"{model}: tells {count} classes apart; {data} has {len(images.class_names)}")
    return names or images.class_names


def _named_by_wordnet(names: tuple[str, ...], folders: tuple[str, ...]) -> bool:
    """Whether ``folders`` are ImageNet's, whose sorted numbers are in the order of the class ``names``."""
    numbered = all(re.fullmatch(r"n\d{8}", folder) for folder in folders) and sorted(folders) == list(folders)
    return numbered and len(names) == len(folders) == 1000 and names[0] == "tench"


def _plain(found: Evaluation) -> dict[str, object]:
    rows = [{**asdict(row), "accuracy": row.fraction, "interval": row.interval} for row in found.per_class]
    return {**found.summary(), "skipped_images": found.skipped, "per_class": rows}


def _print_summary(split: str, found: Evaluation) -> None:
    low, high = found.top5_interval
    say(f"{split} accuracy {found}")
    say(f"top-5 {found.top5_fraction:.2%} ({found.top5} of {found.total}; 95 % interval {low:.2%} to {high:.2%})")
    say(f"loss {found.loss:.4f}")
    speed = f"{found.images_per_second:,.1f} images/s"
    say(f"{speed} over the whole evaluation ({found.seconds:.1f} s: reading, preparing, answering)")
    if found.skipped:
        shown = ", ".join(map(printable, found.skipped[:5]))
        say(f"left out, as they cannot be read: {len(found.skipped)} ({shown}{_more(len(found.skipped) - 5)})")


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _print_classes(rows: tuple[ClassAccuracy, ...]) -> None:
    from rich.cells import cell_len

    from fbnetv3_zoo.training.answers import worst_first

    names = {row.name: printable(row.name) for row in rows}
    width = max(5, *map(cell_len, names.values()))
    say("", f"{'class':{width}}  images  right  accuracy  95 % interval")
    for row in worst_first(rows):
        accuracy = "-" if row.fraction is None else f"{row.fraction:.2%}"
        low, high = row.interval
        label = names[row.name] + " " * (width - cell_len(names[row.name]))
        say(f"{label}  {row.images:>6}  {row.right:>5}  {accuracy:>8}  {low:.2%} to {high:.2%}")
