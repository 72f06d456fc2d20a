"""Exports networks to ONNX graphs optimized for speed, and compares ONNX Runtime with PyTorch before writing a file."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from fbnetv3_zoo.arch.torchvision_arch import TorchvisionArch
from fbnetv3_zoo.errors import ZooError, check_whole, in_short
from fbnetv3_zoo.models.network import Network, evaluating, network_of
from fbnetv3_zoo.models.torchvision_model import check_side
from fbnetv3_zoo.preprocess import Preprocess, stack
from fbnetv3_zoo.runtimes import sandbox
from fbnetv3_zoo.utils.atomic_write import replacing
from fbnetv3_zoo.utils.onnx_io import quiet_exporter, write_graph
from fbnetv3_zoo.utils.paths import to_path

from ..parity import TOLERANCE
from ..sample_images import photographs
from .passes import BLOCK, align_channels, pool_globally, strip_history

if TYPE_CHECKING:
    import onnx
    import onnxruntime
    from PIL import Image

Floats = npt.NDArray[np.float32]
OPSETS = range(18, 24)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """The exported file and its difference from the PyTorch network.

    ``inputs`` and ``outputs`` map names to shapes, in which a name such as ``"batch"`` is a dynamic size.
    ``differences`` maps each compared batch size to the largest absolute difference of a logit (or of a probability, if
    these are the output) on photographs; ``scale`` is PyTorch's largest absolute output. ``file_size`` is in bytes.
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
    model: Network, path: str | Path, *, opset: int = 18, resolution: int | None = None, any_size: bool = False,
    preprocessing: bool = False, align: int = BLOCK, input_name: str = "images",
    batch_sizes: Sequence[int] = (1, 2, 7, 32),
) -> ExportReport:  # fmt: skip
    """Write ``model`` as an ONNX file: input ``images`` (batch, channels, height, width), output ``logits``.

    The file's metadata has the network's description (class names, mean, std, sizes), the license and digest of its
    weights, and the versions that wrote it. Norms are folded into convolutions, hard swish is one operator, averages
    are global pools. The file is checked by onnx, then run on ONNX Runtime with photographs and compared with PyTorch.
    If a logit differs by more than 1e-4 of the largest one, and by more than the rounding of float32 in this network,
    raises :class:`ZooError` and leaves no file.

    Args:
        model: the network; its training mode is restored afterwards.
        path: file to write, ending in ``.onnx``.
        opset: ONNX operator set, 18 to 23.
        resolution: side of the images in pixels (default: that of ``model.preprocess``), to which the described
            preprocessing resizes and crops.
        any_size: make height and width dynamic, from ``model.arch.min_resolution`` up; ``resolution`` then only applies
            to the described preprocessing.
        preprocessing: take one ``image``, uint8 (height, width, channels) of any size, resize, crop and normalize it in
            the graph, and return ``probabilities`` (classes,).
        align: pad the channels of internal maps with zeros to a multiple of this, which saves AVX-512 code from
            reordering and makes the file about 2 % larger; 1 for no padding (smaller processors gain nothing).
        input_name: name of the input; transformers.js wants ``pixel_values``.
        batch_sizes: batch sizes to compare with.
    """
    model = network_of(model)
    if to_path("path", path).suffix != ".onnx":
        raise ZooError(f"{path}: ONNX files end in .onnx; change the extension")
    if not batch_sizes:
        raise ZooError("batch_sizes is empty; give at least one batch size to compare")
    for size in batch_sizes:
        check_whole("batch_sizes", size)
    form = _form(model, opset, resolution, any_size=any_size, preprocessing=preprocessing, align=align)
    form = replace(form, input_name=input_name)
    with evaluating(model), replacing(path) as temporary:
        _write(model, temporary, form)
        try:
            differences, scale = _compare(model, temporary, form, batch_sizes)
        except ZooError as error:
            raise ZooError(f"{path}: {error}") from None
        report = _report(temporary, Path(path), differences, scale)
        sandbox.remember(".onnx", (temporary.read_bytes(),))
    return report


@dataclass(frozen=True, slots=True)
class _Form:
    """The form of the file to write."""

    opset: int
    preprocess: Preprocess
    any_size: bool
    preprocessing: bool
    align: int
    input_name: str = "images"

    def __str__(self) -> str:
        inside = ", preprocessing inside" if self.preprocessing else ""
        return f"opset {self.opset}, channels in multiples of {self.align}{inside}"


def _form(
    model: Network, opset: int, resolution: int | None, *, any_size: bool, preprocessing: bool, align: int
) -> _Form:
    """The form that these arguments of :func:`export_onnx` ask for. Raises :class:`ZooError` if ``model`` has none."""
    if opset not in OPSETS:
        raise ZooError(f"opset is {opset!r}; choose from {OPSETS.start} to {OPSETS.stop - 1}")
    side = model.preprocess.resolution if resolution is None else resolution
    check_whole("resolution", side, at_least=model.arch.min_resolution)
    if isinstance(model.arch, TorchvisionArch):
        check_side(model.arch, side)
    check_whole("align", align)
    if (dtype := next(model.parameters()).dtype) is not torch.float32:
        raise ZooError(f"the network's weights are {dtype}; export needs torch.float32, call model.float() first")
    if preprocessing:
        from .preprocessing import check_channels

        check_channels(model.arch.in_channels)
    return _Form(opset, model.preprocess.at_resolution(side), any_size and not preprocessing, preprocessing, align)


