"""What a search has left in its folder: read from the journal, whether it is running, interrupted or done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from fbnetv3_zoo.atomic import replacing_together
from fbnetv3_zoo.errors import ZooError, check_type, check_whole, shown
from fbnetv3_zoo.plain import from_plain, to_plain
from fbnetv3_zoo.search.costs import Constraint
from fbnetv3_zoo.search.iterate import Iterations
from fbnetv3_zoo.search.journal import Journal
from fbnetv3_zoo.search.plan import Plan
from fbnetv3_zoo.search.space import Candidate
from fbnetv3_zoo.search.trials import Outcome, Trial


@dataclass(frozen=True)
class Winner:
    """The best point found under a constraint: predicted score, measured one (None: not trained in full), its costs."""

    constraint: Constraint
    code: tuple[int, ...]
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
class Record:
    """A search as its journal has it. ``stop`` and ``evolved`` are None until their stage is done.

    ``encoder`` has r2 and kendall by statistic (None: no pretraining). ``evolved``: one entry a constraint, with codes,
    predicted scores and progress as pairs of points scored and best score.
    """

    folder: Path
    plan: Plan
    origin: Mapping[str, Any]
    trials: tuple[Trial, ...]
    outcomes: Mapping[int, Outcome]
    pool: int | None
    encoder: Mapping[str, Mapping[str, float]] | None
    stop: Mapping[str, Any] | None
    evolved: Sequence[Mapping[str, Any]] | None
    winners: tuple[Winner, ...]

    @classmethod
    def read(cls, folder: str | Path) -> Record:
        """The search in ``folder``. Raises :class:`ZooError` where there is none."""
        with Journal.read(folder) as journal:
            notes = journal.notes()
            if "plan" not in notes:
                raise ZooError(f"{folder}: its search has not begun; start it again with `fbnetv3 search run`")
            try:
                told = from_plain(_Notes, {key: notes[key] for key in notes if key in _NOTES}, "notes")
                plan = Plan.from_json(told.plan)
                winners = tuple(Winner.from_plain(winner) for winner in told.winners)
                _check_notes(plan, told, winners)
            except ZooError as error:
                raise ZooError(f"{folder}: its journal is damaged ({error}); give another folder") from None
            return cls(
                Path(folder), plan, told.origin, journal.trials(), journal.outcomes(), told.pool, told.encoder,
                told.stop, told.evolved, winners,
            )  # fmt: skip

    @property
    def done(self) -> bool:
        """Whether the search has ended."""
        return bool(self.winners)

    @property
    def stop_epoch(self) -> int:
        """The epoch whose scores stage 2 goes by."""
        return int(self.stop["epoch"]) if self.stop else self.plan.rounds.epochs

    def scored(self, *, rounds: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Codes and scores at :attr:`stop_epoch` of the first ``rounds`` rounds (default: all of stage 2)."""
        last = self.plan.rounds.rounds if rounds is None else rounds
        stage = Iterations(self.plan.space, np.zeros((2, len(self.plan.space.dimensions)), np.int64), self.plan.rounds)
        stage.stop_epoch = self.stop_epoch
        stage.trials = [trial for trial in self.trials if trial.round <= last]
        stage.outcomes = dict(self.outcomes)
        return stage.scored()

    def candidate(self, winner: Winner) -> Candidate:
        """What ``winner`` stands for, under the name of its files."""
        return self.plan.space.candidate(winner.code, self.plan.result_name(winner.constraint))


@dataclass(frozen=True)
class _Notes:
    """What a journal notes of a search besides its trials and outcomes."""

    plan: str
    origin: Any
    pool: int | None = None
    encoder: Any = None
    stop: Any = None
    evolved: tuple[Any, ...] | None = None
    winners: tuple[Any, ...] = ()


_NOTES = [field.name for field in fields(_Notes)]


def _check_notes(plan: Plan, told: _Notes, winners: Sequence[Winner]) -> None:
    """Raise where a note is not of the form that this release writes."""
    check_type("notes.origin", told.origin, dict, "an object")
    if told.encoder is not None:
        check_type("notes.encoder", told.encoder, dict, "an object")
        for name, figures in told.encoder.items():
            check_figures(f"notes.encoder.{name}", figures)
    if told.stop is not None:
        check_type("notes.stop", told.stop, dict, "an object")
        check_whole("notes.stop.epoch", told.stop.get("epoch"), at_most=plan.rounds.epochs)
    for one in told.evolved or ():
        check_type("notes.evolved", one, dict, "a list of objects")
    sizes = [len(dimension) for dimension in plan.space.dimensions]
    for winner in winners:
        code = winner.code
        if len(code) != len(sizes) or not all(0 <= n < size for n, size in zip(code, sizes, strict=True)):
            raise ZooError(f"notes.winners has {shown(code)}, which is no point of the space")


def check_figures(place: str, figures: object) -> None:
    """Raise unless ``figures`` is an object of numbers."""
    numbers = isinstance(figures, Mapping) and all(
        isinstance(value, (int, float, type(None))) and not isinstance(value, bool) for value in figures.values()
    )
    if not numbers:
        raise ZooError(f"{place} is {shown(figures)}; it must be an object of numbers")


def write_winners(plan: Plan, winners: Sequence[Winner], folder: Path) -> list[Path]:
    """``NAME.arch.json`` and ``NAME.recipe.json`` of every winner, as `fbnetv3 train` and `create` take them."""
    texts = {}
    for winner in winners:
        name = plan.result_name(winner.constraint)
        candidate = plan.space.candidate(winner.code, name)
        for kind, value in (("arch", candidate.arch), ("recipe", candidate.recipe)):
            if value is not None:
                texts[folder / f"{name}.{kind}.json"] = value.to_json() + "\n"
    if texts:
        with replacing_together(*texts) as written:
            for path, text in zip(written, texts.values(), strict=True):
                path.write_text(text)
    return list(texts)
