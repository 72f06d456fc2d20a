"""Computing with several threads, in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Result = TypeVar("Result")


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[T], Result], items: Iterable[T], *, ahead: int
) -> Iterator[Result]:
    """``function`` of every item, in order, computed by the pool for at most ``ahead`` items in advance."""
    left, waiting = iter(items), list[Future[Result]]()
    try:
        while True:
            waiting += [pool.submit(function, item) for item in itertools.islice(left, ahead - len(waiting))]
            if not waiting:
                return
            yield waiting.pop(0).result()
    finally:
        for future in waiting:
            future.cancel()
