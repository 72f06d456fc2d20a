"""The static int8 form of a graph for LiteRT: all maps in integers, which XNNPACK computes in one piece.

LiteRT's HARD_SWISH leaves the integers: XNNPACK has none for int8, so that a network falls into a piece a hard swish.
Here a layer's result x is stored as y = x / sqrt(6), which costs nothing, as only the layer's steps change. Hard swish
is then an addition and a multiplication of int8 maps: ``y + 3 / sqrt(6)``, quantized from 0 to sqrt(6), saturates where
``relu6(x + 3)`` does, and its product with y is hard swish itself. Hard sigmoid is the saturation of the layer itself:
of x / 6 + 1/2, quantized from 0 to 1. Measurements: docs/export.md.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import helper

from ..litert.convert import Converter, Options
from ..litert.graph import Model, Shape, Steps
from ..onnx.passes import consumers
from .calibration import ValueRange
from .qdq import WholeWeight, holding

_ROOT = math.sqrt(6)
_LEAST = -128
_CLIPPING = ("Relu", "Clip")
_MOVING = ("MaxPool", "Reshape", "Flatten", "Transpose", "Identity")
"""Operators whose output has values of their input only."""


def quantized(
    model: onnx.ModelProto, shape: Shape, ranges: Mapping[str, ValueRange], weights: Mapping[str, WholeWeight],
    *, keep: Collection[str] = (),
) -> Model:  # fmt: skip
    """The int8 form of ``model`` as a model of LiteRT, whose input and output are floats.

    The last layer multiplies floats, which are quantized while it computes: 256 levels would make logits equal.

    Args:
        model: a float graph with folded norms, from images to logits.
        shape: shape of one batch of images in LiteRT: (1, height, width, channels).
        ranges: the ranges of all tensors that :func:`fbnetv3_zoo.export.quantization.qdq.observed` names.
        weights: the int8 weights by layer name.
        keep: names of convolutions and linear layers that stay in float.
    """
    return _Int8Converter(model.graph, ranges, weights, frozenset(keep)).converted(shape)


@dataclass(frozen=True)
class _Stored:
    """A layer's result is stored as ``factor`` x result + ``shift``, quantized in ``kept``."""

    kept: ValueRange
    factor: float = 1.0
    shift: float = 0.0


