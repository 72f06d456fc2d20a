"""The network inside an ONNX file with built-in preprocessing (`fbnetv3 export onnx --preprocessing`)."""

from __future__ import annotations

from pathlib import Path

from ..errors import ZooError
from ..utils.onnx_io import parse_graph

FRONT, BACK = "preprocess.", "softmax."
"""Prefixes of the names of nodes and constants around the network."""


def network_inside(data: bytes, path: Path) -> bytes:
    """The network of an ONNX file without its preprocessing and softmax: preprocessed images in, logits out.

    ``data`` is the content of the file ``path``; the batch size is free. This package's preprocessing agrees with that
    in the file within one gray level. Raises :class:`ZooError` for a file without built-in preprocessing.
    """
    from onnx import TensorProto, helper, numpy_helper

    model = parse_graph(data)
    graph = model.graph
    around = {name for node in graph.node if node.name.startswith(FRONT) for name in node.output}
    ending = [node for node in graph.node if node.name.startswith(BACK)]
    inner = [node for node in graph.node if not node.name.startswith((FRONT, BACK))]
    given = {name for node in inner for name in node.input} & around
    answered = {name for node in ending for name in node.input} & {name for node in inner for name in node.output}
    sides = [tensor for tensor in graph.initializer if tensor.name == f"{FRONT}shape"]
    if len(given) != 1 or len(answered) != 1 or len(sides) != 1:
        raise ZooError(f"{path}: takes something else than a batch of prepared images; export it without that")
    constants = [tensor for tensor in graph.initializer if not tensor.name.startswith((FRONT, BACK))]
    shape: list[str | int | None] = ["batch", *map(int, numpy_helper.to_array(sides[0])[1:])]
    alone = helper.make_graph(
        inner, graph.name, [helper.make_tensor_value_info(given.pop(), TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(answered.pop(), TensorProto.FLOAT, None)], constants,
    )  # fmt: skip
    model.graph.CopyFrom(alone)
    alone_data: bytes = model.SerializeToString()
    return alone_data
