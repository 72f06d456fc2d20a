"""Whether the candidates of a plan fit a device, before the first is trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fbnetv3_zoo.training.execution import Execution
from fbnetv3_zoo.training.memory import Fit, TrainingMemory, fit, training_memory

from ..plan import SearchPlan
from ..space import CostModel, NetworkCosts, draw_pool

_LOOKED_AT, _DRAWN = 3, 2000


def _needing(processes: int) -> str:
    return "a candidate needs" if processes == 1 else f"each of a candidate's {processes} processes needs"


def fit_memory(
    plan: SearchPlan, execution: Execution, available: float, *, choose: bool = False, costs: CostModel | None = None,
    processes: int = 1,
) -> Fit | None:  # fmt: skip
    """How the candidates of ``plan`` fit ``available`` bytes for each of their ``processes``.

    None if it searches no networks or recipes.

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
            training_memory(one.arch, one.recipe, execution=replace(execution, accumulation=parts), processes=processes)
            for one in candidates
            if one.arch is not None and one.recipe is not None
        ]
        return max(found, key=lambda memory: memory.total)

    return fit(f"plan {plan.name}: {_needing(processes)} up to", needed, execution, available, choose=choose)
