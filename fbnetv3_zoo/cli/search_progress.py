"""Searching on the screen."""

from __future__ import annotations

from rich.console import Console

from fbnetv3_zoo.search.run import Observer
from fbnetv3_zoo.search.trials import Outcome, Trial


class SearchProgress(Observer):
    """A line on standard error for every stage and every candidate."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    def on_stage(self, line: str) -> None:
        """Print the stage's line."""
        self._console.print(line, highlight=False, markup=False)

    def on_outcome(self, trial: Trial, outcome: Outcome) -> None:
        """Print the candidate's line."""
        ended = f"{outcome.failure.value}: {outcome.reason}" if outcome.failure else f"score {outcome.curve[-1]:.4f}"
        line = f"  candidate {trial.number:>3}  {ended}  {outcome.seconds:.1f} s"
        self._console.print(line, highlight=False, markup=False)
