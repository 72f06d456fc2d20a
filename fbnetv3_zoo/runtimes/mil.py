"""ML programs, Core ML's graphs: read from their protobuf and weights, and computed by torch on any system.

Core ML itself exists on Apple's systems only. Here a program is computed operator by operator from the file alone, in
float32; results that the program declares as float16 are rounded to that. Only the operators that our exporter writes
are known (:data:`OPERATORS`), and every result is checked against the shape that the program declares for it.

The format is defined by coremltools (``mlmodel/format/MIL.proto``, ``MILBlob/Blob/StorageFormat.hpp``), the operators
by its documentation (``coremltools.converters.mil.mil.ops.defs``).
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ZooError, printable

if TYPE_CHECKING:
    import torch

Values = dict[str, Any]
"""What an operator is given, by parameter: tensors, numbers, lists of numbers, texts."""

_HALF, _SINGLE = 10, 11
_TYPES: dict[int, Any] = {1: np.bool_, _HALF: np.float16, _SINGLE: np.float32, 21: np.int8, 23: np.int32, 31: np.uint8}
_STORED: dict[int, Any] = {1: np.float16, 2: np.float32, 3: np.uint8, 4: np.int8}
_MARK = 0xDEADBEEF  # of each block of the file of weights
_MOST_NUMBERS = 1 << 28


def definitions() -> ModuleType:
    """The classes of coremltools for protobuf messages, without coremltools itself, which takes 17 s to import.

    Raises :class:`ModuleNotFoundError` if coremltools is not installed.
    """
    alias = f"{__name__}_definitions"
    if alias not in sys.modules:
        spec = importlib.util.find_spec("coremltools")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'coremltools'", name="coremltools")
        package = ModuleType(alias)
        package.__path__ = [str(Path(spec.submodule_search_locations[0], "proto"))]
        sys.modules[alias] = package
    return importlib.import_module(f"{alias}.Model_pb2")


def parse(model: bytes) -> Any:
    """The message ``Model`` in ``model``. Raises :class:`ZooError` if it is not an ML program."""
    from google.protobuf.message import DecodeError

    try:
        message = definitions().Model.FromString(model)
    except DecodeError:
        raise ZooError("it is not a Core ML model") from None
    if message.WhichOneof("Type") != "mlProgram":
        raise ZooError("it is not an ML program")
    return message


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator with its arguments: values by parameter, or where ``names`` has the parameter, earlier results."""

    kind: str
    values: Values
    names: Mapping[str, str]
    result: str
    shape: tuple[int, ...]
    half: bool


class MLProgram:
    """The function ``main`` of an ML program, from one image to the output ``logits``.

    Args:
        message: the message ``Model``, from :func:`parse`.
        weights: content of the file of weights.

    ``sizes`` are the batch (1), channels, height and width of its input. Raises :class:`ZooError` if it has operators
    that are not known here, or is damaged.
    """

    def __init__(self, message: Any, weights: bytes) -> None:
        functions = message.mlProgram.functions
        if "main" not in functions or len(functions["main"].inputs) != 1:
            raise ZooError("it has no function of one image")
        main = functions["main"]
        block = main.block_specializations[main.opset]
        self._input = main.inputs[0].name
        self.sizes, _ = _declared(main.inputs[0].type)
        self._constants: Values = {}
        self._results = {self._input}
        self.operations: list[Operation] = []
        for one in block.operations:
            self._add(one, weights)
        if not {"logits"} <= {*block.outputs} & self._results or len(self.sizes) != 4:
            raise ZooError("it does not compute logits of one image")

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """The logits (1, classes) of an image (1, channels, height, width) of levels from 0 to 255."""
        import torch

        known: dict[str, torch.Tensor] = {self._input: image}
        for one in self.operations:
            given = {**one.values, **{parameter: known[name] for parameter, name in one.names.items()}}
            result = OPERATORS[one.kind](given)
            if tuple(result.shape) != one.shape:
                raise ZooError(f"{one.kind} gives {tuple(result.shape)}, and the program says {one.shape}")
            known[one.result] = result.half().float() if one.half else result
        logits = known["logits"]
        assert isinstance(logits, torch.Tensor)
        return logits

    def _add(self, one: Any, weights: bytes) -> None:
        kind = one.type
        if kind in ("const", "constexpr_affine_dequantize"):
            values = {name: _value(value, weights) for name, value in one.attributes.items()}
            value = values["val"] if kind == "const" else _dequantized(values)
            self._constants[one.outputs[0].name] = value
        elif kind != "classify":  # which only names the classes
            if kind not in OPERATORS or len(one.outputs) != 1:
                raise ZooError(f"it has the operator {printable(kind)[:80]}, which is not known here")
            self.operations.append(self._operation(one))

    def _operation(self, one: Any) -> Operation:
        values: Values = {}
        names: dict[str, str] = {}
        for parameter, argument in one.inputs.items():
            bindings = argument.arguments
            if len(bindings) != 1 or bindings[0].WhichOneof("binding") != "name":
                raise ZooError(f"it gives {printable(one.type)[:80]} something else than one earlier result")
            name = bindings[0].name
            if name in self._constants:
                values[parameter] = self._constants[name]
            elif name in self._results:
                names[parameter] = name
            else:
                raise ZooError(f"it uses {printable(name)[:80]!r}, which nothing computes")
        shape, kind = _declared(one.outputs[0].type)
        self._results.add(one.outputs[0].name)
        return Operation(one.type, values, names, one.outputs[0].name, shape, kind == _HALF)


