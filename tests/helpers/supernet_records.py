"""Results of differentiable searches with invented figures: what a report is written of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fbnetv3_zoo.arch import Activation, Conv, InvertedResidual, PoolingHead, Skip
from fbnetv3_zoo.search.space import parse_constraint
from fbnetv3_zoo.search.supernet import (
    DNAS_PLANS,
    Layer,
    LayerSpace,
    Product,
    SampledNetwork,
    Sum,
    SupernetEpoch,
    SupernetPlan,
    SupernetResult,
)
from fbnetv3_zoo.search.supernet.space import fixed

HSWISH = Activation.HARD_SWISH
BLOCKS = (InvertedResidual(3, 8, 1, 1, 2, HSWISH), InvertedResidual(5, 8, 1, 1, 2, HSWISH), Skip(8))
HEAD = fixed(PoolingHead(16, 2, HSWISH))
BLOCK_SPACE = LayerSpace("blocks", (16,), (fixed(Conv(3, 8, 2, HSWISH)), (Layer(BLOCKS), Layer(BLOCKS[:2])), HEAD))
WIDTH_SPACE = LayerSpace("<i>wide</i>", (16, 24), (
    (Layer((Conv(3, 8, 2, HSWISH),), (4, 8)),), (Layer(BLOCKS[:2], (4, 8), (2, 3, 4)),), HEAD,
), num_classes=7)  # fmt: skip
RECIPE = replace(DNAS_PLANS["tiny"].recipe, epochs=4, seed=11)
TARGET = parse_constraint("macs<=120k")[0]
BLOCK_PLAN = SupernetPlan(
    "mine", BLOCK_SPACE, RECIPE, loss=Product(0.25, 0.7), target=TARGET, choice_epoch=2, temperature=3.5, cooling=0.125,
    choice_rate=0.03, choice_decay=0.002, choice_share=0.35, draws=5,
)  # fmt: skip
WIDTH_PLAN = replace(BLOCK_PLAN, name="masks", space=WIDTH_SPACE, loss=Sum(0.5), target=None, cost="parameters")


def record_of(plan: SupernetPlan, *, last: Sequence[Sequence[float]] = (), data: str = "digits") -> SupernetResult:
    """A search whose probabilities go from even ones to ``last`` (default: random ones), with made up figures."""
    rng, space, count = np.random.default_rng(0), plan.space, plan.recipe.epochs
    ends = [np.array(of) for of in last] or [rng.dirichlet(np.ones(len(d))) for d in space.dimensions]
    code = tuple(int(of.argmax()) for of in ends)
    epochs = []
    for n in range(count):
        share = max(0, n + 1 - plan.choice_epoch) / (count - plan.choice_epoch)
        of = tuple(tuple((share * end + (1 - share) / len(end)).tolist()) for end in ends)
        epochs.append(SupernetEpoch(
            epoch=n + 1, temperature=plan.temperature_at(n), learning_rate=0.1 / (n + 1), train_loss=2.5 - n / count,
            validation_loss=2 - n / count, validation_top1=0.9 * (n + 1) / count, cost=140_500.0 - 1000 * n,
            likeliest=150_600.0 - 1000 * n, code=code, probabilities=of, seconds=30.0,
        ))  # fmt: skip
    found = SampledNetwork(code, -1.25, 111_100.0, 0.456)
    others = [tuple(other) for other in space.sample(2, rng, method="uniform").tolist()]
    drawn = tuple(SampledNetwork(other, -3.5 - n, 99_000.0 + n * 1000, 0.123) for n, other in enumerate(others))
    return SupernetResult(Path("somewhere"), plan, data, tuple(epochs), found, drawn)
