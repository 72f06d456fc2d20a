"""Intervals of means."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def mean_interval(values: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Mean over the last axis, and the ends of its 95 % t interval."""
    from scipy.stats import t

    mean, count = values.mean(-1), values.shape[-1]
    half = float(t.ppf(0.975, count - 1)) * values.std(-1, ddof=1) / math.sqrt(count)
    return mean, mean - half, mean + half
