"""ExecuTorch programs (``.pte``), whose operators XNNPACK computes."""

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
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.runtimes import sandbox as trial
from fbnetv3_zoo.runtimes.base import missing_extra, silence
from fbnetv3_zoo.runtimes.executorch_pte import ENTRIES, FREE_BATCH, SEAL, SEAL_MARK, quiet_import, sealed
from fbnetv3_zoo.utils.atomic_write import replacing, scratch
from fbnetv3_zoo.utils.onnx_io import quiet_exporter

from ..parity import FileParity
from .common import checked_parity

if TYPE_CHECKING:
    from PIL import Image
    from torch.export import ExportedProgram


@dataclass(frozen=True, slots=True)
class ExecuTorchReport:
    """What was written, its size in bytes, and how far its answers are from PyTorch's.

    ``delegated`` counts the operators that XNNPACK computes, in ``parts`` pieces; ``portable`` names those that
    ExecuTorch's own, slow operators compute, with how often. Up to ``max_batch`` images go in at a time.
    """

    path: Path
    max_batch: int
    delegated: int
    parts: int
    portable: dict[str, int]
    file_size: int
    parity: dict[str, FileParity]


def export_executorch(
    model: FBNet, path: str | Path, *, max_batch: int = 8, images: Sequence[Image.Image] | None = None
) -> ExecuTorchReport:
    """Write ``model`` as an ExecuTorch program, whose operators XNNPACK computes in float32.

    The method ``forward`` takes (batch, channels, side, side) and gives the logits; ``fbnetv3_zoo`` gives the
    description as JSON. The program is compared, on ExecuTorch, with PyTorch; where a logit differs by more than 1e-4
    of the largest one, :class:`ZooError` is raised and no file is left.

    Args:
        model: the network; its training state is left as it was.
        path: file to write, ending in ``.pte``.
        max_batch: how many images go in at a time: any number up to it. With 1 the batch is fixed. Memory for the
            images and logits of so many is set aside.
        images: images to compare on (default: photographs).
    """
    path = Path(path)
    if path.suffix != ".pte":
        raise ZooError(f"{path}: ExecuTorch programs end in .pte; change the extension")
    check_whole("max_batch", max_batch, at_most=1024)
    if (dtype := next(model.parameters()).dtype) is not torch.float32:
        raise ZooError(f"the network's weights are {dtype}; export needs torch.float32, call model.float() first")
    with scratch() as folder:  # ExecuTorch, too, writes temporary files
        lowered = _lowered(model, path, max_batch)
        draft = folder / path.name
        draft.write_bytes(lowered.data)
        trial.remember(".pte", (lowered.data,))
        found = checked_parity(model, draft, path, images, None)
    with replacing(path) as temporary:
        temporary.write_bytes(lowered.data)
    return ExecuTorchReport(
        path=path,
        max_batch=max_batch,
        delegated=lowered.delegated,
        parts=lowered.parts,
        portable=lowered.portable,
        file_size=len(lowered.data),
        parity={"PyTorch": found},
    )


@dataclass(frozen=True, slots=True)
class _Lowered:
    data: bytes
    delegated: int
    parts: int
    portable: dict[str, int]


def _lowered(model: FBNet, path: Path, max_batch: int) -> _Lowered:
    try:
        with quiet_import():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
    except ImportError:
        raise missing_extra(path, "ExecuTorch", "executorch") from None
    entries = {**model.description.to_metadata(), FREE_BATCH: "true" if max_batch > 1 else "false"}
    methods = {ENTRIES: json.dumps(entries), SEAL: SEAL_MARK + "0" * 64}
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


def _captured(model: FBNet, max_batch: int) -> ExportedProgram:
    """``model`` as operators that XNNPACK has, for any batch up to ``max_batch``."""
    module, side = copy.deepcopy(model).cpu().eval(), model.preprocess.resolution
    example = torch.zeros(max_batch, model.arch.in_channels, side, side)  # fewer would set a lower bound of their own
    axes = {0: torch.export.Dim("batch", min=1, max=max_batch)} if max_batch > 1 else {}
    captured = torch.export.export(module, (example,), dynamic_shapes={"images": axes})
    simpler: ExportedProgram = captured.run_decompositions({torch.ops.aten.hardsigmoid.default: _hard_sigmoid})
    return simpler


def _hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Torch's own rule has whole numbers in it, which ExecuTorch turns into floats anew at every call."""
    return torch.clamp(x + 3.0, 0.0, 6.0) / 6.0


def _delegation(graph: torch.fx.GraphModule) -> tuple[int, int, dict[str, int]]:
    """Operators that are delegated, pieces they are in, and the other operators with their numbers."""
    parts: list[Any] = [part for part in graph.children() if hasattr(part, "original_module")]
    inside = [name for part in parts for name in _operators(part.original_module.graph)]
    return len(inside), len(parts), dict(Counter(_operators(graph.graph)))


def _operators(graph: torch.fx.Graph) -> list[str]:
    """The operators of a graph by name, as in "mean.dim", without what only hands values on."""
    names = (getattr(node.target, "__name__", str(node.target)) for node in graph.nodes if node.op == "call_function")
    short = (name.removeprefix("aten.").removesuffix(".default") for name in names)
    return [name for name in short if not name.startswith(("getitem", "executorch_call_delegate", "sym_size"))]
