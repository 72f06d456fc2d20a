"""int8 for OpenVINO by NNCF: the convolutions that gain from it run in int8, all else stays in float.

The choice was made by measuring (docs/export.md): 1x1 convolutions of whole maps, the wide one after the last pool, and
the classifier. Depthwise and squeeze-excite convolutions gain nothing, and with everything in int8 the network is
hardly faster than in float: every hard swish between int8 maps costs what its convolution gains.

The files take one image at a time.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from fbnetv3_zoo.errors import ZooError, in_short
from fbnetv3_zoo.runtimes.base import missing_extra, silence
from fbnetv3_zoo.runtimes.openvino_ir import cpu_settings
from fbnetv3_zoo.utils.atomic_write import scratch

from ..backends.common import keep_pair
from ..backends.openvino_ir import write_model
from ..onnx.passes import attribute, consumers
from .qdq import Logits, WholeWeight, layers_of

if TYPE_CHECKING:
    import openvino

Floats = npt.NDArray[np.float32]
_LEFT_IN_FLOAT = ("Add", "HSigmoid", "HSwish", "HardSigmoid", "Multiply", "ReduceMean", "Sigmoid")


@dataclass(frozen=True, slots=True)
class Intermediate:
    """An int8 OpenVINO model."""

    model: openvino.Model

    def logits(self, *, threads: int | None = None) -> Logits:
        """A function from images (images, channels, height, width) to logits."""
        import openvino

        request = openvino.Core().compile_model(self.model, "CPU", cpu_settings(threads)).create_infer_request()

        def logits(images: Floats) -> Floats:
            return np.concatenate([request.infer([image[None]])[0].copy() for image in images])

        return logits

    def save(self, path: Path, entries: Mapping[str, str]) -> int:
        """Write ``path`` and its ``.bin``; returns their total size in bytes."""
        with scratch() as folder:
            draft = folder / path.name
            write_model(self.model, draft, entries)
            keep_pair(draft, path)
        return path.stat().st_size + path.with_suffix(".bin").stat().st_size


class IntermediateBuild:
    """Builds int8 models for OpenVINO from a float graph.

    NNCF rounds each weight to the nearest integer. It is given weights that are already multiples of their step,
    rounded to preserve the layers' outputs: on EfficientNet-Lite0 this halves the distance of the logits from float.

    Args:
        name: what errors call the graph.
        graph: float graph.
        images: calibration images, shape (images, channels, height, width).
        weights: the int8 weights by layer name.
        weight_levels: fewer than 127 if the processor adds products in 16 bits.

    ``unworthy`` are the layers that always stay in float.
    """

    def __init__(
        self, name: str, graph: onnx.ModelProto, images: Floats, *, weights: Mapping[str, WholeWeight],
        weight_levels: int,
    ) -> None:  # fmt: skip
        try:
            import nncf  # noqa: F401
            import openvino  # noqa: F401
        except ImportError:
            raise missing_extra(name, "OpenVINO with NNCF", "openvino") from None
        self._graph, self._weights = graph, weights
        self._name, self._images = name, images
        self._overflows = weight_levels < 127
        self.unworthy = _unworthy(graph)

    def __call__(self, keep: frozenset[str]) -> Intermediate:
        """The int8 model with the layers ``keep`` in float, too."""
        import nncf

        batches = [image[None] for image in self._images]
        left = keep | self.unworthy
        float_model = self._read(left)
        try:
            with _quiet():
                model = nncf.quantize(
                    float_model, nncf.Dataset(batches), subset_size=len(batches),
                    preset=nncf.QuantizationPreset.PERFORMANCE, target_device=nncf.TargetDevice.CPU,
                    ignored_scope=nncf.IgnoredScope(
                        names=_names(float_model, left), types=list(_LEFT_IN_FLOAT), validate=False
                    ),
                    advanced_parameters=self._advanced(),
                )  # fmt: skip
        except Exception as error:  # NNCF raises many kinds
            raise ZooError(f"{self._name}: cannot be quantized by NNCF ({in_short(error)})") from None
        return Intermediate(model)

    def _read(self, left: frozenset[str]) -> openvino.Model:
        """The float graph as an OpenVINO model, with the weights of all layers except ``left`` rounded."""
        import openvino

        rounded = onnx.ModelProto()
        rounded.CopyFrom(self._graph)
        owners = {layer.input[1]: layer.name for layer in layers_of(rounded)}
        for constant in rounded.graph.initializer:
            if (layer := owners.get(constant.name)) is not None and layer not in left:
                constant.CopyFrom(numpy_helper.from_array(self._weights[layer].floats, constant.name))
        with silence():
            model = openvino.Core().read_model(rounded.SerializeToString())
        # one image at a time: OpenVINO (2026.4) gives wrong int8 results if a batch is smaller than the previous one
        model.reshape([1, *self._images.shape[1:]])
        return model

    def _advanced(self) -> Any:
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        return AdvancedQuantizationParameters(
            overflow_fix=OverflowFix.ENABLE if self._overflows else OverflowFix.DISABLE,
            # the default, means of each image's extremes, clips so much that results change
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        )


def _names(model: openvino.Model, layers: frozenset[str]) -> list[str]:
    """OpenVINO's names of ``layers``: their own, with a suffix if the bias became an addition."""
    names = (operation.get_friendly_name() for operation in model.get_ops())
    return [name for name in names if name.removesuffix("/WithoutBiases") in layers]


def _unworthy(graph: onnx.ModelProto) -> frozenset[str]:
    """Names of the layers that int8 would not make faster."""
    readers, layers = consumers(graph.graph), layers_of(graph)
    convolutions = [layer for layer in layers if layer.op_type == "Conv"]
    grouped = {layer.name for layer in convolutions if attribute(layer, "group", 1) > 1}
    stem = {layer.name for layer in convolutions if layer.input[0] == graph.graph.input[0].name}
    gates = [layer for layer in convolutions if _read_by(layer, readers, ("HardSigmoid", "Sigmoid"))]
    squeezed = {layer.name for layer in gates} | {
        layer.name for layer in convolutions for gate in gates if _leads_to(layer, gate, readers)
    }
    return frozenset(grouped | stem | squeezed)


def _read_by(layer: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]], kinds: tuple[str, ...]) -> bool:
    return any(node.op_type in kinds for node in readers[layer.output[0]])


def _leads_to(layer: onnx.NodeProto, gate: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]]) -> bool:
    """Whether ``gate`` reads the output of ``layer``, directly or through an activation."""
    return any(node.output[0] == gate.input[0] for node in readers[layer.output[0]])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide NNCF's progress bars and messages."""
    import warnings

    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), silence():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
