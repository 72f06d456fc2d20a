"""Exports ExecuTorch programs (``.pte``) that run on XNNPACK."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fbnetv3_zoo.errors import ZooError, check_whole, in_short
from fbnetv3_zoo.models.network import Network, network_of
from fbnetv3_zoo.runtimes import sandbox
from fbnetv3_zoo.runtimes.base import check_installed, missing_extra, silence
from fbnetv3_zoo.runtimes.executorch_pte import ENTRIES, FREE_BATCH, SEAL, quiet_import
from fbnetv3_zoo.runtimes.seal import EMPTY, sealed
from fbnetv3_zoo.utils.atomic_write import replacing, scratch
from fbnetv3_zoo.utils.onnx_io import quiet_exporter
from fbnetv3_zoo.utils.paths import to_path

from ..parity import FileParity
from .common import checked_parity

if TYPE_CHECKING:
    from PIL import Image
    from torch.export import ExportedProgram


@dataclass(frozen=True, slots=True)
class ExecuTorchReport:
    """The exported program, its size in bytes, and its difference from PyTorch.

    ``delegated`` counts the operators that run on XNNPACK, in ``parts`` subgraphs; ``portable`` counts those that run
    on ExecuTorch's own, slow kernels, by name. A batch has up to ``max_batch`` images.
    """

    path: Path
    max_batch: int
    delegated: int
    parts: int
    portable: dict[str, int]
    file_size: int
    parity: dict[str, FileParity]


def export_executorch(
    model: Network, path: str | Path, *, max_batch: int = 8, images: Sequence[Image.Image] | None = None
) -> ExecuTorchReport:
    """Write ``model`` as an ExecuTorch program that runs on XNNPACK in float32.

    The method ``forward`` maps images (batch, channels, side, side) to logits; ``fbnetv3_zoo`` returns the description
    as JSON. The program is run on ExecuTorch and compared with PyTorch. If a logit differs by more than 1e-4 of the
    largest one, raises :class:`ZooError` and leaves no file.

    Args:
        model: the network; it is not modified.
        path: file to write, ending in ``.pte``.
        max_batch: maximum batch size, for which memory is reserved; with 1 the batch size is fixed.
        images: images to compare on (default: photographs).
    """
    model, path = network_of(model), to_path("path", path)
    if path.suffix != ".pte":
        raise ZooError(f"{path}: ExecuTorch programs end in .pte; change the extension")
    check_installed(path, "ExecuTorch", "executorch", "executorch")
    check_whole("max_batch", max_batch, at_most=1024)
    if (dtype := next(model.parameters()).dtype) is not torch.float32:
        raise ZooError(f"the network's weights are {dtype}; export needs torch.float32, call model.float() first")
    with scratch() as folder:  # ExecuTorch writes temporary files, too
        lowered = _lowered(model, path, max_batch)
        draft = folder / path.name
        draft.write_bytes(lowered.data)
        sandbox.remember(".pte", (lowered.data,))
        comparison = checked_parity(model, draft, path, images, None)
    with replacing(path) as temporary:
        temporary.write_bytes(lowered.data)
    return ExecuTorchReport(
        path=path,
        max_batch=max_batch,
        delegated=lowered.delegated,
        parts=lowered.parts,
        portable=lowered.portable,
        file_size=len(lowered.data),
        parity={"PyTorch": comparison},
    )


@dataclass(frozen=True, slots=True)
class _Lowered:
    data: bytes
    delegated: int
    parts: int
    portable: dict[str, int]


def _lowered(model: Network, path: Path, max_batch: int) -> _Lowered:
    try:
        with quiet_import():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
    except ImportError:
        raise missing_extra(path, "ExecuTorch", "executorch") from None
    entries = {**model.description.to_metadata(), FREE_BATCH: "true" if max_batch > 1 else "false"}
    methods = {ENTRIES: json.dumps(entries), SEAL: EMPTY}
    try:
        with quiet_exporter(), silence():
            edge = to_edge_transform_and_lower(
                _captured(model, max_batch), partitioner=[XnnpackPartitioner()], constant_methods=methods
            )
            delegation = _delegation(edge.exported_program().graph_module)  # before the next step changes it
            data = sealed(bytes(edge.to_executorch().buffer))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ZooError(f"{path}: cannot be lowered for ExecuTorch ({in_short(error)})") from None
    return _Lowered(data, *delegation)


def _captured(model: Network, max_batch: int) -> ExportedProgram:
    """``model`` in operators supported by XNNPACK, for any batch size up to ``max_batch``."""
    module, side = copy.deepcopy(model).cpu().eval(), model.preprocess.resolution
    example = torch.zeros(max_batch, model.arch.in_channels, side, side)  # a smaller example would lower the bound
    axes = {0: torch.export.Dim("batch", min=1, max=max_batch)} if max_batch > 1 else {}
    captured = torch.export.export(module, (example,), dynamic_shapes={"images": axes})
    simpler: ExportedProgram = captured.run_decompositions({torch.ops.aten.hardsigmoid.default: _hard_sigmoid})
    return simpler


def _hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Torch's own decomposition has integer constants, which ExecuTorch would convert to float at every call."""
    return torch.clamp(x + 3.0, 0.0, 6.0) / 6.0


def _delegation(graph: torch.fx.GraphModule) -> tuple[int, int, dict[str, int]]:
    """The number of delegated operators, the number of their subgraphs, and the counts of the other operators."""
    parts: list[Any] = [part for part in graph.children() if hasattr(part, "original_module")]
    inside = [name for part in parts for name in _operators(part.original_module.graph)]
    return len(inside), len(parts), dict(Counter(_operators(graph.graph)))


def _operators(graph: torch.fx.Graph) -> list[str]:
    """The names of a graph's operators, such as "mean.dim", without those that only pass values on."""
    names = (getattr(node.target, "__name__", str(node.target)) for node in graph.nodes if node.op == "call_function")
    short = (name.removeprefix("aten.").removesuffix(".default") for name in names)
    return [name for name in short if not name.startswith(("getitem", "executorch_call_delegate", "sym_size"))]
