"""Progress of a search on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, TextColumn

from fbnetv3_zoo.search.evaluation import Outcome, Trial
from fbnetv3_zoo.search.run import SearchCallback

from ..output import console, show_above
from ..progress import EpochBar

if TYPE_CHECKING:
    from fbnetv3_zoo.search.supernet import SupernetEpoch, SupernetPlan


class SearchProgress(SearchCallback):
    """A line on standard error for every stage and every candidate."""

    def __init__(self) -> None:
        self._console = console()

    def on_stage(self, line: str) -> None:
        """Print the stage's line."""
        show_above(self._console, line)

    def on_outcome(self, trial: Trial, outcome: Outcome) -> None:
        """Print the candidate's line."""
        ended = f"{outcome.failure.value}: {outcome.reason}" if outcome.failure else f"score {outcome.curve[-1]:.4f}"
        line = f"  candidate {trial.number:>3}  {ended}  {outcome.seconds:.1f} s"
        show_above(self._console, line)


class SupernetProgress(EpochBar):
    """A progress bar with the loss, and a line for each finished epoch."""

    def __init__(self, plan: SupernetPlan) -> None:
        epoch = TextColumn("epoch {task.fields[epoch]}/{task.total:g}")
        super().__init__(plan.recipe.epochs, epoch, BarColumn(), TextColumn("loss"), TextColumn("{task.fields[loss]}"))
        self._plan = plan

    def on_epoch(self, epoch: SupernetEpoch) -> None:
        """Print the epoch's line."""
        self.epoch_line(
            f"epoch {epoch.epoch:>3}/{self._plan.recipe.epochs}  loss {epoch.train_loss:.3f}  "
            f"top-1 {epoch.validation_top1:7.2%}  expected {self._plan.cost} {epoch.cost:,.6g}  "
            f"decided {epoch.decided:4.0%}  {epoch.seconds:.1f} s",
            epoch.epoch,
            epoch.seconds,
        )
