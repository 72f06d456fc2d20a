"""Several nodes of a Ray cluster, all on this machine: what must be the same on them, and the GPUs of candidates."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from misbehaving import Misbehaving, OnData, Training, task
from ray.cluster_utils import Cluster
from refusals import refusal

from fbnetv3_zoo import __version__
from fbnetv3_zoo.search import PLANS, TrainingEvaluator, run_search
from fbnetv3_zoo.search.evaluation import Failure, Limits
from fbnetv3_zoo.search.executors import Capacity, RayExecutor

DATA = f"64 images {'0' * 64}; 4 class names {'1' * 64}"
OTHER = f"63 images {'2' * 64}; 4 class names {'1' * 64}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A node with two logical GPUs, and DATA."""
    args = {"num_cpus": 2, "num_gpus": 2, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={**args, "env_vars": {"NODE_DATA": DATA}})
    yield made
    made.shutdown()


def other(cluster: Cluster, **variables: str) -> Iterator[str]:
    """A second node with these environment variables for as long as the generator lives; its name in messages."""
    node = cluster.add_node(num_cpus=2, env_vars=variables)
    yield f"Ray node {node.node_ip_address} ({node.node_id[:8]})"
    cluster.remove_node(node)


def look(cluster: Cluster, **settings: float) -> Capacity:
    return RayExecutor(cluster.address, **settings).look(OnData(), Limits())  # type: ignore[arg-type]


def search_on(cluster: Cluster, folder: Path) -> None:
    run_search(PLANS["tiny"], OnData(), folder, executor=RayExecutor(cluster.address))


def test_nodes_with_the_same_are_counted(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_DATA", DATA)
    assert look(cluster, gpus_per_task=0.5) == Capacity(2, 0.5, 2, "GPU")
    for _ in other(cluster, NODE_DATA=DATA):
        assert look(cluster) == Capacity(4, 1, 4, "core")
        assert look(cluster, gpus_per_task=1) == Capacity(2, 1, 2, "GPU")
        assert look(cluster, workers=3) == Capacity(3, 1, 3, "core")
    trained = RayExecutor(cluster.address).look(TrainingEvaluator("digits"), Limits())
    assert trained == Capacity(2, 1, 2, "core")
    assert not ray.is_initialized()


def test_a_node_with_other_data_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before there is a folder; a node without GPUs does not matter where candidates need one."""
    monkeypatch.setenv("NODE_DATA", DATA)
    for name in other(cluster, NODE_DATA=OTHER):
        assert refusal(lambda: search_on(cluster, tmp_path / "none")) == (
            f"{name}: its data is not that of this machine (images: 64 here, 63 there); "
            "give every node the same at the same path"
        )
        assert not (tmp_path / "none").exists()
        assert look(cluster, gpus_per_task=1).at_once == 2
    for name in other(cluster, NODE_DATA=""):
        assert refusal(lambda: look(cluster)) == (
            f"{name}: /data/photos: no such folder; every node needs the data at the same path"
        )


def test_a_node_with_another_version_is_named(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)  # Ray's workers look for modules in the caller's folder first
    (tmp_path / "fbnetv3_zoo").mkdir()
    (tmp_path / "fbnetv3_zoo" / "__init__.py").write_text('__version__ = "0.0.1"\n')
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    for name in other(cluster, PYTHONPATH=path):
        assert refusal(lambda: RayExecutor(cluster.address).look(Training(), Limits())) == (
            f"{name}: has fbnetv3-zoo 0.0.1, and this machine {__version__}; install the same version on every node"
        )


def test_candidates_at_a_time_see_different_gpus(cluster: Cluster, tmp_path: Path) -> None:
    tasks = [task(number, "gpus_of_two", epochs=1) for number in range(2)]
    found = list(RayExecutor(cluster.address, gpus_per_task=1).run(Misbehaving(tmp_path), tasks, Limits()))
    assert sorted(outcome.curve for outcome in found) == [(0.0,), (1.0,)]


def test_a_candidate_sees_all_the_gpus_that_it_has(cluster: Cluster, tmp_path: Path) -> None:
    (outcome,) = RayExecutor(cluster.address, gpus_per_task=2).run(
        Misbehaving(tmp_path), [task(0, "gpus", epochs=2)], Limits()
    )
    assert sorted(outcome.curve) == [0.0, 1.0]


def test_a_candidate_of_several_processes(cluster: Cluster, tmp_path: Path) -> None:
    """They run on the machine of their task; if one dies, the candidate is lost."""
    tasks = [task(0, "group", epochs=2), task(1, "group_dies", epochs=2)]
    executor = RayExecutor(cluster.address, cpus_per_task=2)
    whole, lost = sorted(
        executor.run(Misbehaving(tmp_path), tasks, Limits(retries=0)), key=lambda outcome: outcome.number
    )
    assert (whole.curve, whole.reason) == ((2.0, 2.0), "")
    assert (lost.failure, lost.reason) == (Failure.LOST, "process 1 of 2 died (signal 9, SIGKILL)")