def _write(model: Network, path: Path, form: _Form) -> None:
    side, axes = form.preprocess.resolution, {0: torch.export.Dim("batch")}
    if form.any_size:
        least = model.arch.min_resolution
        axes |= {2: torch.export.Dim("height", min=least), 3: torch.export.Dim("width", min=least)}
    example = torch.zeros(2, model.arch.in_channels, side, side, device=next(model.parameters()).device)
    try:
        with quiet_exporter():
            program = torch.onnx.export(
                model, (example,), dynamo=True, opset_version=form.opset, input_names=[form.input_name],
                output_names=["logits"],
                dynamic_shapes={"images": axes}, optimize=True, verbose=False,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        sizes = "images of any size" if form.any_size else f"images of {side} x {side}"
        raise ZooError(f"{model.arch.name}: cannot be written as ONNX for {sizes} ({in_short(error)})") from None
    if program is None:
        raise AssertionError("torch.onnx.export returned nothing")
    proto = program.model_proto
    pool_globally(proto.graph)
    align_channels(proto.graph, form.align)
    strip_history(proto.graph)
    if form.preprocessing:
        from .preprocessing import take_images

        take_images(proto, form.preprocess)
    write_graph(proto, path, _metadata(model, form))


def _metadata(model: Network, form: _Form) -> dict[str, str]:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("fbnetv3-zoo", "torch", "onnx"))
    description = replace(model.description, preprocess=form.preprocess)
    return {**description.to_metadata(), "weights_sha256": weights_digest(model), "made_by": f"{versions}; {form}"}


def weights_digest(model: Network) -> str:
    """SHA-256 over the names and values of the network's parameters and buffers, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _compare(model: Network, path: Path, form: _Form, batch_sizes: Sequence[int]) -> tuple[dict[int, float], float]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences, scale = {}, 0.0
    for size in batch_sizes:
        expected, answers = _answers(model, session, form, size)
        if not np.isfinite(expected).all():
            raise ZooError("the network's own logits are not finite; its weights are damaged")
        differences[size] = float(np.abs(answers - expected).max())
        scale = max(scale, float(np.abs(expected).max()))
    far = not max(differences.values()) <= TOLERANCE * scale
    if far and not max(differences.values()) <= 2 * _own_rounding(model, form, differences):
        raise ZooError(
            f"ONNX Runtime differs from PyTorch by {max(differences.values()):.2g} at logits up to "
            f"{scale:.2g}; nothing was written"
        )
    return differences, scale


def _own_rounding(model: Network, form: _Form, sizes: Iterable[int]) -> float:
    """Difference of the network's logits between float32 and float64; a file may be off by as much the other way."""
    images = torch.from_numpy(_inputs(model, form.preprocess, max(sizes)))
    exact, device = copy.deepcopy(model).cpu().double(), next(model.parameters()).device
    with torch.inference_mode():
        return float((exact(images.double()) - model(images.to(device)).cpu()).abs().max())


def _answers(model: Network, session: onnxruntime.InferenceSession, form: _Form, count: int) -> tuple[Floats, Floats]:
    """Outputs of PyTorch and ONNX Runtime for ``count`` photographs."""
    images = _inputs(model, form.preprocess, count)
    with torch.inference_mode():
        logits = model(torch.from_numpy(images).to(next(model.parameters()).device)).cpu()
    if not form.preprocessing:
        (answers,) = session.run(None, {form.input_name: images})
        return logits.numpy(), answers
    from .preprocessing import IMAGE

    pixels = [np.asarray(image) for image in _already_resized(form.preprocess, count)]
    answers = [session.run(None, {IMAGE: array if array.ndim == 3 else array[..., None]})[0] for array in pixels]
    return logits.softmax(1).numpy(), np.stack(answers)


def _inputs(model: Network, preprocess: Preprocess, count: int) -> Floats:
    """Preprocessed photographs; noise for a network without 1 or 3 channels."""
    if model.arch.in_channels in (1, 3) and len(preprocess.mean) == model.arch.in_channels:
        return stack(preprocess, _already_resized(preprocess, count))
    side = preprocess.resolution
    return np.random.default_rng(count).standard_normal((count, model.arch.in_channels, side, side), np.float32)


def _already_resized(preprocess: Preprocess, count: int) -> list[Image.Image]:
    """Photographs with a shorter side of ``preprocess.resize``, so that the comparison involves no resampling."""
    whole = replace(preprocess, resolution=preprocess.resize)
    return [whole.crop(photo) for photo in photographs(count)]


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
