"""The methods that evidence_search.py compares: this package's search, and others, on a table of points.

All ask for points of the table, each once: whatever a method goes by, it ranks the points that are left. Needs
`optuna` and `smac`.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from evidence_table import Doubles, encoder

from fbnetv3_zoo.search import PLANS
from fbnetv3_zoo.search.evaluation import Outcome
from fbnetv3_zoo.search.predictors import MLP, Pretraining
from fbnetv3_zoo.search.space import LETTERS, Choice, Codes
from fbnetv3_zoo.search.stages import IterativeConfig, IterativeSearch

MOST = 240
BATCH = 24
FIRST = 10  # random points before TPE and SMAC go by a model, TPE's default


class Spent(Exception):  # noqa: N818 - a method has had its trainings
    """All trainings are used up."""


@dataclass
class Trainings:
    """The points of a table that a method has had trained, in order; at most ``budget``."""

    codes: Codes
    told: Doubles
    budget: int
    rows: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.row_of = {tuple(code): row for row, code in enumerate(self.codes.tolist())}

    def __call__(self, code: Sequence[int] | Codes) -> float:
        """The validation accuracy of a point."""
        if len(self.rows) == min(self.budget, len(self.codes)):
            raise Spent
        row = self.row_of[tuple(np.asarray(code).tolist())]
        assert row not in self.rows
        self.rows.append(row)
        return float(self.told[row])

    @property
    def left(self) -> Codes:
        """The points that were not trained yet."""
        return np.delete(self.codes, self.rows, axis=0)

    def nearest(self, code: npt.NDArray[np.int64]) -> Codes:
        """Of the points left the nearest: a dimension counts 1 for another choice, its share of the range otherwise."""
        left = self.left
        if not len(left):
            raise Spent
        ranges = np.array([1 if isinstance(d.options, Choice) else max(1, len(d) - 1) for d in LETTERS.dimensions])
        found: Codes = left[np.minimum(np.abs(left - code) / ranges, 1).sum(1).argmin()]
        return found


Method = Callable[[Trainings, int], None]
_NETWORKS = np.array([dimension.part == "architecture" for dimension in LETTERS.dimensions])


def searched(config: IterativeConfig, train: Trainings, seed: int) -> None:
    """Stages 1 and 2 of this package, in rounds of 24; scores are fractions, as in searches."""
    kind, before = config.predictor, None
    if isinstance(kind, MLP) and kind.pretraining is not Pretraining.NONE and np.ptp(train.codes, 0)[_NETWORKS].any():
        before = encoder(kind, seed)
    search = IterativeSearch(LETTERS, train.codes, config, encoder=before, seed=seed)
    while trials := search.ask():
        search.tell([Outcome(trial.number, (train(trial.code) / 100,)) for trial in trials])


def random_search(train: Trainings, seed: int) -> None:
    """Points in random order."""
    for code in _shuffled(train, seed, 1):
        train(code)


def _shuffled(train: Trainings, seed: int, stream: int) -> Codes:
    codes: Codes = np.random.default_rng([seed, stream]).permutation(train.codes)
    return codes


def evolution(population: int, train: Trainings, seed: int) -> None:
    """Regularized evolution (Real et al. 2019): mutate the best of ten, drop the oldest.

    The table has few of all points: a child is the nearest that is left.
    """
    rng, free = np.random.default_rng([seed, 2]), np.flatnonzero(LETTERS.sizes > 1)
    alive: deque[tuple[Codes, float]] = deque((code, train(code)) for code in _shuffled(train, seed, 2)[:population])
    while True:
        parents = [alive[index] for index in rng.permutation(len(alive))[:10]]
        child = max(parents, key=lambda parent: parent[1])[0].copy()
        column = rng.choice(free)
        child[column] = (child[column] + rng.integers(1, LETTERS.sizes[column])) % LETTERS.sizes[column]
        child = train.nearest(child)
        alive.append((child, train(child)))
        alive.popleft()


def _values(code: Codes) -> dict[str, int]:
    """What TPE and SMAC are told of a point."""
    return {d.name: int(value) for d, value in zip(LETTERS.dimensions, code, strict=True) if len(d) > 1}


def tpe(train: Trainings, seed: int) -> None:
    """Optuna's TPE, multivariate, with all points that are left as its candidates."""
    import optuna

    class OfTheTable(optuna.samplers.TPESampler):
        """TPE whose candidates, usually drawn from its density of good points, are the points left."""

        def _build_parzen_estimator(self, *given: Any, **named: Any) -> Any:
            made = super()._build_parzen_estimator(*given, **named)
            left = train.left.astype(float)
            made.sample = lambda *_: {d.name: left[:, n] for n, d in enumerate(LETTERS.dimensions) if len(d) > 1}
            return made

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = OfTheTable(seed=seed, multivariate=True, n_startup_trials=FIRST)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    kinds: dict[str, optuna.distributions.BaseDistribution] = {
        d.name: optuna.distributions.CategoricalDistribution(range(len(d)))
        if isinstance(d.options, Choice)
        else optuna.distributions.IntDistribution(0, len(d) - 1)
        for d in LETTERS.dimensions
        if len(d) > 1
    }
    for code in _shuffled(train, seed, 3)[:FIRST]:
        study.add_trial(optuna.trial.create_trial(params=_values(code), distributions=kinds, value=train(code)))
    while len(train.left):
        asked = study.ask(kinds)
        study.tell(asked, train([asked.params.get(d.name, 0) for d in LETTERS.dimensions]))


