"""Executors, which evaluate candidates: in this process, in local processes, or on Ray. All give the same curves."""

from __future__ import annotations

from fbnetv3_zoo.errors import ZooError, nearest
from fbnetv3_zoo.utils import telemetry  # noqa: F401 - before the libraries that it silences
from fbnetv3_zoo.utils.hardware import cores

from ..evaluation.trial import Executor
from .in_process import InProcess
from .local_pool import LocalPool
from .ray.executor import RayExecutor

__all__ = ["InProcess", "LocalPool", "RayExecutor", "find_executor"]

KNOWN = ("in-process", "pool", "pool:N", "ray", "ray:ADDRESS", "ray://HOST:10001")


def find_executor(text: str) -> Executor:
    """The executor that ``text`` names: ``in-process``, ``pool:4``, ``pool`` (a worker for every core available to this
    process), ``ray`` (the cluster in RAY_ADDRESS, or a temporary one), ``ray:ADDRESS``, ``ray://HOST:10001``.
    """
    kind, _, rest = text.partition(":")
    if text == "in-process":
        return InProcess()
    if text == "pool":
        return LocalPool(cores())
    if kind == "pool" and rest.isascii() and rest.isdigit():
        return LocalPool(int(rest))
    if text == "ray":
        return RayExecutor()
    if kind == "ray" and rest.strip("/"):
        return RayExecutor(address=text if rest.startswith("//") else rest)
    raise ZooError(f"unknown executor {text!r}{nearest(text, KNOWN)}; choose from {', '.join(KNOWN)}")
