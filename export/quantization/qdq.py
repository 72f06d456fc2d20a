"""The int8 form of a graph: QuantizeLinear and DequantizeLinear around everything to be computed in integers.

The difficulty is hard swish: none of the runtimes computes it in int8, and in float, between int8 convolutions, it
takes as long as they do. Here it becomes an addition and a multiplication of int8 maps: x / 6 + 1/2, quantized to 255
levels from 0 to 1, saturates exactly where hard sigmoid does, so that the gate costs no more than a change of scale
(the same uint8 map x is read with its scale and with a sixth of it). Measurements: docs/export.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fbnetv3_zoo.runtimes.ort import session_options

from ..onnx.passes import attribute, consumers
from .calibration import BATCH, ValueRange
from .gptq import rounded

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Logits = Callable[[Floats], Floats]

WEIGHTED = ("Conv", "Gemm")
_CLIPPING = ("Relu", "Clip")
_ELEMENTWISE = ("Add", "Mul", "GlobalAveragePool", "AveragePool", "MaxPool")
_RESHAPING = ("Reshape", "Flatten", "Squeeze")


class Activations(Enum):
    """Integer type of quantized maps; its least value represents the lower end of the range."""

    UINT8 = "uint8"
    INT8 = "int8"

    @property
    def least(self) -> int:
        """The least value."""
        return 0 if self is Activations.UINT8 else -128


@dataclass(frozen=True, slots=True)
class QDQSettings:
    """Integer type of the maps; weights are integers from -weight_levels to weight_levels, with a step per channel."""

    activations: Activations = Activations.UINT8
    weight_levels: int = 127


@dataclass(frozen=True, slots=True)
class WholeWeight:
    """A layer's int8 weights, the float step of each output channel, and the axis of the output channels."""

    whole: Array
    steps: Floats
    axis: int

    @property
    def floats(self) -> Floats:
        """The weights as floats."""
        scaled: Floats = np.moveaxis(self.whole, self.axis, -1).astype(np.float32) * self.steps
        return np.ascontiguousarray(np.moveaxis(scaled, -1, self.axis))


@dataclass(frozen=True, slots=True)
class _Quantized:
    """A quantized map: the names of the tensor, scale and zero point, and the values of the last two."""

    tensor: str
    scale: str
    zero: str
    step: np.float32
    level_of_zero: int


def observed(graph: onnx.GraphProto) -> list[str]:
    """The tensors whose ranges :func:`quantized` needs."""
    weights = {weight.name for weight in graph.initializer}
    names = [graph.input[0].name, *(name for node in graph.node for name in node.output if node.op_type != "Constant")]
    return [name for name in names if name not in weights]


def quantized(
    model: onnx.ModelProto, ranges: Mapping[str, ValueRange], weights: Mapping[str, WholeWeight], settings: QDQSettings,
    *, keep: Collection[str] = (),
) -> onnx.ModelProto:  # fmt: skip
    """The int8 form of ``model``, which has folded norms, one input and one output.

    Args:
        model: float graph.
        ranges: the ranges of all :func:`observed` tensors.
        weights: the int8 weights by layer name (:func:`whole_weights`).
        settings: integer types and levels.
        keep: names of convolutions and linear layers that stay in float, with their outputs.
    """
    graph = _Writer(model.graph, ranges, weights, frozenset(keep), settings).graph()
    model_int8 = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    model_int8.metadata_props.extend(model.metadata_props)
    return model_int8


