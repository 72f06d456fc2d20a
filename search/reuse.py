"""A search's predictor and curves used again: stage 3 for new constraints, a front, a recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.utils.paths import exists

from .evaluation.config import EvaluatorConfig
from .evaluation.tabular import Recording, record
from .notes import Winner
from .predictors import Predictor
from .predictors.mlp import Encoder
from .result import ENCODER, SearchResult
from .run import Search
from .space import Constraint
from .stages.evolution import pareto


def search_of(found: SearchResult) -> Search:
    """The search that ``found`` is the record of, its costs where its journal says they came from."""
    origin = EvaluatorConfig.from_plain(found.origin) if found.origin else None
    space = found.plan.space
    return Search(
        found.plan, costs=origin.costs(space) if origin else None, points=origin.points(space) if origin else None
    )


def predictor_of(found: SearchResult) -> Predictor:
    """The predictor fitted on everything that stage 2 has measured."""
    path = found.folder / ENCODER
    predictor = found.state().fit(Encoder.load(path) if exists(path) else None)
    if predictor is None:
        raise ZooError(f"{found.folder}: has {len(found.scored()[0])} scored candidates; a predictor needs at least 2")
    return predictor


def evolve_again(found: SearchResult, constraints: Sequence[Constraint]) -> list[Winner]:
    """The best predicted point under each of ``constraints``: stage 3 alone. Nothing is trained."""
    search, predictor = search_of(found), predictor_of(found)
    winners = []
    for evolved in search.evolve(predictor, constraints, found.state().best(len(found.trials))):
        costs = {name: float(values[0]) for name, values in search.costs(evolved.codes[:1]).items()}
        code = tuple(evolved.codes[0].tolist())
        winners.append(Winner(evolved.constraint, code, float(evolved.scores[0]), None, costs))
    return winners


def front_of(found: SearchResult, cost: str, steps: int) -> list[dict[str, Any]]:
    """The front of ``cost`` and predicted score: values, cost and score of points that none surpasses in both."""
    search, predictor = search_of(found), predictor_of(found)
    front = pareto(
        lambda codes: predictor.predict(codes).mean, search.space, search.costs, cost=cost, steps=steps,
        within=found.plan.within, seeds=found.scored()[0], evolving=found.plan.evolving, seed=found.plan.seed,
    )  # fmt: skip
    return [
        {"cost": float(front_cost), "score": float(score), "values": search.space.values(code)}
        for code, front_cost, score in zip(front.codes, front.costs, front.scores, strict=True)
    ]


def recording_of(found: SearchResult) -> Recording:
    """All learning curves of a search, with the costs of their points."""
    curves = [
        (trial.code, found.outcomes[trial.number].curve)
        for trial in found.trials
        if trial.number in found.outcomes and found.outcomes[trial.number].failure is None
    ]
    costs = search_of(found).costs
    return record(found.plan.space, curves, costs if costs.names else None)
