"""The operators of our ONNX graphs as those of LiteRT, with maps of shape (batch, height, width, channels).

Our networks have a dozen of them. A general converter, litert-torch 0.10, takes 146 s for FBNetV3-A and 886 MB of
packages, among them jax; this one takes less than a second, and also writes the int8 form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import helper, numpy_helper

from fbnetv3_zoo.errors import ZooError

from .graph import NONE, Array, Graph, Model, Shape, Steps

Options = Mapping[str, Any]
"""The attributes of a node of ONNX."""

_NO, _RELU6 = schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU6
_SAME, _VALID = schema.Padding.SAME, schema.Padding.VALID
LEVELS = 127


def converted(model: onnx.ModelProto, shape: Shape, *, int8: bool = False) -> Model:
    """``model`` as a model of LiteRT.

    Args:
        model: a float graph with folded norms, from images (batch, channels, height, width) to logits.
        shape: shape of one batch of images in LiteRT: (1, height, width, channels).
        int8: whether to store the weights of convolutions, except depthwise ones, and linear layers as int8, a step per
            channel; LiteRT then quantizes the maps that they read while it computes.

    Raises :class:`ZooError` for operators that none of our networks has.
    """
    return Converter(model.graph, int8=int8).converted(shape)


@dataclass(frozen=True)
class _Window:
    """What slides over maps: rows first, then columns; pads are (top, left, bottom, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]

    @classmethod
    def of(cls, kernel: tuple[int, ...], options: Options) -> _Window:
        """The window that the attributes of an ONNX node describe."""
        (down, across), (deep, wide) = (options.get(name, (1, 1)) for name in ("strides", "dilations"))
        top, left, bottom, right = options.get("pads", (0, 0, 0, 0))
        return cls((kernel[0], kernel[1]), (down, across), (deep, wide), (top, left, bottom, right))

    def same_pads(self, sides: Sequence[int]) -> tuple[int, int, int, int]:
        """The pads that LiteRT calls SAME for maps of these ``sides``: for side / stride windows, more at the end."""
        before, after = [], []
        for side, reach, stride in zip(sides, self._reaches, self.stride, strict=True):
            pads = max((-(-side // stride) - 1) * stride + reach - side, 0)
            before.append(pads // 2)
            after.append(pads - pads // 2)
        return before[0], before[1], after[0], after[1]

    def size(self, shape: Shape, padding: int) -> tuple[int, int]:
        """Height and width of the result for maps of that ``shape``."""
        if padding == _SAME:
            return -(-shape[1] // self.stride[0]), -(-shape[2] // self.stride[1])
        high, wide = ((side - reach) // stride + 1
                      for side, reach, stride in zip(shape[1:3], self._reaches, self.stride, strict=True))  # fmt: skip
        return high, wide

    @property
    def _reaches(self) -> tuple[int, ...]:
        return tuple(hole * (side - 1) + 1 for side, hole in zip(self.kernel, self.dilation, strict=True))


class Converter:
    """Writes the operators of an ONNX graph, one after another; subclasses write some of them in another form."""

    def __init__(self, graph: onnx.GraphProto, *, int8: bool) -> None:
        self._source, self._int8 = graph, int8
        self._weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
        self._graph = Graph()
        self._numbers: dict[str, int] = {}
        self._shuffles: dict[str, int] = {}

    def converted(self, shape: Shape) -> Model:
        """The model, for images of that ``shape``."""
        given = self._numbers[self._source.input[0].name] = self._graph.tensor("images", shape)
        for node in self._source.node:
            self._write(node)
        return Model(self._graph, given, self._numbers[self._source.output[0].name])

    def _write(self, node: onnx.NodeProto) -> None:
        write = _WRITERS.get(node.op_type)
        if write is None:
            raise ZooError(f"it has the operator {node.op_type}")
        options = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        self._numbers[node.output[0]] = write(self, node, options)

    def _input(self, node: onnx.NodeProto, position: int = 0) -> int:
        """The tensor that ``node`` reads there; a constant is added when it is first read."""
        name = node.input[position]
        if name not in self._numbers:
            data = self._weights[name].astype(np.float32)
            if data.ndim == 4:
                data = data.transpose(0, 2, 3, 1)
            self._numbers[name] = self._graph.constant(name, data)
        return self._numbers[name]

    def _add(self, node: onnx.NodeProto, code: str, inputs: list[int], shape: Shape, options: object = None) -> int:
        """Add an operator that computes the output of ``node``; its tensor has the integers of the first input."""
        steps = self._graph.steps(inputs[0])
        return self._graph.operator(code, inputs, self._graph.tensor(node.output[0], shape, steps), options)

    def _convolution(self, node: onnx.NodeProto, options: Options) -> int:
        weight, maps = self._weights[node.input[1]], self._input(node)
        bias = self._weights[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight), np.float32)
        depthwise = self._is_depthwise(node, options)
        filters = weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)
        whole = not depthwise and options.get("group", 1) == 1
        constants = [self._filters(node, filters, whole=whole), self._graph.constant(f"{node.output[0]}.bias", bias)]
        return self._slid(node, options, maps, constants)

    def _is_depthwise(self, node: onnx.NodeProto, options: Options) -> bool:
        weight, groups = self._weights[node.input[1]], options.get("group", 1)
        return bool(groups == self._graph.shape(self._numbers[node.input[0]])[3] > 1 and weight.shape[1] == 1)

    def _slid(
        self, node: onnx.NodeProto, options: Options, maps: int, constants: list[int], steps: Steps | None = None
    ) -> int:  # fmt: skip
        """The convolution ``node`` of ``maps`` with the ``constants`` weight and bias."""
        count, _, *kernel = self._weights[node.input[1]].shape
        window = _Window.of(tuple(kernel), options)
        maps, padding = self._padded(maps, window)
        common = {
            "padding": padding,
            "strideH": window.stride[0],
            "strideW": window.stride[1],
            "dilationHFactor": window.dilation[0],
            "dilationWFactor": window.dilation[1],
        }
        given = self._graph.shape(maps)
        output = self._graph.tensor(node.output[0], (1, *window.size(given, padding), count), steps)
        if self._is_depthwise(node, options):
            settings = schema.DepthwiseConv2DOptionsT(depthMultiplier=count // given[3], **common)
            return self._graph.operator("DEPTHWISE_CONV_2D", [maps, *constants], output, settings)
        return self._graph.operator("CONV_2D", [maps, *constants], output, schema.Conv2DOptionsT(**common))

    def _filters(self, node: onnx.NodeProto, weight: Array, *, whole: bool) -> int:
        """The weights of a layer, output channels first; as int8 if they shall be, and ``whole`` says they can be."""
        name = f"{node.output[0]}.weight"
        if not (whole and self._is_dynamic(node)):
            return self._graph.constant(name, weight)
        largest = np.abs(weight).reshape(len(weight), -1).max(1)
        steps = np.maximum(largest / LEVELS, 1e-12).astype(np.float32)
        integers = np.round(weight / steps.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)
        return self._graph.constant(name, integers, Steps(steps))

    def _is_dynamic(self, node: onnx.NodeProto) -> bool:
        """Whether the layer ``node`` of floats stores its weights as int8."""
        return self._int8

    def _padded(self, maps: int, window: _Window) -> tuple[int, int]:
        """The maps that a window slides over, padded if LiteRT has no word for its padding, and what it is called."""
        sides = self._graph.shape(maps)[1:3]
        if window.pads == window.same_pads(sides):
            return maps, _SAME if any(window.pads) else _VALID
        top, left, bottom, right = window.pads
        amounts = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        name = f"padded {len(self._graph.operators)}"
        _, high, wide, channels = self._graph.shape(maps)
        shape = (1, high + top + bottom, wide + left + right, channels)
        larger = self._graph.tensor(name, shape, self._graph.steps(maps))
        inputs = [maps, self._graph.constant(f"{name} by", amounts)]
        return self._graph.operator("PAD", inputs, larger, schema.PadOptionsT()), _VALID

    def _linear(self, node: onnx.NodeProto, options: Options) -> int:
        weight = self._weights[node.input[1]]
        if options.get("alpha", 1.0) != 1 or options.get("beta", 1.0) != 1 or options.get("transA", 0):
            raise ZooError("it has a scaled or transposed matrix product")
        weight = weight if options.get("transB", 0) else weight.T
        bias = self._graph.constant(f"{node.output[0]}.bias", self._weights[node.input[2]]) if node.input[2:] else NONE
        inputs = [self._input(node), self._filters(node, np.ascontiguousarray(weight), whole=True), bias]
        return self._add(node, "FULLY_CONNECTED", inputs, (1, len(weight)), schema.FullyConnectedOptionsT())

    def _hard_sigmoid(self, node: onnx.NodeProto, options: Options) -> int:
        """``relu6(x + 3) / 6``, as LiteRT has no hard sigmoid."""
        if abs(6 * options.get("alpha", 0.2) - 1) > 1e-6 or options.get("beta", 0.5) != 0.5:
            raise ZooError("it has a hard sigmoid of another slope than a sixth")
        maps = self._input(node)
        shape, name = self._graph.shape(maps), node.output[0]
        three = self._graph.constant(f"{name}.three", np.array(3, np.float32))
        shifted = self._graph.tensor(f"{name}.shifted", shape)
        self._graph.operator("ADD", [maps, three], shifted, schema.AddOptionsT(_RELU6))
        sixth = self._graph.constant(f"{name}.sixth", np.array(1 / 6, np.float32))
        return self._add(node, "MUL", [shifted, sixth], shape, schema.MulOptionsT())

    def _unary(self, node: onnx.NodeProto, options: Options) -> int:
        code, settings = _UNARY[node.op_type]
        maps = self._input(node)
        return self._add(node, code, [maps], self._graph.shape(maps), settings and settings())

    def _clip(self, node: onnx.NodeProto, options: Options) -> int:
        bounds = [float(self._weights[name]) for name in node.input[1:3] if name in self._weights]
        if bounds != [0, 6]:
            raise ZooError(f"it clips to {bounds}, not from 0 to 6")
        maps = self._input(node)
        return self._add(node, "RELU6", [maps], self._graph.shape(maps))

    def _binary(self, node: onnx.NodeProto, options: Options) -> int:
        inputs = [self._input(node, 0), self._input(node, 1)]
        shape = np.broadcast_shapes(*map(self._graph.shape, inputs))
        settings = schema.AddOptionsT() if node.op_type == "Add" else schema.MulOptionsT()
        return self._add(node, node.op_type.upper(), inputs, shape, settings)

    def _mean(self, node: onnx.NodeProto, options: Options) -> int:
        self._check_mean(node)
        return self._averaged(node, options, self._input(node))

    def _check_mean(self, node: onnx.NodeProto) -> None:
        """Raise :class:`ZooError` unless ``node`` averages over height and width."""
        if node.op_type == "GlobalAveragePool":
            return
        axes = self._weights[node.input[1]].tolist() if len(node.input) > 1 else []
        if sorted(axis % 4 for axis in axes) != [2, 3]:
            raise ZooError(f"it averages over the axes {axes}, not over height and width")

    def _averaged(self, node: onnx.NodeProto, options: Options, maps: int, steps: Steps | None = None) -> int:
        """The averages of ``maps`` over height and width, which stay as axes of length 1 if ``node`` keeps them."""
        name, count = node.output[0], self._graph.shape(maps)[3]
        axes = self._graph.constant(f"{name}.axes", np.array([1, 2], np.int32))
        mean = self._graph.tensor(name, (1, 1, 1, count), steps)
        self._graph.operator("MEAN", [maps, axes], mean, schema.ReducerOptionsT(keepDims=True))
        if node.op_type == "GlobalAveragePool" or options.get("keepdims", 1):
            return mean
        target = np.array([-1, count], np.int32)  # XNNPACK takes means with four axes
        inputs = [mean, self._graph.constant(f"{name}.shape", target)]
        flat = self._graph.tensor(f"{name}.flat", (1, count), steps)
        return self._graph.operator("RESHAPE", inputs, flat, schema.ReshapeOptionsT(target))

    def _pool(self, node: onnx.NodeProto, options: Options) -> int:
        window = _Window.of(tuple(options["kernel_shape"]), options)
        maps = self._input(node)
        code = "MAX_POOL_2D" if node.op_type == "MaxPool" else "AVERAGE_POOL_2D"
        if window.dilation != (1, 1) or options.get("ceil_mode", 0):
            raise ZooError("it has a pool with holes, or of incomplete windows")
        if any(window.pads) and window.pads != window.same_pads(self._graph.shape(maps)[1:3]):
            if code != "MAX_POOL_2D" or not self._never_negative(node.input[0]):
                raise ZooError("it pads the input of a pool")
            maps, padding = self._padded(maps, window)  # with zeros, which are no larger than any other value
        else:
            padding = _SAME if any(window.pads) else _VALID
        (down, across), (high, wide) = window.stride, window.kernel
        settings = schema.Pool2DOptionsT(padding, across, down, wide, high)
        shape = (1, *window.size(self._graph.shape(maps), padding), self._graph.shape(maps)[3])
        return self._add(node, code, [maps], shape, settings)

    def _never_negative(self, name: str) -> bool:
        return any(name in node.output and node.op_type in ("Relu", "Clip", "Sigmoid") for node in self._source.node)

    def _concat(self, node: onnx.NodeProto, options: Options) -> int:
        if options["axis"] != 1:
            raise ZooError("it joins maps along another axis than that of the channels")
        inputs = [self._input(node, position) for position in range(len(node.input))]
        shapes = [self._graph.shape(number) for number in inputs]
        shape = (*shapes[0][:-1], sum(one[-1] for one in shapes))
        return self._add(node, "CONCATENATION", inputs, shape, schema.ConcatenationOptionsT(len(shape) - 1))

    def _reshape(self, node: onnx.NodeProto, options: Options) -> int:
        """Flattened maps, or channels in groups (a fifth axis) for a shuffle, and back."""
        maps = self._input(node)
        before = self._graph.shape(maps)
        after = [1, -1] if node.op_type == "Flatten" else self._weights[node.input[1]].tolist()
        if len(after) == 5:
            shape = (*before[:3], int(after[1]), before[3] // int(after[1]))
        elif len(after) == 4 and len(before) == 5:
            shape = (*before[:3], before[3] * before[4])
        elif len(after) == 2:
            shape = (1, int(np.prod(before)))
            if len(before) == 4 and before[1:3] != (1, 1):
                maps = self._moved(maps, f"{node.output[0]}.channels first", (0, 3, 1, 2))
        else:
            raise ZooError(f"it reshapes {len(before)} axes to {len(after)}")
        target = np.array([-1, *shape[1:]], np.int32)
        inputs = [maps, self._graph.constant(f"{node.output[0]}.shape", target)]
        return self._add(node, "RESHAPE", inputs, shape, schema.ReshapeOptionsT(target))

    def _transpose(self, node: onnx.NodeProto, options: Options) -> int:
        """Of a shuffle: the groups of channels change places with the channels in a group."""
        if list(options.get("perm", ())) != [0, 2, 1, 3, 4]:
            raise ZooError("it transposes other axes than those of a shuffle of channels")
        return self._moved(self._input(node), node.output[0], (0, 1, 2, 4, 3))

    def _moved(self, maps: int, name: str, order: tuple[int, ...]) -> int:
        shape = self._graph.shape(maps)
        moved = self._graph.tensor(name, tuple(shape[axis] for axis in order), self._graph.steps(maps))
        places = self._graph.constant(f"{name}.order", np.array(order, np.int32))
        return self._graph.operator("TRANSPOSE", [maps, places], moved, schema.TransposeOptionsT())

    def _same(self, node: onnx.NodeProto, options: Options) -> int:
        return self._input(node)


_UNARY: dict[str, tuple[str, Callable[[], object] | None]] = {
    "HardSwish": ("HARD_SWISH", schema.HardSwishOptionsT),
    "Relu": ("RELU", None),
    "Sigmoid": ("LOGISTIC", None),
}
_Write = Callable[[Converter, onnx.NodeProto, Options], int]
_WRITERS: dict[str, _Write] = {
    "Conv": Converter._convolution,
    "Gemm": Converter._linear,
    "HardSigmoid": Converter._hard_sigmoid,
    "Clip": Converter._clip,
    "Add": Converter._binary,
    "Mul": Converter._binary,
    "GlobalAveragePool": Converter._mean,
    "ReduceMean": Converter._mean,
    "AveragePool": Converter._pool,
    "MaxPool": Converter._pool,
    "Concat": Converter._concat,
    "Flatten": Converter._reshape,
    "Reshape": Converter._reshape,
    "Transpose": Converter._transpose,
    "Identity": Converter._same,
    **dict.fromkeys(_UNARY, Converter._unary),
}