class _Int8Converter(Converter):
    def __init__(
        self, graph: onnx.GraphProto, ranges: Mapping[str, ValueRange], weights: Mapping[str, WholeWeight],
        keep: frozenset[str],
    ) -> None:  # fmt: skip
        super().__init__(graph, int8=True)
        self._ranges, self._whole_weights, self._keep = ranges, weights, keep
        self._readers, self._answers = consumers(graph), {output.name for output in graph.output}
        self._done: set[str] = set()
        self._other: dict[int, int] = {}

    def _write(self, node: onnx.NodeProto) -> None:
        name, kind = node.output[0], node.op_type
        if node.name in self._whole_weights and node.name not in self._keep and name not in self._answers:
            self._numbers[name] = self._whole_layer(node)
        elif name in self._done:
            self._numbers[name] = self._numbers[node.input[0]]
        elif kind == "HardSwish" and self._is_whole(node.input[0]):
            self._numbers[name] = self._whole_hard_swish(node)
        elif kind in ("Add", "Mul") and all(map(self._is_whole, node.input)):
            inputs = [self._numbers[one] for one in node.input]
            shape = np.broadcast_shapes(*map(self._graph.shape, inputs))
            settings = schema.AddOptionsT() if kind == "Add" else schema.MulOptionsT()
            self._numbers[name] = self._whole(kind.upper(), inputs, name, shape, settings)
        elif kind in ("GlobalAveragePool", "ReduceMean") and self._is_whole(node.input[0]):
            self._check_mean(node)
            maps, steps = self._numbers[node.input[0]], _steps(self._ranges[name])
            self._numbers[name] = self._averaged(node, _options(node), maps, steps)
        else:
            super()._write(node)

    def _input(self, node: onnx.NodeProto, position: int = 0) -> int:
        if not self._is_whole(node.input[position]) or node.op_type in _MOVING:
            return super()._input(node, position)
        number = self._numbers[node.input[position]]
        if number not in self._other:
            floats = self._graph.tensor(f"{node.input[position]}.float", self._graph.shape(number))
            self._other[number] = self._graph.operator("DEQUANTIZE", [number], floats, schema.DequantizeOptionsT())
        return self._other[number]

    def _is_dynamic(self, node: onnx.NodeProto) -> bool:
        return node.name not in self._keep

    def _is_whole(self, name: str) -> bool:
        return name in self._numbers and self._graph.steps(self._numbers[name]) is not None

    def _integers(self, name: str) -> int:
        """The int8 tensor of ``name``, which is quantized if it has floats."""
        number = self._numbers[name]
        if self._is_whole(name):
            return number
        if number not in self._other:
            integers = self._graph.tensor(f"{name}.int8", self._graph.shape(number), _steps(self._ranges[name]))
            self._other[number] = self._graph.operator("QUANTIZE", [number], integers, schema.QuantizeOptionsT())
        return self._other[number]

    def _whole(self, code: str, inputs: list[int], name: str, shape: Shape, settings: object) -> int:
        """The operator ``code`` of int8 maps, with an output in the range of the tensor ``name``."""
        return self._graph.operator(code, inputs, self._graph.tensor(name, shape, _steps(self._ranges[name])), settings)

    def _whole_layer(self, node: onnx.NodeProto) -> int:
        options = _options(node)
        maps, stored = self._integers(node.input[0]), self._stored(node.output[0])
        given = self._graph.steps(maps)
        assert given is not None
        weight = self._whole_weights[node.name]
        floats = self._weights[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight.steps), np.float32)
        bias = floats + np.float32(stored.shift / stored.factor)
        weight = holding(weight, bias, np.float32(given.step))
        # XNNPACK refuses products of steps below 2^-32 of the output's step; such a channel is dead
        output = _steps(stored.kept)
        steps = np.maximum(weight.steps * stored.factor, output.step / given.step * 2.0**-31).astype(np.float32)
        whole = np.round(bias * stored.factor / (given.step * steps).astype(np.float64)).astype(np.int32)
        offset = self._graph.constant(f"{node.output[0]}.bias", whole, Steps(given.step * steps))
        name, integers = f"{node.output[0]}.weight", np.moveaxis(weight.whole, weight.axis, 0)
        if node.op_type == "Gemm":
            constants = [self._graph.constant(name, integers, Steps(steps)), offset]
            result = self._graph.tensor(node.output[0], (1, len(integers)), output)
            settings = schema.FullyConnectedOptionsT()
            return self._graph.operator("FULLY_CONNECTED", [maps, *constants], result, settings)
        depthwise = self._is_depthwise(node, options)
        integers = integers.transpose(1, 2, 3, 0) if depthwise else integers.transpose(0, 2, 3, 1)
        constants = [self._graph.constant(name, integers, Steps(steps, axis=3 if depthwise else 0)), offset]
        return self._slid(node, options, maps, constants, output)

    def _stored(self, name: str) -> _Stored:
        """How the result ``name`` of a layer is stored, so that what reads it costs least."""
        found, readers = self._ranges[name], self._readers[name]
        kinds = {reader.op_type for reader in readers}
        if kinds == {"HardSigmoid"}:
            self._done.update(reader.output[0] for reader in readers)
            return _Stored(ValueRange(0.0, 1.0), 1 / 6, 0.5)
        if kinds == {"HardSwish"}:
            return _Stored(ValueRange(max(found.low, -3.0) / _ROOT, found.high / _ROOT), 1 / _ROOT)
        if len(readers) == 1 and readers[0].op_type in _CLIPPING:
            self._done.add(readers[0].output[0])
            return _Stored(self._ranges[readers[0].output[0]])
        return _Stored(found)

    def _whole_hard_swish(self, node: onnx.NodeProto) -> int:
        maps, name = self._numbers[node.input[0]], node.output[0]
        shape = self._graph.shape(maps)
        # the largest integer stands for 3 / sqrt(6)
        three = self._graph.constant(f"{name}.three", np.array([127], np.int8), Steps(np.float32(3 / _ROOT / 127)))
        gate = self._graph.tensor(f"{name}.gate", shape, _steps(ValueRange(0.0, _ROOT)))
        self._graph.operator("ADD", [maps, three], gate, schema.AddOptionsT())
        return self._whole("MUL", [maps, gate], name, shape, schema.MulOptionsT())


def _options(node: onnx.NodeProto) -> Options:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _steps(found: ValueRange) -> Steps:
    """256 levels from the lower to the upper end of the range, one of which is 0."""
    low, high = min(found.low, 0.0), max(found.high, 0.0)
    step = np.float32(max((high - low) / 255, 1e-12))
    return Steps(step, int(np.clip(round(-low / step), 0, 255)) + _LEAST)
