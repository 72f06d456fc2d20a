"""Connecting to a Ray cluster: the caller's, an existing one, or a temporary one."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fbnetv3_zoo.errors import ZooError

from ..attempt import one_line

_log = logging.getLogger("fbnetv3_zoo")

QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With the value 0, Ray uses the loopback interface only, on any system."""


def imported() -> Any:
    """The module ray. Raises :class:`ZooError` if it is not installed."""
    try:
        import ray
        import ray.cloudpickle
        import ray.exceptions
    except ImportError:
        raise ZooError('the executor ray needs Ray: pip install "fbnetv3-zoo[ray]"') from None
    return ray


@contextmanager
def connected(ray: Any, address: str, workers: int | None, cpus: float, gpus: float, retries: int) -> Iterator[None]:
    """A context in which Ray is initialized: as the caller did, or with a cluster for ``workers`` tasks.

    A temporary cluster retries a task that ran out of memory at most ``retries`` times; by default, Ray has no limit.
    """
    if ray.is_initialized():
        _warn_of_too_little(ray, cpus, gpus)
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS", "")
    with _as_before():
        with _own_signals():
            _join(ray, address) if address else _start(ray, workers, cpus, gpus, retries)
        try:
            if address:
                _warn_of_too_little(ray, cpus, gpus)
            yield
        finally:
            ray.shutdown()


def _join(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # its type depends on the address
        raise ZooError(f"no Ray cluster at {address!r}: {one_line(error)}") from None


def _start(ray: Any, workers: int | None, cpus: float, gpus: float, retries: int) -> None:
    for name, value in {**QUIET, LOOPBACK: "0", "RAY_task_oom_retries": str(retries)}.items():
        os.environ.setdefault(name, value)
    with _telling_nobody(ray):
        ray.init(
            address="local", num_cpus=math.ceil(workers * cpus) if workers else None, include_dashboard=False,
            log_to_driver=False, logging_level=logging.ERROR,
        )  # fmt: skip
    if lacking := _lacking(ray, cpus, gpus):
        ray.shutdown()
        raise ZooError(f"a task asks for {lacking}, more than this machine has; ask for less")


@contextmanager
def _telling_nobody(ray: Any) -> Iterator[None]:
    """A context in which a new cluster makes no connections outside this machine, unless the user configured it so.

    Ray would determine its address by connecting to 8.8.8.8, and listen on it; it read its setting on import. Even
    without a dashboard, Ray starts the dashboard's process for usage statistics, which looks up names of clouds and
    queries their metadata servers even if the statistics are disabled.
    """
    changes: list[tuple[Any, str, Any]] = []
    if os.environ[LOOPBACK] == "0":
        changes.append((ray._private.ray_constants, "ENABLE_RAY_CLUSTER", False))
    if os.environ.get("RAY_USAGE_STATS_ENABLED") == "0":
        changes.append((ray._private.services, "start_api_server", lambda *_, **__: ("", None)))
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    try:
        for module, name, value in changes:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _lacking(ray: Any, cpus: float, gpus: float) -> str:
    """The resources of a task, if no machine of the cluster has them; else an empty string."""
    if fitting_nodes(ray, cpus, gpus):
        return ""
    return f"{cpus:g} CPUs and {gpus:g} GPUs"


def is_temporary(ray: Any, address: str) -> bool:
    """Whether :func:`connected` would start a cluster."""
    return not ray.is_initialized() and not (address or os.environ.get("RAY_ADDRESS"))


def fitting_nodes(ray: Any, cpus: float, gpus: float) -> list[dict[str, Any]]:
    """The nodes on which a task can run."""
    nodes = [(node, node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return [node for node, has in nodes if has.get("CPU", 0) >= cpus and has.get("GPU", 0) >= gpus]


def room_of(node: dict[str, Any], cpus: float, gpus: float) -> int:
    """The number of tasks that can run on ``node`` at a time."""
    has, slack = node["Resources"], 1e-6
    return int(min([has.get("CPU", 0) / cpus, *([has.get("GPU", 0) / gpus] if gpus else [])]) + slack)


def _warn_of_too_little(ray: Any, cpus: float, gpus: float) -> None:
    if lacking := _lacking(ray, cpus, gpus):
        _log.warning("a task asks for %s, more than any machine of the Ray cluster has; it waits for one", lacking)


@contextmanager
def _as_before() -> Iterator[None]:
    """Restore this process's environment afterwards: Ray replaces ``breakpoint()``, for example."""
    before = _settings()
    try:
        yield
    finally:
        for name in _settings().keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _settings() -> dict[str, str]:
    return {n: value for n, value in os.environ.items() if n.startswith("RAY_") or n == "PYTHONBREAKPOINT"}


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep Ray from replacing the handler of SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
