"""Exports OpenVINO's intermediate representation: ``.xml`` with the weights in ``.bin``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3_zoo.errors import ZooError, in_short
from fbnetv3_zoo.models.network import Network
from fbnetv3_zoo.runtimes import sandbox
from fbnetv3_zoo.runtimes.base import check_installed, missing_extra, silence
from fbnetv3_zoo.runtimes.openvino_ir import DIGEST, NO_SEAL, SEAL, SECTION, sealed
from fbnetv3_zoo.utils.atomic_write import scratch
from fbnetv3_zoo.utils.digest import digest_of
from fbnetv3_zoo.utils.paths import to_path

from ..onnx.passes import BLOCK
from ..parity import FileParity
from .common import ONNXSource, compared, keep_pair, source_graph

if TYPE_CHECKING:
    import openvino
    from PIL import Image

HALF_TOLERANCE = 1e-2
"""Largest allowed logit difference with float16 weights, relative to the largest logit."""


@dataclass(frozen=True, slots=True)
class OpenVINOReport:
    """The exported files, their sizes in bytes, and their difference from each reference.

    ``inputs`` and ``outputs`` map names to shapes, in which a name such as "batch" is a dynamic size.
    """

    path: Path
    weights: Path
    half: bool
    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]
    file_size: int
    weights_size: int
    parity: dict[str, FileParity]


def export_openvino(
    source: Network | str | Path, path: str | Path, *, half: bool = False, images: Sequence[Image.Image] | None = None
) -> OpenVINOReport:
    """Write ``source`` for OpenVINO to ``path`` (``.xml``), with its weights in the ``.bin`` beside it.

    The model's ``rt_info`` has the description and a digest of the weights. The files are run on OpenVINO and compared
    with their source. If a logit differs by more than 1e-4 of the largest one (1e-2 with ``half``), raises
    :class:`ZooError` and leaves no file.

    Args:
        source: a network, or an ``.onnx`` file written by this project.
        path: file to write, ending in ``.xml``.
        half: store the weights as float16, in half the space; OpenVINO still computes in float32.
        images: images to compare on (default: photographs).
    """
    path = to_path("path", path)
    if path.suffix != ".xml":
        raise ZooError(f"{path}: OpenVINO files end in .xml; change the extension")
    check_installed(path, "OpenVINO", "openvino", "openvino")
    with scratch() as folder:
        onnx_source = source_graph(source, folder, align=BLOCK)
        model = _converted(onnx_source, path)
        draft = folder / path.name
        write_model(model, draft, onnx_source.entries, half=half)
        parities = compared(onnx_source, draft, path, images=images, tolerance=HALF_TOLERANCE if half else None)
        weights = path.with_suffix(".bin")
        keep_pair(draft, path)
    return OpenVINOReport(
        path=path,
        weights=weights,
        half=half,
        inputs={value.any_name: _shape(value, 4) for value in model.inputs},
        outputs={value.any_name: _shape(value, 2) for value in model.outputs},
        file_size=path.stat().st_size,
        weights_size=weights.stat().st_size,
        parity=parities,
    )


def write_model(model: openvino.Model, path: Path, entries: Mapping[str, str], *, half: bool = False) -> None:
    """Write ``model`` to ``path`` (``.xml``) and the ``.bin`` beside it, with ``entries`` and the weights' digest.

    ``entries`` are also added to ``model``. The files are not written atomically: write to a temporary folder first.
    """
    import openvino

    for key, value in entries.items():
        model.set_rt_info(value, [SECTION, key])
    try:
        with silence():
            openvino.save_model(model, path, compress_to_fp16=half)
            weights = path.with_suffix(".bin").read_bytes()
            model.set_rt_info(digest_of(weights), [SECTION, DIGEST])
            model.set_rt_info(NO_SEAL.decode(), [SECTION, SEAL])
            openvino.save_model(model, path, compress_to_fp16=half)
        text = sealed(path.read_bytes())
        path.write_bytes(text)
    except RuntimeError as error:
        raise ZooError(f"{path}: cannot be written ({in_short(error)})") from None
    sandbox.remember(".xml", (text, path.with_suffix(".bin").read_bytes()))


def _converted(source: ONNXSource, path: Path) -> openvino.Model:
    try:
        import openvino
    except ImportError:
        raise missing_extra(path, "OpenVINO", "openvino") from None
    try:
        with silence():
            return openvino.convert_model(source.graph)
    except Exception as error:  # OpenVINO raises many kinds
        raise ZooError(f"{source.name}: cannot be converted for OpenVINO ({in_short(error)})") from None


def _shape(value: openvino.Output, rank: int) -> tuple[int | str, ...]:
    names = ("batch", "channels", "height", "width") if rank == 4 else ("batch", "classes")
    sizes = value.get_partial_shape()
    return tuple(size.get_length() if size.is_static else name for size, name in zip(sizes, names, strict=True))
