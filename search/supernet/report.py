"""The report of a differentiable search: one HTML file with what was found and how the choices came about."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from fbnetv3_zoo.atomic import replacing
from fbnetv3_zoo.cost import cost_of
from fbnetv3_zoo.plain import to_plain
from fbnetv3_zoo.search.report_words import amount
from fbnetv3_zoo.search.sketch import sketch
from fbnetv3_zoo.search.supernet import charts
from fbnetv3_zoo.search.supernet.record import Drawn, SupernetRecord
from fbnetv3_zoo.training.page import Html, facts, figures, name, page, paragraph, section, table, tiles


def write_report(record: SupernetRecord, path: str | Path) -> None:
    """Write the report of ``record`` as the HTML file ``path``: nothing fetched, readable without a script.

    The same record gives the same bytes. Raises :class:`ZooError` where nothing can be written to ``path``.
    """
    parts = (_head(record), _found(record), _course(record), _choices(record), _drawn(record), _how(record))
    content = page(f"Search {record.plan.name}", *parts)
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode("utf-8", "backslashreplace"))


def _head(record: SupernetRecord) -> Html:
    plan, last = record.plan, record.epochs[-1]
    told = f"Space {name(plan.space.name)}, {plan.space.size:.3g} points; data {name(record.data)}; "
    line = Html(f'<p class="faint">{told}seed {plan.recipe.seed}</p>\n')
    bound = "no target" if plan.target is None else f"target {plan.target}"
    decided = float(np.mean([max(of) for of in last.probabilities]))
    return Html(
        line
        + tiles(
            [
                (f"Found, {plan.cost}", amount(record.found.cost), bound),
                ("Supernet", f"{last.validation_top1:.1%}", "validation accuracy, all choices weighted"),
                ("Decided", f"{decided:.0%}", "mean of the largest probabilities"),
                ("Epochs", str(last.epoch), f"choices are trained from epoch {plan.choice_epoch + 1} on"),
            ]
        )
    )


def _found(record: SupernetRecord) -> Html:
    arch, cost = record.arch, cost_of(record.arch)
    said = paragraph(
        Html(
            f"{name(arch.name)}: {arch.resolution} x {arch.resolution} pixels, {amount(cost.macs)} MACs, "
            f"{amount(cost.parameters)} parameters. It is the most probable network"
            + (" of the space. " if record.plan.target is None else " that meets the target. ")
            + "Its own weights are still to be trained: <code>fbnetv3 train --model "
            f"{name(record.files[0].name)}</code>."
        )
    )
    drawn = (
        "A bar is a block, as high as its channels; bars that go on beyond the top are cut. Dark bars have kernels "
        "larger than 3; a dot marks squeeze-excite. Lines part the stages."
    )
    return section("The network found", said, Html(f'<div class="wide">{sketch(arch)}</div>\n'), paragraph(drawn))


def _course(record: SupernetRecord) -> Html:
    cost = (
        "The expected cost is the mean over networks whose choices are drawn independently, by their probabilities; "
        "the most probable network is one of them, and need not meet the target."
    )
    accuracy = (
        "Of the supernet, its choices weighted by softmax at the epoch's temperature: not the accuracy that the "
        "network found will have."
    )
    return section(
        "Course",
        figures(
            [
                (charts.cost_over_time(record), "Cost against target.", cost),
                (charts.accuracy_over_time(record), "Accuracy.", accuracy),
                (charts.losses_over_time(record), "Losses.", "Cross entropy in nats; in training with Gumbel noise."),
            ]
        ),
    )


def _choices(record: SupernetRecord) -> Html:
    dimensions, last = record.plan.space.dimensions, record.epochs[-1].probabilities
    drawn = "".join(f"<figure>{charts.probabilities_over_time(record, n)}</figure>\n" for n in range(len(dimensions)))
    rows = [
        (name(d.name), name(str(d.options.values[int(np.argmax(of))])), f"{max(of):.2f}", _found_value(record, n))
        for n, (d, of) in enumerate(zip(dimensions, last, strict=True))
    ]
    said = paragraph(
        "Each band is the probability of one value over the epochs; the first value is at the bottom. The values that "
        "end above a tenth are named at the right, at their bands."
    )
    head = ("choice", "most probable", "probability", "in the network found")
    listed = table(head, rows, numbers=(2,))
    return section("Choices", said, Html(f'<div class="curves few">{drawn}</div>\n'), listed)


def _found_value(record: SupernetRecord, n: int) -> Html:
    return name(str(record.plan.space.dimensions[n].options.values[record.found.code[n]]))


def _drawn(record: SupernetRecord) -> Html:
    def row(title: str, one: Drawn) -> tuple[object, ...]:
        return title, f"{one.log_probability:.2f}", amount(one.cost), f"{one.accuracy:.1%}"

    rows = [row("found", record.found), *(row(f"drawn {n}", one) for n, one in enumerate(record.drawn, start=1))]
    said = paragraph(
        "The network found, and others drawn from the distribution under the same target, with the supernet's weights "
        "on the validation images. Weights that all networks share, and norms whose statistics are of mixed maps, rank "
        "them badly: train them from scratch before comparing them."
    )
    head = ("network", "log-probability", record.plan.cost, "accuracy, shared weights")
    return section("Drawn networks", said, table(head, rows, numbers=(1, 2, 3)))


def _how(record: SupernetRecord) -> Html:
    plan = record.plan
    told: dict[str, object] = {"Cost": plan.cost, "Loss of the choices": _value(plan.loss)}
    told["Target"] = "none" if plan.target is None else str(plan.target)
    told["Temperature"] = f"{plan.temperature:g} x exp(-{plan.cooling:g} x epoch)"
    told["Choices"] = (
        f"Adam at {plan.choice_rate:g}, weight decay {plan.choice_decay:g}, on {plan.choice_share:.0%} of the training "
        f"images, from epoch {plan.choice_epoch + 1} on"
    )
    told |= {field.name: _value(getattr(plan.recipe, field.name)) for field in fields(plan.recipe)}
    return section("How", paragraph("The plan, and the recipe of the weights:"), facts(told))


def _value(value: Any) -> str:
    plain = to_plain(value)
    if not isinstance(plain, dict):
        return str(plain)
    inside = ", ".join(f"{key} {json.dumps(item)}" for key, item in plain.items())
    return type(value).__name__ + (f" ({inside})" if inside else "")
