"""Reuse of a search's predictor and curves: stage 3 for new constraints, a Pareto front, a recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fbnetv3_zoo.errors import ZooError

from .evaluation.config import EvaluatorConfig
from .evaluation.tabular import Recording, record
from .notes import Winner
from .parts import Search
from .predictors import Predictor
from .predictors.mlp import Encoder
from .result import ENCODER, SearchResult
from .space import Constraint
from .stages.pareto import pareto


def search_of(result: SearchResult) -> Search:
    """The search behind ``result``, with costs from the sources named in its journal."""
    origin = EvaluatorConfig.from_plain(result.origin) if result.origin else None
    space = result.plan.space
    return Search(
        result.plan, costs=origin.costs(space) if origin else None, points=origin.points(space) if origin else None
    )


def predictor_of(result: SearchResult) -> Predictor:
    """The predictor fitted on all scores of stage 2, with the encoder of stage 1 where there was one."""
    pretrained = result.encoder is not None
    predictor = result.state().fit(Encoder.load(result.folder / ENCODER) if pretrained else None)
    if predictor is None:
        raise ZooError(
            f"{result.folder}: has {len(result.scored()[0])} scored candidates; a predictor needs at least 2"
        )
    return predictor


def evolve_again(result: SearchResult, constraints: Sequence[Constraint]) -> list[Winner]:
    """Stage 3 alone: the best predicted point under each of ``constraints``. Nothing is trained."""
    search, predictor = search_of(result), predictor_of(result)
    winners = []
    for evolved in search.evolve(predictor, constraints, result.state().best(len(result.trials))):
        costs = {name: float(values[0]) for name, values in search.costs(evolved.codes[:1]).items()}
        code = tuple(evolved.codes[0].tolist())
        winners.append(Winner(evolved.constraint, code, float(evolved.scores[0]), None, costs))
    return winners


def front_of(result: SearchResult, cost: str, steps: int) -> list[dict[str, Any]]:
    """The Pareto front of ``cost`` and predicted score: values, cost and score of each point."""
    search, predictor = search_of(result), predictor_of(result)
    front = pareto(
        lambda codes: predictor.predict(codes).mean, search.space, search.costs, cost=cost, steps=steps,
        within=result.plan.within, seeds=result.scored()[0], evolving=result.plan.evolving, seed=result.plan.seed,
    )  # fmt: skip
    return [
        {"cost": float(front_cost), "score": float(score), "values": search.space.values(code)}
        for code, front_cost, score in zip(front.codes, front.costs, front.scores, strict=True)
    ]


def recording_of(result: SearchResult) -> Recording:
    """All learning curves of a search, with the costs of their points."""
    curves = [
        (trial.code, result.outcomes[trial.number].curve)
        for trial in result.trials
        if trial.number in result.outcomes and result.outcomes[trial.number].failure is None
    ]
    costs = search_of(result).costs
    return record(result.plan.space, curves, costs if costs.names else None)
