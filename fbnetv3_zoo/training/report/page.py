"""The report of a run: one HTML file that says what was trained, how, on what, and how well it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import harmonic_mean

from ...arch import Arch
from ...arch.cost import cost_of
from ...preprocess import Preprocess
from ...recipes import NAMED, Recipe
from ...report.environment import describe_machine
from ...report.page import Html, entries, facts, name, page, section, table, text, tiles, write_page
from ..callbacks import Epoch
from ..data import SPLITS, Dataset, Split
from ..evaluate import Evaluation
from ..execution import Execution
from .curves import curve_drawings
from .errors import classes, confusions, finite, mistakes, names_of

OF_A_RUN = ("epochs", "batch_size", "learning_rate", "ema_decay", "seed")
"""Values that change with the machine and the time there is; a recipe keeps its name with others."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a report tells. ``evaluation`` is of ``data[split]``; ``notes`` are lines of whatever else is to be said.

    ``bad_images`` are the keys of all images of the data that could not be used.
    """

    arch: Arch
    data: Dataset
    recipe: Recipe
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
    content = page(
        f"{report.arch.name} on {report.data.name}",
        _head(report),
        _curves(report.epochs),
        classes(report.evaluation),
        confusions(report.evaluation),
        mistakes(report.evaluation, report.data[report.split], report.preprocess),
        _recipe(report),
        section("Network", facts(_network(report))),
        section("Run", facts(_run(report))),
        section("Machine", facts(describe_machine())),
    )
    write_page(path, content)


def _head(report: Report) -> Html:
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    found, split = report.evaluation, report.split
    figures = (
        (f"Top-1 on {split}", f"{found.fraction:.2%}", _interval(found.interval)),
        (f"Top-5 on {split}", f"{found.top5_fraction:.2%}", _interval(found.top5_interval)),
        ("Images", f"{found.total:,}", f"{found.total - found.top1:,} answered wrong"),
        ("Loss", finite(found.loss, ".4f"), "mean cross entropy in nats"),
    )
    return Html(f'<p class="faint">A training run, {text(when)}</p>\n{tiles(figures)}{_notes(report)}')


def _interval(bounds: tuple[float, float]) -> str:
    return f"95 %: {bounds[0]:.2%} to {bounds[1]:.2%}"


def _notes(report: Report) -> Html:
    notes: list[object] = list(report.notes)
    if report.split != "test":
        notes.append(f"The figures are of the {report.split} images, which the training itself was watched with.")
    if skipped := report.evaluation.skipped:
        shown = names_of(skipped, most=10)
        notes.append(Html(f"Images that could not be read and were left out: {len(skipped):,} ({shown})."))
    return entries(notes) if notes else Html()


def _curves(epochs: Sequence[Epoch]) -> Html:
    if not epochs:
        return Html()
    drawings = curve_drawings([asdict(epoch) for epoch in epochs])
    return section("Training", Html(f'<div class="curves">{"".join(drawings.values())}</div>\n'))


def _recipe(report: Report) -> Html:
    values = {key: value for key, value in report.recipe.values().items() if value not in _ONE_KIND}
    sources = sources_of(report.recipe, arch=report.arch.name)
    if not sources:
        return section("Recipe", table(("field", "value"), [(key, _value(value)) for key, value in values.items()]))
    rows = [(key, _value(value), sources[key]) for key, value in values.items()]
    return section("Recipe", table(("field", "value", "source"), rows))


_ONE_KIND = ("Augmentation", "Distillation")  # their own values follow, and there is no other kind


def sources_of(recipe: Recipe, *, arch: str) -> dict[str, str]:
    """Where each value of a named recipe comes from, by field; nothing where ``recipe`` is not a named one.

    A named recipe stays one with other values of :data:`OF_A_RUN`, which are told as the run's own. Where several have
    the same values, the one named like ``arch`` is meant.
    """
    own = {field: getattr(recipe, field) for field in OF_A_RUN}
    for key in sorted(NAMED, key=lambda key: key != arch):
        named = NAMED[key]
        if recipe == replace(named.recipe, **own):
            given = named.recipe.values()
            return {
                field: named.source_of(field) if value == given[field] else "chosen for this run"
                for field, value in recipe.values().items()
            }
    return {}


def _value(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _network(report: Report) -> dict[str, object]:
    given, arch = report.preprocess, report.arch
    cost = cost_of(arch, resolution=given.resolution)
    side, means, deviations = given.resolution, _list(given.mean), _list(given.std)
    return {
        "Name": name(arch.name),
        "Parameters": f"{cost.parameters:,}",
        "MACs": f"{cost.macs:,} for one image",
        "Input": f"{arch.in_channels} x {side} x {side} (channels, height, width)",
        "Classes": f"{arch.num_classes:,}",
        "Preprocessing": f"shorter side to {given.resize} pixels ({given.interpolation.value}), centre crop of {side}; "
        f"values from 0 to 1, less {means}, divided by {deviations}",
    }


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _run(report: Report) -> dict[str, object]:
    found, execution = report.evaluation, report.execution
    seconds = sum(epoch.seconds for epoch in report.epochs)
    return {
        "Data": name(report.data.name),
        "Images": ", ".join(f"{split} {len(report.data[split]):,}" for split in SPLITS),
        "Epochs": len(report.epochs),
        "Training": f"{_duration(seconds)}, {_speed(report.epochs)} images/s while training",
        "Evaluation": f"{_duration(found.seconds)}, {found.images_per_second:,.0f} images/s with reading and preparing",
        "Images left out": _left_out(report.bad_images),
        "Processes": f"{report.processes}, each with {execution.workers} to prepare images",
        "Device": f"{execution.device}, {execution.precision.value}",
    }


def _left_out(keys: Sequence[str]) -> object:
    return Html(f"{len(keys):,} that cannot be read ({names_of(keys, most=10)})") if keys else "none"


def _speed(epochs: Sequence[Epoch]) -> str:
    rates = [epoch.images_per_second for epoch in epochs if epoch.images_per_second > 0]
    return f"{harmonic_mean(rates):,.0f}" if rates else "no"


def _duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
