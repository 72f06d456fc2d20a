"""The formats: for each the file, what it is for, and the exporter that writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3_zoo.errors import ZooError, nearest
from fbnetv3_zoo.models.network import Network

from ..bench.routes import Route
from ..parity import FileParity

if TYPE_CHECKING:
    from PIL import Image

GRAPH = "model.onnx"
"""The float32 file for ONNX Runtime, from which others are made, and with whose time theirs is compared."""


@dataclass(frozen=True)
class ExportTask:
    """A network, and images to calibrate int8 with and to compare files on.

    ``random``: whether the weights are random, so that int8 need not agree with float. ``runtime``: an onnxruntime-web
    package for the page (None: the cache, else npm).
    """

    network: Network
    calibration: Sequence[Image.Image]
    images: Sequence[Image.Image]
    random: bool = False
    runtime: Path | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What an exporter said: its comparison with PyTorch (None: to be made), and a remark."""

    parity: FileParity | None = None
    note: str = ""
    model: str = ""
    """The model's file below the path that was written, if that is a folder."""


Write = Callable[[ExportTask, Path], Written]


@dataclass(frozen=True, slots=True)
class Format:
    """A format: its name, the file to write, what it is for, and the function that writes it.

    ``route`` is the route of the benchmark on which it is timed; if there is none, ``untimed`` says why.
    """

    name: str
    file: str
    device: str
    write: Write
    route: Route | None = None
    untimed: str = ""

    @property
    def int8(self) -> bool:
        """Whether it computes in int8."""
        return self.name.endswith("int8")


def _onnx(task: ExportTask, path: Path) -> Written:
    from ..onnx.export import export_onnx

    export_onnx(task.network, path)
    return Written()


def _int8(task: ExportTask, path: Path) -> Written:
    from ..quantization.config import QuantizationConfig
    from ..quantization.quantize import quantize

    source = path.with_name(GRAPH)
    if not source.exists():
        raise ZooError(f"is made from {GRAPH}, which could not be written")
    config = QuantizationConfig(agreement=0.0 if task.random else 0.99)
    report = quantize(source, path, task.calibration, config=config, test=task.images)
    target = f"for {_PROCESSORS[report.target.value]}" if report.target else "for all processors"
    layers = len(report.float_layers)
    return Written(note=f"{target}; {layers} layers in float32" if layers else target)


_PROCESSORS = {"avx2": "x86 without VNNI", "vnni": "x86 with VNNI", "arm64": "64-bit ARM"}


def _mobile(task: ExportTask, path: Path) -> Written:
    from ..backends.ort_mobile import export_mobile

    report = export_mobile(task.network, path, images=task.images)
    return Written(report.parity["PyTorch"], f"operators for a minimal build: {report.operators.name}")


def _openvino(task: ExportTask, path: Path) -> Written:
    from ..backends.openvino_ir import export_openvino

    return Written(export_openvino(task.network, path, images=task.images).parity["PyTorch"])


def _executorch(task: ExportTask, path: Path) -> Written:
    from ..backends.executorch_pte import export_executorch

    report = export_executorch(task.network, path, images=task.images)
    portable = ", ".join(report.portable)
    return Written(report.parity["PyTorch"], f"not on XNNPACK: {portable}" if portable else "all on XNNPACK")


def _litert(task: ExportTask, path: Path) -> Written:
    from ..backends.litert_tflite import export_litert

    return Written(export_litert(task.network, path, images=task.images).parity["PyTorch"])


def _ncnn(task: ExportTask, path: Path) -> Written:
    from ..backends.ncnn_param import export_ncnn

    return Written(export_ncnn(task.network, path, images=task.images).parity["PyTorch"])


def _coreml(task: ExportTask, path: Path) -> Written:
    from ..backends.coreml import export_coreml

    report = export_coreml(task.network, path, images=task.images)
    return Written(report.parity["PyTorch"], f"weights in {report.weights.value}; computed by {report.computed_by}")


def _web(task: ExportTask, path: Path) -> Written:
    from ..web import write_web

    source = path.with_name(GRAPH)
    if not source.exists():
        raise ZooError(f"is made from {GRAPH}, which could not be written")
    write_web(source, path, runtime=task.runtime, source="random, its answers mean nothing" if task.random else None)
    return Written(note="to open it: fbnetv3 serve-demo FOLDER/web; compared on ONNX Runtime", model=GRAPH)


FORMATS: tuple[Format, ...] = (
    Format("onnx", GRAPH, "servers, desktops, apps: ONNX Runtime", _onnx, Route.ONNXRUNTIME),
    Format("int8", "model-int8.onnx", "the same, smaller and in int8", _int8, Route.ONNXRUNTIME_INT8),
    Format("mobile", "model.ort", "ARM phones and boards: small builds of ONNX Runtime", _mobile,
           untimed="laid out for ARM"),
    Format("openvino", "model.xml", "Intel processors: OpenVINO", _openvino, Route.OPENVINO),
    Format("openvino-int8", "model-int8.xml", "Intel processors: OpenVINO", _int8, Route.OPENVINO_INT8),
    Format("executorch", "model.pte", "phones: ExecuTorch on XNNPACK", _executorch, Route.EXECUTORCH),
    Format("litert", "model.tflite", "Android phones: LiteRT", _litert, Route.LITERT),
    Format("litert-int8", "model-int8.tflite", "Android phones: LiteRT", _int8, Route.LITERT_INT8),
    Format("ncnn", "model.ncnn.param", "phones and boards: ncnn", _ncnn, Route.NCNN),
    Format("coreml", "model.mlpackage", "iPhone, iPad, Mac: Core ML", _coreml, untimed="runs on Apple's devices"),
    Format("web", "web", "browsers", _web, untimed="runs in browsers"),
)  # fmt: skip
"""All formats, in the order in which they are written."""


def find_formats(text: str) -> tuple[Format, ...]:
    """The formats in the comma-separated ``text``, and always ``onnx``; ``all`` for every one.

    Raises :class:`ZooError` for an unknown name.
    """
    if text == "all":
        return FORMATS
    names = [name.strip() for name in text.split(",")]
    known = [one.name for one in FORMATS]
    for name in names:
        if name not in known:
            raise ZooError(f"unknown format {name!r}{nearest(name, known)}; choose from {', '.join(known)}")
    return tuple(one for one in FORMATS if one.name in (*names, "onnx"))
