"""Executors, which evaluate candidates: in this process, in local processes, or on Ray. All give the same curves."""

from __future__ import annotations

from fbnetv3_zoo.errors import ZooError, check_type, nearest
from fbnetv3_zoo.utils import telemetry  # noqa: F401 - before the libraries that it silences
from fbnetv3_zoo.utils.hardware import cores

from .executor import Capacity, Executor
from .gpus import room
from .in_process import InProcess
from .local_pool import LocalPool
from .ray.executor import RayExecutor

__all__ = ["Capacity", "Executor", "InProcess", "LocalPool", "RayExecutor", "find_executor"]

KNOWN = ("in-process", "pool", "pool:N", "ray", "ray:ADDRESS", "ray://HOST:10001")


def find_executor(text: str, *, cpus_per_task: int = 1, gpus_per_task: float = 0) -> Executor:
    """The executor that ``text`` names: ``in-process``, ``pool:4``, ``pool`` (a worker for every core available to this
    process, as far as there are GPUs), ``ray`` (the cluster in RAY_ADDRESS, or a temporary one), ``ray:ADDRESS``, ``ray://HOST:10001``.

    A task has ``cpus_per_task`` cores and ``gpus_per_task`` GPUs (a share of one: 1/2, 1/3, ...; 0: none of its own).
    """
    check_type("executor", text, str, f"text: {', '.join(KNOWN)}")
    kind, _, rest = text.partition(":")
    if text == "in-process":
        return InProcess(gpus_per_task=gpus_per_task)
    if text == "pool":
        workers = max(1, cores() // cpus_per_task)
        fitting = min(workers, room(gpus_per_task)) if gpus_per_task else workers
        return LocalPool(fitting, gpus_per_task=gpus_per_task, cpus_per_task=cpus_per_task)
    if kind == "pool" and rest.isascii() and rest.isdigit():
        return LocalPool(int(rest), gpus_per_task=gpus_per_task, cpus_per_task=cpus_per_task)
    if text == "ray":
        return RayExecutor(cpus_per_task=cpus_per_task, gpus_per_task=gpus_per_task)
    if kind == "ray" and rest.strip("/"):
        address = text if rest.startswith("//") else rest
        return RayExecutor(address, cpus_per_task=cpus_per_task, gpus_per_task=gpus_per_task)
    raise ZooError(f"unknown executor {text!r}{nearest(text, KNOWN)}; choose from {', '.join(KNOWN)}")
