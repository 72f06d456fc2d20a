"""The routes on which a model can be run, and the configuration of a benchmark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from fbnetv3_zoo.errors import ZooError, check_flag, check_whole, nearest

Form = Literal[
    "weights", "graph", "int8 graph", "intermediate", "int8 intermediate", "program", "pair", "lite", "int8 lite"
]
"""A kind of file: ``.safetensors``, ``.onnx`` (``.ort``), ``.xml``, ``.pte``, ``.param`` or ``.tflite``."""


class Route(Enum):
    """A runtime, with its precision unless that is float32."""

    EAGER = "eager"
    COMPILED = "compiled"
    ONNXRUNTIME = "onnxruntime"
    ONNXRUNTIME_INT8 = "onnxruntime-int8"
    OPENVINO = "openvino"
    OPENVINO_BF16 = "openvino-bf16"
    OPENVINO_INT8 = "openvino-int8"
    EXECUTORCH = "executorch"
    NCNN = "ncnn"
    LITERT = "litert"
    LITERT_INT8 = "litert-int8"

    @property
    def form(self) -> Form:
        """The kind of file it runs."""
        return _FORMS[self]

    @property
    def single(self) -> bool:
        """Whether it computes in float32, so that its speed is comparable to a float32 matrix product's."""
        return self not in _REDUCED

    @property
    def profiles_operators(self) -> bool:
        """Whether its runtime reports the time of each operator."""
        return self.value.startswith(("onnxruntime", "openvino"))


_REDUCED = (Route.ONNXRUNTIME_INT8, Route.OPENVINO_BF16, Route.OPENVINO_INT8, Route.LITERT_INT8)
_FORMS: dict[Route, Form] = {
    Route.EAGER: "weights",
    Route.COMPILED: "weights",
    Route.ONNXRUNTIME: "graph",
    Route.ONNXRUNTIME_INT8: "int8 graph",
    Route.OPENVINO: "intermediate",
    Route.OPENVINO_BF16: "intermediate",
    Route.OPENVINO_INT8: "int8 intermediate",
    Route.EXECUTORCH: "program",
    Route.NCNN: "pair",
    Route.LITERT: "lite",
    Route.LITERT_INT8: "int8 lite",
}


def find_routes(text: str) -> tuple[Route, ...]:
    """The routes in the comma-separated ``text``; ``all`` for every route."""
    if text == "all":
        return tuple(Route)
    return _once("--routes", [find_route(name.strip()) for name in text.split(",")])


def find_route(name: str) -> Route:
    """The route of that name."""
    known = {route.value: route for route in Route}
    if name not in known:
        raise ZooError(f"unknown route {name!r}{nearest(name, known)}; choose from {', '.join(known)}")
    return known[name]


def find_numbers(option: str, text: str) -> tuple[int, ...]:
    """The positive integers in the comma-separated ``text``, in ascending order."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not (word.isascii() and word.isdigit() and 0 < int(word) <= 1024):
            raise ZooError(f"{option} has {word!r}; give whole numbers from 1 to 1024, separated by commas")
    return tuple(sorted(_once(option, [int(word) for word in words])))


@dataclass(frozen=True, slots=True)
class BenchmarkConfig:
    """What to measure: each of ``routes`` with each number of ``threads`` and each batch size in ``batches``.

    ``rounds`` is the number of timed calls of each; ratios are relative to ``baseline``. With ``operators``, times by
    kind of operator are measured, too; with ``peak``, also the speed of a matrix product to compare with.
    """

    routes: tuple[Route, ...] = tuple(Route)
    baseline: Route = Route.ONNXRUNTIME
    batches: tuple[int, ...] = (1, 8)
    threads: tuple[int, ...] = (1,)
    rounds: int = 20
    operators: bool = False
    peak: bool = True

    def __post_init__(self) -> None:
        for field, values in (("routes", self.routes), ("batches", self.batches), ("threads", self.threads)):
            if not values:
                raise ZooError(f"BenchmarkConfig.{field} is empty; give at least one")
        if self.baseline not in self.routes:
            names = ", ".join(route.value for route in self.routes)
            raise ZooError(f"the baseline {self.baseline.value} is not measured; choose from {names}")
        for field, numbers in (("batches", self.batches), ("threads", self.threads)):
            for number in numbers:
                check_whole(f"BenchmarkConfig.{field}", number, at_most=1024)
        check_whole("BenchmarkConfig.rounds", self.rounds, at_least=3)
        check_flag("BenchmarkConfig.operators", self.operators)
        check_flag("BenchmarkConfig.peak", self.peak)


def check_tools(route: Route) -> None:
    """Raise :class:`ZooError` if ``route`` needs a program that this machine lacks."""
    if route is Route.COMPILED:
        compiler = os.environ.get("CXX")
        if not any(shutil.which(name) for name in ([compiler] if compiler else ("g++", "clang++", "c++", "cl"))):
            raise ZooError("torch.compile needs a C++ compiler; install g++ or clang, or set CXX")


def _once(option: str, values: Sequence[Route] | Sequence[int]) -> tuple:  # type: ignore[type-arg]
    for n, value in enumerate(values):
        if value in values[:n]:
            shown = value.value if isinstance(value, Route) else value
            raise ZooError(f"{option} has {shown} twice; give it once")
    return tuple(values)
