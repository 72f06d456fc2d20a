"""The parts of a search that need no evaluator: costs, pool, encoder, stage 2 as ask and tell, evolution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from fbnetv3_zoo.errors import ZooError

from .plan import SearchPlan, find_plan
from .predictors import MLP, Predictor, Pretraining, pretrain_encoder
from .predictors.mlp import Encoder
from .space import Codes, Constraint, CostModel, NetworkCosts, NoCosts, Pool, check_constraint, draw_pool, outside
from .stages.evolution import Evolved, evolve
from .stages.iterative import IterativeSearch

LEAST_POOL = 10
"""With fewer points, stage 1 pretrains nothing."""


class Search:
    """The parts of a search that need no evaluator, each usable on its own; ``plan`` is as for :func:`find_plan`."""

    def __init__(
        self, plan: SearchPlan | str | Path, *, costs: CostModel | None = None, points: Codes | None = None
    ) -> None:
        plan = find_plan(plan)
        self.plan, self.space, self.points = plan, plan.space, points
        self.costs: CostModel = costs or (NetworkCosts(plan.space) if _searches_networks(plan) else NoCosts())

    def check(self, constraint: Constraint, *, at_least: Literal[1, 2] = 1) -> None:
        """Raise if too few points of the space meet ``constraint``, naming the nearest reachable value."""
        if self.points is not None:
            points = len(self._given(constraint))
        else:
            points = len(draw_pool(self.space, self.costs, constraint, 2, self._random(0)).codes)
        if points < at_least:
            bounds = f" that meets {','.join(map(str, constraint))}" if constraint else ""
            raise ZooError(f"space {self.space.name} has one point{bounds}; there is nothing to search")

    def check_all(self) -> None:
        """Raise if a constraint of the plan cannot be met."""
        self.check(self.plan.within, at_least=2)
        for constraint in self.plan.constraints:
            self.check(constraint)

    def pool(self) -> Pool:
        """The points of stages 1 and 2."""
        if self.points is not None:
            codes = self._given(self.plan.within)
            return Pool(codes, self.costs(codes))
        return draw_pool(self.space, self.costs, self.plan.within, self.plan.pool, self._random(1))

    def encoder(self, pool: Pool) -> Encoder | None:
        """Stage 1: an encoder pretrained on the costs of ``pool``; None if it is not used or has nothing to learn."""
        kind = self.plan.rounds.predictor
        varied = {name: values for name, values in pool.costs.items() if np.ptp(values) > 0}
        pretrains = isinstance(kind, MLP) and kind.pretraining is not Pretraining.NONE and len(pool.codes) >= LEAST_POOL
        if not (pretrains and varied and self.space.width("architecture")) or not isinstance(kind, MLP):
            return None
        return pretrain_encoder(self.space, pool.codes, varied, kind=kind, seed=self.plan.seed)

    def iterations(self, pool: Pool, encoder: Encoder | None) -> IterativeSearch:
        """Stage 2, as ask and tell."""
        return IterativeSearch(self.space, pool.codes, self.plan.rounds, encoder=encoder, seed=self.plan.seed)

    def evolve(self, predictor: Predictor, constraints: Sequence[Constraint], seeds: Codes) -> list[Evolved]:
        """Stage 3: the best points under each of ``constraints`` by the mean of ``predictor``, starting from ``seeds``.

        If the points to search are given, they are ranked instead.
        """
        if self.points is not None:
            return [self._ranked(predictor, constraint) for constraint in constraints]
        return evolve(
            lambda codes: predictor.predict(codes).mean, self.space, self.costs, constraints, seeds=seeds,
            evolving=self.plan.evolving, seed=self.plan.seed,
        )  # fmt: skip

    def _given(self, constraint: Constraint) -> Codes:
        assert self.points is not None
        check_constraint(constraint, self.costs.names)
        codes: Codes = self.points[outside(self.costs, constraint, self.points) == 0]
        if not len(codes):
            raise ZooError(f"none of the {len(self.points)} given points meets {','.join(map(str, constraint))}")
        return codes

    def _ranked(self, predictor: Predictor, constraint: Constraint) -> Evolved:
        codes = self._given(constraint)
        scores = predictor.predict(codes).mean
        order = np.argsort(-scores, kind="stable")[: self.plan.evolving.population]
        return Evolved(constraint, codes[order], scores[order], ((len(codes), float(scores.max())),))

    def _random(self, stage: int) -> np.random.Generator:
        return np.random.default_rng([self.plan.seed, stage])


def _searches_networks(plan: SearchPlan) -> bool:
    return plan.space.networks is not None
