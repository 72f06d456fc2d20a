"""A kind of row that some function has no branch for is an error there, never taken for another kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fbnetv3_zoo.arch import Block, Skip, settle
from fbnetv3_zoo.arch.blocks import check_size
from fbnetv3_zoo.arch.cost import tabulate_blocks
from fbnetv3_zoo.models.blocks import build_block
from fbnetv3_zoo.search.supernet.mixed_op import _build
from fbnetv3_zoo.search.supernet.space import label_of
from fbnetv3_zoo.weights.convert import official_block


@dataclass(frozen=True)
class FusedResidual:
    out_channels: int = 8
    stride: int = 1
    repeats: int = 1


NEW: Any = FusedResidual()
BLOCK: Block = replace(settle(((Skip(8),),), in_channels=8)[0], row=NEW)


@pytest.mark.parametrize(
    "use",
    [
        lambda: settle(((NEW,),), in_channels=8),
        lambda: check_size("net", [BLOCK], resolution=32, num_classes=10),
        lambda: tabulate_blocks([BLOCK], np.array([32])),
        lambda: build_block(BLOCK),
        lambda: [*official_block(BLOCK, "stages")],
        lambda: _build(BLOCK, True),
        lambda: label_of(NEW),
    ],
    ids=["widths", "size", "cost", "module", "official names", "supernet", "label"],
)
def test_a_row_without_a_branch_is_an_error(use: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match="no branch for FusedResidual"):
        use()
