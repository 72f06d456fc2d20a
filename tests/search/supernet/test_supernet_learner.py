"""The two kinds of step of a differentiable search: what they change, by which gradient, and where that leads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from supernet_jobs import SPACE, measured
from torch import Tensor

from fbnetv3_zoo.arch import Activation, Conv, InvertedResidual, PoolingHead, Skip
from fbnetv3_zoo.arch.cost import arch_cost, tabulate
from fbnetv3_zoo.preprocess import Preprocess
from fbnetv3_zoo.recipes import SGD, Recipe
from fbnetv3_zoo.search.space import Bound
from fbnetv3_zoo.search.supernet import Absolute, Layer, LayerSpace, Power, Product, Sum, Supernet, SupernetPlan
from fbnetv3_zoo.search.supernet.expected_cost import CostTables
from fbnetv3_zoo.search.supernet.learner import SupernetLearner
from fbnetv3_zoo.search.supernet.plan import CostLoss
from fbnetv3_zoo.search.supernet.space import fixed
from fbnetv3_zoo.training.distributed import World
from fbnetv3_zoo.training.execution import Execution
from fbnetv3_zoo.training.loader import Batch, seed_of

HSWISH = Activation.HARD_SWISH
DEAR, CHEAP = InvertedResidual(5, 8, 1, 1, 3, HSWISH), Skip(8)
TWO = LayerSpace("two", (8,), (
    fixed(Conv(1, 8, 1, HSWISH)), (Layer((DEAR, CHEAP)),), fixed(PoolingHead(16, 2, HSWISH)),
), in_channels=1, num_classes=2)  # fmt: skip
MANY = replace(SPACE, resolutions=(6, 8), in_channels=1, num_classes=2)
"""96 networks with every kind of choice, for the same images."""
RECIPE = Recipe(20, 64, SGD(), 0.1, warmup_epochs=0, weight_decay=1e-3)
PLAN = SupernetPlan("two", TWO, RECIPE, loss=Sum(0.0), choice_epoch=0, choice_rate=0.2, choice_decay=0.0)


def learner_of(plan: SupernetPlan, execution: Execution = Execution()) -> SupernetLearner:
    supernet = Supernet(plan.space, generator=torch.Generator().manual_seed(0))
    supernet.preprocess = Preprocess(8, 8, mean=(0.5,), std=(0.25,))
    tables = CostTables.of(plan.space, plan.cost, measured(plan.space) if plan.cost == "latency_ms" else None)
    return SupernetLearner(supernet, plan, tables, execution=execution, world=World())


def batch(seed: int) -> Batch:
    """Stripes that lie or stand, in noise: equal in every pixel's distribution, so that only a neighborhood tells."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=64)
    stripes = 255 * ((np.arange(8)[:, None] + rng.integers(2, size=64)[:, None, None]) % 2)
    images = np.broadcast_to(stripes, (64, 8, 8)).copy()
    images[labels == 1] = images[labels == 1].transpose(0, 2, 1)
    noisy = np.clip(images + rng.normal(0, 40, images.shape), 0, 255).astype(np.uint8)
    return Batch(torch.from_numpy(noisy[:, None]), torch.from_numpy(labels))


def weight_step(learner: SupernetLearner, parts: list[Batch], *, seed: int, rate: float) -> float:
    loss = float(learner.gradients(parts, seed=seed))
    learner.update(rate)
    return loss


def choice_step(learner: SupernetLearner, parts: list[Batch], *, seed: int) -> float:
    loss = learner.choice_gradients(parts, seed=seed)
    learner.update_choices()
    return loss


def train(learner: SupernetLearner, steps: int, first: int = 0) -> float:
    """So many steps of both kinds; the probability of the dear block."""
    for n in range(first, first + steps):
        weight_step(learner, [batch(2 * n)], seed=n, rate=0.1)
        choice_step(learner, [batch(2 * n + 1)], seed=n)
    return float(learner.supernet.probabilities()[0][0])


def logits_of(learner: SupernetLearner) -> list[Tensor]:
    return [logit.detach().clone() for logit in learner.supernet.logits]


def weights_of(learner: SupernetLearner) -> dict[str, Tensor]:
    """The parameters of the supernet but for the logits."""
    named = learner.supernet.named_parameters()
    return {name: p.detach().clone() for name, p in named if not name.startswith("logits")}


# What a step changes


