"""Whether the nodes of a Ray cluster have what candidates need: the same package, Python, PyTorch and data as here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

from fbnetv3_zoo.errors import ZooError, counted

from ...evaluation.trial import Evaluator
from ..attempt import one_line
from .task import PickledEvaluator, Unloadable, fingerprint

PATIENCE = 300.0
"""Seconds in which a node must answer what it has installed; how long it takes to read data has no limit."""

T = TypeVar("T")
Node = Mapping[str, Any]


@runtime_checkable
class OnData(Protocol):
    """An evaluator that reads data, which must be the same on every machine."""

    def fingerprint(self) -> str:
        """What identifies the data as this machine has it. Raises :class:`ZooError` if it cannot be read."""


def check_nodes(ray: Any, nodes: Sequence[Node], evaluator: Evaluator, packed: PickledEvaluator) -> None:
    """Raise :class:`ZooError` with the name of a node that differs from this machine, and what differs."""
    here = _installed()(packed.path)
    _refuse(nodes, _answers(ray, nodes, _installed(), packed.path, seconds=PATIENCE), partial(_versions, here))
    if isinstance(evaluator, OnData):
        data = evaluator.fingerprint()
        answers = _answers(ray, nodes, fingerprint, [ray.put(packed)])
        _refuse(nodes, answers, partial(_data, data))


def _installed() -> Callable[[Sequence[str]], dict[str, str]]:
    """A function that tells the versions on the machine where it is called.

    Ray sends it as a whole, since it is no function of a module: it also works where this package is another.
    """

    def versions(path: Sequence[str]) -> dict[str, str]:
        import platform
        import sys
        from importlib import import_module, metadata

        sys.path.extend(folder for folder in path if folder not in sys.path)
        found = {"Python": platform.python_version().rpartition(".")[0]}
        try:
            found["fbnetv3-zoo"] = import_module("fbnetv3_zoo").__version__
        except ImportError:
            found["fbnetv3-zoo"] = ""
        try:  # what follows the plus sign is how it was built: a machine without GPUs may have another
            found["PyTorch"] = metadata.version("torch").partition("+")[0]
        except metadata.PackageNotFoundError:
            found["PyTorch"] = ""
        return found

    return versions


def _answers(
    ray: Any, nodes: Sequence[Node], function: Callable[..., T], *arguments: object, seconds: float | None = None
) -> list[T | Exception]:
    """What ``function`` returns or raises on each node, within ``seconds``."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    placed = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    references = [remote.options(scheduling_strategy=place).remote(*arguments) for place in placed]
    answers: list[T | Exception] = []
    for reference in references:
        try:
            answers.append(ray.get(reference, timeout=seconds))
        except ray.exceptions.RayTaskError as error:
            answers.append(error.cause)
        except ray.exceptions.RayError as error:
            answers.append(error)
    return answers


def _refuse(nodes: Sequence[Node], answers: Sequence[T | Exception], different: Callable[[T], str]) -> None:
    """Raise for the first node whose answer is an error, or ``different`` by the text that this gives."""
    said = [_complaint(one) if isinstance(one, Exception) else different(one) for one in answers]
    wrong = [(node, text) for node, text in zip(nodes, said, strict=True) if text]
    if wrong:
        node, text = wrong[0]
        more = f" (and {counted(len(wrong) - 1, 'other node')})" if wrong[1:] else ""
        raise ZooError(f"Ray node {node['NodeManagerAddress']} ({node['NodeID'][:8]}){more}: {text}")


def _complaint(error: Exception) -> str:
    if isinstance(error, ZooError):
        return f"{error}; every node needs the data at the same path"
    if isinstance(error, Unloadable):
        return f"the evaluator cannot be loaded ({error}); install what it needs on every node"
    return f"cannot be checked ({one_line(error.with_traceback(None))}); mend or remove it"


def _versions(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    for name, version in here.items():
        if there[name] != version:
            has = f"has {name} {there[name]}" if there[name] else f"has no {name}"
            return f"{has}, and this machine {version}; install the same version on every node"
    return ""


def _data(here: str, there: str) -> str:
    from fbnetv3_zoo.training.data.dataset import data_difference

    if here == there:
        return ""
    difference = data_difference(here, there, places=("here", "there")) or "its contents differ"
    return f"its data is not that of this machine ({difference}); give every node the same at the same path"
