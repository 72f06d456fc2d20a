"""Rounding of weights that preserves a layer's outputs: later weights compensate for the error of earlier ones.

The method is GPTQ (arXiv 2210.17323, section 3): for a row of weights w and inputs x, the rounded row v is chosen
weight by weight to keep E[((w - v) x)^2] small. It needs the second moments E[x x^T] of the layer's inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from scipy.linalg import lapack

from ..onnx.passes import attribute
from .calibration import map_values

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int8]

IMAGES, POSITIONS = 64, 1024
"""Images used for the moments, and positions of a map sampled from a batch of them."""

FEW = 4
"""Up to this many input channels per output there are few moments, so that an eighth of the positions suffices."""

_DAMPING, _BLOCK = 0.01, 64


def input_moments(
    model: onnx.ModelProto, layers: Sequence[onnx.NodeProto], images: Floats, *, seed: int = 0
) -> dict[str, Doubles]:
    """The second moments of the inputs of each of ``layers`` (Conv or Gemm), by layer name.

    The shape is (groups, n, n), where n is the number of inputs per output: channels of its group x kernel area.
    """
    shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for layer in layers:
        readers.setdefault(layer.input[0], []).append(layer)
    rng, sums = np.random.default_rng(seed), dict[str, Doubles]()
    for name, values in map_values(model, images[:IMAGES], list(readers)):
        for layer in readers[name]:
            part = _patches(layer, values, shapes[layer.input[1]], rng)
            moments = np.matmul(part.swapaxes(1, 2), part) / part.shape[1]
            sums[layer.name] = sums.get(layer.name, 0.0) + moments.astype(np.float64)
    return sums


def _patches(layer: onnx.NodeProto, values: Floats, shape: Sequence[int], rng: np.random.Generator) -> Floats:
    """The inputs of one output at sampled positions: (groups, positions, inputs)."""
    if layer.op_type == "Gemm":
        return values[None]
    groups, kernel = attribute(layer, "group", 1), tuple(shape[2:])
    top, left, bottom, right = helper.get_node_attr_value(layer, "pads") if _has(layer, "pads") else (0, 0, 0, 0)
    down, along = helper.get_node_attr_value(layer, "strides") if _has(layer, "strides") else (1, 1)
    if any((top, left, bottom, right)):
        values = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(values, kernel, axis=(2, 3))[:, :, ::down, ::along]
    count = windows.shape[0] * windows.shape[2] * windows.shape[3]
    positions = POSITIONS if shape[1] > FEW else POSITIONS // 8
    chosen = rng.choice(count, min(count, positions), replace=False)
    image, y, x = np.unravel_index(chosen, (windows.shape[0], *windows.shape[2:4]))
    taken = windows[image, :, y, x]  # (positions, channels, height and width of the kernel)
    return np.ascontiguousarray(taken.reshape(len(chosen), groups, -1).swapaxes(0, 1))


def _has(node: onnx.NodeProto, name: str) -> bool:
    return any(entry.name == name for entry in node.attribute)


def rounded(weight: Doubles, moments: Doubles, levels: int) -> Whole:
    """``weight`` (groups, outputs, inputs), in units of its steps, rounded to integers from -levels to levels.

    ``moments`` (groups, inputs, inputs) are the second moments of the inputs.
    """
    upper = _factor(moments)
    left = np.ascontiguousarray(weight.swapaxes(1, 2), np.float64)  # the weights of an input are contiguous
    integers = np.zeros(left.shape, np.int8)
    for start in range(0, weight.shape[2], _BLOCK):
        block = slice(start, min(start + _BLOCK, weight.shape[2]))
        part, errors, triangle = left[:, block], np.zeros_like(left[:, block]), upper[:, block, block]
        for n in range(part.shape[1]):
            whole = np.clip(np.round(part[:, n]), -levels, levels)
            errors[:, n] = (part[:, n] - whole) / triangle[:, n, n, None]
            part[:, n:] -= triangle[:, n, n:, None] * errors[:, None, n]
            integers[:, start + n] = whole
        left[:, block.stop :] -= np.matmul(upper[:, block, block.stop :].swapaxes(1, 2), errors)
    result: Whole = integers.swapaxes(1, 2)
    return result


def _factor(moments: Doubles) -> Doubles:
    """The upper Cholesky factor of the inverse of ``moments``, damped to be invertible."""
    inputs = moments.shape[1]
    mean = np.einsum("gnn->g", moments) / inputs
    damping = np.where(mean > 0, _DAMPING * mean, 1.0)[:, None, None]
    turned = (moments + damping * np.eye(inputs))[:, ::-1, ::-1]  # M = U U^T, U upper: the factor of 1 / M is 1 / U
    roots = np.linalg.cholesky(turned)
    return np.stack([lapack.dtrtri(root, lower=1)[0] for root in roots])[:, ::-1, ::-1]
