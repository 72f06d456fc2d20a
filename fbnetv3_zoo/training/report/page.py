"""The report of a run: one HTML file that says what was trained, how, on what, and how well it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import harmonic_mean
from typing import Protocol

from markupsafe import Markup

from ...arch.torchvision_arch import AnyArch
from ...models.size import size_of
from ...preprocess import Preprocess
from ...recipes import RecipePreset
from ...report.environment import describe_machine
from ...report.page import name, names, write_page
from ...utils.durations import duration
from ..callbacks import Epoch
from ..data import SPLITS, Dataset, Split
from ..evaluation import FEW_CLASSES, Evaluation
from ..execution import Execution
from .curves import curve_charts
from .errors import errors_of, finite


@dataclass(frozen=True, slots=True)
class Report:
    """What a report tells. ``evaluation`` is of ``data[split]``; ``notes`` are lines of whatever else is to be said.

    ``bad_images`` are the keys of all images of the data that could not be used.
    """

    arch: AnyArch
    data: Dataset
    recipe: RecipePreset
    preprocess: Preprocess
    epochs: Sequence[Epoch]
    split: Split
    evaluation: Evaluation
    execution: Execution
    processes: int = 1
    notes: Sequence[str] = ()
    bad_images: Sequence[str] = ()


def write_report(path: str | Path, report: Report) -> None:
    """Write ``report`` as the HTML file ``path``: pictures within it, nothing fetched, readable without a script."""
    sources = report.recipe.all_sources
    write_page(
        path,
        __package__,
        "training.html.jinja",
        title=f"{report.arch.name} on {report.data.name}",
        when=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        tiles=_tiles(report),
        notes=_notes(report),
        curves=curve_charts([asdict(epoch) for epoch in report.epochs]) if report.epochs else {},
        **errors_of(report.evaluation, report.data[report.split], report.preprocess),
        has_sources=bool(sources),
        recipe=_recipe(report.recipe),
        network=_network(report),
        run=_run(report),
        machine=describe_machine(),
    )


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    evaluation, split = report.evaluation, report.split
    top5 = (f"Top-5 on {split}", f"{evaluation.top5_fraction:.2%}", _interval(evaluation.top5_interval))
    return [
        (f"Top-1 on {split}", f"{evaluation.fraction:.2%}", _interval(evaluation.interval)),
        *([top5] if len(report.data.class_names) > FEW_CLASSES else []),
        ("Images", f"{evaluation.total:,}", f"{evaluation.total - evaluation.top1:,} answered wrong"),
        ("Loss", finite(evaluation.loss, ".4f"), "mean cross entropy in nats"),
    ]


def _interval(bounds: tuple[float, float]) -> str:
    return f"95 %: {bounds[0]:.2%} to {bounds[1]:.2%}"


def _notes(report: Report) -> list[str]:
    notes = list(report.notes)
    if report.split != "test":
        notes.append(f"The figures are of the {report.split} images, which the training itself was watched with.")
    if skipped := report.evaluation.skipped:
        line = Markup("Images that could not be read and were left out: {:,} ({}).")
        notes.append(line.format(len(skipped), names(skipped, 10)))
    return notes


def _recipe(preset: RecipePreset) -> list[tuple[str, ...]]:
    """Fields of the recipe with their values, and the sources of these where there are any."""
    values = {key: _value(value) for key, value in preset.recipe.values().items() if value not in _ONE_KIND}
    sources = preset.all_sources
    return [(key, value, sources[key]) if sources else (key, value) for key, value in values.items()]


_ONE_KIND = ("Augmentation", "Distillation")  # their own values follow, and there is no other kind


def _value(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _network(report: Report) -> dict[str, object]:
    given, arch = report.preprocess, report.arch
    cost = size_of(arch, resolution=given.resolution)
    side, means, deviations = given.resolution, _list(given.mean), _list(given.std)
    return {
        "Name": name(arch.name),
        "Parameters": f"{cost.parameters:,}",
        "MACs": f"{cost.macs:,} for one image",
        "Input": f"{arch.in_channels} x {side} x {side} (channels, height, width)",
        "Classes": f"{arch.num_classes:,}",
        "Preprocessing": f"shorter side to {given.resize} pixels ({given.interpolation.value}), center crop of {side}; "
        f"values from 0 to 1, less {means}, divided by {deviations}",
    }


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _run(report: Report) -> dict[str, object]:
    evaluation, execution = report.evaluation, report.execution
    seconds = sum(epoch.seconds for epoch in report.epochs)
    return {
        "Data": name(report.data.name),
        "Images": ", ".join(f"{split} {len(report.data[split]):,}" for split in SPLITS),
        "Epochs": len(report.epochs),
        "Training": f"{duration(seconds)}, {speed(report.epochs)} images/s while training",
        "Evaluation": f"{duration(evaluation.seconds)}, {evaluation.images_per_second:,.0f} images/s with reading and "
        "preparing",
        "Images left out": _left_out(report.bad_images),
        "Processes": f"{report.processes}, each with {execution.workers} to prepare images",
        "Device": f"{execution.device}, {execution.precision.value}",
    }


def _left_out(keys: Sequence[str]) -> object:
    return Markup("{:,} that cannot be read ({})").format(len(keys), names(keys, 10)) if keys else "none"


class _Timed(Protocol):
    @property
    def images_per_second(self) -> float: ...


def speed(epochs: Sequence[_Timed]) -> str:
    """The mean speed of training in images per second; "no" if it was not measured."""
    rates = [epoch.images_per_second for epoch in epochs if epoch.images_per_second > 0]
    return f"{harmonic_mean(rates):,.0f}" if rates else "no"
