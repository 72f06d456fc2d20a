"""The state of a search, running, interrupted or done, as read from the journal in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.utils.atomic_write import replacing_together
from fbnetv3_zoo.utils.paths import check_ours

from .evaluation.trial import Outcome, Trial
from .journal import Journal
from .notes import Notes, Winner, check_rows
from .plan import SearchPlan
from .space import Candidate
from .stages.state import SearchState

ENCODER, REPORT = "encoder.safetensors", "report.html"


@dataclass(frozen=True)
class SearchResult(Notes):
    """A search as its journal has it: the notes, all trials, and outcomes by their trial's number."""

    folder: Path
    trials: tuple[Trial, ...]
    outcomes: Mapping[int, Outcome]

    @classmethod
    def read(cls, folder: str | Path) -> SearchResult:
        """The search in ``folder``. Raises :class:`ZooError` if there is none."""
        with Journal.read(folder) as journal:
            notes = journal.notes()
            if "plan" not in notes:
                raise ZooError(f"{folder}: its search has not begun; start it again with `fbnetv3 search run`")
            trials, outcomes = journal.trials(), journal.outcomes()
        try:
            parsed = Notes.parse(notes)
            check_rows(parsed.plan, trials, outcomes)
        except ZooError as error:
            raise ZooError(f"{folder}: its journal is damaged ({error}); give another folder") from None
        return cls(**vars(parsed), folder=Path(folder), trials=trials, outcomes=outcomes)

    @property
    def done(self) -> bool:
        """Whether the search has ended."""
        return bool(self.winners)

    @property
    def measured(self) -> bool:
        """Whether all rounds of stage 2 are done."""
        last = self.plan.rounds.rounds
        proposed = [trial for trial in self.trials if trial.round <= last]
        finished = all(trial.number in self.outcomes for trial in proposed)
        return self.evolved is not None or (finished and any(trial.round == last for trial in proposed))

    @property
    def stop_epoch(self) -> int:
        """The epoch whose scores stage 2 uses."""
        return self.stop.epoch if self.stop else self.plan.rounds.epochs

    def state(self, *, rounds: int | None = None) -> SearchState:
        """The first ``rounds`` rounds (default: all of stage 2, without the finalists)."""
        config = self.plan.rounds
        last = config.rounds if rounds is None else rounds
        trials = tuple(trial for trial in self.trials if trial.round <= last)
        return SearchState(self.plan.space, config.predictor, self.plan.seed, self.stop_epoch, trials, self.outcomes)

    def scored(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes and scores of stage 2."""
        return self.state().scored()

    def candidate(self, winner: Winner) -> Candidate:
        """The candidate that ``winner`` describes, named like its files."""
        return self.plan.space.candidate(winner.code, self.plan.result_name(winner.constraint))


def winner_files(plan: SearchPlan) -> list[str]:
    """The names of all files that :func:`write_winners` may write for the constraints of ``plan``."""
    names = map(plan.result_name, plan.constraints)
    return [f"{name}.{kind}.json" for name in names for kind in ("arch", "recipe", "proxy.recipe")]


def write_winners(plan: SearchPlan, winners: Sequence[Winner], folder: Path) -> list[Path]:
    """``NAME.arch.json`` and ``NAME.recipe.json`` of every winner, as `fbnetv3 train` and `create` take them.

    If the plan's final training differs from the search's, its recipe is that, and the search's is
    ``NAME.proxy.recipe.json``. Raises :class:`ZooError` for files of these names that are not of this program.
    """
    texts = {}
    for winner in winners:
        name = plan.result_name(winner.constraint)
        candidate = plan.space.candidate(winner.code, name)
        final = plan.final.recipe(candidate.recipe) if plan.final and candidate.recipe else None
        proxy = None if final is None else candidate.recipe
        kinds = {"arch": candidate.arch, "recipe": final or candidate.recipe, "proxy.recipe": proxy}
        for kind, value in kinds.items():
            if value is not None:
                texts[folder / f"{name}.{kind}.json"] = value.to_json() + "\n"
    if texts:
        check_ours(*texts)
        with replacing_together(*texts) as written:
            for path, text in zip(written, texts.values(), strict=True):
                path.write_text(text)
    return list(texts)
