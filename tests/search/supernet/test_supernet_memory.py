"""The memory of a supernet's training, counted from its plan, against what PyTorch keeps of a real step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from refusals import refusal
from saved_tensors import Saved

from fbnetv3_zoo.search.supernet import DMASKING_PLANS, DNAS_PLANS, SupernetPlan
from fbnetv3_zoo.search.supernet.memory import fit_supernet, supernet_memory
from fbnetv3_zoo.search.supernet.supernet import Supernet
from fbnetv3_zoo.training import Execution, Precision
from fbnetv3_zoo.training.memory import GIB

TINY = [DNAS_PLANS["tiny"], DMASKING_PLANS["tiny"]]


def _kept(plan: SupernetPlan, images: int) -> int:
    net, side = Supernet(plan.space).train(), plan.space.resolutions[-1]
    net.draw_noise(0)
    saved = Saved(net)
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
        F.cross_entropy(net(torch.randn(images, plan.space.in_channels, side, side)), torch.zeros(images, dtype=int))
    return sum(saved.sizes.values())


@pytest.mark.parametrize("plan", TINY, ids=lambda plan: plan.name)
@pytest.mark.parametrize("images", [4, 16])
def test_what_a_step_keeps_is_counted(plan: SupernetPlan, images: int) -> None:
    found = supernet_memory(replace(plan, recipe=replace(plan.recipe, batch_size=images, dropout=0.0)))
    assert found.activations == pytest.approx(_kept(plan, images), rel=0.02)


@pytest.mark.parametrize("plan", TINY, ids=lambda plan: plan.name)
def test_what_makes_it_smaller(plan: SupernetPlan) -> None:
    whole = supernet_memory(plan)
    saving = supernet_memory(plan, Execution(gradient_checkpointing=True))
    low = supernet_memory(plan, Execution(precision=Precision.BFLOAT16))
    assert saving.activations < whole.activations / 2
    assert low.activations < 0.8 * whole.activations
    halves = supernet_memory(plan, Execution(accumulation=2))
    assert halves == supernet_memory(plan, processes=2)
    assert halves.images == whole.images // 2


@pytest.mark.long
def test_the_papers_plan_of_fbnet() -> None:
    """It needs 56 GiB: one GPU of 80 GB holds it; on 16 GB it is refused, or divided into as many parts as it takes."""
    plan = DNAS_PLANS["paper"]
    found = fit_supernet(plan, Execution(), 80e9)
    assert found.memory.total / GIB == pytest.approx(55.7, abs=0.1)
    assert str(found).startswith("plan dnas: its supernet needs 55.7 GiB (55.5 for the activations of 192 images, ")
    said = refusal(lambda: fit_supernet(plan, Execution(), 16e9))
    assert said == (
        "plan dnas: its supernet needs 55.7 GiB for batches of 192 images, more than 90% of the 15 GiB of the device; "
        "give more parts (--accumulation), --precision bf16 or --gradient-checkpointing"
    )
    assert fit_supernet(plan, Execution(), 16e9, choose=True).execution == Execution(accumulation=8)


@pytest.mark.long
def test_the_papers_plan_of_fbnetv2() -> None:
    """Its 944 GiB are for no GPU; with layers that are computed anew, one of 80 GB holds it."""
    plan, saving = DMASKING_PLANS["paper"], Execution(gradient_checkpointing=True)
    assert supernet_memory(plan).total / GIB == pytest.approx(944, abs=1)
    assert fit_supernet(plan, saving, 80e9).memory.total / GIB == pytest.approx(66.7, abs=0.1)
