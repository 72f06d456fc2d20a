"""Exports ncnn's models: ``.ncnn.param`` with the weights in ``.ncnn.bin``, converted from ONNX by pnnx."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.network import Network
from fbnetv3_zoo.runtimes import sandbox
from fbnetv3_zoo.runtimes.base import check_installed, missing_extra
from fbnetv3_zoo.runtimes.ncnn_param import with_entries
from fbnetv3_zoo.utils.atomic_write import scratch
from fbnetv3_zoo.utils.paths import to_path
from fbnetv3_zoo.utils.processes import last_line

from ..parity import FileParity
from .common import ONNXSource, compared, keep_pair, source_graph

if TYPE_CHECKING:
    from PIL import Image

ENDING = ".ncnn.param"


@dataclass(frozen=True, slots=True)
class NcnnReport:
    """The exported files, the number of layers, their sizes in bytes, and their difference from each reference."""

    path: Path
    weights: Path
    layers: int
    file_size: int
    weights_size: int
    parity: dict[str, FileParity]


def export_ncnn(
    source: Network | str | Path, path: str | Path, *, images: Sequence[Image.Image] | None = None
) -> NcnnReport:
    """Write ``source`` for ncnn to ``path`` (``.ncnn.param``), with its weights in the ``.ncnn.bin`` beside it.

    The model maps one image, ``in0`` (channels, side, side), to logits, ``out0``, in float32. The description is behind
    the layers, with the values for ncnn's ``substract_mean_normalize`` and a digest of both files. The pair is run on
    ncnn and compared with its source. If a logit differs by more than 1e-4 of the largest one, raises
    :class:`ZooError` and leaves no file.

    Args:
        source: a network, or an ``.onnx`` file written by this project.
        path: file to write, ending in ``.ncnn.param``.
        images: images to compare on (default: photographs).
    """
    path = to_path("path", path)
    if not path.name.endswith(ENDING):
        raise ZooError(f"{path}: ncnn files end in {ENDING}; change the extension")
    check_installed(path, "ncnn", "ncnn", "ncnn", "pnnx")
    with scratch() as folder:
        onnx_source = source_graph(source, folder)
        draft = _converted(onnx_source, folder / "ncnn", path)
        parities = compared(onnx_source, draft, path, images=images)
        layers = int(draft.read_text().split(maxsplit=2)[1])
        keep_pair(draft, path)
    weights = path.with_suffix(".bin")
    return NcnnReport(path, weights, layers, path.stat().st_size, weights.stat().st_size, parities)


def _converted(source: ONNXSource, folder: Path, path: Path) -> Path:
    """The ``.param`` file of a pair, in the new ``folder``, that has metadata and computes."""
    description = source.description
    folder.mkdir()
    graph = folder / "network.onnx"
    shutil.copyfile(source.graph, graph)
    side = description.preprocess.resolution
    _run_pnnx(graph, (1, description.arch.in_channels, side, side), source.name, path)
    draft = graph.with_suffix(ENDING)
    try:
        weights = draft.with_suffix(".bin").read_bytes()
        text = with_entries(draft.read_bytes(), weights, source.entries, description.preprocess)
    except FileNotFoundError:
        raise ZooError(f"{source.name}: pnnx cannot convert it for ncnn") from None
    draft.write_bytes(text)
    if (fault := sandbox.fault_of(path, (text, weights))) is not None:
        raise ZooError(f"{source.name}: ncnn cannot compute what pnnx makes of it ({fault})")
    sandbox.remember(".param", (text, weights))
    return draft


def _run_pnnx(graph: Path, shape: tuple[int, ...], name: str, path: Path) -> None:
    """Convert ``graph``, beside which pnnx writes all of its files, for input of that ``shape``."""
    found = importlib.util.find_spec("pnnx")  # importing the package would import torch
    if found is None or found.origin is None:
        raise missing_extra(path, "ncnn", "ncnn")
    program = Path(found.origin).with_name("pnnx.exe" if sys.platform == "win32" else "pnnx")
    sizes = ",".join(map(str, shape))
    command = [str(program), graph.name, f"inputshape=[{sizes}]f32", "fp16=0"]
    ended = subprocess.run(
        command, cwd=graph.parent, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace",
    )  # fmt: skip
    if ended.returncode != 0:
        reason = last_line(ended.stderr) or f"pnnx ended by {sandbox.ending(ended.returncode)}"
        raise ZooError(f"{name}: cannot be converted for ncnn ({reason})")