def layers_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The convolutions and linear layers with constant weights."""
    fixed = {weight.name for weight in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type in WEIGHTED and node.input[1] in fixed]


def whole_weights(
    model: onnx.ModelProto, settings: QDQSettings, *, moments: Mapping[str, Doubles] | None = None
) -> dict[str, WholeWeight]:
    """The int8 weights of all layers by layer name.

    With the ``moments`` of their inputs (:func:`fbnetv3_zoo.export.quantization.gptq.input_moments`) they are rounded
    to preserve the layers' outputs, else each to the nearest integer.
    """
    weights = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    found = {}
    for layer in layers_of(model):
        axis = 1 if layer.op_type == "Gemm" and not attribute(layer, "transB", 0) else 0
        weight = np.moveaxis(weights[layer.input[1]], axis, 0)
        rows = weight.reshape(len(weight), -1)
        steps = np.maximum(np.abs(rows).max(1) / settings.weight_levels, 1e-12).astype(np.float32)
        if len(layer.input) > 2:  # so that a bias, in units of the steps of weights and inputs, fits into 32 bits
            steps = np.maximum(steps, np.abs(weights[layer.input[2]]) * np.float32(1e-6))
        whole = np.round(rows := rows / steps[:, None])
        if moments is not None:
            inputs = moments[layer.name]
            grouped = rows.reshape(len(inputs), -1, inputs.shape[-1]).astype(np.float64)
            whole = rounded(grouped, inputs, settings.weight_levels)
        found[layer.name] = WholeWeight(
            np.ascontiguousarray(np.moveaxis(whole.reshape(weight.shape).astype(np.int8), 0, axis)), steps, axis
        )
    return found


def logits_of(model: onnx.ModelProto, *, threads: int | None = None) -> Logits:
    """A function that runs ``model`` on ONNX Runtime, from images (batch, channels, height, width) to logits."""
    options = session_options(threads)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def logits(images: Floats) -> Floats:
        parts = [session.run(None, {name: images[n : n + BATCH]})[0] for n in range(0, len(images), BATCH)]
        return np.concatenate(parts)

    return logits


def holding(weight: WholeWeight, bias: Floats, step: np.float32) -> WholeWeight:
    """``weight`` with steps large enough for ``bias`` to be at most 2^30 of them, or dead channels would lose it."""
    steps = np.maximum(weight.steps, np.abs(bias) / (step * np.float32(2**30)))
    if np.array_equal(steps, weight.steps):
        return weight
    shrunk = np.moveaxis(weight.whole, weight.axis, -1) * (weight.steps / steps)
    return WholeWeight(np.moveaxis(np.round(shrunk).astype(np.int8), -1, weight.axis), steps, weight.axis)


class _Writer:
    def __init__(
        self, graph: onnx.GraphProto, ranges: Mapping[str, ValueRange], weights: Mapping[str, WholeWeight],
        keep: frozenset[str], settings: QDQSettings,
    ) -> None:  # fmt: skip
        self._graph, self._keep, self._ranges, self._settings = graph, keep, ranges, settings
        self._whole_weights = weights
        self._weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
        self._readers, self._answers = consumers(graph), {output.name for output in graph.output}
        self._pending: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}
        self._quantized: dict[str, _Quantized] = {}

    def graph(self) -> onnx.GraphProto:
        for node in self._graph.node:
            self._write(node)
        used = {name for node in self._nodes for name in node.input}
        kept = [weight for weight in self._graph.initializer if weight.name in used]
        return helper.make_graph(
            self._nodes, self._graph.name, self._graph.input, self._graph.output, [*kept, *self._constants.values()]
        )

    def _write(self, node: onnx.NodeProto) -> None:
        kind, output = node.op_type, node.output[0]
        if node.name in self._whole_weights and node.name not in self._keep:
            self._copy(node, self._weighted_inputs(node))
            if self._activated(output):
                self._pending.add(output)
            elif output not in self._answers:
                self._quantize(output, self._range(output))
        elif node.name in self._whole_weights and self._is_quantized(node.input[0]):
            self._copy(node, self._float_inputs(node))
        elif kind == "HardSwish" and self._is_quantized(node.input[0]):
            gate = self._gate(node.input[0])
            self._emit("Mul", [self._float(node.input[0]), self._float(gate)], output)
            self._quantize(output, self._ranges[output])
        elif kind == "HardSigmoid" and self._is_quantized(node.input[0]):
            self._gate(node.input[0], output)
        elif self._stays_whole(node):
            self._copy(node, [self._float(name) for name in node.input])
            self._quantize(output, self._ranges[output])
        elif kind in _RESHAPING and self._is_quantized(node.input[0]):
            self._copy(node, [self._float(node.input[0]), *node.input[1:]])
            self._quantize(output, self._ranges[node.input[0]])
        else:
            self._copy(node, [self._float(name) if name in self._quantized else name for name in node.input])

    def _range(self, name: str) -> ValueRange:
        """The relevant range of a convolution's output: -3 to 3 before hard sigmoid, from -3 before hard swish."""
        found, kinds = self._ranges[name], {node.op_type for node in self._readers[name]}
        if kinds == {"HardSigmoid"}:
            return ValueRange(-3.0, 3.0)
        return ValueRange(max(found.low, -3.0), found.high) if kinds == {"HardSwish"} else found

    def _activated(self, name: str) -> bool:
        """Whether the output is quantized after its activation, which the runtime then computes by saturation."""
        readers = self._readers[name]
        return len(readers) == 1 and readers[0].op_type in _CLIPPING

    def _stays_whole(self, node: onnx.NodeProto) -> bool:
        """Whether a node between int8 maps is computed in int8."""
        if node.op_type in _CLIPPING:
            return node.input[0] in self._pending or self._is_quantized(node.input[0])
        return node.op_type in _ELEMENTWISE and all(self._is_quantized(name) for name in node.input)

    def _is_quantized(self, name: str) -> bool:
        return name in self._quantized

    def _weighted_inputs(self, node: onnx.NodeProto) -> list[str]:
        if not self._is_quantized(node.input[0]):
            self._quantize(node.input[0], self._ranges[node.input[0]])
        found, weight = self._quantized[node.input[0]], self._whole_weights[node.name]
        bias = self._weights[node.input[2]] if len(node.input) > 2 else np.zeros(1, np.float32)
        weight = holding(weight, bias, found.step)
        steps, gemm = self._constant(weight.steps), node.op_type == "Gemm"
        inputs = [self._float(node.input[0]), self._dequantized(weight.whole, steps, weight.axis, gemm=gemm)]
        if len(node.input) > 2:
            whole = np.round(bias / (found.step * weight.steps).astype(np.float64)).astype(np.int32)
            # the step of a bias follows from the others: the runtime computes it once, so the file need not store it
            inputs.append(self._dequantized(whole, self._emit("Mul", [steps, found.scale]), 0, gemm=gemm))
        return inputs

    def _float_inputs(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of a layer that stays in float: integers cast to float, and weights multiplied by their step.

        With a DequantizeLinear, ONNX Runtime (1.32) would quantize the layer itself, with one step for all channels.
        """
        found = self._quantized[node.input[0]]
        levels = self._emit("Cast", [found.tensor])
        self._nodes[-1].attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
        centered = self._emit("Sub", [levels, self._constant(np.array(found.level_of_zero, np.float32))])
        return [centered, self._constant(self._weights[node.input[1]] * found.step), *node.input[2:]]

    def _gate(self, name: str, output: str | None = None) -> str:
        """Add the hard sigmoid of the quantized ``name``, a saturated x / 6 + 1/2; returns the name of the output."""
        found = self._quantized[name]
        sixth = self._constant(np.array(found.step / np.float32(6), np.float32))
        x = self._emit("DequantizeLinear", [found.tensor, sixth, found.zero])
        half = [self._whole(255), np.array(0.5 / 255, np.float32), self._whole(0)]
        gate = self._emit("Add", [x, self._emit("DequantizeLinear", [self._constant(array) for array in half])], output)
        self._quantize(gate, ValueRange(0.0, 1.0))
        return gate

    def _quantize(self, name: str, found: ValueRange) -> None:
        low, high = min(found.low, 0.0), max(found.high, 0.0)
        step = np.float32(max((high - low) / 255, 1e-12))
        level = self._whole(int(np.clip(round(-low / step), 0, 255)))
        scale, zero = self._constant(np.array(step)), self._constant(level)
        whole = self._emit("QuantizeLinear", [name, scale, zero])
        self._quantized[name] = _Quantized(whole, scale, zero, step, int(level))

    def _float(self, name: str) -> str:
        """``name`` in float: by a DequantizeLinear node for this reader alone, which the runtime fuses into it."""
        if (found := self._quantized.get(name)) is None:
            return name
        return self._emit("DequantizeLinear", [found.tensor, found.scale, found.zero])

    def _dequantized(self, whole: Array, steps: str, axis: int, *, gemm: bool) -> str:
        """A layer's integer constants, with a step per channel, dequantized to float."""
        inputs = [self._constant(whole), steps]
        if gemm:  # ONNX Runtime needs explicit zero points to run it in int8; elsewhere they default to 0
            inputs.append(self._constant(np.zeros(whole.shape[axis], whole.dtype)))
        dequantized = self._emit("DequantizeLinear", inputs)
        self._nodes[-1].attribute.append(helper.make_attribute("axis", axis))
        return dequantized

    def _whole(self, level: int) -> Array:
        """``level``, from 0 to 255, in the integer type of the maps."""
        return np.array(level + self._settings.activations.least, np.dtype(self._settings.activations.value))

    def _constant(self, array: Array) -> str:
        """The name of a constant; equal constants share one."""
        key = str(array.dtype), array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"c{len(self._constants)}")
        return self._constants[key].name

    def _emit(self, kind: str, inputs: list[str], output: str | None = None) -> str:
        """Add a node; without node names and with short tensor names, files stay small."""
        output = f"t{len(self._nodes)}" if output is None else output
        self._nodes.append(helper.make_node(kind, inputs, [output]))
        return output

    def _copy(self, node: onnx.NodeProto, inputs: list[str]) -> None:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        del copied.input[:]
        copied.input.extend(inputs)
        self._nodes.append(copied)
