"""ONNX graphs of single blocks and whole networks with random weights, for timing.

They have the operators that :func:`fbnetv3_zoo.export.export_onnx` writes, with norms folded into convolutions, but are
built in milliseconds instead of seconds. Maps are not padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from fbnetv3_zoo.arch import Activation
from fbnetv3_zoo.arch.latency import BlockKey

OPSET, IR_VERSION = 18, 10
INPUT = "images"
_HARD_SIGMOID = {"alpha": 1 / 6, "beta": 0.5}
_OPERATORS = {Activation.RELU: "Relu", Activation.HARD_SWISH: "HardSwish"}


class Graph:
    """A graph under construction: methods add nodes after the map ``x`` and return the name of the new map."""

    def __init__(self, activation: Activation, *, seed: int = 0) -> None:
        self._activation, self._rng = activation, np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def model(self, channels: int, side: int, output: str) -> onnx.ModelProto:
        """The whole graph, for one image of ``channels`` x ``side`` x ``side``."""
        shape = [1, channels, side, side]
        images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)
        answer = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self._nodes, "graph", [images], [answer], self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def node(self, operator: str, *inputs: str, attributes: Mapping[str, float | list[int]] | None = None) -> str:
        """One node with one output."""
        name = f"map{len(self._nodes)}"
        new = helper.make_node(operator, list(inputs), [name], name)
        new.attribute.extend(helper.make_attribute(key, value) for key, value in (attributes or {}).items())
        self._nodes.append(new)
        return name

    def block(self, x: str, key: BlockKey) -> str:
        """A whole block."""
        if key.classifier:
            return self._classifier(x, key)
        if key.dense:
            return self._act(self._conv(x, key.in_channels, key.out, key=key))
        if key.pools:
            wide = self._act(self._conv(x, key.in_channels, key.mid))
            return self._act(self._conv(self._average(wide), key.mid, key.out, bias=False))
        if not key.groups:
            return self.node("Relu", self._conv(x, key.in_channels, key.out, key=key))
        return self._residual(x, key)

    def entry(self, channels: int) -> str:
        """A cheap convolution from an image with one channel to a map of ``channels``."""
        return self._conv(INPUT, 1, channels)

    def exit(self, x: str) -> str:
        """A cheap reduction of a map to one number per channel."""
        return self._average(x)

    def _residual(self, x: str, key: BlockKey) -> str:
        groups, y = key.groups_1x1, x
        if key.expands:
            y = self._act(self._conv(y, key.in_channels, key.mid, groups=groups))
        if groups > 1:
            y = self._shuffle(y, key)
        y = self._act(self._conv(y, key.mid, key.mid, groups=key.groups, key=key))
        if key.se:
            y = self._excite(y, key)
        y = self._conv(y, key.mid, key.out, groups=groups)
        return self.node("Add", y, x) if key.residual else y

    def _excite(self, x: str, key: BlockKey) -> str:
        squeezed = self._act(self._conv(self._average(x), key.mid, key.se))
        gate = self.node("HardSigmoid", self._conv(squeezed, key.se, key.mid), attributes=_HARD_SIGMOID)
        return self.node("Mul", x, gate)

    def _shuffle(self, x: str, key: BlockKey) -> str:
        side, groups = key.side, key.groups_1x1
        split = self.node("Reshape", x, self._whole(-1, groups, key.mid // groups, side, side))
        swapped = self.node("Transpose", split, attributes={"perm": [0, 2, 1, 3, 4]})
        return self.node("Reshape", swapped, self._whole(-1, key.mid, side, side))

    def _classifier(self, x: str, key: BlockKey) -> str:
        if key.pools:
            features = self.node("ReduceMean", x, self._whole(2, 3), attributes={"keepdims": 0})
        else:
            features = self.node("Reshape", x, self._whole(-1, key.in_channels))
        weights = self._drawn(key.out, key.in_channels), self._drawn(key.out)
        return self.node("Gemm", features, *weights, attributes={"transB": 1})

    def _average(self, x: str) -> str:
        return self.node("GlobalAveragePool", x)

    def _act(self, x: str) -> str:
        return self.node(_OPERATORS[self._activation], x)

    def _conv(
        self, x: str, channels: int, out: int, *, groups: int = 1, key: BlockKey | None = None, bias: bool = True
    ) -> str:
        """A convolution, 1x1 or with kernel, stride and padding of ``key``, with the norm folded into a bias."""
        kernel, stride, padding = (key.kernel, key.stride, key.padding) if key else (1, 1, 0)
        groups = key.groups if key and key.dense else groups
        weights = [self._drawn(out, channels // groups, kernel, kernel)] + ([self._drawn(out)] if bias else [])
        return self.node(
            "Conv", x, *weights,
            attributes={"group": groups, "kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4},
        )  # fmt: skip

    def _drawn(self, *shape: int) -> str:
        """Random weights that preserve the scale of the signal."""
        fan_in = float(np.prod(shape[1:])) if len(shape) > 1 else 100.0
        return self._constant(self._rng.standard_normal(shape, dtype=np.float32) * np.float32(fan_in**-0.5))

    def _whole(self, *numbers: int) -> str:
        return self._constant(np.array(numbers, dtype=np.int64))

    def _constant(self, array: npt.NDArray[np.float32 | np.int64]) -> str:
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name


def network_graph(blocks: Sequence[BlockKey], activation: Activation) -> onnx.ModelProto:
    """The network of these blocks in sequence."""
    graph, x = Graph(activation), INPUT
    for key in blocks:
        x = graph.block(x, key)
    return graph.model(blocks[0].in_channels, blocks[0].side, x)


def block_graph(key: BlockKey, activation: Activation) -> onnx.ModelProto:
    """The block alone."""
    graph = Graph(activation)
    return graph.model(key.in_channels, key.side, graph.block(INPUT, key))


def framed_graph(key: BlockKey, activation: Activation) -> onnx.ModelProto:
    """The block between an entry and an exit layer, if it :func:`enters` and :func:`leaves` through them."""
    graph = Graph(activation)
    x = graph.block(graph.entry(key.in_channels) if enters(key) else INPUT, key)
    return graph.model(1 if enters(key) else key.in_channels, key.side, graph.exit(x) if leaves(key) else x)


def frame_graph(channels: int, side: int, activation: Activation) -> onnx.ModelProto:
    """The entry and exit layers without a block."""
    graph = Graph(activation)
    return graph.model(1, side, graph.exit(graph.entry(channels)))


def empty_graph() -> onnx.ModelProto:
    """A graph that computes nothing."""
    graph = Graph(Activation.RELU)
    return graph.model(1, 1, graph.node("Identity", INPUT))


def enters(key: BlockKey) -> bool:
    """Whether the block's input is a map in the runtime's layout, not an image or a feature vector."""
    return key.in_channels > 4 and not (key.classifier and not key.pools)


def leaves(key: BlockKey) -> bool:
    """Whether the block's output is a map."""
    return not (key.pools or key.classifier)
