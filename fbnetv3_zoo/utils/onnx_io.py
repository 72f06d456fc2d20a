"""Read and write ONNX files, checked by onnx; for networks and detectors."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ZooError, in_short, printable
from .paths import read_file

if TYPE_CHECKING:
    import onnx


EXPORT_AGAIN = "export it again, or get another copy"
"""What helps with a damaged file of a runtime."""


def write_graph(proto: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the ``onnx.ModelProto`` ``proto`` with ``metadata`` to ``path``. Raises the errors of onnx's checker.

    The file declares the lowest version of the format that has its operators, so that older runtimes accept it.
    """
    import onnx

    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, path)


def read_graph(path: str | Path) -> onnx.ModelProto:
    """The graph in the ONNX file at ``path``. Raises :class:`ZooError` if it is missing, damaged or no ONNX file."""
    import onnx

    data = read_file(path, "an ONNX file", at_most=LARGEST)
    try:
        model = parse_graph(data)
        check_graph(model)
        onnx.checker.check_model(model)
    except Exception as error:  # onnx's errors share no public base
        raise ZooError(f"{path}: cannot be read as ONNX ({in_short(error)}); {EXPORT_AGAIN}") from None
    return model


LARGEST = (1 << 31) - 1
"""Largest ONNX file in bytes: protobuf's limit."""

_MOST_NODES = 50_000
_DOMAINS = ("", "ai.onnx", "com.microsoft")
_REFUSED = ("Sequence", "Optional", "SplitToSequence", "ConcatFromSequence", "StringNormalizer", "TfIdf", "RegexFull")


def parse_graph(data: bytes) -> onnx.ModelProto:
    """The graph in ``data``, parsed but not checked. Raises :class:`ZooError` if it is no ONNX file."""
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's errors share no public base
        raise ZooError(in_short(error)) from None
    if not model.graph.node:
        raise ZooError("it holds no network" if data else "the file is empty")
    _check_text(model)
    return model


def _check_text(message: Any) -> None:
    """Raise :class:`ZooError` unless every text in ``message`` is UTF-8; protobuf returns others as bytes."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in [value] if hasattr(value, "ListFields") else value:
                _check_text(part)
        elif field.type == field.TYPE_STRING:
            texts = [value] if isinstance(value, str | bytes) else value
            if any(isinstance(text, bytes) for text in texts):
                raise ZooError(f"its {field.name} is not UTF-8 text")


def check_graph(model: onnx.ModelProto) -> None:
    """Raise :class:`ZooError` for anything that no network needs and that may take unlimited time or memory to open.

    That is: external data, control flow, functions, operators of unknown domains, weights declared larger than their
    data, and huge batches.
    """
    graph = model.graph
    if model.functions or graph.sparse_initializer or len(graph.node) > _MOST_NODES:
        raise ZooError("it has functions, sparse weights, or too many nodes for a network")
    for node in graph.node:
        if node.domain not in _DOMAINS or node.op_type.startswith(_REFUSED):
            raise ZooError(f"it has the operator {printable(node.domain)}:{printable(node.op_type)[:80]}")
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise ZooError(f"it has a graph inside the operator {printable(node.op_type)[:80]}")
            for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
                _check_tensor(tensor)
    for tensor in graph.initializer:
        _check_tensor(tensor)
    for value in (*graph.input, *graph.output):
        sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        if (
            len(sizes) > 8
            or any(not 0 <= size <= _LARGEST_SIDE for size in sizes)
            or math.prod(filter(None, sizes)) > _MOST
        ):
            raise ZooError(f"{printable(value.name)[:80]} has the shape {sizes[:9]}")
        if len(sizes) == 4 and sizes[0] > _MOST_IMAGES:
            raise ZooError(f"it takes {sizes[0]} images at a time; at most {_MOST_IMAGES} can be")


_LARGEST_SIDE, _MOST, _MOST_IMAGES = 1 << 20, 1 << 30, 4096


def _check_tensor(tensor: onnx.TensorProto) -> None:
    """Raise :class:`ZooError` unless the data of ``tensor`` are completely in the file."""
    if tensor.data_location or tensor.external_data:
        raise ZooError(f"its weights {printable(tensor.name)[:80]} are outside the file")
    held = 2 * len(tensor.raw_data) + sum(
        len(values)
        for values in (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data,
                       tensor.string_data)
    )  # fmt: skip
    if any(size < 0 for size in tensor.dims) or math.prod(tensor.dims) > 8 * held:
        raise ZooError(f"its weights {printable(tensor.name)[:80]} are declared larger than they are")


def entries_of(model: onnx.ModelProto) -> dict[str, str]:
    """The metadata of ``model``."""
    return {entry.key: entry.value for entry in model.metadata_props}


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Hide the exporter's messages, which are about its internals."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
