"""The report of a differentiable search: one HTML file with what was found and how the choices came about."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from fbnetv3_zoo.arch.cost import cost_of
from fbnetv3_zoo.report.page import Html, facts, figures, name, page, paragraph, section, table, text, tiles, write_page
from fbnetv3_zoo.utils.serialization import to_plain

from ..report.arch_diagram import EXPLAINED, sketch
from ..report.formatting import amount, bounds, bounds_text, counted, value_of
from . import charts
from .result import SampledNetwork, SupernetResult


def write_report(record: SupernetResult, path: str | Path) -> None:
    """Write the report of ``record`` as the HTML file ``path``: nothing fetched, readable without a script.

    The same record gives the same bytes. Raises :class:`ZooError` where nothing can be written to ``path``.
    """
    parts = (_head, _found, _cost, _accuracy, _choices, _drawn, _how)
    content = page(f"Search {record.plan.name}", *(part(record) for part in parts))
    write_page(path, content)


def _head(record: SupernetResult) -> Html:
    plan, last = record.plan, record.epochs[-1]
    what = f"Space {name(plan.space.name)}, {plan.space.size:.3g} networks; data {name(record.data)}"
    line = Html(f'<p class="faint">{what}; seed {plan.recipe.seed}</p>\n')
    bound = "no target" if plan.target is None else f"target: {bounds_text((plan.target,))}"
    even = sum(1 / len(dimension) for dimension in plan.space.dimensions) / len(plan.space.dimensions)
    begin = f"choices are trained from epoch {plan.choice_epoch + 1} on"
    decided = f"mean of the largest probabilities; {even:.0%} before the search"
    shown = [
        ("Supernet", f"{last.validation_top1:.1%}", "validation accuracy, all choices weighted"),
        (f"Network found, {_cost_name(record)}", amount(record.found.cost), bound),
        ("Decided", f"{last.decided:.0%}", decided),
        ("Epochs", str(last.epoch), begin),
    ]
    return Html(line + tiles(shown))


def _cost_name(record: SupernetResult) -> str:
    return charts.COSTS[record.plan.cost]


def _found(record: SupernetResult) -> Html:
    arch, cost, file = record.arch, cost_of(record.arch), name(record.files[0].name)
    among = "of the space"
    if record.plan.target is not None:
        met = record.plan.target.contains(record.found.cost)
        among = "of those that meet the target" if met else "on one side of the target (none was found within it)"
    size = f"{arch.resolution} x {arch.resolution} pixels, {counted(arch.num_classes, 'output')}"
    said = Html(
        f"{name(arch.name)}, the most probable network {among}: {size}, {amount(cost.macs)} MACs, "
        f"{amount(cost.parameters)} parameters. Its choices stand below, under Choices."
    )
    train = Html(
        f"It has no weights of its own yet. Its file is <code>{file}</code> in the folder of the search; there, train "
        f"it from scratch with <code>fbnetv3 train --model {file} --data ... --output ...</code>"
    )
    drawn = f"{EXPLAINED} Where skip is chosen, the bar has kernel 1 and no expansion."
    shown = Html(f'<div class="wide">{sketch(arch)}</div>\n')
    return section("The network found", paragraph(said), shown, paragraph(drawn), paragraph(train))


def _cost(record: SupernetResult) -> Html:
    plan, last = record.plan, record.epochs[-1]
    said = (
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
        rows.append((Html(f"target: {bounds((plan.target,))}"), amount(plan.target.at_most)))
    listed = table(("", _cost_name(record)), rows, numbers=(1,))
    return section("Cost against target", figures([(charts.cost_by_epoch(record), "Cost by epoch.", said)], listed))


def _accuracy(record: SupernetResult) -> Html:
    accuracy = (
        "Of the supernet with all values of a choice at once, weighted by the softmax at the epoch's temperature. It "
        "does not tell what the network found will reach."
    )
    losses = (
        "Training: on the images for the weights, choices weighted with Gumbel noise. Validation: without noise, so "
        "that the two are not to be compared."
    )
    temperature = "Of the Gumbel softmax: the lower, the closer a training step comes to a single network."
    return section(
        "Accuracy",
        figures(
            [
                (charts.accuracy_by_epoch(record), "Accuracy.", accuracy),
                (charts.losses_by_epoch(record), "Losses.", losses),
                (charts.temperature_by_epoch(record), "Temperature.", temperature),
                (charts.rate_by_epoch(record), "Learning rate.", "Of the weights, at the end of each epoch."),
            ]
        ),
    )


def _choices(record: SupernetResult) -> Html:
    dotted = "Until the dotted line choices are not trained. " if record.plan.choice_epoch else ""
    said = paragraph(
        "Each band is the probability of one value by epoch, the first value at the bottom; values that end above "
        f"{charts.NAMED:g} are named. {dotted}The solid band is the value of the network found. Below each chart "
        "stands the value that is most probable at the end, with its probability. Probabilities say what the search "
        "prefers under its loss, not which value makes the better network."
    )
    return section("Choices", said, *_bands(record), _final(record))


def _bands(record: SupernetResult) -> list[Html]:
    """A chart a dimension; those of a layer in a row of their own where layers have several."""
    dimensions = record.plan.space.dimensions
    owners = [dimension.name.partition(".")[0] for dimension in dimensions]
    apart = max(Counter(owners).values()) > 1
    groups: dict[str, list[str]] = {}
    for n, owner in enumerate(owners):
        value, probability = _most_probable(record, n)
        caption = f"<b>{name(dimensions[n].name)}</b> {value}, {probability:.2f}"
        drawn = f"<figure>{charts.probabilities_by_epoch(record, n)}<figcaption>{caption}</figcaption></figure>\n"
        groups.setdefault(owner if apart else "", []).append(drawn)
    titles = {owner: f"<h3>{text(owner.replace('layer', 'layer ').capitalize())}</h3>\n" for owner in groups if owner}
    return [Html(f'{titles.get(owner, "")}<div class="curves few">{"".join(drawn)}</div>\n')
            for owner, drawn in groups.items()]  # fmt: skip


def _most_probable(record: SupernetResult, number: int) -> tuple[Html, float]:
    """The value of dimension ``number`` that is most probable at the end, and its probability."""
    probabilities = record.epochs[-1].probabilities[number]
    return _value(record, number, probabilities.index(max(probabilities))), max(probabilities)


def _value(record: SupernetResult, number: int, place: int) -> Html:
    return name(value_of(record.plan.space.dimensions[number].options.values[place]))


def _final(record: SupernetResult) -> Html:
    """Probabilities at the end, a line a dimension: of the value found, and of the most probable other one."""
    rows = []
    for n, (dimension, chosen) in enumerate(zip(record.plan.space.dimensions, record.found.code, strict=True)):
        of = record.epochs[-1].probabilities[n]
        other = max((place for place in range(len(of)) if place != chosen), key=lambda place: of[place])
        shown = [(_breakable(_value(record, n, place)), f"{of[place]:.2f}") for place in (chosen, other)]
        rows.append((_breakable(name(dimension.name)), *shown[0], *shown[1]))
    said = paragraph("P is the probability of the value of the network found, and of the most probable other value.")
    head = ("choice", "found", "P", "best other", "P")
    return Html(f"<h3>Probabilities at the end</h3>\n{said}{table(head, rows, numbers=(2, 4))}")


def _breakable(found: Html) -> Html:
    """A name that may go on in a new line after each of its parts."""
    return Html(re.sub(r"(?<=[._])(?=[a-z])", "<wbr/>", found))


def _drawn(record: SupernetResult) -> Html:
    bound = "" if record.plan.target is None else " among those that meet the target"
    others = f"{counted(len(record.drawn), 'other')} drawn by the probabilities{bound}" if record.drawn else "no others"
    said = (
        f"The network found, and {others}. P is a network's probability, the logarithm in nats; accuracy is on the "
        "validation images, with the weights that the supernet has for the network; the last column counts the choices "
        "that are not those of the network found."
    )
    warning = Html(
        "<b>Shared weights rank networks badly</b>: they were trained for mixtures of all networks, and the statistics "
        "of their norms are those of the mixtures. Do not choose by this accuracy, high or low; train networks from "
        "scratch to compare them."
    )
    rows = [_row(record, "found", record.found)]
    rows += [_row(record, f"drawn {n}", one) for n, one in enumerate(record.drawn, start=1)]
    listed = table(("network", "log P", _cost_name(record), "accuracy", "unlike"), rows, numbers=(1, 2, 3, 4))
    return section("Drawn networks", paragraph(said), listed, paragraph(warning), _free(record))


def _free(record: SupernetResult) -> Html:
    """What the target has changed."""
    if record.plan.target is None:
        return Html()
    unlike = _unlike(record.epochs[-1].code, record.found.code)
    are = f"differs in {counted(unlike, 'choice')}" if unlike else "is the same"
    return paragraph(f"Without the target, the most probable network {are}.")


def _unlike(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


def _row(record: SupernetResult, title: str, one: SampledNetwork) -> tuple[object, ...]:
    unlike = _unlike(one.code, record.found.code)
    return title, f"{one.log_probability:.2f}", amount(one.cost), f"{one.accuracy:.1%}", unlike


def _how(record: SupernetResult) -> Html:
    plan, space = record.plan, record.plan.space
    seconds = sum(epoch.seconds for epoch in record.epochs)
    told: dict[str, object] = {
        "Plan": name(plan.name),
        "Space": Html(
            f"{name(space.name)}: {counted(len(space.layers), 'layer')}, {counted(len(space.dimensions), 'choice')}, "
            f"{space.size:.3g} networks"
        ),
        "Cost": _cost_name(record),
        "Loss of the choices": _told(plan.loss),
        "Target": "none" if plan.target is None else bounds((plan.target,)),
        "Temperature": f"{plan.temperature:g} x exp(-{plan.cooling:g} x epoch), epochs from 0",
        "Choices": f"Adam at {plan.choice_rate:g}, decay {plan.choice_decay:g}, from epoch {plan.choice_epoch + 1} on",
        "Images": f"{plan.choice_share:.0%} of the training images for the choices, the others for the weights",
        "Networks drawn": f"{len(record.drawn)} of {plan.draws} asked for",
        "Time": f"{seconds / 60:.3g} minutes" if seconds >= 60 else f"{seconds:.3g} seconds",
    }
    recipe = {field.name: _told(getattr(plan.recipe, field.name)) for field in fields(plan.recipe)}
    parts = (Html("<h3>Plan</h3>\n"), facts(told), Html("<h3>Recipe of the weights</h3>\n"), facts(recipe))
    return section("How", *parts)


def _told(value: Any) -> str:
    """A field of plan or recipe; of a value with fields of its own, all of them."""
    if not is_dataclass(value):
        return "none" if value is None else value_of(to_plain(value))
    inside = ", ".join(f"{field.name} {_told(getattr(value, field.name))}" for field in fields(value))
    return type(value).__name__ + (f" ({inside})" if inside else "")
