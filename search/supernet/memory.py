"""Whether the supernet of a plan fits a device, before it is trained."""

from __future__ import annotations

from dataclasses import replace

from torch._subclasses.fake_tensor import FakeTensorMode

from fbnetv3_zoo.training.execution import Execution
from fbnetv3_zoo.training.loader import images_at_once
from fbnetv3_zoo.training.memory import Fit, TrainingMemory, fit, module_memory

from .plan import SupernetPlan
from .supernet import Supernet


def supernet_memory(plan: SupernetPlan, execution: Execution = Execution(), processes: int = 1) -> TrainingMemory:
    """The memory of training the supernet of ``plan``, in each of ``processes`` processes.

    Raises :class:`ZooError` if a batch cannot be divided among them.
    """
    images = images_at_once(plan.recipe.batch_size, processes, execution.accumulation, least=2)
    with FakeTensorMode():
        supernet, side = Supernet(plan.space, drop_rate=plan.recipe.dropout).train(), plan.space.resolutions[-1]
        shape = images, plan.space.in_channels, side, side
        return module_memory(supernet, shape, plan.recipe, execution, list(supernet.layers))


def fit_supernet(
    plan: SupernetPlan, execution: Execution, available: float, *, choose: bool = False, processes: int = 1
) -> Fit:
    """How the supernet of ``plan`` fits ``available`` bytes in each of ``processes`` processes.

    With ``choose``, batches are divided into as many parts as it takes. Raises :class:`ZooError` with the figures if
    they do not fit.
    """

    def needed(parts: int) -> TrainingMemory:
        return supernet_memory(plan, replace(execution, accumulation=parts), processes)

    return fit(f"plan {plan.name}: its supernet needs", needed, execution, available, choose=choose)
