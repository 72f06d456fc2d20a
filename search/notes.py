"""The notes in a journal, next to its trials and outcomes, checked when they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from fbnetv3_zoo.errors import ZooError, check_type, check_whole, shown
from fbnetv3_zoo.utils.serialization import from_plain, to_plain

from .evaluation.trial import Outcome, Trial
from .executors import Capacity
from .plan import SearchPlan
from .space import Constraint

Code = tuple[int, ...]


@dataclass(frozen=True)
class Winner:
    """The best point under a constraint: predicted and measured score (None if not trained in full), and its costs."""

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
        """The inverse of :meth:`to_plain`."""
        winner = from_plain(cls, data, "winner")
        check_figures("winner.costs", winner.costs)
        return winner


@dataclass(frozen=True)
class StoppingEpoch:
    """The epoch at which later rounds stop, by the correlation of every epoch of round 1 with the last."""

    epoch: int
    correlations: tuple[float, ...]


@dataclass(frozen=True)
class EvolvedPoints:
    """The best points of evolution under a constraint, best first, with predicted scores.

    ``progress`` has pairs: points scored so far, and the best score among them.
    """

    constraint: Constraint
    codes: tuple[Code, ...]
    scores: tuple[float, ...]
    progress: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class StatisticFit:
    """How well an encoder predicts a statistic of held-out networks."""

    r2: float
    kendall: float


@dataclass(frozen=True)
class Notes:
    """All notes; None for what the search has not reached.

    ``options`` are plain data of whoever started or resumed the search, such as how candidates are computed;
    ``capacity`` is what the executor had for them when the search was started or resumed the last time; ``pool``
    is its number of points, ``encoder`` the fit of each statistic (None without pretraining); ``evolved`` has one entry
    a constraint.
    """

    plan: SearchPlan
    origin: Mapping[str, Any]
    options: Mapping[str, Any]
    capacity: Capacity | None
    pool: int | None
    encoder: Mapping[str, StatisticFit] | None
    stop: StoppingEpoch | None
    evolved: tuple[EvolvedPoints, ...] | None
    winners: tuple[Winner, ...]

    @classmethod
    def parse(cls, notes: Mapping[str, Any]) -> Notes:
        """The notes of a journal. Raises :class:`ZooError` if they are not as this release writes them."""
        raw = from_plain(_Raw, {key: notes[key] for key in notes if key in _NAMES}, "notes")
        check_type("notes.origin", raw.origin, dict, "an object")
        check_type("notes.options", raw.options, dict, "an object")
        encoder = raw.encoder
        if encoder is not None:
            check_type("notes.encoder", encoder, dict, "an object")
            encoder = {name: from_plain(StatisticFit, one, f"notes.encoder.{name}") for name, one in encoder.items()}
        winners = tuple(Winner.from_plain(winner) for winner in raw.winners)
        plan = SearchPlan.from_json(raw.plan)
        parsed = cls(plan, raw.origin, raw.options, raw.capacity, raw.pool, encoder, raw.stop, raw.evolved, winners)
        parsed._check()
        return parsed

    def _check(self) -> None:
        plan = self.plan
        if self.stop is not None:
            check_whole("notes.stop.epoch", self.stop.epoch, at_most=plan.rounds.epochs)
            if len(self.stop.correlations) not in (0, plan.rounds.epochs):
                raise ZooError("notes.stop.correlations has not one number an epoch")
        for name, entries in (("evolved", self.evolved), ("winners", self.winners or None)):
            if entries is not None and len(entries) != len(plan.constraints):
                raise ZooError(f"notes.{name} has {len(entries)} entries for {len(plan.constraints)} constraints")
        for front in self.evolved or ():
            check_points("notes.evolved", plan, front.codes)
            if len(front.scores) != len(front.codes) or not front.progress or {len(p) for p in front.progress} != {2}:
                raise ZooError("notes.evolved has not one score a point, or no progress")
        check_points("notes.winners", plan, [winner.code for winner in self.winners])


@dataclass(frozen=True)
class _Raw:
    plan: str
    origin: Any
    options: Any = field(default_factory=dict)
    capacity: Capacity | None = None
    pool: int | None = None
    encoder: Any = None
    stop: StoppingEpoch | None = None
    evolved: tuple[EvolvedPoints, ...] | None = None
    winners: tuple[Any, ...] = ()


_NAMES = [one.name for one in fields(_Raw)]


def check_rows(plan: SearchPlan, trials: Sequence[Trial], outcomes: Mapping[int, Outcome]) -> None:
    """Raise unless trials are consecutively numbered points of the plan's space with one score an epoch."""
    check_points("a trial", plan, [trial.code for trial in trials])
    for number, trial in enumerate(trials):
        if trial.number != number or not 1 <= trial.epochs <= plan.rounds.epochs or trial.round < 1:
            raise ZooError(
                f"trial {shown(trial.number)} is number {number}, of round {trial.round}, {trial.epochs} epochs"
            )
    for number, outcome in outcomes.items():
        if not 0 <= number < len(trials):
            raise ZooError(f"there is an outcome of trial {number}, which does not exist")
        if outcome.failure is None and len(outcome.curve) != trials[number].epochs:
            raise ZooError(f"trial {number} has {len(outcome.curve)} scores for {trials[number].epochs} epochs")


def check_points(place: str, plan: SearchPlan, codes: Sequence[Code]) -> None:
    """Raise unless ``codes`` are points of the plan's space."""
    for code in codes:
        if not plan.space.is_point(code):
            raise ZooError(f"{place} has {shown(code)}, which is no point of the space")


def check_figures(place: str, figures: object) -> None:
    """Raise unless ``figures`` maps names to numbers."""
    numbers = isinstance(figures, Mapping) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in figures.values()
    )
    if not numbers:
        raise ZooError(f"{place} is {shown(figures)}; it must be an object of numbers")