def smac(train: Trainings, seed: int) -> None:
    """SMAC3's facade for hyperparameters: random forest, expected improvement, one point of five at random."""
    import ConfigSpace
    from smac import HyperparameterOptimizationFacade, Scenario
    from smac.acquisition.maximizer import AbstractAcquisitionMaximizer
    from smac.random_design import ProbabilityRandomDesign
    from smac.runhistory import TrialInfo, TrialValue

    space = ConfigSpace.ConfigurationSpace(seed=seed)
    for d in LETTERS.dimensions:
        if len(d) > 1 and isinstance(d.options, Choice):
            space.add(ConfigSpace.CategoricalHyperparameter(d.name, range(len(d))))
        elif len(d) > 1:
            space.add(ConfigSpace.UniformIntegerHyperparameter(d.name, 0, len(d) - 1))
    points = {tuple(code): ConfigSpace.Configuration(space, _values(code)) for code in train.codes}  # type: ignore[arg-type]
    codes = {config: code for code, config in points.items()}

    class OfTheTable(AbstractAcquisitionMaximizer):
        """All points left, the most promising first, but one of five at random, as SMAC takes them."""

        def _maximize(self, previous_configs: list[Any], n_points: int) -> list[tuple[float, Any]]:
            ranked = self._sort_by_acquisition_value([points[tuple(code)] for code in train.left])
            for place in range(min(len(ranked), BATCH)):
                if self._rng.rand() < 0.2:
                    ranked.insert(place, ranked.pop(self._rng.randint(place, len(ranked))))
            return ranked

    logging.getLogger("smac").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(space, n_trials=MOST, deterministic=True, seed=seed, output_directory=folder)  # type: ignore[arg-type]
        kind = HyperparameterOptimizationFacade
        optimizer = kind(
            scenario, lambda config, seed: 0.0, logging_level=False, overwrite=True,
            initial_design=kind.get_initial_design(
                scenario, n_configs=0, additional_configs=[points[tuple(c)] for c in _shuffled(train, seed, 4)[:FIRST]]
            ),
            acquisition_maximizer=OfTheTable(space, seed=seed), random_design=ProbabilityRandomDesign(0.0, seed=seed),
        )  # fmt: skip
        while len(train.left):
            asked = optimizer.ask()
            optimizer.tell(
                TrialInfo(asked.config, seed=asked.seed), TrialValue(cost=-train(codes[asked.config])), save=False
            )


SHIPPED = IterativeConfig(epochs=1, rounds=-(-MOST // BATCH), batch=BATCH)
LITERAL = replace(
    SHIPPED, predictor=PLANS["paper-literal"].rounds.predictor, choosing=PLANS["paper-literal"].rounds.choosing
)
OURS, RANDOM = "shipped", "random"
METHODS: Mapping[str, Method] = {
    OURS: partial(searched, SHIPPED),
    "literal": partial(searched, LITERAL),
    RANDOM: random_search,
    "evolution, population 50": partial(evolution, 50),
    "evolution, population 10": partial(evolution, 10),
    "TPE": tpe,
    "SMAC": smac,
}
