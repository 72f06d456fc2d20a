"""Choosing the points of a pool to evaluate next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fbnetv3_zoo.errors import check_number

from ..predictors import Predictor
from ..space import Codes


@dataclass(frozen=True, slots=True)
class AcquisitionConfig:
    """How a batch is chosen: by predicted mean + ``optimism`` x spread of the members.

    ``by_member`` is the share of the batch chosen by single members in turn instead (Thompson sampling with an
    ensemble).
    """

    FORMAT: ClassVar[str] = "choosing"

    optimism: float = 0.5
    by_member: float = 0.5

    def __post_init__(self) -> None:
        check_number("AcquisitionConfig.optimism", self.optimism, at_least=0)
        check_number("AcquisitionConfig.by_member", self.by_member, at_least=0, at_most=1)


def choose(predictor: Predictor, pool: Codes, number: int, how: AcquisitionConfig, rng: np.random.Generator) -> Codes:
    """``number`` points of ``pool`` (all, if it has fewer), the most promising first."""
    if len(pool) <= number:
        return pool
    prediction = predictor.predict(pool)
    ranked = [np.argsort(-(prediction.mean + how.optimism * prediction.spread), kind="stable")]
    ranked += [np.argsort(-member, kind="stable") for member in prediction.members]
    members = len(prediction.members)
    turns = np.where(rng.random(number) < how.by_member, 1 + rng.permutation(number) % members, 0)
    taken: dict[int, None] = {}
    for turn in turns:
        taken[next(int(index) for index in ranked[turn] if int(index) not in taken)] = None
    return pool[list(taken)]
