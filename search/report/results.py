"""What a search found, for its page: candidates, their networks, score against cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from fbnetv3_zoo.errors import counted
from fbnetv3_zoo.report.charts import chart
from fbnetv3_zoo.report.page import Figure, name
from fbnetv3_zoo.zoo.published import PUBLISHED

from ..result import SearchResult
from ..space import Codes, CostModel, Dimension, Recipes
from . import charts
from .analysis import ScoredPoints
from .arch_diagram import EXPLAINED, sketch
from .formatting import amount, bounds, score, value_of

Doubles = npt.NDArray[np.float64]
SHOWN = 8
"""How many candidates have their values listed and their networks drawn."""
LISTED = 10
"""How many trials are listed."""
PROVISIONAL = 3
"""How many trials stand for the winners while there are none."""


@dataclass(frozen=True)
class _Shown:
    title: str
    code: tuple[int, ...]


def best_candidates(record: SearchResult, costs: CostModel | None) -> dict[str, object]:
    """The winners (or, before there are any, the best trials): figures, values, networks."""
    best = best_trials(record)
    if record.winners:
        shown = [_Shown(record.plan.result_name(winner.constraint), winner.code) for winner in record.winners]
    else:
        shown = [_Shown(f"trial {number}", record.trials[number].code) for number, _ in best[:PROVISIONAL]]
    return {
        "winners": _winners(record),
        "candidates": shown,
        "most_shown": SHOWN,
        "values": _values(record, shown[:SHOWN]),
        "diagram_explained": EXPLAINED,
        "networks": _networks(record, shown[:SHOWN]),
        "trials": _trials(record, best, costs),
    }


def best_trials(record: SearchResult) -> list[tuple[int, float]]:
    """Number and score of all trials of stage 2 that have a curve, at the chosen epoch, the best first."""
    scored = [
        (trial.number, outcome.curve[min(record.stop_epoch, trial.epochs) - 1])
        for trial in record.trials
        if trial.round <= record.plan.rounds.rounds
        and (outcome := record.outcomes.get(trial.number)) is not None
        and outcome.failure is None
    ]
    return sorted(scored, key=lambda pair: -pair[1])


def _winners(record: SearchResult) -> dict[str, Any]:
    """A table, a line a winner; nothing where there are none yet."""
    if not record.winners:
        return {}
    epochs, stop = record.plan.rounds.epochs, record.stop_epoch
    cost_names = list(dict.fromkeys(what for winner in record.winners for what in winner.costs))
    rows = []
    for winner in record.winners:
        measured = "not trained in full" if winner.measured is None else score(winner.measured)
        costs = (amount(winner.costs[what]) if what in winner.costs else "" for what in cost_names)
        result = name(record.plan.result_name(winner.constraint))
        rows.append((result, bounds(winner.constraint), score(winner.predicted), measured, *costs))
    head = ("name", "constraint", f"predicted, {stop} epochs", f"measured, {epochs} epochs", *map(name, cost_names))
    return {"head": head, "rows": rows}


def _values(record: SearchResult, shown: list[_Shown]) -> dict[str, Any]:
    """A line a dimension, a column a candidate: all but those that the diagrams show."""
    space = record.plan.space
    rows = [
        (name(dimension.name), *(name(value_of(dimension.options.values[one.code[column]])) for one in shown))
        for column, dimension in enumerate(space.dimensions)
        if len(dimension) > 1 and not _is_drawn(record, dimension)
    ]
    head = ("dimension", *(name(one.title) for one in shown))
    return {"head": head, "rows": rows, "rate_factors": _rate_factors(space.recipes)} if rows else {}


def _rate_factors(recipes: Recipes | None) -> dict[str, float]:
    """By optimizer, without those that leave the learning rate as it is."""
    factors = asdict(recipes.rate_factors) if recipes else {}
    return {optimizer: factor for optimizer, factor in factors.items() if factor != 1}


def _is_drawn(record: SearchResult, dimension: Dimension) -> bool:
    return record.plan.space.networks is not None and dimension.part == "architecture"


def _networks(record: SearchResult, shown: list[_Shown]) -> list[dict[str, Any]]:
    if record.plan.space.networks is None:
        return []
    archs = [(one.title, record.plan.space.candidate(one.code).arch) for one in shown]
    return [{"title": title, "resolution": arch.resolution, "diagram": sketch(arch)} for title, arch in archs if arch]


def _trials(record: SearchResult, best: list[tuple[int, float]], costs: CostModel | None) -> dict[str, Any]:
    listed = best[:LISTED]
    rows: list[list[object]] = [[number, record.trials[number].round, score(value)] for number, value in listed]
    head: list[object] = ["trial", "round", f"score, {record.stop_epoch} epochs"]
    if costs is not None and listed:
        codes: Codes = np.array([record.trials[number].code for number, _ in listed], np.int64)
        for what, values in costs(codes).items():
            head.append(name(what))
            for row, value in zip(rows, values.tolist(), strict=True):
                row.append(amount(value))
    return {"head": head, "rows": rows, "total": len(best)}


def trade_offs(record: SearchResult, scored: ScoredPoints, costs: CostModel | None) -> list[Figure]:
    """Score against MACs, and against every other cost that is bounded."""
    if costs is None or not costs.names:
        return []
    bounded = {bound.cost for constraint in (*record.plan.constraints, record.plan.within) for bound in constraint}
    shown = [what for what in costs.names if what == "macs" or what in bounded] or list(costs.names[:1])
    family = _family() if record.plan.space.networks is not None and "macs" in shown else {}
    figures: list[Figure] = []
    for what in shown:
        figures.append(_trade_off(record, scored, costs, what, family if what == "macs" else {}))
        if what == "macs" and family:
            figures.append(_published(family))
    return figures


def _trade_off(
    record: SearchResult, scored: ScoredPoints, costs: CostModel, what: str, family: Mapping[str, tuple[float, float]]
) -> Figure:
    evolved = record.evolved or ()
    codes = np.array([code for one in evolved for code in one.codes], np.int64)
    scores = np.array([value for one in evolved for value in one.scores], np.float64)
    predicted = (costs(codes)[what] if len(codes) else np.zeros(0), scores)
    trained = [(winner.costs[what], winner.measured) for winner in record.winners
               if winner.measured is not None and what in winner.costs]  # fmt: skip
    full = np.array(trained, np.float64).reshape(-1, 2).T
    cost = costs(scored.codes)[what]
    known = np.concatenate([cost, predicted[0], full[0]])
    marks = charts.near({letter: macs for letter, (macs, _) in family.items()}, known.min(), known.max())
    drawn = chart(
        f"score against {charts.label(what)}", charts.pareto, charts.label("MACs" if what == "macs" else what), scored,
        cost, predicted, (full[0], full[1]), marks,
    )  # fmt: skip
    caption = _caption(record, len(scored.scores), len(codes), len(trained), marks)
    return drawn, Markup("Score against {}.").format(name(what)), caption


def _caption(record: SearchResult, measured: int, predicted: int, full: int, marks: Mapping[str, float]) -> str:
    stop, epochs = record.stop_epoch, record.plan.rounds.epochs
    parts = [f"{counted(measured, 'candidate')} measured after {stop} epochs, and their front"]
    if predicted:
        parts.append(f"the front of {predicted} points of the evolution, predicted for {stop} epochs")
    if full:
        parts.append(f"{counted(full, 'result')} measured after all {epochs} epochs")
    lines = f" Dotted: the MACs of FBNetV3-{', '.join(marks)}; they have no score on this task." if marks else ""
    return f"{'; '.join(parts)}.{lines}"


def _published(family: Mapping[str, tuple[float, float]]) -> Figure:
    caption = (
        "What was published of FBNetV3-A to G: another task, other training, so the heights are not to be compared "
        "with those of the search; the MACs are."
    )
    return chart("published networks", charts.published, family), "Published networks.", caption


def _family() -> dict[str, tuple[float, float]]:
    """MACs and ImageNet top-1 in percent of FBNetV3-A to G, by letter."""
    named = {key.removeprefix("fbnetv3_").upper(): PUBLISHED[key] for key in PUBLISHED if key.startswith("fbnetv3_")}
    return {letter: (float(one.macs), one.top1) for letter, one in named.items()}