def _declared(value_type: Any) -> tuple[tuple[int, ...], int]:
    """The shape and the number of the type of a tensor."""
    tensor = value_type.tensorType
    shape = tuple(dimension.constant.size for dimension in tensor.dimensions)
    if math.prod(shape) > _MOST_NUMBERS or len(shape) > 8:
        raise ZooError(f"it has a tensor of shape {shape[:9]}")
    return shape, tensor.dataType


def _value(value: Any, weights: bytes) -> Any:
    """The constant in a message ``Value``: text, number, list of numbers, or for vectors of fractions a tensor."""
    import torch

    shape, kind = _declared(value.type)
    held = value.immediateValue.tensor
    if held.WhichOneof("value") == "strings":
        return held.strings.values[0]
    if kind not in _TYPES:
        raise ZooError(f"it has constants of the type {kind}")
    if value.WhichOneof("value") == "blobFileValue":
        array = _stored(weights, value.blobFileValue.offset, _TYPES[kind])
    elif held.WhichOneof("value") == "bytes":
        array = np.frombuffer(held.bytes.values, _TYPES[kind])
    else:
        array = np.array(getattr(held, held.WhichOneof("value") or "ints").values, _TYPES[kind])
    if array.size != math.prod(shape):
        raise ZooError(f"it has {array.size} numbers for a constant of shape {shape}")
    if shape and array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float32).reshape(shape))
    return array.reshape(shape) if array.size > 16 else array.reshape(shape).tolist()


def _stored(weights: bytes, offset: int, kind: Any) -> Any:
    """The array whose description begins at ``offset`` of the file of weights."""
    try:
        mark, number, size, start = struct.unpack_from("<IIQQ", weights, offset)
    except struct.error:
        raise ZooError("its weights end too early") from None
    if mark != _MARK or _STORED.get(number) is not kind or start + size > len(weights):
        raise ZooError("its weights are not where it says")
    return np.frombuffer(weights, kind, size // np.dtype(kind).itemsize, start)


def _dequantized(values: Values) -> torch.Tensor:
    """Weights stored as 8-bit integers: ``scale * (quantized_data - zero_point)``, a scale for each entry of axis."""
    import torch

    data, axis = np.asarray(values["quantized_data"], np.float32), values["axis"]
    shape = [-1 if n == axis else 1 for n in range(data.ndim)]
    zero_point = np.asarray(values["zero_point"], np.float32)
    scale = torch.as_tensor(values["scale"], dtype=torch.float32)
    centered = torch.from_numpy(data - zero_point.reshape(shape if zero_point.ndim else ()))
    return centered * scale.reshape(shape if scale.ndim else ())


def _convolution(given: Values) -> torch.Tensor:
    import torch.nn.functional as F

    top, bottom, left, right = given["pad"]
    padded = given["x"] if not any(given["pad"]) else F.pad(given["x"], (left, right, top, bottom))
    return F.conv2d(
        padded, given["weight"], given.get("bias"), given["strides"], 0, given["dilations"], given["groups"]
    )  # fmt: skip


def _largest(given: Values) -> torch.Tensor:
    import torch.nn.functional as F

    top, bottom, left, right = given["pad"]
    padded = F.pad(given["x"], (left, right, top, bottom), value=-math.inf)
    return F.max_pool2d(padded, given["kernel_sizes"], given["strides"])


def _product(given: Values) -> torch.Tensor:
    import torch.nn.functional as F

    return F.linear(given["x"], given["weight"], given.get("bias"))


def _mean(given: Values) -> torch.Tensor:
    x: torch.Tensor = given["x"]
    return x.mean(given["axes"], keepdim=given["keep_dims"])


OPERATORS: Mapping[str, Callable[[Values], Any]] = {
    "add": lambda given: given["x"] + given["y"],
    "cast": lambda given: given["x"],
    "clip": lambda given: given["x"].clamp(given["alpha"], given["beta"]),
    "conv": _convolution,
    "linear": _product,
    "max_pool": _largest,
    "mul": lambda given: given["x"] * given["y"],
    "reduce_mean": _mean,
    "relu": lambda given: given["x"].relu(),
    "reshape": lambda given: given["x"].reshape(given["shape"]),
    "sigmoid": lambda given: given["x"].sigmoid(),
    "sigmoid_hard": lambda given: (given["x"] * given["alpha"] + given["beta"]).clamp(0, 1),
    "softmax": lambda given: given["x"].softmax(given["axis"]),
    "sub": lambda given: given["x"] - given["y"],
    "transpose": lambda given: given["x"].permute(given["perm"]),
}
"""The known operators: each maps what it is given, by parameter, to its result."""


def counted(operations: Sequence[Operation]) -> dict[str, int]:
    """How often each operator is in a program, the most frequent first."""
    kinds = [one.kind for one in operations]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))}
