"""What a journal notes of a search besides its trials and outcomes, checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fbnetv3_zoo.errors import ZooError, check_type, check_whole, shown
from fbnetv3_zoo.utils.serialization import from_plain, to_plain

from .evaluation.trial import Outcome, Trial
from .plan import SearchPlan
from .space import Constraint

Code = tuple[int, ...]


@dataclass(frozen=True)
class Winner:
    """The best point found under a constraint: predicted score, measured one (None: not trained in full), its costs."""

    constraint: Constraint
    code: Code
    predicted: float
    measured: float | None
    costs: Mapping[str, float]

    def to_plain(self) -> dict[str, Any]:
        """Plain data, for the journal."""
        return {**to_plain(self), "constraint": to_plain(self.constraint), "costs": dict(self.costs)}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Winner:
        """What :meth:`to_plain` gave."""
        found = from_plain(cls, data, "winner")
        check_figures("winner.costs", found.costs)
        return found


@dataclass(frozen=True)
class StoppingEpoch:
    """What round 1 decided: the epoch after which later rounds stop, from correlations of every epoch with the last."""

    epoch: int
    correlations: tuple[float, ...]


@dataclass(frozen=True)
class EvolvedPoints:
    """The best points that evolution found under a constraint, best first, with predicted scores.

    ``progress`` has pairs: points scored so far, and the best score among them.
    """

    constraint: Constraint
    codes: tuple[Code, ...]
    scores: tuple[float, ...]
    progress: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class StatisticFit:
    """How well an encoder tells a statistic of held-out networks."""

    r2: float
    kendall: float


@dataclass(frozen=True)
class Notes:
    """All notes; None is what the search has not come to."""

    plan: SearchPlan
    origin: Mapping[str, Any]
    pool: int | None
    encoder: Mapping[str, StatisticFit] | None
    stop: StoppingEpoch | None
    evolved: tuple[EvolvedPoints, ...] | None
    winners: tuple[Winner, ...]

    @classmethod
    def parse(cls, notes: Mapping[str, Any]) -> Notes:
        """The notes of a journal. Raises :class:`ZooError` where they are not of the form that this release writes."""
        told = from_plain(_Raw, {key: notes[key] for key in notes if key in _NAMES}, "notes")
        check_type("notes.origin", told.origin, dict, "an object")
        encoder = told.encoder
        if encoder is not None:
            check_type("notes.encoder", encoder, dict, "an object")
            encoder = {name: from_plain(StatisticFit, one, f"notes.encoder.{name}") for name, one in encoder.items()}
        winners = tuple(Winner.from_plain(winner) for winner in told.winners)
        found = cls(SearchPlan.from_json(told.plan), told.origin, told.pool, encoder, told.stop, told.evolved, winners)
        found._check()
        return found

    def _check(self) -> None:
        plan = self.plan
        if self.stop is not None:
            check_whole("notes.stop.epoch", self.stop.epoch, at_most=plan.rounds.epochs)
            if len(self.stop.correlations) not in (0, plan.rounds.epochs):
                raise ZooError("notes.stop.correlations has not one number an epoch")
        for what, found in (("evolved", self.evolved), ("winners", self.winners or None)):
            if found is not None and len(found) != len(plan.constraints):
                raise ZooError(f"notes.{what} has {len(found)} entries for {len(plan.constraints)} constraints")
        for front in self.evolved or ():
            check_points("notes.evolved", plan, front.codes)
            if len(front.scores) != len(front.codes) or not front.progress or {len(p) for p in front.progress} != {2}:
                raise ZooError("notes.evolved has not one score a point, or no progress")
        check_points("notes.winners", plan, [winner.code for winner in self.winners])


@dataclass(frozen=True)
class _Raw:
    plan: str
    origin: Any
    pool: int | None = None
    encoder: Any = None
    stop: StoppingEpoch | None = None
    evolved: tuple[EvolvedPoints, ...] | None = None
    winners: tuple[Any, ...] = ()


_NAMES = [field.name for field in fields(_Raw)]


def check_rows(plan: SearchPlan, trials: Sequence[Trial], outcomes: Mapping[int, Outcome]) -> None:
    """Raise unless trials are numbered points of the plan's space, and curves have one score an epoch of theirs."""
    check_points("a trial", plan, [trial.code for trial in trials])
    for number, trial in enumerate(trials):
        if trial.number != number or not 1 <= trial.epochs <= plan.rounds.epochs or trial.round < 1:
            raise ZooError(
                f"trial {shown(trial.number)} is number {number}, of round {trial.round}, {trial.epochs} epochs"
            )
    for number, outcome in outcomes.items():
        if not 0 <= number < len(trials):
            raise ZooError(f"there is an outcome of trial {number}, which is not there")
        if outcome.failure is None and len(outcome.curve) != trials[number].epochs:
            raise ZooError(f"trial {number} has {len(outcome.curve)} scores for {trials[number].epochs} epochs")


def check_points(place: str, plan: SearchPlan, codes: Sequence[Code]) -> None:
    """Raise unless ``codes`` are points of the plan's space."""
    for code in codes:
        if not plan.space.is_point(code):
            raise ZooError(f"{place} has {shown(code)}, which is no point of the space")


def check_figures(place: str, figures: object) -> None:
    """Raise unless ``figures`` is an object of numbers."""
    numbers = isinstance(figures, Mapping) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in figures.values()
    )
    if not numbers:
        raise ZooError(f"{place} is {shown(figures)}; it must be an object of numbers")
