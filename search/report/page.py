"""The report of a search: one HTML file that says what was found, how far it can be trusted, and how it came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from markupsafe import Markup

from fbnetv3_zoo.errors import ZooError, counted
from fbnetv3_zoo.report.charts import chart
from fbnetv3_zoo.report.page import Figure, name, write_page

from ..evaluation.config import EvaluatorConfig
from ..predictors import Predictor
from ..predictors.mlp import Encoder
from ..result import ENCODER, SearchResult
from ..space import CostModel, NetworkCosts
from . import analysis, charts
from .formatting import bounds_text, score, value_of
from .results import best_candidates, trade_offs
from .settings import failures, settings

DIMENSIONS = 20
"""How many dimensions are listed."""
EFFECTS = 6
"""How many dimensions have their effect drawn."""


def write_report(record: SearchResult, path: str | Path, *, costs: CostModel | None = None) -> None:
    """Write the report of ``record`` as the HTML file ``path``: nothing fetched, readable without a script.

    ``costs`` gives what its points cost (default: what its journal names, else the counts of its networks). The same
    record gives the same bytes. Raises :class:`ZooError` where nothing can be written to ``path``.
    """
    subject = _Subject(record, costs)
    write_page(path, __package__, "search.html.jinja", **_summary(subject), **_scored_parts(subject),
               failures=failures(record), settings=settings(record))  # fmt: skip


@dataclass
class _Subject:
    """A record, and what is derived from it once."""

    record: SearchResult
    given: CostModel | None

    @cached_property
    def scored(self) -> analysis.ScoredPoints:
        return analysis.ScoredPoints.of(self.record)

    @cached_property
    def costs(self) -> CostModel | None:
        space = self.record.plan.space
        if self.given is not None:
            return self.given
        try:
            named = EvaluatorConfig.from_plain(self.record.origin).costs(space)
        except ZooError:  # scores from elsewhere, or files that are gone
            named = None
        return named or (NetworkCosts(space) if space.networks is not None else None)

    @cached_property
    def encoder(self) -> tuple[Encoder | None, str]:
        """The encoder of stage 1, and what is to be said where it should be there and is not."""
        if self.record.encoder is None:
            return None, ""
        try:
            return Encoder.load(self.record.folder / ENCODER), ""
        except ZooError as error:
            return None, f"The predictors of this report do without pretraining: {error}."

    @cached_property
    def predictor(self) -> Predictor | None:
        """Fitted on all of stage 2, as stage 3 uses it."""
        return self.record.state().fit(self.encoder[0])

    @cached_property
    def crossed(self) -> analysis.Predictions:
        return analysis.cross_validated(self.record, self.scored, self.encoder[0])


def _summary(subject: _Subject) -> dict[str, object]:
    record = subject.record
    done, proposed = len(record.outcomes), len(record.trials)
    searched = sorted({dimension.part for dimension in record.plan.space.dimensions if len(dimension) > 1})
    return {
        "title": f"Search {record.plan.name}",
        "searched": " and ".join(f"{part}s" for part in searched).capitalize(),
        "space": record.plan.space.name,
        "seed": record.plan.seed,
        "tiles": _tiles(subject),
        "notes": [note for note in (_state(record, done, proposed), subject.encoder[1]) if note],
    }


def _tiles(subject: _Subject) -> list[tuple[str, str, str]]:
    record = subject.record
    failed = sum(outcome.failure is not None for outcome in record.outcomes.values())
    done = ("Candidates", f"{len(record.outcomes):,}", f"{failed or 'none'} of them failed")
    tiles = [("Best score", *_best(record, subject.scored)), done] if len(subject.scored.codes) else [done]
    if record.stop is not None:
        epochs = f"{record.stop_epoch} of {record.plan.rounds.epochs}"
        tiles.append(("Epochs", epochs, "after round 1, candidates train so long"))
    if len(subject.crossed):
        tiles.append(("Predictor", f"{subject.crossed.kendall:.2f}", "Kendall's tau, cross-validated"))
    return tiles


def _state(record: SearchResult, done: int, proposed: int) -> str:
    if record.done:
        return ""
    last = max((trial.round for trial in record.trials), default=0)
    where = f"in round {last} of {record.plan.rounds.rounds}" if last else "before its first round"
    if record.evolved is not None:
        where = "while its finalists are trained"
    left = f"; {counted(proposed - done, 'candidate')} still to be scored" if proposed > done else ""
    return f"The search has not ended: it is {where}{left}. What follows is of what there is so far."


def _best(record: SearchResult, scored: analysis.ScoredPoints) -> tuple[str, str]:
    epochs = record.plan.rounds.epochs
    measured = [winner.measured for winner in record.winners if winner.measured is not None]
    if measured:
        return score(max(measured)), f"measured after all {epochs} epochs"
    return score(scored.scores.max()), f"measured after {record.stop_epoch} of {epochs} epochs"


def _scored_parts(subject: _Subject) -> dict[str, object]:
    """What there is to be said once candidates have scores."""
    record, scored, costs = subject.record, subject.scored, subject.costs
    if not len(scored.codes):
        return {"scored": False}
    return {
        "scored": True,
        **best_candidates(record, costs),
        "trade_offs": trade_offs(record, scored, costs),
        "rounds": _rounds(subject),
        "predictor": _predictor(subject),
        "efficiency": _efficiency(subject),
        "stop": _stop(record),
        "evolution": _evolution(record),
        **_dimensions(subject),
    }


def _rounds(subject: _Subject) -> dict[str, object]:
    record, scored = subject.record, subject.scored
    rows = []
    for number in sorted(set(scored.rounds.tolist())):
        trials = [trial for trial in record.trials if trial.round == number]
        ended = [record.outcomes[trial.number] for trial in trials if trial.number in record.outcomes]
        values = scored.scores[scored.rounds == number]
        failed = sum(outcome.failure is not None for outcome in ended)
        rows.append((number, trials[0].epochs, len(trials), len(ended), failed, score(np.median(values)),
                     score(values.max())))  # fmt: skip
    caption = (
        f"{counted(len(scored.scores), 'candidate')} by score after {record.stop_epoch} epochs. Round 1 is drawn at "
        "random, later rounds are chosen by the predictor. Boxes span the middle half, with the median."
    )
    return {"figure": (chart("scores by round", charts.rounds, scored), "Scores by round.", caption), "rows": rows}


def _predictor(subject: _Subject) -> dict[str, object]:
    record, crossed = subject.record, subject.crossed
    before = analysis.ahead(record, subject.scored, subject.encoder[0])
    figures: list[Figure] = []
    if len(before):
        caption = (
            f"{counted(len(before), 'candidate')} of round 2 and later, each predicted by the predictor that chose it, "
            "which had seen the rounds before. They were chosen for high predictions: a narrow range, in which ranks "
            "are hard to tell."
        )
        figures.append((chart("predicted ahead", charts.scatter, before), "Predicted ahead.", caption))
    if len(crossed):
        caption = f"All {len(crossed)} candidates, each predicted by a predictor fitted on the other four fifths."
        figures.append((chart("cross-validated", charts.scatter, crossed), "Cross-validated.", caption))
    statistics = [(name(what), f"{one.r2:.4f}", f"{one.kendall:.4f}") for what, one in (record.encoder or {}).items()]
    quality = _quality(before, crossed)
    return {"figures": figures, "quality": quality, "statistics": statistics, "pool": record.pool or 0}


def _quality(before: analysis.Predictions, crossed: analysis.Predictions) -> list[tuple[str, ...]]:
    """How well scores were predicted, by what was predicted."""
    compared = {"cross-validated": crossed, "ahead, all rounds": before}
    compared |= {f"ahead, round {number}": before.of_round(number) for number in sorted(set(before.rounds.tolist()))}
    return [
        (what, str(len(one)), f"{one.kendall:.3f}", f"{one.mse:.3g}", f"{one.guessing_mse:.3g}")
        for what, one in compared.items()
        if len(one)
    ]


def _efficiency(subject: _Subject) -> list[Figure]:
    curves = analysis.efficiency(subject.record, subject.scored, subject.encoder[0])
    if not curves:
        return []
    one, both = curves[0], len(curves) > 1
    compared = "Both lines use the same candidates." if both else "There is no pretrained encoder to compare with."
    caption = (
        f"Mean over {analysis.REPEATS} random parts of the {one.total} candidates, and its 95 % interval over these "
        f"parts; {one.tested} others are predicted. {compared}"
    )
    return [
        (chart("error by candidates", charts.efficiency, curves, "mse"), "Error by candidates.", caption),
        (
            chart("rank correlation by candidates", charts.efficiency, curves, "kendall"),
            "Rank correlation.",
            "The same.",
        ),
    ]


def _stop(record: SearchResult) -> dict[str, object]:
    if record.stop is None:
        return {}
    threshold, epochs = record.plan.rounds.correlation, record.plan.rounds.epochs
    first = [trial.number for trial in record.trials if trial.round == 1 and trial.number in record.outcomes]
    curves = [record.outcomes[number].curve for number in first if record.outcomes[number].failure is None]
    correlations = record.stop.correlations
    if not correlations:
        return {"figures": [], "curves": len(curves), "epochs": epochs}
    epoch = record.stop_epoch
    reached = "the first that reaches" if correlations[epoch - 1] >= threshold else "the last, for none reaches"
    caption = (
        f"{len(curves)} candidates of round 1, after each epoch and after the last. Chosen is epoch {epoch} "
        f"({correlations[epoch - 1]:.3f}), {reached} {threshold:g}; later rounds train so long."
    )
    return {"figures": [
        (chart("rank correlation by epoch", charts.correlation, correlations, epoch, threshold), "Rank correlation.",
         caption),
        (chart("learning curves", charts.learning_curves, np.array(curves), epoch), "Learning curves.",
         "The same candidates, colored by their last score from low (blue) to high (orange)."),
    ]}  # fmt: skip


def _evolution(record: SearchResult) -> dict[str, object]:
    if not record.evolved:
        return {}
    constraints = map(bounds_text, record.plan.constraints)
    progress = dict(zip(constraints, (one.progress for one in record.evolved), strict=True))
    total = sum(int(one.progress[-1][0]) for one in record.evolved)
    more = f" The first {charts.SERIES} are named." if len(progress) > charts.SERIES else ""
    caption = (
        f"The best prediction under each constraint as points are scored by the predictor, {total:,} in all; none of "
        f"them is trained. A line ends where nothing rose any more.{more}"
    )
    rows = [(name(what), f"{int(points[-1][0]):,}", score(points[-1][1])) for what, points in progress.items()]
    return {"figure": (chart("evolution", charts.evolution, progress), "Evolution.", caption), "rows": rows}


def _dimensions(subject: _Subject) -> dict[str, object]:
    """The effects of the dimensions by part of the space, and the shares of the parts."""
    record, predictor = subject.record, subject.predictor
    effects = analysis.effects(record, predictor, subject.costs) if predictor else []
    by_part = {part: [effect for effect in effects if effect.part == part] for part in ("recipe", "architecture")}
    return {
        "base_points": analysis.BASE,
        "shares": analysis.shares(record, predictor, subject.costs) if predictor and effects else None,
        "effects": [_effects(part, own, effects[0].total) for part, own in by_part.items() if own],
    }


def _effects(part: str, own: Sequence[analysis.Effect], largest: float) -> dict[str, object]:
    rows = [
        {
            "name": effect.name,
            "effect": score(effect.total),
            "whole": effect.total / max(largest, 1e-12),
            "alone": effect.alone / max(largest, 1e-12),
            "best": value_of(effect.values[int(effect.score.argmax())]),
        }
        for effect in own[:DIMENSIONS]
    ]
    drawn = own[:EFFECTS]
    low, high = min(effect.low.min() for effect in drawn), max(effect.high.max() for effect in drawn)
    room = 0.05 * (high - low) or 0.01
    return {
        "title": f"{part.capitalize()}: {counted(len(own), 'dimension')}",
        "count": len(own),
        "rows": rows,
        "charts": [(effect.name, _effect_chart(effect, low - room, high + room)) for effect in drawn],
    }


def _effect_chart(effect: analysis.Effect, low: float, high: float) -> Markup:
    return chart(f"effect of {charts.label(effect.name)}", charts.effect, effect, low, high, size=(3.4, 2.2))
