"""When tasks end that are handed out in order, each to the place that is free first, as all executors do."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def makespan(durations: Sequence[float], places: int) -> float:
    """When the last of the tasks ends, if ``places`` can run at a time."""
    free = [0.0] * places
    for duration in durations:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def longest_first(costs: npt.NDArray[np.float64]) -> list[int]:
    """The order in which to hand out tasks of such ``costs``: a long one that begins last keeps all others waiting."""
    order: list[int] = np.argsort(-costs, kind="stable").tolist()
    return order
