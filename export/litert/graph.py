"""A LiteRT graph as it is built: tensors and operators, and the bytes of the file that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]
Shape = tuple[int, ...]

ALIGNMENT = 16
"""Of constants in the file, in bytes, as the schema demands."""

_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
}
NONE = -1
"""An input that is left out."""

_OF_INTEGERS = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "ADD": 2, "MUL": 2, "MEAN": 2, "PAD": 2,
    "MAX_POOL_2D": 2, "TRANSPOSE": 2, "DEQUANTIZE": 2,
}  # fmt: skip
"""The least version of an operator that takes int8, if it is not the first; so says LiteRT's op_version.cc."""

_DYNAMIC = {"CONV_2D": 5, "FULLY_CONNECTED": 12}
"""The least version that multiplies floats and int8 weights with a step per channel."""


@dataclass(frozen=True)
class Steps:
    """How integers stand for floats: ``step`` x (integer - ``zero``); a step for each index of ``axis``, or one."""

    step: Floats
    zero: int = 0
    axis: int = 0


@dataclass(frozen=True)
class _Tensor:
    """One tensor: the batch of a tensor without ``data`` may have any size."""

    name: str
    shape: Shape
    kind: np.dtype[Any]
    data: Array | None = None
    steps: Steps | None = None


@dataclass(frozen=True)
class _Operator:
    code: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: object


@dataclass
class Graph:
    """Tensors, which are numbers here, and the operators between them, in the order of computation."""

    tensors: list[_Tensor] = field(default_factory=list)
    operators: list[_Operator] = field(default_factory=list)

    def tensor(self, name: str, shape: Shape, steps: Steps | None = None) -> int:
        """A new tensor of floats, or of int8 with ``steps``."""
        kind = np.dtype(np.float32 if steps is None else np.int8)
        self.tensors.append(_Tensor(name, shape, kind, steps=steps))
        return len(self.tensors) - 1

    def constant(self, name: str, data: Array, steps: Steps | None = None) -> int:
        """A new constant."""
        self.tensors.append(_Tensor(name, data.shape, data.dtype, np.ascontiguousarray(data), steps))
        return len(self.tensors) - 1

    def operator(self, code: str, inputs: Sequence[int], output: int, options: object = None) -> int:
        """Add the operator ``code``, in the least version that takes these tensors; returns ``output``."""
        weights = inputs[1] if code in _DYNAMIC else NONE
        if weights != NONE and self.steps(weights) is not None and self.steps(inputs[0]) is None:
            version = _DYNAMIC[code]
        else:
            version = _OF_INTEGERS.get(code, 1) if self.steps(inputs[0]) is not None else 1
        self.operators.append(_Operator(code, version, tuple(inputs), (output,), options))
        return output

    def steps(self, number: int) -> Steps | None:
        """How the integers of a tensor stand for floats; None if it has floats."""
        return self.tensors[number].steps

    def shape(self, number: int) -> Shape:
        """The shape of a tensor, with 1 for the batch."""
        return self.tensors[number].shape


@dataclass(frozen=True)
class Model:
    """A graph with one input, ``images``, and one output, ``logits``: the numbers of their tensors."""

    graph: Graph
    images: int
    logits: int

    def packed(self, metadata: Mapping[str, bytes]) -> bytes:
        """The content of a file with this model and ``metadata``."""
        contents: list[bytes] = [b""]
        tensors = [_packed_tensor(tensor, contents) for tensor in self.graph.tensors]
        entries = []
        for name, data in metadata.items():
            contents.append(data)
            entries.append(schema.MetadataT(name, len(contents) - 1))
        codes = list(dict.fromkeys((operator.code, operator.version) for operator in self.graph.operators))
        operators = [_packed_operator(operator, codes) for operator in self.graph.operators]
        subgraph = schema.SubGraphT(tensors, [self.images], [self.logits], operators, "main")
        given, answered = schema.TensorMapT("images", self.images), schema.TensorMapT("logits", self.logits)
        model = schema.ModelT(
            version=3,
            operatorCodes=[_packed_code(*code) for code in codes],
            subgraphs=[subgraph],
            description="fbnetv3-zoo",
            buffers=[_Buffer(content) for content in contents],
            metadata=entries,
            signatureDefs=[schema.SignatureDefT([given], [answered], "serving_default", 0)],
        )
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """Bytes in a file, aligned as the schema demands, which the generated code does not do."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the name in the generated code
        vector = None
        if size := len(self.content):
            builder.StartVector(1, size, ALIGNMENT)
            builder.head = builder.head - size
            builder.Bytes[builder.head : builder.head + size] = self.content
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def _packed_tensor(tensor: _Tensor, contents: list[bytes]) -> Any:
    packed = schema.TensorT(list(tensor.shape), _TYPES[tensor.kind], 0, tensor.name, hasRank=True)
    if tensor.data is None:
        packed.shapeSignature = [-1, *tensor.shape[1:]]
    else:
        contents.append(tensor.data.tobytes())
        packed.buffer = len(contents) - 1
    if tensor.steps is not None:
        step = np.atleast_1d(tensor.steps.step).astype(np.float32)
        zeros = np.full(step.shape, tensor.steps.zero, np.int64)
        axis = tensor.steps.axis
        packed.quantization = schema.QuantizationParametersT(scale=step, zeroPoint=zeros, quantizedDimension=axis)
    return packed


def _packed_code(code: str, version: int) -> Any:
    number = getattr(schema.BuiltinOperator, code)
    return schema.OperatorCodeT(min(number, 127), None, version, number)


def _packed_operator(operator: _Operator, codes: Sequence[tuple[str, int]]) -> Any:
    options = operator.options
    kind = 0 if options is None else getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    number = codes.index((operator.code, operator.version))
    return schema.OperatorT(number, list(operator.inputs), list(operator.outputs), kind, options)
