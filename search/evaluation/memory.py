"""Whether the candidates of a plan fit a device, before the first is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.training.execution import Execution
from fbnetv3_zoo.training.memory import GIB, TrainingMemory, training_memory

from ..plan import SearchPlan
from ..space import CostModel, NetworkCosts, draw_pool

USABLE = 0.9
"""The share of a device's memory that a candidate may take; the rest is for gradients of activations, and fragments."""
_LOOKED_AT, _DRAWN = 3, 2000
_PARTS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Fit:
    """How the candidates of a plan fit a device: the memory of the largest one, as it is computed by ``execution``."""

    execution: Execution
    memory: TrainingMemory
    whole: TrainingMemory

    def __str__(self) -> str:
        """One line."""
        accumulation = self.execution.accumulation
        if accumulation == 1:
            return f"a candidate needs up to {self.whole}"
        return (
            f"a candidate needs up to {self.whole.total / GIB:.1f} GiB for a whole batch; in {accumulation} parts, "
            f"{self.memory}"
        )


def fit_memory(
    plan: SearchPlan, execution: Execution, available: float, *, choose: bool = False, costs: CostModel | None = None
) -> Fit | None:
    """How the candidates of ``plan`` fit ``available`` bytes; None if it searches no networks or recipes.

    With ``choose``, batches are divided into as many parts as it takes. Raises :class:`ZooError` with the figure if
    they do not fit. The largest candidate is looked for among those of a pool with the most MACs.
    """
    space = plan.space
    if space.networks is None or space.recipes is None:
        return None
    pool = draw_pool(space, costs or NetworkCosts(space), plan.within, min(plan.pool, _DRAWN), np.random.default_rng(0))
    largest = pool.codes[np.argsort(-pool.costs["macs"], kind="stable")[:_LOOKED_AT]]
    candidates = [space.candidate(code) for code in largest]

    def needed(parts: int) -> TrainingMemory:
        found = [
            training_memory(one.arch, one.recipe, execution=replace(execution, accumulation=parts))
            for one in candidates
            if one.arch is not None and one.recipe is not None
        ]
        return max(found, key=lambda memory: memory.total)

    whole = memory = needed(1)
    for parts in _PARTS if choose else (execution.accumulation,):
        memory = whole if parts == 1 else needed(parts)
        if memory.total <= USABLE * available:
            return Fit(replace(execution, accumulation=parts), memory, whole)
    least = "" if memory.images == whole.images else f", and {memory.total / GIB:.1f} GiB in parts of {memory.images}"
    raise ZooError(
        f"plan {plan.name}: a candidate needs up to {whole.total / GIB:.1f} GiB for batches of {whole.images:,} images"
        f"{least}, more than {USABLE:.0%} of the {available / GIB:.0f} GiB of the device; give more parts "
        "(--accumulation), --precision bf16 or --gradient-checkpointing"
    )
