"""``fbnetv3 validate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import first_few, printable
from .common import DataSource, Json, Pretrained, open_classifier, print_json
from .output import console, say

if TYPE_CHECKING:
    from ..training import Dataset, Evaluation
    from ..training.class_matching import Order
    from ..training.data import Example
    from ..training.evaluate import ClassAccuracy, Floats, Predict


def validate(
    model: Annotated[
        str,
        typer.Argument(
            help="A .safetensors, .onnx, .ort, .xml or .pte file, hf-hub:owner/name, or a name with --pretrained."
        ),
    ],
    pretrained: Pretrained = False,
    data: DataSource = "digits",
    split: Annotated[
        Literal["all", "train", "validation", "test"] | None,
        typer.Option(help="Split to evaluate (default: all of a folder without splits, else test or validation)."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the split into training, validation and test, if there is none.")
    ] = None,
    subset: Annotated[
        Path | None, typer.Option(help="Evaluate only this part of the data, a file written by `fbnetv3 subset`.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Number of processes that load images (0: only this one).")] = 0,
    on_bad_image: Annotated[
        Literal["raise", "skip"], typer.Option(help="If an image cannot be read, fail, or skip and count it.")
    ] = "raise",
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Show the accuracy of each class, worst first.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Evaluate a model on labelled images: accuracy with 95 % intervals, and speed.

    Example: fbnetv3 validate demo/model.onnx --data digits --per-class
    """
    from ..training import OnBadImage, evaluate, find_dataset
    from ..training.class_matching import match_classes
    from ..training.data import SPLITS

    classifier = open_classifier(model, pretrained=pretrained)
    images = find_dataset(data, seed=(0 if split in _DRAWN else None) if seed is None else seed, subset=subset)
    measured, examples = _chosen(images, split)
    order = match_classes(
        classifier.description.class_names, classifier.description.arch.num_classes, images.class_names,
        network=model, data=data,
    )  # fmt: skip
    own = classifier.description.class_names
    names = images.class_names if own is None else tuple(own[n] for n in order)
    with _counted(_in_order(classifier.logits, order), len(examples)) as predict:
        found = evaluate(
            predict, examples, classifier.description.preprocess, class_names=names, batch_size=batch_size,
            workers=workers, on_bad_image=OnBadImage(on_bad_image),
        )  # fmt: skip
    whole = sum(len(images[part]) for part in SPLITS)
    if as_json:
        print_json({"model": model, "data": data, "split": measured, "images": whole, **_plain(found)})
        return
    say(f"{len(examples):,} of {whole:,} images ({measured})")
    _print_summary(measured, found)
    if per_class:
        _print_classes(found.per_class)


_DRAWN = ("train", "validation", "test")
"""Splits that have to be drawn by seed if the data has none."""


def _chosen(images: Dataset, split: str | None) -> tuple[str, Sequence[Example]]:
    """The name and examples of the split to evaluate; by default all if there is only one, or no split."""
    from ..training.data import SPLITS, joined

    filled = [part for part in SPLITS if images[part]]
    if split == "all" or (split is None and filled == ["test"]):
        return "all", joined([images[part] for part in filled])
    part = next((name for name in SPLITS if name == split), None)
    part = part or ("test" if "test" in filled else "validation" if "validation" in filled else "train")
    return part, images[part]


def _in_order(predict: Predict, order: Order) -> Predict:
    """``predict`` with the classes in this order."""
    if list(order) == sorted(order):
        return predict
    return lambda images: predict(images)[:, order]


@contextmanager
def _counted(predict: Predict, total: int) -> Iterator[Predict]:
    """``predict`` with a progress bar that counts images."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    screen = console()
    columns = ("images", MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    silent = not screen.is_terminal
    with Progress(  # refreshed from this thread: processes are forked meanwhile, and threads do not survive that
        *columns, console=screen, disable=silent, transient=True, auto_refresh=False
    ) as progress:
        task = progress.add_task("", total=total)

        def counting(images: Floats) -> Floats:
            logits = predict(images)
            progress.update(task, advance=len(images), refresh=True)
            return logits

        yield counting


def _plain(found: Evaluation) -> dict[str, object]:
    rows = [{**asdict(row), "accuracy": row.fraction, "interval": row.interval} for row in found.per_class]
    return {**found.summary(), "skipped_images": found.skipped, "per_class": rows}


def _print_summary(split: str, found: Evaluation) -> None:
    low, high = found.top5_interval
    say(f"{split} accuracy {found}")
    say(f"top-5 {found.top5_fraction:.2%} ({found.top5} of {found.total}; 95 % interval {low:.2%} to {high:.2%})")
    say(f"loss {found.loss:.4f}")
    speed = f"{found.images_per_second:,.1f} images/s"
    say(f"{speed} over the whole evaluation ({found.seconds:.1f} s: reading, preprocessing, inference)")
    if found.skipped:
        say(f"unreadable images left out: {len(found.skipped)} ({first_few(found.skipped)})")


def _print_classes(rows: tuple[ClassAccuracy, ...]) -> None:
    from rich.cells import cell_len

    from ..training.report.errors import worst_first

    names = {row.name: printable(row.name) for row in rows}
    width = max(5, *map(cell_len, names.values()))
    say("", f"{'class':{width}}  images  right  accuracy  95 % interval")
    for row in worst_first(rows):
        accuracy = "-" if row.fraction is None else f"{row.fraction:.2%}"
        low, high = row.interval
        label = names[row.name] + " " * (width - cell_len(names[row.name]))
        say(f"{label}  {row.images:>6}  {row.right:>5}  {accuracy:>8}  {low:.2%} to {high:.2%}")
