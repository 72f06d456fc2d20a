"""What changes in a differentiable search, and its two kinds of step: of the weights, and of the choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fbnetv3_zoo.training.distributed import World
from fbnetv3_zoo.training.execution import Execution
from fbnetv3_zoo.training.learner import Learner
from fbnetv3_zoo.training.loader import Batch, seed_of

from .decoding import extremes
from .expected_cost import CostTables, ExpectedCost
from .plan import Absolute, Power, Product, SupernetPlan
from .supernet import Supernet

_LEAST = 2.72
"""The cost of which the logarithm is taken is at least this, so that its powers have a slope."""


class SupernetLearner(Learner):
    """Supernet, optimizers of weights and choices, and the moving average of both."""

    def __init__(
        self, supernet: Supernet, plan: SupernetPlan, tables: CostTables, *, execution: Execution, world: World
    ) -> None:
        supernet.logits.requires_grad_(False)  # so that the optimizer of the weights leaves them alone
        super().__init__(supernet, plan.recipe, execution=execution, world=world)  # type: ignore[arg-type]
        self.plan, self.supernet, self.expected = plan, supernet, ExpectedCost(tables)
        self.choices = torch.optim.Adam(supernet.logits, lr=plan.choice_rate, weight_decay=plan.choice_decay)
        self._scale = extremes(tables)[1][0] if plan.target is None else plan.target.at_most

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Both optimizers, by their names in a checkpoint."""
        return {"optimizer": self.optimizer, "choices": self.choices}

    @property
    def averaged(self) -> Supernet:
        """The supernet with averaged weights and choices, where there is an average."""
        found = self.result
        assert isinstance(found, Supernet)
        return found

    def set_temperature(self, temperature: float) -> None:
        """The temperature of the choices, of the average too."""
        self.supernet.temperature = self.averaged.temperature = temperature

    def gradients(self, parts: Sequence[Batch], *, seed: int, noise: int | None = None) -> Tensor:
        """Compute the gradients of the cross entropy and return it; ``noise`` is the seed of the Gumbel noise."""
        self.supernet.draw_noise(seed_of(seed, 1) if noise is None else noise)
        return super().gradients(parts, seed=seed)

    def choice_gradients(self, parts: Sequence[Batch], *, seed: int, noise: int | None = None) -> Tensor:
        """Compute the gradients of the choices' loss with fixed weights and return its cross entropy in nats.

        They are averaged over processes here, since DistributedDataParallel exchanges only those of the weights.
        """
        exchanging, self._forward = self._forward, self.student
        self.supernet.requires_grad_(False)
        self.supernet.logits.requires_grad_(True)
        try:
            entropy = self.gradients(parts, seed=seed, noise=noise)
            self._add_cost(entropy)
        finally:
            self._forward = exchanging
            self.supernet.requires_grad_(True)
            self.supernet.logits.requires_grad_(False)
        for logit in self.supernet.logits:
            assert logit.grad is not None
            logit.grad = self.world.total(logit.grad).div_(self.world.size)
        return entropy

    def update_choices(self) -> None:
        """Apply the gradients of the choices."""
        self.choices.step()
        self.choices.zero_grad()  # or the clipping of the weights' gradients would count them
        self._follow()

    def _add_cost(self, entropy: Tensor) -> None:
        """Make the gradients of the cross entropy those of the whole loss."""
        logits = list(self.supernet.logits)
        term = cost_term(self.expected(self.supernet.weights()), self.plan, self._scale)
        slopes = torch.autograd.grad(term, logits)
        by, factor = (float(entropy), term.item()) if isinstance(self.plan.loss, Product) else (1.0, 1.0)
        for logit, slope in zip(logits, slopes, strict=True):
            own = torch.zeros_like(logit) if logit.grad is None else logit.grad  # None: its values are all the same
            logit.grad = own.mul_(factor).add_(slope.to(own), alpha=by)


def cost_term(cost: Tensor, plan: SupernetPlan, scale: float) -> Tensor:
    """What the cross entropy is multiplied by (:class:`Product`), or what is added to it (all others)."""
    if isinstance(plan.loss, Product):
        counted = cost * (1000 if plan.cost == "latency_ms" else 1)
        log = counted.clamp(min=_LEAST).log()
        powered = plan.loss.beta * log if plan.loss.power is Power.COST else log**plan.loss.beta
        return plan.loss.alpha * powered
    share = cost / scale
    return plan.loss.alpha * ((share - 1).abs() if isinstance(plan.loss, Absolute) else share)