def test_a_step_changes_the_weights_or_the_choices() -> None:
    plan = replace(PLAN, space=MANY, recipe=replace(RECIPE, weight_decay=0.1, clip_norm=0.1), choice_decay=0.1)
    learner = learner_of(plan)
    for n in range(3):
        logits = logits_of(learner)
        before = weights_of(learner)
        weight_step(learner, [batch(n)], seed=n, rate=0.1)
        assert all(map(torch.equal, logits_of(learner), logits))
        assert not any(torch.equal(p, before[name]) for name, p in weights_of(learner).items() if "conv.w" in name)
        before = weights_of(learner)
        norms = learner.supernet.state_dict()["layers.0.candidates.0.norm.running_mean"].clone()
        choice_step(learner, [batch(n + 10)], seed=n)
        assert all(torch.equal(p, before[name]) for name, p in weights_of(learner).items())
        assert not any(map(torch.equal, logits_of(learner), logits))
        assert all(p.grad is None for p in learner.supernet.parameters())  # none were computed for the weights
        assert not torch.equal(learner.supernet.state_dict()["layers.0.candidates.0.norm.running_mean"], norms)


def test_a_weight_step_does_not_depend_on_the_choice_step_before_it() -> None:
    """But for logits and norms; gradients that are clipped are those of the weights alone."""
    weights = []
    for steps in (0, 1):
        learner = learner_of(replace(PLAN, recipe=replace(RECIPE, clip_norm=0.01)))
        norms = {name: tensor.clone() for name, tensor in learner.supernet.state_dict().items()}
        for _ in range(steps):
            choice_step(learner, [batch(0)], seed=0)
        learner.supernet.load_state_dict(norms)
        weight_step(learner, [batch(1)], seed=1, rate=0.1)
        weights.append(weights_of(learner))
    assert all(torch.equal(p, weights[1][name]) for name, p in weights[0].items())


def test_the_average_follows_both() -> None:
    learner = learner_of(replace(PLAN, recipe=replace(RECIPE, ema_decay=0.75, ema_warmup=False)))
    averaged = learner.averaged
    assert averaged is not learner.supernet
    train(learner, 1)  # the first update copies
    logit, own = averaged.logits[0].clone(), learner.supernet.logits[0]
    choice_step(learner, [batch(5)], seed=5)
    expected = logit + 0.25 * (own.detach() - logit)
    torch.testing.assert_close(averaged.logits[0].detach(), expected, rtol=1e-6, atol=0)
    weight, now = averaged.classifier.weight.clone(), learner.supernet.classifier.weight
    weight_step(learner, [batch(6)], seed=6, rate=0.1)
    torch.testing.assert_close(averaged.classifier.weight, 0.75 * weight + 0.25 * now.detach(), rtol=1e-5, atol=1e-7)
    learner.set_temperature(2.5)
    assert (learner.supernet.temperature, averaged.temperature) == (2.5, 2.5)


def test_without_an_average_the_supernet_itself_counts() -> None:
    learner = learner_of(PLAN)
    assert learner.averaged is learner.supernet
    assert list(learner.optimizers) == ["optimizer", "choices"]


# The gradient of the choices

LOSSES: dict[str, tuple[CostLoss, float | None]] = {
    "product": (Product(0.2, 0.6), None),
    "steep product": (Product(3.0, 2.0), None),
    "product of a target": (Product(0.2, 0.6), 0.5),
    "product with a power of the cost": (Product(0.2, 0.6, Power.COST), None),
    "sum": (Sum(0.7), None),
    "sum to a target": (Sum(0.7), 0.5),
    "above the target": (Absolute(0.7), 0.3),
    "below the target": (Absolute(0.7), 1.0),
}
"""With the target as a part of the dearest network's cost."""


@pytest.mark.parametrize("cost", ["macs", "parameters", "latency_ms"])
@pytest.mark.parametrize(("loss", "share"), LOSSES.values(), ids=LOSSES)
def test_the_gradient_is_that_of_the_whole_loss(loss: CostLoss, share: float | None, cost: str) -> None:
    dearest = max(exact_costs(cost))
    target = None if share is None else Bound(cost, dearest * share)
    plan = replace(PLAN, space=MANY, cost=cost, target=target, loss=loss)
    learner, parts = learner_of(plan), [batch(0), batch(1)]
    with torch.no_grad():
        for n, logit in enumerate(learner.supernet.logits):
            logit.copy_(torch.randn(len(logit), generator=torch.Generator().manual_seed(n)))
    learner.set_temperature(1.3)
    own, entropy = list(learner.supernet.logits), float(cross_entropy(learner, parts).detach())
    expected = torch.autograd.grad(whole_loss(learner, parts, dearest), own)
    applied: list[Tensor] = []
    learner.choices.register_step_pre_hook(lambda *_: applied.extend(logit.grad.clone() for logit in own))
    assert choice_step(learner, parts, seed=3) == pytest.approx(entropy, rel=1e-6)
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for found, gradient in zip(applied, expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-5, atol=1e-5 * largest)
        assert float(gradient.abs().max()) > 1e-3 * largest  # every choice counts


@cache
def exact_costs(cost: str) -> list[float]:
    """What every network of the space costs, in the order of its points."""
    archs = [MANY.arch(code, "network") for code in np.ndindex(*(len(d) for d in MANY.dimensions))]
    found = measured(MANY)(tabulate(archs)) if cost == "latency_ms" else [getattr(arch_cost(a), cost) for a in archs]
    return [float(value) for value in found]


