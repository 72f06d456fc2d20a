"""Builds ML programs, Core ML's graphs, from our ONNX graphs, operator by operator.

coremltools' own converter starts from a trace of torch, is tested by its makers with torch up to 2.7, and takes hard
activations apart into thresholded ones. Our graphs have a dozen operators, each with a counterpart in ML programs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from onnx import helper, numpy_helper

from fbnetv3_zoo.errors import ZooError, printable
from fbnetv3_zoo.preprocess import Preprocess

if TYPE_CHECKING:
    import onnx
    from coremltools.converters.mil.mil import Program

Array = npt.NDArray[Any]
_LARGEST = 127  # of 8-bit weights, symmetric around zero


def program(graph: onnx.GraphProto, preprocess: Preprocess, *, half: bool, whole: bool) -> Program:
    """The ML program from an image of 8-bit levels to ``probabilities`` and ``logits``.

    ``half``: compute in float16; ``whole``: store the weights of convolutions and products as 8-bit integers. Raises
    :class:`ZooError` for a graph that has operators of none of our networks.
    """
    import coremltools
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    side, channels = preprocess.resolution, len(preprocess.mean)
    weights = {one.name: numpy_helper.to_array(one) for one in graph.initializer}

    def main(image: Any) -> Any:
        levels = Builder.cast(x=image, dtype="fp16", name="levels") if half else image
        build = _Network(Builder, weights, np.float16 if half else np.float32, whole)
        values = {graph.input[0].name: build.normalized(levels, preprocess)}
        last = graph.output[0].name
        for number, node in enumerate(graph.node):
            name = "logits" if node.output[0] == last and not half else f"{node.op_type.lower()}_{number}"
            values[node.output[0]] = build.translated(node, values, name)
        logits = Builder.cast(x=values[last], dtype="fp32", name="logits") if half else values[last]
        return Builder.softmax(x=logits, axis=-1, name="probabilities"), logits

    specification = Builder.TensorSpec(shape=(1, channels, side, side), dtype=types.fp32)
    made: Program = Builder.program(input_specs=[specification], opset_version=coremltools.target.iOS16)(main)
    return made


@dataclass(frozen=True, slots=True)
class _Network:
    """Adds operators by ``mb``, coremltools' builder, to the program; ``kind`` is the type in which it computes."""

    mb: Any
    weights: Mapping[str, Array]
    kind: type[np.floating[Any]]
    whole: bool

    def normalized(self, levels: Any, preprocess: Preprocess) -> Any:
        """Images of levels from 0 to 255 as ``preprocess`` normalizes them.

        An image type of Core ML has one scale for all channels, which would not do for a deviation of each.
        """
        mean, std = (np.array(values).reshape(1, -1, 1, 1) * 255 for values in (preprocess.mean, preprocess.std))
        centered = self.mb.sub(x=levels, y=mean.astype(self.kind), name="centered")
        return self.mb.mul(x=centered, y=(1 / std).astype(self.kind), name="normalized")

    def translated(self, node: onnx.NodeProto, values: Mapping[str, Any], name: str) -> Any:
        """The result of ``node`` in the program, where it is called ``name``. Raises :class:`ZooError` if unknown."""
        if node.op_type not in _TRANSLATED:
            raise ZooError(f"has the operator {printable(node.op_type)}, which is not exported to Core ML")
        inputs = [values.get(one, self.weights.get(one)) for one in node.input]
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        return _TRANSLATED[node.op_type](self, inputs, attributes, name)

    def weight(self, array: Array, name: str) -> Any:
        """The weights of a convolution or a product, (output channels, ...)."""
        if not self.whole:
            return array.astype(self.kind)
        flat = np.abs(array).reshape(len(array), -1).max(1)
        steps = np.where(flat > 0, flat / _LARGEST, 1)
        rounded = np.rint(array / steps.reshape(-1, *[1] * (array.ndim - 1))).astype(np.int8)
        return self.mb.constexpr_affine_dequantize(
            quantized_data=rounded, zero_point=np.int8(0), scale=steps.astype(self.kind), axis=np.int32(0),
            name=f"{name}_weight",
        )  # fmt: skip

    def hard_sigmoid(self, x: Any, name: str, alpha: float = 1 / 6, beta: float = 0.5) -> Any:
        """``alpha * x + beta`` between 0 and 1."""
        return self.mb.sigmoid_hard(x=x, alpha=self.kind(alpha), beta=self.kind(beta), name=name)


