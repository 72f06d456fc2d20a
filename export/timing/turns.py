"""Times of several model files, measured in turn, so that drift of the machine affects all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TypeVar

import numpy as np

from .worker_process import BenchWorker, OpenRequest

T = TypeVar("T")
Times = tuple[float, ...]
"""Seconds of one image, round by round."""


def rotated(items: Sequence[T], number: int) -> list[T]:
    """``items`` in the order of round ``number``: A B C, B C A, C A B, A B C ..."""
    start = number % len(items) if items else 0
    return [*items[start:], *items[:start]]


def times_in_turn(
    requests: Mapping[str, OpenRequest], rounds: int, *, on_round: Callable[[int], None] = lambda number: None
) -> dict[str, Times]:
    """The times of one image for each of ``requests``, whose processes all run and take turns, round by round.

    Raises :class:`~.worker_process.WorkerError` if a file cannot be opened or its process fails.
    """
    times: dict[str, list[float]] = {name: [] for name in requests}
    with ExitStack() as stack:
        workers = {}
        for name, request in requests.items():
            workers[name] = BenchWorker(request)
            stack.callback(workers[name].end)
            workers[name].begin(1)
        for number in range(rounds):
            for name in rotated([*workers], number):
                times[name].append(workers[name].turn().seconds)
            on_round(number + 1)
    return {name: tuple(row) for name, row in times.items()}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    low, middle, high = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    return low, middle, high


def ratios(times: Sequence[float], others: Sequence[float]) -> list[float]:
    """``times`` over ``others``, round by round."""
    return [one / other for one, other in zip(times, others, strict=True)]