def cross_entropy(learner: SupernetLearner, parts: list[Batch]) -> Tensor:
    """The mean over ``parts``, with the noise that the step of seed 3 draws; norms as in training."""
    twin = Supernet(MANY)
    twin.load_state_dict(learner.supernet.state_dict())
    twin.logits, twin.temperature = learner.supernet.logits, learner.supernet.temperature
    twin.train().draw_noise(seed_of(3, 1))
    inputs = [(part.images / 255 - 0.5) / 0.25 for part in parts]
    return torch.stack(
        [F.cross_entropy(twin(x), part.labels) for x, part in zip(inputs, parts, strict=True)]
    ).mean()  # fmt: skip


def whole_loss(learner: SupernetLearner, parts: list[Batch], dearest: float) -> Tensor:
    """The loss of the choices, written out: the cost is a mean over all networks."""
    plan, supernet = learner.plan, learner.supernet
    supernet.logits.requires_grad_(True)
    supernet.draw_noise(seed_of(3, 1))
    assert supernet.noise is not None
    weights = [
        torch.softmax((logit.double() + noise) / 1.3, 0)
        for logit, noise in zip(supernet.logits, supernet.noise, strict=True)
    ]
    chances = weights[0]
    for weight in weights[1:]:
        chances = torch.outer(chances, weight).flatten()
    cost = chances @ torch.tensor(exact_costs(plan.cost), dtype=torch.float64)
    entropy = cross_entropy(learner, parts)
    if isinstance(plan.loss, Product):
        counted = cost * 1000 if plan.cost == "latency_ms" else cost  # microseconds
        if plan.loss.power is Power.COST:
            return entropy * plan.loss.alpha * (counted**plan.loss.beta).log()
        return entropy * plan.loss.alpha * counted.log() ** plan.loss.beta
    share = cost / (dearest if plan.target is None else plan.target.at_most)
    if isinstance(plan.loss, Absolute):
        above = plan.target.at_most < dearest
        assert bool(share > 1) == above
        return entropy + plan.loss.alpha * (share - 1 if above else 1 - share)
    return entropy + plan.loss.alpha * share


def test_the_gradient_is_applied_by_adam_with_decay() -> None:
    learner = learner_of(replace(PLAN, loss=Sum(0.3), choice_rate=0.02, choice_decay=0.5))
    twin = torch.nn.Parameter(torch.zeros(2))
    adam = torch.optim.Adam([twin], lr=0.02, weight_decay=0.5)
    applied: list[Tensor] = []
    learner.choices.register_step_pre_hook(lambda *_: applied.append(learner.supernet.logits[0].grad.clone()))
    for n in range(4):
        choice_step(learner, [batch(n)], seed=n)
        twin.grad = applied[-1]
        adam.step()
        assert torch.equal(learner.supernet.logits[0], twin)


def test_values_that_are_all_the_same() -> None:
    """Two expansions that give one width: nothing depends on them, and nothing pulls at them."""
    same = Layer((InvertedResidual(3, 8, 1, 1, 2, HSWISH),), (), (2, 2.05))
    learner = learner_of(replace(PLAN, space=replace(TWO, stages=(*TWO.stages[:2], (same,), TWO.stages[2]))))
    choice_step(learner, [batch(0)], seed=0)
    chosen, useless = learner.supernet.logits
    assert not torch.equal(chosen, torch.zeros(2))
    assert torch.equal(useless, torch.zeros(2))


# Where it leads


def steps_until(learner: SupernetLearner, first: int, reached: Callable[[float], bool]) -> int:
    """Train until the probability of the dear block has ``reached``, at most 200 steps; the number of the next step."""
    for n in range(first, first + 200):
        if reached(train(learner, 1, n)):
            return n + 1
    pytest.fail(f"the probability is {float(learner.supernet.probabilities()[0][0]):.3f} after 200 steps")


def test_the_choice_follows_what_cost_weighs() -> None:
    """The dear block tells the classes apart, the cheap one cannot; so the one or the other is chosen, and back."""
    learner, step = learner_of(PLAN), 0
    for alpha, dear in ((0.0, True), (3.0, False), (0.0, True)):
        learner.plan = replace(learner.plan, loss=Sum(alpha))
        step = steps_until(learner, step, lambda p, dear=dear: p > 0.8 if dear else p < 0.2)  # type: ignore[misc]


def test_a_small_or_a_large_weight_of_cost_from_the_beginning() -> None:
    small, large = (train(learner_of(replace(PLAN, loss=Sum(alpha))), 30) for alpha in (0.01, 3.0))
    assert small > 0.8
    assert large < 0.05


def test_a_steeper_product_prefers_the_cheaper_block() -> None:
    flat, steep = (train(learner_of(replace(PLAN, loss=Product(0.2, beta))), 30) for beta in (0.6, 10.0))
    assert flat > 0.8
    assert steep < 0.05
