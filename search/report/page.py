"""The report of a search: one HTML file that says what was found, how far it can be trusted, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.report.page import (
    Html,
    entries,
    figures,
    name,
    page,
    paragraph,
    section,
    table,
    text,
    tiles,
    write_page,
)

from ..evaluation.config import EvaluatorConfig
from ..predictors import Predictor, fit
from ..predictors.mlp import Encoder
from ..result import SearchResult
from ..run import ENCODER
from ..space import CostModel, NetworkCosts
from . import analysis, charts
from .formatting import bounds_text, counted, score, value_of
from .results import finds, trade_offs
from .settings import failures, how

DIMENSIONS = 20
"""How many dimensions are listed."""
EFFECTS = 6
"""How many dimensions have their effect drawn."""


def write_report(record: SearchResult, path: str | Path, *, costs: CostModel | None = None) -> None:
    """Write the report of ``record`` as the HTML file ``path``: nothing fetched, readable without a script.

    ``costs`` tells what its points cost (default: what its journal names, else the counts of its networks). The same
    record gives the same bytes. Raises :class:`ZooError` where nothing can be written to ``path``.
    """
    content = page(f"Search {record.plan.name}", *_parts(_Subject(record, costs)))
    write_page(path, content)


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
            told = EvaluatorConfig.from_plain(self.record.origin).costs(space)
        except ZooError:  # scores from elsewhere, or files that are gone
            told = None
        return told or (NetworkCosts(space) if space.networks is not None else None)

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
        plan, scored = self.record.plan, self.scored
        if len(scored.codes) < 2:
            return None
        seed = plan.seed + int(scored.rounds.max())
        return fit(plan.rounds.predictor, plan.space, scored.codes, scored.scores, encoder=self.encoder[0], seed=seed)

    @cached_property
    def crossed(self) -> analysis.Predictions:
        return analysis.cross_validated(self.record, self.scored, self.encoder[0])


def _parts(subject: _Subject) -> list[Html]:
    record, scored, costs = subject.record, subject.scored, subject.costs
    if not len(scored.codes):
        return [_head(subject), failures(record), how(record)]
    return [
        _head(subject),
        finds(record, scored, costs),
        trade_offs(record, scored, costs),
        _rounds(subject),
        _predictor(subject),
        _efficiency(subject),
        _stop(record),
        _evolution(record),
        _dimensions(subject),
        failures(record),
        how(record),
    ]


def _head(subject: _Subject) -> Html:
    record = subject.record
    done, asked = len(record.outcomes), len(record.trials)
    failed = sum(outcome.failure is not None for outcome in record.outcomes.values())
    figures = [("Candidates", f"{done:,}", f"{failed} of them failed" if failed else "none of them failed")]
    if len(subject.scored.codes):
        figures.insert(0, ("Best score", *_best(record, subject.scored)))
    if record.stop is not None:
        how_far = "after round 1, candidates train so long"
        figures.append(("Epochs", f"{record.stop_epoch} of {record.plan.rounds.epochs}", how_far))
    if len(subject.crossed):
        figures.append(("Predictor", f"{subject.crossed.kendall:.2f}", "Kendall's tau, cross-validated"))
    notes = [note for note in (_state(record, done, asked), subject.encoder[1]) if note]
    searched = sorted({dimension.part for dimension in record.plan.space.dimensions if len(dimension) > 1})
    what = " and ".join(f"{part}s" for part in searched).capitalize()
    space = name(record.plan.space.name)
    line = Html(f'<p class="faint">{what} of the space {space}, seed {record.plan.seed}</p>\n')
    return Html(f"{line}{tiles(figures)}{entries(notes) if notes else ''}")


def _state(record: SearchResult, done: int, asked: int) -> str:
    if record.done:
        return ""
    last = max((trial.round for trial in record.trials), default=0)
    where = f"in round {last} of {record.plan.rounds.rounds}" if last else "before its first round"
    if record.evolved is not None:
        where = "while its finalists are trained"
    left = f"; {counted(asked - done, 'candidate')} still to be scored" if asked > done else ""
    return f"The search has not ended: it is {where}{left}. What follows is of what there is so far."


def _best(record: SearchResult, scored: analysis.ScoredPoints) -> tuple[str, str]:
    epochs = record.plan.rounds.epochs
    measured = [winner.measured for winner in record.winners if winner.measured is not None]
    if measured:
        return score(max(measured)), f"measured after all {epochs} epochs"
    return score(scored.scores.max()), f"measured after {record.stop_epoch} of {epochs} epochs"


def _rounds(subject: _Subject) -> Html:
    record, scored = subject.record, subject.scored
    rows = []
    for number in sorted(set(scored.rounds.tolist())):
        trials = [trial for trial in record.trials if trial.round == number]
        ended = [record.outcomes[trial.number] for trial in trials if trial.number in record.outcomes]
        values = scored.scores[scored.rounds == number]
        failed = sum(outcome.failure is not None for outcome in ended)
        rows.append((number, trials[0].epochs, len(trials), len(ended), failed, score(np.median(values)),
                     score(values.max())))  # fmt: skip
    said = (
        f"{counted(len(scored.scores), 'candidate')} by score after {record.stop_epoch} epochs. Round 1 is drawn at "
        "random, later rounds are chosen by the predictor. Boxes span the middle half, with the median."
    )
    head = ("round", "epochs", "asked", "ended", "failed", "median", "best")
    listed = table(head, rows, numbers=range(len(head)))
    return section("Rounds", figures([(charts.rounds("scores by round", scored), "Scores by round.", said)], listed))


def _predictor(subject: _Subject) -> Html:
    record, crossed = subject.record, subject.crossed
    before = analysis.ahead(record, subject.scored, subject.encoder[0])
    drawings: list[tuple[str, object, object]] = []
    if len(before):
        said = (
            f"{counted(len(before), 'candidate')} of round 2 and later, each predicted by the predictor that chose it, "
            "which had seen the rounds before. They were chosen for high predictions: a narrow range, in which ranks "
            "are hard to tell."
        )
        drawings.append((charts.scatter("predicted ahead", before), "Predicted ahead.", said))
    if len(crossed):
        said = f"All {len(crossed)} candidates, each predicted by a predictor fitted on the other four fifths."
        drawings.append((charts.scatter("cross-validated", crossed), "Cross-validated.", said))
    if not drawings:
        return section("Predictor", paragraph("Too few candidates have been scored to judge a predictor."))
    return section("Predictor", figures(drawings), _quality(before, crossed), _statistics(record))


def _quality(before: analysis.Predictions, crossed: analysis.Predictions) -> Html:
    found = {"cross-validated": crossed, "ahead, all rounds": before}
    found |= {f"ahead, round {number}": before.of_round(number) for number in sorted(set(before.rounds.tolist()))}
    rows = [
        (what, len(one), f"{one.kendall:.3f}", f"{one.mse:.3g}", f"{one.guessing_mse:.3g}")
        for what, one in found.items()
        if len(one)
    ]
    head = ("predicted", "candidates", "Kendall's tau", "mean squared error", "error of guessing the mean")
    return table(head, rows, numbers=(1, 2, 3, 4))


def _statistics(record: SearchResult) -> Html:
    if not record.encoder:
        return Html()
    rows = [(name(what), f"{one.r2:.4f}", f"{one.kendall:.4f}") for what, one in record.encoder.items()]
    said = f"Stage 1: what the encoder tells of the held-out fifth of the pool of {record.pool or 0:,} points."
    return Html(paragraph(said) + table(("statistic", "R2", "Kendall's tau"), rows, numbers=(1, 2)))


def _efficiency(subject: _Subject) -> Html:
    found = analysis.efficiency(subject.record, subject.scored, subject.encoder[0])
    if not found:
        return Html()
    one, both = found[0], len(found) > 1
    compared = "Both lines use the same candidates." if both else "There is no pretrained encoder to compare with."
    said = (
        f"Mean over {analysis.REPEATS} random parts of the {one.total} candidates, and its 95 % interval over these "
        f"parts; {one.tested} others are predicted. {compared}"
    )
    drawings = [
        (charts.efficiency("error by candidates", found, of="mse"), "Error by candidates.", said),
        (charts.efficiency("rank correlation by candidates", found, of="kendall"), "Rank correlation.", "The same."),
    ]
    return section("Sample efficiency", figures(drawings))


def _stop(record: SearchResult) -> Html:
    if record.stop is None:
        return Html()
    wanted, epochs = record.plan.rounds.correlation, record.plan.rounds.epochs
    first = [trial.number for trial in record.trials if trial.round == 1 and trial.number in record.outcomes]
    curves = [record.outcomes[number].curve for number in first if record.outcomes[number].failure is None]
    correlations = record.stop.correlations
    if not correlations:
        left = counted(len(curves), "curve")
        line = f"Round 1 left {left}, too few to compare epochs: all candidates train {epochs} epochs."
        return section("Early stop", paragraph(line))
    epoch = record.stop_epoch
    reached = "the first that reaches" if correlations[epoch - 1] >= wanted else "the last, for none reaches"
    said = (
        f"{len(curves)} candidates of round 1, after each epoch and after the last. Chosen is epoch {epoch} "
        f"({correlations[epoch - 1]:.3f}), {reached} {wanted:g}; later rounds train so long."
    )
    drawings = [
        (charts.correlation("rank correlation by epoch", correlations, epoch, wanted), "Rank correlation.", said),
        (charts.learning_curves("learning curves", np.array(curves), epoch), "Learning curves.",
         "The same candidates, coloured by their last score from low (blue) to high (orange)."),
    ]  # fmt: skip
    return section("Early stop", figures(drawings))


def _evolution(record: SearchResult) -> Html:
    if not record.evolved:
        return Html()
    constraints = map(bounds_text, record.plan.constraints)
    progress = dict(zip(constraints, (one.progress for one in record.evolved), strict=True))
    points = sum(int(one.progress[-1][0]) for one in record.evolved)
    more = f" The first {charts.SERIES} are named." if len(progress) > charts.SERIES else ""
    said = (
        f"The best prediction under each constraint as points are scored by the predictor, {points:,} in all; none of "
        f"them is trained. A line ends where nothing rose any more.{more}"
    )
    rows = [(name(what), f"{int(points[-1][0]):,}", score(points[-1][1])) for what, points in progress.items()]
    listed = table(("constraint", "points scored", "best predicted"), rows, numbers=(1, 2))
    return section("Evolution", figures([(charts.evolution("evolution", progress), "Evolution.", said)], listed))


def _dimensions(subject: _Subject) -> Html:
    record, predictor = subject.record, subject.predictor
    if predictor is None:
        return Html()
    found = analysis.effects(record, predictor, subject.costs)
    if not found:
        return Html()
    said = (
        "By the predictor fitted on all candidates, so no better than that is. Effect: how much the predicted score "
        f"varies (standard deviation) when the dimension alone takes its values, around {analysis.BASE} random points. "
        "Dark: what is the same whatever the rest is. Light: what depends on the rest."
    )
    parts = [paragraph(said), _shares(subject, predictor)]
    for part in ("recipe", "architecture"):
        if own := [effect for effect in found if effect.part == part]:
            parts.append(_effects(f"{part.capitalize()}: {counted(len(own), 'dimension')}", own, found[0].total))
    return section("What the dimensions do", *parts)


def _shares(subject: _Subject, predictor: Predictor) -> Html:
    shares = analysis.shares(subject.record, predictor, subject.costs)
    if shares is None:
        return Html()
    return paragraph(
        f"Of the variance of the predicted score, the architecture alone explains {shares.architecture:.0%}, the "
        f"recipe alone {shares.recipe:.0%}, their interplay {shares.together:.0%}."
    )


def _effects(title: str, own: list[analysis.Effect], largest: float) -> Html:
    rows = [
        (name(effect.name), score(effect.total), _bar(effect, largest), name(_best_value(effect)))
        for effect in own[:DIMENSIONS]
    ]
    rest = paragraph(f"The {DIMENSIONS} largest of {len(own)}.") if len(own) > DIMENSIONS else Html()
    ends = [(min(effect.low.min() for effect in own[:EFFECTS]), max(effect.high.max() for effect in own[:EFFECTS]))]
    room = 0.05 * (ends[0][1] - ends[0][0]) or 0.01
    drawn = "".join(
        f"<figure>{charts.effect(effect, ends[0][0] - room, ends[0][1] + room)}"
        f"<figcaption>{name(effect.name)}</figcaption></figure>\n"
        for effect in own[:EFFECTS]
    )
    listed = table(("dimension", "effect", "", "best value"), rows, numbers=(1,))
    said = paragraph("Mean predicted score by value, on one scale; the band is the range of the predictor's members.")
    return Html(f'<h3>{text(title)}</h3>\n{listed}{rest}{said}<div class="curves few">{drawn}</div>\n')


def _best_value(effect: analysis.Effect) -> str:
    return value_of(effect.values[int(effect.score.argmax())])


def _bar(effect: analysis.Effect, largest: float) -> Html:
    total, alone = (100 * value / max(largest, 1e-12) for value in (effect.total, effect.alone))
    return Html(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{total:.2f}" height="10"/><rect class="alone" width="{alone:.2f}" height="10"/></svg>'
    )
