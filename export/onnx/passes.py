"""Rewrites of the graphs of torch's exporter that make them faster.

Every rewrite was chosen by measuring (docs/export.md). The results of a graph stay the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Floats = npt.NDArray[np.float32]

BLOCK = 16
"""Channels per AVX-512 vector; maps of other widths are padded again at every squeeze-excite."""

_CHANNELWISE = {"Add", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Mul", "Relu", "Sigmoid"}
_UNSPOKEN = {("dilations", (1, 1), b""), ("auto_pad", (), b"NOTSET")}


def pool_globally(graph: onnx.GraphProto) -> None:
    """Replace averages over height and width by GlobalAveragePool, which runtimes compute in their own layout."""
    for node in graph.node:
        if node.op_type == "ReduceMean" and attribute(node, "keepdims", 1) == 1:
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]


def strip_history(graph: onnx.GraphProto) -> None:
    """Remove the origins of nodes noted by torch's exporter: a tenth of a small file, including local paths.

    Attributes with default values are removed, too.
    """
    del graph.metadata_props[:], graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for node in convolutions(graph):
        spoken = [entry for entry in node.attribute if (entry.name, tuple(entry.ints), entry.s) not in _UNSPOKEN]
        del node.attribute[:]
        node.attribute.extend(spoken)


def align_channels(graph: onnx.GraphProto, multiple: int = BLOCK) -> None:
    """Pad maps of at least ``multiple`` channels to a multiple of it, by channels with zero weights.

    Maps read by a reshape or a grouped convolution, and the outputs of the graph, keep their width.
    """
    widths = _Widths(graph)
    widths.align(multiple)
    wide = {weight.name: weight for node in convolutions(graph) for weight in widths.widened(node)}
    used = {name for node in graph.node for name in node.input}
    others = [weight for weight in graph.initializer if weight.name in used and weight.name not in wide]
    del graph.initializer[:]
    graph.initializer.extend([*others, *wide.values()])


class _Widths:
    """Groups the maps of a graph that must have the same width, with their current and padded widths."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._weights = {weight.name: weight for weight in graph.initializer}
        self._group: dict[str, str] = {}
        self._width: dict[str, int] = {}
        self._fixed: set[str] = set()
        for node in graph.node:
            self._join(node)
        for value in (*graph.input, *graph.output):
            self._fixed.add(self._find(value.name))

    def align(self, multiple: int) -> None:
        fixed = {self._find(name) for name in self._fixed}
        widths: dict[str, int] = defaultdict(int)
        for name, width in self._width.items():
            widths[self._find(name)] = width
        self._aligned = {
            group: -(-width // multiple) * multiple if width >= multiple and group not in fixed else width
            for group, width in widths.items()
        }

    def widened(self, conv: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
        """Give ``conv`` padded weights of its own and yield them; before, nodes may share equal weights."""
        weight = numpy_helper.to_array(self._weights[conv.input[1]])
        out, inner = self._aligned[self._find(conv.output[0])], weight.shape[1]
        if attribute(conv, "group", 1) == 1:
            inner = self._aligned.get(self._find(conv.input[0]), inner)
        elif self._is_depthwise(conv):
            next(entry for entry in conv.attribute if entry.name == "group").i = out
        arrays = [_padded(weight, (out, inner, *weight.shape[2:]))]
        if len(conv.input) > 2:
            arrays.append(_padded(numpy_helper.to_array(self._weights[conv.input[2]]), (out,)))
        for n, (array, kind) in enumerate(zip(arrays, ("weight", "bias"), strict=False), start=1):
            conv.input[n] = f"{conv.output[0]}.{kind}"
            yield numpy_helper.from_array(array, conv.input[n])

    def _join(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Conv":
            self._width[node.output[0]] = self._weights[node.input[1]].dims[0]
            if self._is_depthwise(node):
                self._union(node.input[0], node.output[0])
            elif attribute(node, "group", 1) > 1:
                self._fixed |= {node.input[0], node.output[0]}
        elif node.op_type in _CHANNELWISE and not any(name in self._weights for name in node.input):
            for name in node.input:
                self._union(name, node.output[0])
        else:
            self._fixed.update(node.input, node.output)

    def _is_depthwise(self, conv: onnx.NodeProto) -> bool:
        groups = attribute(conv, "group", 1)
        return groups > 1 and list(self._weights[conv.input[1]].dims[:2]) == [groups, 1]

    def _find(self, name: str) -> str:
        while (above := self._group.setdefault(name, name)) != name:
            name = above
        return name

    def _union(self, one: str, other: str) -> None:
        self._group[self._find(one)] = self._find(other)


def _padded(array: Floats, shape: tuple[int, ...]) -> Floats:
    wide = np.zeros(shape, dtype=array.dtype)
    wide[tuple(slice(side) for side in array.shape)] = array
    return wide


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """The integer attribute ``name`` of ``node``."""
    return next((entry.i for entry in node.attribute if entry.name == name), default)


def consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each tensor."""
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    return readers


def convolutions(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The convolutions, in order."""
    return (node for node in graph.node if node.op_type == "Conv")
