"""Exports LiteRT (TensorFlow Lite) files: ``.tflite``, written from ONNX by :mod:`fbnetv3_zoo.export.litert`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.network import Network
from fbnetv3_zoo.runtimes import sandbox
from fbnetv3_zoo.runtimes.base import check_installed, missing_extra
from fbnetv3_zoo.utils.atomic_write import replacing, scratch
from fbnetv3_zoo.utils.paths import to_path

from ..parity import FileParity
from .common import ONNXSource, compared, source_graph

if TYPE_CHECKING:
    from PIL import Image

INT8_TOLERANCE = 1.0
"""Largest allowed logit difference with int8 weights, relative to the largest logit; larger ones are no rounding."""


@dataclass(frozen=True, slots=True)
class LiteRTReport:
    """The exported file, its size in bytes, its operators by name, and its difference from each reference.

    ``int8``: whether the weights are stored as int8.
    """

    path: Path
    int8: bool
    operators: Mapping[str, int]
    file_size: int
    parity: dict[str, FileParity]


def export_litert(
    source: Network | str | Path, path: str | Path, *, int8: bool = False, images: Sequence[Image.Image] | None = None
) -> LiteRTReport:
    """Write ``source`` for LiteRT to ``path`` (``.tflite``).

    The model maps ``images`` (batch, height, width, channels), normalized floats, to ``logits``. The file has the
    description, the metadata of the field (normalization, class names) and a digest. It is run on LiteRT and compared
    with its source. If a logit differs by more than 1e-4 of the largest one (with ``int8``: by more than the largest
    one), raises :class:`ZooError` and leaves no file.

    Args:
        source: a network, or an ``.onnx`` file written by this project.
        path: file to write, ending in ``.tflite``.
        int8: store the weights of convolutions, except depthwise ones, and linear layers as int8; what they read is
            quantized while LiteRT computes. For int8 maps: :func:`fbnetv3_zoo.export.quantize`.
        images: images to compare on (default: photographs).
    """
    path = to_path("path", path)
    if path.suffix != ".tflite":
        raise ZooError(f"{path}: LiteRT files end in .tflite; change the extension")
    check_installed(path, "LiteRT", "litert", "ai_edge_litert")
    with scratch() as folder:
        onnx_source = source_graph(source, folder)
        data, operators = _converted(onnx_source, path, int8=int8)
        draft = folder / path.name
        draft.write_bytes(data)
        sandbox.remember(".tflite", (data,))
        parities = compared(onnx_source, draft, path, images=images, tolerance=INT8_TOLERANCE if int8 else None)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return LiteRTReport(path, int8, operators, len(data), parities)


def _converted(source: ONNXSource, path: Path, *, int8: bool) -> tuple[bytes, dict[str, int]]:
    """The content of a file, and how often it has each operator."""
    import onnx

    description = source.description
    try:
        from ..litert.convert import converted
        from ..litert.file import content
    except ImportError:
        raise missing_extra(path, "LiteRT", "litert") from None
    side = description.preprocess.resolution
    try:
        model = converted(onnx.load(source.graph), (1, side, side, description.arch.in_channels), int8=int8)
    except ZooError as error:
        raise ZooError(f"{source.name}: cannot be converted for LiteRT ({error})") from None
    entries = {**source.entries, **({"quantized_by": "int8 weights"} if int8 else {})}
    return content(model, entries), dict(Counter(operator.code for operator in model.graph.operators))
