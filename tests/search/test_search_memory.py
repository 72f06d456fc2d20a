"""Whether the candidates of a plan fit a device."""

from __future__ import annotations

from dataclasses import replace

import pytest
from refusals import refusal

from fbnetv3_zoo.search import PLANS
from fbnetv3_zoo.search.evaluation.memory import fit_memory
from fbnetv3_zoo.training import Execution, Precision
from fbnetv3_zoo.training.memory import GIB, USABLE

PAPER = replace(PLANS["paper"], pool=200)


def test_the_papers_plan_on_eighty_gigabytes_and_on_sixteen() -> None:
    """Its proxy recipe has batches of 1,024 images; the largest of its networks need 180 GiB for one."""
    found = fit_memory(PAPER, Execution(), 80e9, choose=True)
    assert found is not None
    assert found.execution == Execution(accumulation=4)
    assert found.memory.images == 256
    assert found.memory.total <= USABLE * 80e9 < found.whole.total
    needed = f"plan paper: a candidate needs up to {found.whole.total / GIB:.1f} GiB for "
    assert str(found).startswith(f"{needed}a whole batch; in 4 parts, ")
    said = refusal(lambda: fit_memory(PAPER, Execution(), 16e9))
    assert said == (
        f"{needed}batches of 1,024 images, more than 90% of the 15 GiB of the device; give more parts "
        "(--accumulation), --precision bf16 or --gradient-checkpointing"
    )


def test_what_else_makes_candidates_smaller() -> None:
    low = Execution(precision=Precision.BFLOAT16, gradient_checkpointing=True)
    found = fit_memory(PAPER, low, 80e9)
    assert found is not None
    assert found.execution == low
    assert found.memory == found.whole
    assert str(found) == f"plan paper: a candidate needs up to {found.whole}"
    assert fit_memory(PLANS["paper_recipe"], Execution(), 1.0) is None


def test_several_processes_share_a_batch() -> None:
    """Four take a quarter each, as four parts do."""
    found = fit_memory(PAPER, Execution(), 80e9, choose=True, processes=4)
    assert found is not None
    assert (found.execution.accumulation, found.memory.images) == (1, 256)
    assert str(found) == f"plan paper: each of a candidate's 4 processes needs up to {found.whole}"


def test_a_batch_that_no_number_of_parts_makes_small_enough() -> None:
    said = refusal(lambda: fit_memory(PAPER, Execution(), 1e9, choose=True))
    assert said.startswith("plan paper: a candidate needs up to ")
    assert " GiB in parts of 16, more than 90% of the 1 GiB of the device; " in said


@pytest.mark.parametrize("name", ["tiny"])
def test_small_plans_fit_anything(name: str) -> None:
    found = fit_memory(PLANS[name], Execution(), 4e9)
    assert found is not None
    assert found.execution.accumulation == 1
