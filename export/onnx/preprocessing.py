"""Preprocessing and softmax inside the graph, so that clients need neither Python nor this package."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.preprocess import Interpolation, Preprocess

IMAGE, PROBABILITIES = "image", "probabilities"
_MODES = {Interpolation.NEAREST: "nearest", Interpolation.BILINEAR: "linear", Interpolation.BICUBIC: "cubic"}
Attribute = str | int | float | list[int]
Array = npt.NDArray[np.float32] | npt.NDArray[np.int64]


def check_channels(count: int) -> None:
    """Raise :class:`ZooError` if :func:`take_images` cannot make an image of ``count`` channels."""
    if count not in (1, 3):
        raise ZooError(
            f"preprocessing in the graph needs 1 or 3 channels, but this network has {count}; export without it"
        )


def take_images(model: onnx.ModelProto, preprocess: Preprocess) -> None:
    """Add ``preprocess`` before ``model`` and softmax after it.

    Input ``images`` becomes ``image``, uint8 of shape (height, width, channels), of any size; output ``logits`` becomes
    ``probabilities``, shape (classes,). The resize is ONNX's, antialiased: within one gray level of Pillow's, and
    equal in about 99 pixels of 100.
    """
    graph, front = model.graph, _Nodes("preprocess")
    (images,), (logits,) = graph.input, graph.output
    _resized_and_cropped(front, preprocess, images.name)
    back = _Nodes("softmax")
    back.add("Softmax", [logits.name], "each", axis=-1)
    back.add("Squeeze", ["each", back.constant("first", [0])], PROBABILITIES)
    nodes = [*front.nodes, *graph.node, *back.nodes]
    classes = logits.type.tensor_type.shape.dim[-1].dim_value
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*front.constants, *back.constants])
    shape: list[str | int | None] = ["height", "width", len(preprocess.mean)]
    graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape))
    graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [classes]))


class _Nodes:
    """Nodes and constants with a common name prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Attribute) -> str:
        node = helper.make_node(operator, inputs, [output], f"{self._prefix}.{output}")
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(node)
        return output

    def constant(self, name: str, values: Array | list[int] | float) -> str:
        array = values if isinstance(values, np.ndarray) else np.array(values)
        narrow = array.astype(np.float32) if array.dtype == np.float64 else array
        self.constants.append(numpy_helper.from_array(narrow, f"{self._prefix}.{name}"))
        return self.constants[-1].name


def _resized_and_cropped(front: _Nodes, preprocess: Preprocess, output: str) -> None:
    """Add the nodes from ``image`` to the network's input ``output``, step by step as in ``Preprocess``."""
    side, channels, add, constant = preprocess.resolution, len(preprocess.mean), front.add, front.constant
    add("Shape", [IMAGE], "shape", start=0, end=2)
    add("ReduceMin", ["shape"], "short", keepdims=0)
    add("Mul", ["shape", constant("resize", np.array(preprocess.resize, np.int64))], "scaled")
    add("Div", ["scaled", "short"], "size")
    add("Transpose", [IMAGE], "planes", perm=[2, 0, 1])
    add("Unsqueeze", ["planes", constant("batch", [0])], "batch_of_one")
    smooth = {} if preprocess.interpolation is Interpolation.NEAREST else {"antialias": 1}
    add(
        "Resize", ["batch_of_one", "", "", "size"], "resized", mode=_MODES[preprocess.interpolation], axes=[2, 3],
        coordinate_transformation_mode="half_pixel", cubic_coeff_a=-0.5, nearest_mode="round_prefer_ceil", **smooth,
    )  # fmt: skip
    add("Sub", ["size", constant("side", np.array(side, np.int64))], "surplus")
    add("Cast", ["surplus"], "surplus_float", to=TensorProto.FLOAT)
    add("Mul", ["surplus_float", constant("half", np.array(0.5, np.float32))], "middle")
    add("Round", ["middle"], "middle_rounded")
    add("Cast", ["middle_rounded"], "start", to=TensorProto.INT64)
    add("Add", ["start", "preprocess.side"], "end")
    add("Slice", ["resized", "start", "end", constant("axes", [2, 3])], "cropped")
    add("Reshape", ["cropped", constant("shape", [1, channels, side, side])], "levels")
    add("Cast", ["levels"], "levels_float", to=TensorProto.FLOAT)
    add("Div", ["levels_float", constant("white", np.array(255, np.float32))], "scaled_to_one")
    mean, std = (
        np.array(values, np.float32).reshape(1, channels, 1, 1) for values in (preprocess.mean, preprocess.std)
    )
    add("Sub", ["scaled_to_one", constant("mean", mean)], "centered")
    add("Div", ["centered", constant("std", std)], output)
