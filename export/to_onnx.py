"""ONNX files with a dynamic batch, compared with PyTorch on ONNX Runtime before anyone gets to see them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fbnetv3_zoo.atomic import replacing
from fbnetv3_zoo.errors import ZooError, check_whole
from fbnetv3_zoo.graph_file import quiet_exporter, write_graph
from fbnetv3_zoo.model import FBNet

if TYPE_CHECKING:
    import onnx

OPSETS = range(18, 24)
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written and how far it is from the PyTorch network.

    ``inputs`` and ``outputs`` map names to shapes, in which ``"batch"`` stands for any size. ``differences`` maps each
    compared batch size to the largest absolute difference of a logit, on normally distributed input; ``scale`` is
    the largest absolute logit among them. ``file_size`` is in bytes.
    """

    path: Path
    opset: int
    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]
    differences: dict[int, float]
    scale: float
    file_size: int

    @property
    def max_difference(self) -> float:
        """The largest of :attr:`differences`."""
        return max(self.differences.values())


def export_onnx(
    model: FBNet, path: str | Path, *, opset: int = 18, resolution: int | None = None,
    batch_sizes: Sequence[int] = (1, 2, 7),
) -> ExportReport:  # fmt: skip
    """Write ``model`` as an ONNX file: input ``images`` (batch, channels, height, width), output ``logits``.

    The file carries the network's description (class names, mean, std, sizes) as metadata. It is checked by onnx,
    then run on ONNX Runtime at every one of ``batch_sizes`` and compared with PyTorch; where a logit differs by more
    than 1e-4 of the largest one, :class:`ZooError` is raised and no file is left.

    Args:
        model: the network; its training state is left as it was.
        path: file to write, ending in ``.onnx``.
        opset: ONNX operator set, 18 to 23.
        resolution: side of the images in pixels (default: what ``model.preprocess`` crops); the file's preprocessing
            resizes and crops to it.
        batch_sizes: batches to compare.
    """
    if Path(path).suffix != ".onnx":
        raise ZooError(f"{path}: ONNX files end in .onnx; change the ending")
    if opset not in OPSETS:
        raise ZooError(f"opset is {opset!r}; choose from {OPSETS.start} to {OPSETS.stop - 1}")
    side = model.preprocess.resolution if resolution is None else resolution
    check_whole("resolution", side, at_least=model.arch.min_resolution)
    if not batch_sizes:
        raise ZooError("batch_sizes is empty; name at least one batch to compare")
    for size in batch_sizes:
        check_whole("batch_sizes", size)
    if (dtype := next(model.parameters()).dtype) is not torch.float32:
        raise ZooError(f"the network's weights are {dtype}; export needs torch.float32, call model.float() first")
    with _evaluating(model), replacing(path) as temporary:
        _write(model, temporary, opset, side)
        try:
            differences, scale = _compare(model, temporary, side, batch_sizes)
        except ZooError as error:
            raise ZooError(f"{path}: {error}") from None
        report = _report(temporary, Path(path), differences, scale)
    return report


@contextlib.contextmanager
def _evaluating(model: FBNet) -> Iterator[None]:
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in was_training.items():  # one by one: a frozen norm may differ from the whole
            module.training = training


def _write(model: FBNet, path: Path, opset: int, side: int) -> None:
    example = _images(model, 2, side)
    dynamic = {"images": {0: torch.export.Dim("batch")}}
    with quiet_exporter():
        program = torch.onnx.export(
            model, (example,), dynamo=True, opset_version=opset, input_names=["images"], output_names=["logits"],
            dynamic_shapes=dynamic, optimize=True, verbose=False,
        )  # fmt: skip
    if program is None:
        raise AssertionError("torch.onnx.export returned nothing")
    proto = program.model_proto
    given = model.preprocess
    preprocess = replace(given, resize=round(given.resize * side / given.resolution), resolution=side)
    write_graph(proto, path, replace(model.description, preprocess=preprocess).to_metadata())


def _images(model: FBNet, batch: int, side: int) -> torch.Tensor:
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(batch)
    images = torch.randn(batch, model.arch.in_channels, side, side, generator=generator)
    return images.to(parameter.device)


def _compare(model: FBNet, path: Path, side: int, batch_sizes: Sequence[int]) -> tuple[dict[int, float], float]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences, scale = {}, 0.0
    for size in batch_sizes:
        images = _images(model, size, side)
        with torch.inference_mode():
            expected = model(images).cpu().numpy()
        (logits,) = session.run(None, {"images": images.cpu().numpy()})
        if not np.isfinite(expected).all():
            raise ZooError("the network's own logits are not finite; its weights are damaged")
        differences[size] = float(np.abs(logits - expected).max())
        scale = max(scale, float(np.abs(expected).max()))
    if not max(differences.values()) <= TOLERANCE * max(scale, 1e-3):
        raise ZooError(
            f"ONNX Runtime differs from PyTorch by {max(differences.values()):.2g} at logits up to "
            f"{scale:.2g}; the file was not kept"
        )
    return differences, scale


def _report(written: Path, path: Path, differences: dict[int, float], scale: float) -> ExportReport:
    import onnx

    proto = onnx.load(written)
    return ExportReport(
        path=path,
        opset=next(entry.version for entry in proto.opset_import if entry.domain == ""),
        inputs={value.name: _shape(value) for value in proto.graph.input},
        outputs={value.name: _shape(value) for value in proto.graph.output},
        differences=differences,
        scale=scale,
        file_size=written.stat().st_size,
    )


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)
