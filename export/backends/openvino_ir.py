"""OpenVINO's intermediate representation of our ONNX files: ``.xml`` with the weights in ``.bin``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3_zoo.errors import ZooError, in_short
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.runtimes import sandbox as trial
from fbnetv3_zoo.runtimes.base import missing_extra, silence
from fbnetv3_zoo.runtimes.openvino_ir import DIGEST, NO_SEAL, SEAL, SECTION, digest, sealed
from fbnetv3_zoo.utils.atomic_write import replacing_together, scratch

from ..onnx.passes import BLOCK
from ..parity import FileParity
from .common import ONNXSource, compared, source_graph

if TYPE_CHECKING:
    import openvino
    from PIL import Image

HALF_TOLERANCE = 1e-2
"""Largest difference of a logit where weights are float16, as a part of the largest logit."""


@dataclass(frozen=True, slots=True)
class OpenVINOReport:
    """What was written: both files, their sizes in bytes, and how far the answers are from each reference's.

    ``inputs`` and ``outputs`` map names to shapes, in which "batch" and so on stand for any size.
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
    source: FBNet | str | Path, path: str | Path, *, half: bool = False, images: Sequence[Image.Image] | None = None
) -> OpenVINOReport:
    """Write ``source`` for OpenVINO: ``path``, which ends in ``.xml``, and its weights in the ``.bin`` beside it.

    The description travels in the model's ``rt_info``, with a digest of the weights. The files are compared, on
    OpenVINO, with what they were made of; where a logit differs by more than 1e-4 of the largest one (1e-2 with
    ``half``), :class:`ZooError` is raised and nothing is left.

    Args:
        source: a network, or an ``.onnx`` file of this project.
        path: file to write.
        half: store the weights as float16, in half the space; OpenVINO computes in float32 all the same.
        images: images to compare on (default: photographs).
    """
    path = Path(path)
    if path.suffix != ".xml":
        raise ZooError(f"{path}: OpenVINO files end in .xml; change the extension")
    with scratch() as folder:
        made = source_graph(source, folder, align=BLOCK)
        model = _converted(made, path)
        draft = folder / path.name
        write_model(model, draft, made.entries, half=half)
        parities = compared(made, draft, path, images=images, tolerance=HALF_TOLERANCE if half else None)
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

    ``model`` gets the entries, too. Neither file is moved into place at once: write to a folder of your own first.
    """
    import openvino

    for key, value in entries.items():
        model.set_rt_info(value, [SECTION, key])
    try:
        with silence():
            openvino.save_model(model, path, compress_to_fp16=half)
            weights = path.with_suffix(".bin").read_bytes()
            model.set_rt_info(digest(weights).decode(), [SECTION, DIGEST])
            model.set_rt_info(NO_SEAL.decode(), [SECTION, SEAL])
            openvino.save_model(model, path, compress_to_fp16=half)
        text = sealed(path.read_bytes())
        path.write_bytes(text)
    except RuntimeError as error:
        raise ZooError(f"{path}: cannot be written ({in_short(error)})") from None
    trial.remember(".xml", (text, path.with_suffix(".bin").read_bytes()))


def _converted(made: ONNXSource, path: Path) -> openvino.Model:
    try:
        import openvino
    except ImportError:
        raise missing_extra(path, "OpenVINO", "openvino") from None
    try:
        with silence():
            return openvino.convert_model(made.graph)
    except Exception as error:  # OpenVINO raises many kinds
        raise ZooError(f"{made.name}: cannot be converted for OpenVINO ({in_short(error)})") from None


def keep_pair(draft: Path, path: Path) -> None:
    """Copy both files of a model into place: both of them, or none."""
    with replacing_together(path, path.with_suffix(".bin")) as temporary:
        for file in temporary:
            shutil.copyfile(draft.with_suffix(file.suffix), file)


def _shape(value: openvino.Output, rank: int) -> tuple[int | str, ...]:
    names = ("batch", "channels", "height", "width") if rank == 4 else ("batch", "classes")
    sizes = value.get_partial_shape()
    return tuple(size.get_length() if size.is_static else name for size, name in zip(sizes, names, strict=True))
