"""Processes find each other, whatever earlier ones have left in the store; threads stand for them here."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist
from refusals import refusal

from fbnetv3_zoo.training.distributed.rendezvous import agree

SOON = timedelta(seconds=60)


def together(store: dist.Store, size: int, late: Callable[[], float] = lambda: 0.0) -> set[str]:
    """What ``size`` processes agree on, each of which comes some time later."""

    def come(rank: int) -> str:
        time.sleep(late())
        return agree(store, rank, size, patience=SOON)

    with ThreadPoolExecutor(size) as pool:
        return set(pool.map(come, range(size)))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_run_in_the_same_processes_has_its_own_name(size: int) -> None:
    """As networks that are trained one after the other: some are still in the last run when others begin the next."""
    store, chance = dist.HashStore(), random.Random(0)
    names = [together(store, size, lambda: chance.uniform(0, 0.05)) for _ in range(10)]
    assert all(len(agreed) == 1 for agreed in names)
    assert len(set.union(*names)) == 10


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_processes_that_ended_before_the_rest_came_are_replaced(dead: int) -> None:
    """The first of three processes dies while it waits; all are started anew, and nobody meets the dead."""
    store = dist.HashStore()
    told = refusal(lambda: agree(store, dead, 3, patience=timedelta(seconds=0.2)))
    assert told.startswith(f"process {dead} of 3 waited 0.00333333 minutes for the others to join; see what they say")
    assert len(together(store, 3)) == 1


def test_one_that_is_replaced_while_the_leader_waits() -> None:
    """The leader has invited a process that is gone; it invites the one that came in its place."""
    store, leader = dist.HashStore(), []
    waiting = threading.Thread(target=lambda: leader.append(agree(store, 0, 2, patience=SOON)))
    dist.PrefixStore("fbnetv3_zoo rendezvous", store).set("here 1", '["gone"]')
    waiting.start()
    time.sleep(0.3)
    assert agree(store, 1, 2, patience=SOON) == (waiting.join(), leader[0])[1]
