"""What a search found, as parts of its report: candidates, their networks, score against cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.report.page import Html, figures, name, paragraph, section, table
from fbnetv3_zoo.zoo.published import PUBLISHED

from ..result import SearchResult
from ..space import Codes, CostModel, Dimension
from . import charts
from .analysis import ScoredPoints
from .arch_diagram import EXPLAINED, sketch
from .formatting import amount, bounds, counted, score, value_of

Doubles = npt.NDArray[np.float64]
SHOWN = 8
"""How many candidates have their values listed and their networks drawn."""
LISTED = 10
"""How many trials are listed."""
PROVISIONAL = 3
"""How many trials stand for the winners while there are none."""


@dataclass(frozen=True)
class _Find:
    title: str
    code: tuple[int, ...]


def finds(record: SearchResult, scored: ScoredPoints, costs: CostModel | None) -> Html:
    """The winners (or, before there are any, the best trials): figures, values, networks."""
    best = best_trials(record)
    if record.winners:
        shown = [_Find(record.plan.result_name(winner.constraint), winner.code) for winner in record.winners]
        parts = [_winners(record)]
    else:
        shown = [_Find(f"trial {number}", record.trials[number].code) for number, _ in best[:PROVISIONAL]]
        parts = [paragraph(f"There are no results yet; these are the best so far: {counted(len(shown), 'candidate')}.")]
    parts += [_values(record, shown[:SHOWN]), _networks(record, shown[:SHOWN]), _trials(record, best, costs)]
    if len(shown) > SHOWN:
        parts.insert(1, paragraph(f"Values and networks are those of the first {SHOWN} of {len(shown)}."))
    return section("Best candidates", *parts)


def best_trials(record: SearchResult) -> list[tuple[int, float]]:
    """Number and score of all trials of stage 2 that have a curve, at the chosen epoch, the best first."""
    found = [
        (trial.number, outcome.curve[min(record.stop_epoch, trial.epochs) - 1])
        for trial in record.trials
        if trial.round <= record.plan.rounds.rounds
        and (outcome := record.outcomes.get(trial.number)) is not None
        and outcome.failure is None
    ]
    return sorted(found, key=lambda pair: -pair[1])


def _winners(record: SearchResult) -> Html:
    epochs, stop = record.plan.rounds.epochs, record.stop_epoch
    names = list(dict.fromkeys(what for winner in record.winners for what in winner.costs))
    rows = []
    for winner in record.winners:
        measured = "not trained in full" if winner.measured is None else score(winner.measured)
        costs = (amount(winner.costs[what]) if what in winner.costs else "" for what in names)
        result = name(record.plan.result_name(winner.constraint))
        rows.append((result, bounds(winner.constraint), score(winner.predicted), measured, *costs))
    head = ("name", "constraint", f"predicted, {stop} epochs", f"measured, {epochs} epochs", *map(name, names))
    return table(head, rows, numbers=range(2, len(head)))


def _values(record: SearchResult, shown: list[_Find]) -> Html:
    """A line a dimension, a column a candidate: all but those that the drawings show."""
    space = record.plan.space
    rows = [
        (name(dimension.name), *(name(value_of(dimension.options.values[find.code[column]])) for find in shown))
        for column, dimension in enumerate(space.dimensions)
        if len(dimension) > 1 and not _is_drawn(record, dimension)
    ]
    if not rows:
        return Html()
    factor = space.recipes.sgd_rate_factor if space.recipes else 1
    note = paragraph(f"With SGD, the learning rate is {factor:g} times as large.") if factor != 1 else Html()
    return Html(table(("dimension", *(name(find.title) for find in shown)), rows) + note)


def _is_drawn(record: SearchResult, dimension: Dimension) -> bool:
    return record.plan.space.networks is not None and dimension.part == "architecture"


def _networks(record: SearchResult, shown: list[_Find]) -> Html:
    if record.plan.space.networks is None:
        return Html()
    parts = []
    for find in shown:
        arch = record.plan.space.candidate(find.code).arch
        if arch is not None:
            title = f"{name(find.title)}, {arch.resolution} x {arch.resolution} pixels"
            parts.append(f'<div><h3>{title}</h3>\n<div class="wide">{sketch(arch)}</div></div>\n')
    return Html(f'{paragraph(EXPLAINED)}<div class="networks">{"".join(parts)}</div>\n') if parts else Html()


def _trials(record: SearchResult, best: list[tuple[int, float]], costs: CostModel | None) -> Html:
    listed = best[:LISTED]
    rows: list[list[object]] = [[number, record.trials[number].round, score(value)] for number, value in listed]
    head: list[object] = ["trial", "round", f"score, {record.stop_epoch} epochs"]
    if costs is not None and listed:
        codes: Codes = np.array([record.trials[number].code for number, _ in listed], np.int64)
        for what, values in costs(codes).items():
            head.append(name(what))
            for row, value in zip(rows, values.tolist(), strict=True):
                row.append(amount(value))
    said = paragraph(f"The best {len(listed)} of {counted(len(best), 'candidate')} of stage 2:")
    return Html(said + table(head, rows, numbers=range(len(head))))


def trade_offs(record: SearchResult, scored: ScoredPoints, costs: CostModel | None) -> Html:
    """Score against MACs, and against every other cost that is bounded."""
    if costs is None or not costs.names:
        return Html()
    bounded = {bound.cost for constraint in (*record.plan.constraints, record.plan.within) for bound in constraint}
    shown = [what for what in costs.names if what == "macs" or what in bounded] or list(costs.names[:1])
    family = _family() if record.plan.space.networks is not None and "macs" in shown else {}
    drawings: list[tuple[str, object, object]] = []
    for what in shown:
        drawings.append(_trade_off(record, scored, costs, what, family if what == "macs" else {}))
        if what == "macs" and family:
            drawings.append(_beside(family))
    return section("Score against cost", figures(drawings))


def _trade_off(
    record: SearchResult, scored: ScoredPoints, costs: CostModel, what: str, family: Mapping[str, tuple[float, float]]
) -> tuple[str, object, object]:
    evolved = record.evolved or []
    codes = np.array([code for one in evolved for code in one.codes], np.int64)
    scores = np.array([value for one in evolved for value in one.scores], np.float64)
    predicted = (costs(codes)[what] if len(codes) else np.zeros(0), scores)
    done = [(winner.costs[what], winner.measured) for winner in record.winners
            if winner.measured is not None and what in winner.costs]  # fmt: skip
    full = np.array(done, np.float64).reshape(-1, 2).T
    cost = costs(scored.codes)[what]
    seen = np.concatenate([cost, predicted[0], full[0]])
    marks = charts.near({letter: macs for letter, (macs, _) in family.items()}, seen.min(), seen.max())
    drawn = charts.pareto(
        f"score against {charts.label(what)}", charts.label("MACs" if what == "macs" else what), scored, cost,
        predicted=predicted, full=(full[0], full[1]), marks=marks,
    )  # fmt: skip
    return drawn, Html(f"Score against {name(what)}."), _said(record, len(scored.scores), len(codes), len(done), marks)


def _said(record: SearchResult, measured: int, predicted: int, full: int, marks: Mapping[str, float]) -> str:
    stop, epochs = record.stop_epoch, record.plan.rounds.epochs
    said = f"{counted(measured, 'candidate')} measured after {stop} epochs, and their front"
    said += f"; the front of {predicted} points of the evolution, predicted for {stop} epochs" if predicted else ""
    said += f"; {counted(full, 'result')} measured after all {epochs} epochs" if full else ""
    lines = f" Dotted: the MACs of FBNetV3-{', '.join(marks)}; they have no score on this task." if marks else ""
    return f"{said}.{lines}"


def _beside(family: Mapping[str, tuple[float, float]]) -> tuple[str, object, object]:
    said = (
        "What was published of FBNetV3-A to G: another task, other training, so the heights are not to be compared "
        "with those of the search; the MACs are."
    )
    return charts.published("published networks", family), "Published networks.", said


def _family() -> dict[str, tuple[float, float]]:
    """MACs and ImageNet top-1 in percent of FBNetV3-A to G, by letter."""
    found = {key.removeprefix("fbnetv3_").upper(): PUBLISHED[key] for key in PUBLISHED if key.startswith("fbnetv3_")}
    return {letter: (float(one.macs), one.top1) for letter, one in found.items()}