Inputs = list[Any]
Attributes = dict[str, Any]


def _conv(build: _Network, inputs: Inputs, given: Attributes, name: str) -> Any:
    x, weight, *bias = inputs
    top, left, bottom, right = given.get("pads", [0, 0, 0, 0])
    return build.mb.conv(
        x=x, weight=build.weight(weight, name), **({"bias": bias[0].astype(build.kind)} if bias else {}),
        strides=given.get("strides", [1, 1]), pad_type="custom", pad=[top, bottom, left, right],
        dilations=given.get("dilations", [1, 1]), groups=given.get("group", 1), name=name,
    )  # fmt: skip


def _gemm(build: _Network, inputs: Inputs, given: Attributes, name: str) -> Any:
    x, weight, *bias = inputs
    if given.get("transA", 0) or given.get("alpha", 1) != 1 or given.get("beta", 1) != 1:
        raise ZooError("has a product of matrices of another form than a classifier's")
    rows = weight if given.get("transB", 0) else weight.T
    biases = {"bias": bias[0].astype(build.kind)} if bias else {}
    return build.mb.linear(x=x, weight=build.weight(rows, name), **biases, name=name)


def _hard_swish(build: _Network, inputs: Inputs, given: Attributes, name: str) -> Any:
    return build.mb.mul(x=inputs[0], y=build.hard_sigmoid(inputs[0], f"{name}_gate"), name=name)


def _hard_sigmoid(build: _Network, inputs: Inputs, given: Attributes, name: str) -> Any:
    return build.hard_sigmoid(inputs[0], name, given.get("alpha", 0.2), given.get("beta", 0.5))


def _mean(build: _Network, inputs: Inputs, given: Attributes, name: str) -> Any:
    axes = [2, 3] if len(inputs) < 2 else [int(axis) for axis in inputs[1]]
    return build.mb.reduce_mean(x=inputs[0], axes=axes, keep_dims=bool(given.get("keepdims", 1)), name=name)


def _reshape(build: _Network, inputs: Inputs, given: Attributes, name: str) -> Any:
    return build.mb.reshape(x=inputs[0], shape=[int(side) for side in inputs[1]], name=name)


def _flatten(build: _Network, inputs: Inputs, given: Attributes, name: str) -> Any:
    return build.mb.reshape(x=inputs[0], shape=[1, -1], name=name)


def _transpose(build: _Network, inputs: Inputs, given: Attributes, name: str) -> Any:
    return build.mb.transpose(x=inputs[0], perm=list(given["perm"]), name=name)


def _max_pool(build: _Network, inputs: Inputs, given: Attributes, name: str) -> Any:
    top, left, bottom, right = given.get("pads", [0, 0, 0, 0])
    if given.get("ceil_mode", 0) or any(step != 1 for step in given.get("dilations", [])):
        raise ZooError("has a pool of a form that is not exported to Core ML")
    return build.mb.max_pool(
        x=inputs[0], kernel_sizes=given["kernel_shape"], strides=given.get("strides", [1, 1]), pad_type="custom",
        pad=[top, bottom, left, right], name=name,
    )  # fmt: skip


def _clip(build: _Network, inputs: Inputs, given: Attributes, name: str) -> Any:
    least, most = (build.kind(float(bound)) for bound in inputs[1:3])
    return build.mb.clip(x=inputs[0], alpha=least, beta=most, name=name)


def _plain(operator: str) -> Callable[[_Network, Inputs, Attributes, str], Any]:
    """The translation to an operator of the same inputs: ``x``, and ``y`` if there are two."""

    def translated(build: _Network, inputs: Inputs, given: Attributes, name: str) -> Any:
        arguments = [one.astype(build.kind) if isinstance(one, np.ndarray) else one for one in inputs]
        return getattr(build.mb, operator)(**dict(zip(("x", "y"), arguments, strict=False)), name=name)

    return translated


_TRANSLATED: Mapping[str, Callable[[_Network, Inputs, Attributes, str], Any]] = {
    "Add": _plain("add"),
    "Clip": _clip,
    "Conv": _conv,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _mean,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "MaxPool": _max_pool,
    "Mul": _plain("mul"),
    "ReduceMean": _mean,
    "Relu": _plain("relu"),
    "Reshape": _reshape,
    "Sigmoid": _plain("sigmoid"),
    "Transpose": _transpose,
}
