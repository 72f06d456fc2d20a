"""The report of a differentiable search: one HTML file with what was found and how the choices came about."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.errors import counted
from fbnetv3_zoo.report.charts import chart
from fbnetv3_zoo.report.page import Figure, name, write_page
from fbnetv3_zoo.utils.serialization import to_plain

from ..report.arch_diagram import EXPLAINED, sketch
from ..report.formatting import amount, bounds, bounds_text, value_of
from . import charts
from .result import SampledNetwork, SupernetResult


def write_report(record: SupernetResult, path: str | Path) -> None:
    """Write the report of ``record`` as the HTML file ``path``: nothing fetched, readable without a script.

    The same record gives the same bytes. Raises :class:`ZooError` where nothing can be written to ``path``.
    """
    plan = record.plan
    write_page(
        path,
        __package__,
        "supernet.html.jinja",
        title=f"Search {plan.name}",
        space=plan.space,
        data=record.data,
        seed=plan.recipe.seed,
        tiles=_tiles(record),
        network=_network(record),
        diagram_explained=EXPLAINED,
        cost=_cost(record),
        accuracy=_accuracy(record),
        least_named=charts.NAMED,
        choice_epoch=plan.choice_epoch,
        bands_by_layer=_bands(record),
        final=_final(record),
        drawn=_drawn(record),
        plan=_plan(record),
        recipe={field.name: _shown(getattr(plan.recipe, field.name)) for field in fields(plan.recipe)},
    )


def _tiles(record: SupernetResult) -> list[tuple[str, str, str]]:
    plan, last = record.plan, record.epochs[-1]
    bound = "no target" if plan.target is None else f"target: {bounds_text((plan.target,))}"
    even = sum(1 / len(dimension) for dimension in plan.space.dimensions) / len(plan.space.dimensions)
    return [
        ("Supernet", f"{last.validation_top1:.1%}", "validation accuracy, all choices weighted"),
        (f"Network found, {_cost_name(record)}", amount(record.found.cost), bound),
        ("Decided", f"{last.decided:.0%}", f"mean of the largest probabilities; {even:.0%} before the search"),
        ("Epochs", str(last.epoch), f"choices are trained from epoch {plan.choice_epoch + 1} on"),
    ]


def _cost_name(record: SupernetResult) -> str:
    return charts.COSTS[record.plan.cost]


def _network(record: SupernetResult) -> dict[str, object]:
    """The network found."""
    arch, cost = record.arch, arch_cost(record.arch)
    among = "of the space"
    if record.plan.target is not None:
        met = record.plan.target.contains(record.found.cost)
        among = "of those that meet the target" if met else "on one side of the target (none was found within it)"
    return {
        "name": arch.name,
        "among": among,
        "size": f"{arch.resolution} x {arch.resolution} pixels, {counted(arch.num_classes, 'output')}",
        "macs": amount(cost.macs),
        "parameters": amount(cost.parameters),
        "diagram": sketch(arch),
        "file": record.files[0].name,
    }


def _cost(record: SupernetResult) -> dict[str, object]:
    plan, last = record.plan, record.epochs[-1]
    caption = (
        "Expected: the mean over networks whose choices are drawn independently, each by its probabilities; single "
        "networks may cost far more or less. Most probable: the network of the most probable value of every choice, "
        "shown once choices are trained; it need not meet a target. The network found is chosen by the last "
        "probabilities" + (" under the target." if plan.target is not None else "; there is no target.")
    )
    rows: list[tuple[object, object]] = [
        ("expected, last epoch", amount(last.cost)),
        ("most probable network, last epoch", amount(last.likeliest)),
        ("network found", amount(record.found.cost)),
    ]
    if plan.target is not None:
        rows.append((Markup("target: {}").format(bounds((plan.target,))), amount(plan.target.at_most)))
    figure = (chart("cost by epoch", charts.cost_by_epoch, record), "Cost by epoch.", caption)
    return {"name": _cost_name(record), "figure": figure, "rows": rows}


def _accuracy(record: SupernetResult) -> list[Figure]:
    accuracy = (
        "Of the supernet with all values of a choice at once, weighted by the softmax at the epoch's temperature. It "
        "does not tell what the network found will reach."
    )
    losses = (
        "Training: on the images for the weights, choices weighted with Gumbel noise. Validation: without noise, so "
        "that the two are not to be compared."
    )
    temperature = "Of the Gumbel softmax: the lower, the closer a training step comes to a single network."
    rate = "Of the weights, at the end of each epoch."
    epochs = record.epochs

    def drawn(title: str, values: Sequence[float], unit: str, top: float | None = None) -> Markup:
        return chart(f"{title} by epoch", charts.figure_by_epoch, record, values, unit, top)

    return [
        (drawn("accuracy", [100 * epoch.validation_top1 for epoch in epochs], "validation accuracy (%)", 102),
         "Accuracy.", accuracy),
        (chart("losses by epoch", charts.losses_by_epoch, record), "Losses.", losses),
        (drawn("temperature", [epoch.temperature for epoch in epochs], "temperature"), "Temperature.", temperature),
        (drawn("learning rate", [epoch.learning_rate for epoch in epochs], "learning rate of the weights"),
         "Learning rate.", rate),
    ]  # fmt: skip


def _bands(record: SupernetResult) -> dict[str, list[dict[str, object]]]:
    """A chart a dimension; those of a layer under a title of their own where layers have several."""
    dimensions = record.plan.space.dimensions
    owners = [dimension.name.partition(".")[0] for dimension in dimensions]
    apart = max(Counter(owners).values()) > 1
    groups: dict[str, list[dict[str, object]]] = {}
    for n, owner in enumerate(owners):
        probabilities = record.epochs[-1].probabilities[n]
        likeliest = probabilities.index(max(probabilities))
        title = owner.replace("layer", "layer ").capitalize() if apart else ""
        groups.setdefault(title, []).append({
            "chart": charts.probabilities_by_epoch(record, n),
            "name": dimensions[n].name,
            "value": _value(record, n, likeliest),
            "probability": probabilities[likeliest],
        })  # fmt: skip
    return groups


def _value(record: SupernetResult, number: int, index: int) -> str:
    return value_of(record.plan.space.dimensions[number].options.values[index])


def _final(record: SupernetResult) -> list[tuple[object, ...]]:
    """Probabilities at the end, a line a dimension: of the value found, and of the most probable other one."""
    rows: list[tuple[object, ...]] = []
    for n, (dimension, chosen) in enumerate(zip(record.plan.space.dimensions, record.found.code, strict=True)):
        probabilities = record.epochs[-1].probabilities[n]
        other = max((i for i in range(len(probabilities)) if i != chosen), key=lambda i: probabilities[i])
        pairs = [(_breakable(_value(record, n, i)), f"{probabilities[i]:.2f}") for i in (chosen, other)]
        rows.append((_breakable(dimension.name), *pairs[0], *pairs[1]))
    return rows


def _breakable(value: str) -> Markup:
    """A name that may go on in a new line after each of its parts."""
    return Markup(re.sub(r"(?<=[._])(?=[a-z])", "<wbr/>", name(value)))


def _drawn(record: SupernetResult) -> dict[str, object]:
    bound = "" if record.plan.target is None else " among those that meet the target"
    others = f"{counted(len(record.drawn), 'other')} drawn by the probabilities{bound}" if record.drawn else "no others"
    networks = {"found": record.found, **{f"drawn {n}": one for n, one in enumerate(record.drawn, start=1)}}
    unlike = _unlike(record.epochs[-1].code, record.found.code)
    difference = f"differs in {counted(unlike, 'choice')}" if unlike else "is the same"
    return {
        "others": others,
        "rows": [_row(record, title, network) for title, network in networks.items()],
        "without_target": difference if record.plan.target is not None else "",
    }


def _unlike(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


def _row(record: SupernetResult, title: str, network: SampledNetwork) -> tuple[object, ...]:
    unlike = _unlike(network.code, record.found.code)
    return title, f"{network.log_probability:.2f}", amount(network.cost), f"{network.accuracy:.1%}", unlike


def _plan(record: SupernetResult) -> dict[str, object]:
    plan, space = record.plan, record.plan.space
    seconds = sum(epoch.seconds for epoch in record.epochs)
    return {
        "Plan": name(plan.name),
        "Space": Markup("{}: {}, {}, {:.3g} networks").format(
            name(space.name),
            counted(len(space.layers), "layer"),
            counted(len(space.dimensions), "choice"),
            space.count(),
        ),
        "Cost": _cost_name(record),
        "Loss of the choices": _shown(plan.loss),
        "Target": "none" if plan.target is None else bounds((plan.target,)),
        "Temperature": f"{plan.temperature:g} x exp(-{plan.cooling:g} x epoch), epochs from 0",
        "Choices": f"Adam at {plan.choice_rate:g}, decay {plan.choice_decay:g}, from epoch {plan.choice_epoch + 1} on",
        "Images": f"{plan.choice_share:.0%} of the training images for the choices, the others for the weights",
        "Networks drawn": f"{len(record.drawn)} of {plan.draws} asked for",
        "Time": f"{seconds / 60:.3g} minutes" if seconds >= 60 else f"{seconds:.3g} seconds",
    }


def _shown(value: Any) -> str:
    """A field of plan or recipe; of a value with fields of its own, all of them."""
    if not is_dataclass(value):
        return "none" if value is None else value_of(to_plain(value))
    inside = ", ".join(f"{field.name} {_shown(getattr(value, field.name))}" for field in fields(value))
    return type(value).__name__ + (f" ({inside})" if inside else "")
