"""``fbnetv3 validate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import first_few, printable
from .common import Json, Pretrained, open_classifier, print_json
from .option_groups import DataOptions, grouped
from .output import complain, console, say

if TYPE_CHECKING:
    from ..classify import Classifier
    from ..training import Dataset, Evaluation
    from ..training.class_matching import Order
    from ..training.data import Example
    from ..training.evaluation import ClassAccuracy, Floats, Predict


@dataclass(frozen=True, slots=True)
class MeasureOptions(DataOptions):
    """The images to measure on, and how they are read."""

    split: Annotated[
        Literal["all", "train", "validation", "val", "test"] | None,
        typer.Option(help="Split to evaluate (default: all of a folder without splits, else test or validation)."),
    ] = None
    seed: Annotated[
        int | None, typer.Option(help="Seed of the split into training, validation and test, if there is none.")
    ] = None
    subset: Annotated[
        Path | None, typer.Option(help="Evaluate only this part of the data, a file written by `fbnetv3 subset`.")
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size.")] = 64
    workers: Annotated[int, typer.Option(min=0, help="Number of processes that load images (0: only this one).")] = 0
    on_bad_image: Annotated[
        Literal["raise", "skip"], typer.Option(help="If an image cannot be read, fail, or skip and count it.")
    ] = "raise"

    def dataset(self) -> Dataset:
        """The data, split where a split that it has not is to be measured on."""
        from ..training import find_dataset

        seed = (0 if self.split in _DRAWN else None) if self.seed is None else self.seed
        return find_dataset(self.source, seed=seed, subset=self.subset, val_split=self.val_split)


@grouped
def validate(
    model: Annotated[
        str,
        typer.Argument(
            help="A .safetensors, .onnx, .ort, .xml, .pte, .param, .tflite or .mlpackage file, "
            "hf-hub:owner/name, or a name with --pretrained."
        ),
    ],
    *,
    pretrained: Pretrained = False,
    options: MeasureOptions,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Show the accuracy of each class, worst first.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Evaluate a model on labeled images: accuracy with 95 % intervals, and speed.

    Example: fbnetv3 validate demo/model.onnx digits --per-class
    """
    from ..training.data import SPLITS

    classifier = open_classifier(model, pretrained=pretrained)
    images = options.dataset()
    measured, examples = _chosen(images, options.split)
    seen = _tell_seen(classifier, examples, model)
    accuracy = _measured(classifier, examples, images.class_names, options, model=model)
    whole = sum(len(images[part]) for part in SPLITS)
    if as_json:
        source = {"model": model, "data": options.source, "split": measured, "images": whole}
        print_json({**source, **_plain(accuracy), "seen_in_training": seen})
        return
    say(f"{len(examples):,} of {whole:,} images of {printable(images.name)} ({measured})")
    _print_summary(measured, accuracy)
    if per_class:
        _print_classes(accuracy.per_class)


def _measured(
    classifier: Classifier, examples: Sequence[Example], class_names: Sequence[str], options: MeasureOptions, *,
    model: str,
) -> Evaluation:  # fmt: skip
    """The accuracy on ``examples``, whose classes are ``class_names``, in whatever order the network has them."""
    from ..training import OnBadImage, evaluate
    from ..training.class_matching import match_classes

    own = classifier.description.class_names
    order = match_classes(own, classifier.description.arch.num_classes, class_names, network=model, data=options.source)
    names = class_names if own is None else tuple(own[n] for n in order)
    with _counted(_in_order(classifier.logits, order), len(examples)) as predict:
        return evaluate(
            predict, examples, classifier.description.preprocess, class_names=names, batch_size=options.batch_size,
            workers=options.workers, on_bad_image=OnBadImage(options.on_bad_image),
        )  # fmt: skip


def _tell_seen(classifier: Classifier, examples: Sequence[Example], model: str) -> int | None:
    """Print how many of the training images that the model's file names are among ``examples``; None if unknown."""
    from ..training.data.seen import seen_among

    sample = classifier.description.trained_on
    if not sample:
        return None
    seen = seen_among(sample, examples)
    if seen:
        complain(
            f"warning: of {len(sample)} images that {model} was trained on, {seen} are among these {len(examples):,}, "
            "so that accuracy may be too good; measure on others (--split test, with the training's --seed)"
        )
    return seen


_DRAWN = ("train", "validation", "val", "test")
"""Splits that have to be drawn by seed if the data has none."""


def _chosen(images: Dataset, split: str | None) -> tuple[str, Sequence[Example]]:
    """The name and examples of the split to evaluate; by default all if there is only one, or no split."""
    from ..training.data import SPLITS, joined

    filled = [part for part in SPLITS if images[part]]
    if split == "all" or (split is None and filled == ["test"]):
        return "all", joined([images[part] for part in filled])
    part = next((name for name in SPLITS if name == ("validation" if split == "val" else split)), None)
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


def _plain(evaluation: Evaluation) -> dict[str, object]:
    rows = [{**asdict(row), "accuracy": row.fraction, "interval": row.interval} for row in evaluation.per_class]
    return {**evaluation.summary(), "skipped_images": evaluation.skipped, "per_class": rows}


def _print_summary(split: str, evaluation: Evaluation) -> None:
    from ..training.evaluation import FEW_CLASSES

    say(f"{split} accuracy {evaluation}")
    if len(evaluation.per_class) > FEW_CLASSES:
        low, high = evaluation.top5_interval
        right = f"{evaluation.top5} of {evaluation.total}"
        say(f"top-5 {evaluation.top5_fraction:.2%} ({right}; 95 % interval {low:.2%} to {high:.2%})")
    say(f"loss {evaluation.loss:.4f}")
    speed = f"{evaluation.images_per_second:,.1f} images/s"
    say(f"{speed} over the whole evaluation ({evaluation.seconds:.1f} s: reading, preprocessing, inference)")
    if evaluation.skipped:
        say(f"unreadable images left out: {len(evaluation.skipped)} ({first_few(evaluation.skipped)})")


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
