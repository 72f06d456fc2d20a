"""A search as one value, and the shipped plans."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from fbnetv3_zoo.errors import ZooError, check_type, check_whole
from fbnetv3_zoo.recipes import ExponentialDecay, Recipe, Schedule
from fbnetv3_zoo.utils.serialization import find, from_json, to_json

from .predictors import MLP, Pretraining
from .space import LETTERS, PAPER, PAPER_RECIPE, TINY, Bound, Constraint, Space, parse_constraint
from .stages.acquisition import AcquisitionConfig
from .stages.evolution import EvolutionConfig
from .stages.iterative import IterativeConfig

_LONGEST = 200  # characters of a result's name: file systems take 255, endings included


@dataclass(frozen=True, slots=True)
class FinalTraining:
    """How the networks that a search finds are trained at last, where that is longer than in the search."""

    epochs: int
    schedule: Schedule
    warmup_epochs: int

    def __post_init__(self) -> None:
        check_whole("FinalTraining.epochs", self.epochs)
        check_type("FinalTraining.schedule", self.schedule, Schedule, "ExponentialDecay or CosineDecay")
        check_whole("FinalTraining.warmup_epochs", self.warmup_epochs, at_least=0)

    def recipe(self, searched: Recipe) -> Recipe:
        """The recipe ``searched``, made longer."""
        return replace(searched, epochs=self.epochs, schedule=self.schedule, warmup_epochs=self.warmup_epochs)


@dataclass(frozen=True)
class SearchPlan:
    """A whole search.

    ``pool`` points that meet ``within`` are drawn for stages 1 and 2. Stage 3 finds the best for each of
    ``constraints`` (an empty one allows everything); of these, ``finalists`` a constraint are trained in full and the
    best is taken (0: the prediction decides). ``final`` is how the winners are to be trained afterwards, if not as in
    the search. All randomness derives from ``seed``.
    """

    FORMAT: ClassVar[str] = "plan"

    name: str
    space: Space
    rounds: IterativeConfig
    pool: int = 20_000
    within: Constraint = ()
    constraints: tuple[Constraint, ...] = ((),)
    finalists: int = 4
    evolving: EvolutionConfig = EvolutionConfig()
    final: FinalTraining | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ZooError(f"SearchPlan.name is {self.name!r}; use letters, digits, '.', '_' and '-' only")
        check_type("SearchPlan.space", self.space, Space, "a Space")
        check_type("SearchPlan.rounds", self.rounds, IterativeConfig, "an IterativeConfig")
        check_whole("SearchPlan.pool", self.pool, at_least=2)
        check_whole("SearchPlan.finalists", self.finalists, at_least=0)
        check_whole("SearchPlan.seed", self.seed, at_least=0, at_most=2**32 - 1)
        if not self.constraints:
            raise ZooError("SearchPlan.constraints is empty; give at least one (an empty one, (), allows everything)")
        _check_bounds("SearchPlan.within", self.within)
        for n, constraint in enumerate(self.constraints):
            _check_bounds(f"SearchPlan.constraints[{n}]", constraint)
        names = [self.result_name(constraint) for constraint in self.constraints]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ZooError(f"SearchPlan.constraints has one twice, or two whose files would both be called {twice[0]}")
        if len(longest := max(names, key=len)) > _LONGEST:
            raise ZooError(f"SearchPlan.name: {longest} is too long for the name of a file; choose a shorter one")

    def candidate_name(self, number: int) -> str:
        """The name of the candidate of trial ``number``, such as ``mine-0007``."""
        return f"{self.name}-{number:04d}"

    def result_name(self, constraint: Constraint) -> str:
        """The name of the result under ``constraint``, such as ``mine-macs-450M``."""
        return "-".join([self.name, *(bound.in_a_name for bound in constraint)])

    def to_json(self) -> str:
        """This plan as JSON text; :meth:`from_json` gives an equal value back."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> SearchPlan:
        """The plan in ``text``. Raises :class:`ZooError` naming the field that is wrong."""
        return from_json(cls, text)


def _check_bounds(place: str, constraint: object) -> None:
    if not isinstance(constraint, tuple) or not all(isinstance(bound, Bound) for bound in constraint):
        raise ZooError(f"{place} is {constraint!r}; it must be a tuple of bounds, as parse_constraint gives")


def _bounds(*texts: str) -> tuple[Constraint, ...]:
    return tuple(parse_constraint(text) for text in texts)


_FOUR = _bounds("macs<=450M", "macs<=550M", "macs<=650M", "macs<=750M")

_FINAL = FinalTraining(400, ExponentialDecay(0.9875), 5)  # the paper's final training
_LITERAL = IterativeConfig(
    epochs=150,
    predictor=MLP(members=1, pretraining=Pretraining.FROZEN_FIRST, thresholds=False, transform=False, epochs=50),
    choosing=AcquisitionConfig(optimism=0, by_member=0),
)
_LITERAL_EVOLUTION = EvolutionConfig(
    crossover=0, linear_fit=False, local_search=False, restarts=False, scaled_rates=False
)

PLANS: Mapping[str, SearchPlan] = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            # FBNetV3, section 4.2: n = 20,000 within 400 to 800 MMACs, T = 5 rounds of m = 48, four constraints
            SearchPlan(
                "paper",
                PAPER,
                IterativeConfig(epochs=150),
                within=parse_constraint("400M<=macs<=800M"),
                constraints=_FOUR,
                final=_FINAL,
            ),
            # the same to the letter: without what this package adds to the paper (docs/search.md)
            SearchPlan(
                "paper-literal",
                PAPER,
                _LITERAL,
                within=parse_constraint("400M<=macs<=800M"),
                constraints=_FOUR,
                finalists=0,
                evolving=_LITERAL_EVOLUTION,
                final=_FINAL,
            ),
            # section 4.1: the recipe of FBNetV2-L3, T = 4
            SearchPlan("paper_recipe", PAPER_RECIPE, IterativeConfig(epochs=150, rounds=4), final=_FINAL),
            # minutes on two cores, on the digits
            SearchPlan(
                "tiny",
                TINY,
                IterativeConfig(epochs=6, rounds=4, batch=8),
                within=parse_constraint("macs<=1M"),
                constraints=_bounds("macs<=1M"),
                finalists=2,
            ),
            # an hour or two on two cores, on drawn letters (docs/data.md)
            SearchPlan(
                "letters",
                LETTERS,
                IterativeConfig(epochs=12, batch=24),
                pool=4000,
                within=parse_constraint("0.3M<=macs<=3M"),
                constraints=_bounds("macs<=0.6M", "macs<=1.2M", "macs<=2.4M"),
                finalists=2,
            ),
        )
    }
)
"""The plans by name, as ``fbnetv3 search run --plan`` takes them."""


def find_plan(source: str | Path | SearchPlan) -> SearchPlan:
    """The plan that ``source`` stands for: a value, a name of :data:`PLANS`, or the path of a JSON file."""
    return find(SearchPlan, source, PLANS, what="plan", rest=f"shipped are {', '.join(PLANS)}, others are files")
