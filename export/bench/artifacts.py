"""The models to measure, and the files for each route, written to a temporary folder when first needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3_zoo.classify import ENDINGS, Classifier
from fbnetv3_zoo.errors import ZooError, check_whole, in_short
from fbnetv3_zoo.models.size import size_of
from fbnetv3_zoo.weights.registry import RECORDS

from ..timing.worker_process import How, OpenRequest, WorkerError
from .published_baselines import Baseline
from .results import Subject
from .routes import Form, Route, check_tools
from .timm_baselines import export_rival

if TYPE_CHECKING:
    from fbnetv3_zoo.models.network import Network

CALIBRATED_ON = 64
"""Number of photographs to calibrate int8 with, if no folder of images is given."""

_YEARS = {"fb_in1k": "2020", "ra2_in1k": "2024"}
"""Year in which the accuracies of weights were published, by tag."""

_HOW: dict[Route, How] = {Route.COMPILED: "compiled", Route.OPENVINO_BF16: "bfloat16"}
_OF_NETWORK: frozenset[Form] = frozenset({"weights", "graph", "program"})
_FILES: dict[Form, str] = {
    "weights": "model.safetensors",
    "graph": "model.onnx",
    "int8 graph": "int8.onnx",
    "intermediate": "model.xml",
    "int8 intermediate": "int8.xml",
    "program": "model.pte",
    "pair": "model.ncnn.param",
    "lite": "model.tflite",
    "int8 lite": "int8.tflite",
}


@dataclass(frozen=True)
class BenchModel:
    """A model to measure: a network or an existing file, and the ``folder`` for files of other forms.

    With ``random`` weights, int8 need not agree with float. ``largest`` is the largest batch size.
    """

    subject: Subject
    channels: int
    folder: Path
    network: Network | None = None
    rival: Baseline | None = None
    images: Path | None = None
    random: bool = False
    largest: int = 8
    files: dict[Form, Path] = field(default_factory=dict)

    def routes(self, routes: Sequence[Route]) -> tuple[Route, ...]:
        """Those of ``routes`` that apply: timm networks are measured on ONNX Runtime only."""
        return tuple(routes) if self.rival is None else tuple(r for r in routes if r is Route.ONNXRUNTIME)

    def request(self, route: Route, threads: int) -> OpenRequest:
        """The request to a worker for ``route``. Raises :class:`ZooError` if the route is unavailable here."""
        check_tools(route)
        how = "graph" if self.rival else _HOW.get(route, "plain")
        return OpenRequest(str(self.file(route.form)), how, threads, self.channels, self.subject.resolution)

    def file(self, form: Form) -> Path:
        """The file of ``form``, written if it does not exist yet. Raises :class:`ZooError` if that is impossible."""
        if form not in self.files:
            self.files[form] = self._write(form)
        return self.files[form]

    def size(self, form: Form) -> int:
        """Size in bytes of the file, including weights stored beside it."""
        path = self.files[form]
        beside = path.with_suffix(".bin") if path.suffix in (".xml", ".param") else path.with_name(path.name + ".data")
        return sum(one.stat().st_size for one in (path, beside) if one.exists())

    def reason(self, error: Exception) -> str:
        """The text of ``error``, without the path of a temporary file."""
        ours = isinstance(error, (ZooError, WorkerError))
        text = str(error) if ours else f"{type(error).__name__}: {in_short(error)}"
        return re.sub(rf"^{re.escape(str(self.folder))}[^:]*: ", "", text)

    def _write(self, form: Form) -> Path:
        path = self.folder / _FILES[form]
        if self.rival is not None:
            return export_rival(self.rival, path)
        network = self.network
        if network is None and (form in _OF_NETWORK or "graph" not in self.files):
            raise ZooError(
                f"cannot be converted from a {next(iter(self.files.values())).suffix} file; give a .safetensors file"
            )
        if form.startswith("int8"):
            self._quantize(path)
        elif form not in _OF_NETWORK:
            _convert(self.file("graph") if network is None else network, path)
        else:
            assert network is not None
            _export(network, path, self.largest)
        return path

    def _quantize(self, path: Path) -> None:
        from ..quantization.config import QuantizationConfig
        from ..quantization.quantize import quantize
        from ..sample_images import photographs

        images = photographs(CALIBRATED_ON, seed=0) if self.images is None else self.images
        # with random weights the top class is arbitrary, so that agreement means nothing
        config = QuantizationConfig(agreement=0.0 if self.random else 0.99)
        quantize(self.file("graph"), path, images, config=config)


def _convert(source: Network | Path, path: Path) -> None:
    """Write a network or an ONNX file for OpenVINO, ncnn or LiteRT, by the extension of ``path``."""
    if path.suffix == ".xml":
        from ..backends.openvino_ir import export_openvino

        export_openvino(source, path)
    elif path.suffix == ".param":
        from ..backends.ncnn_param import export_ncnn

        export_ncnn(source, path)
    else:
        from ..backends.litert_tflite import export_litert

        export_litert(source, path)


def _export(network: Network, path: Path, largest: int) -> None:
    """Write the network as weights, ONNX or an ExecuTorch program, by the extension of ``path``."""
    if path.suffix == ".safetensors":
        from fbnetv3_zoo.weights.serialization import save

        save(network, path)
    elif path.suffix == ".onnx":
        from .. import export_onnx

        export_onnx(network, path)
    else:
        from ..backends.executorch_pte import export_executorch

        export_executorch(network, path, max_batch=largest)


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Options for the models: published or random weights, and another resolution than a model's own.

    ``images`` is a folder to calibrate int8 with, ``largest`` the largest batch size.
    """

    pretrained: bool = False
    resolution: int | None = None
    images: Path | None = None
    largest: int = 8


def find_candidate(model: str, folder: Path, options: ModelOptions) -> BenchModel:
    """The model given as a published name, a JSON file of a network, or a model file.

    Raises :class:`ZooError` if the name is unknown or the file cannot be opened.
    """
    suffix = Path(model).suffix
    if suffix not in ENDINGS:
        from fbnetv3_zoo.factory import create

        return _of_network(model, create(model, pretrained=options.pretrained), folder, options, named=True)
    if options.pretrained:
        raise ZooError(f"{model}: is a file with its own weights; leave out --pretrained")
    if suffix == ".safetensors":
        from fbnetv3_zoo.weights.serialization import load

        return _of_network(model, load(model), folder, options, named=False)
    if suffix == ".mlpackage":
        raise ZooError(f"{model}: Core ML packages are timed by Xcode, on the device; give a .safetensors file")
    description = Classifier.open(model).description
    arch, side = description.arch, description.preprocess.resolution
    if options.resolution not in (None, side):
        raise ZooError(f"{model}: is for {side} pixels; leave out --resolution, or give a .safetensors file")
    subject = Subject(model, side, size_of(arch, resolution=side).macs)
    files = {_form(Path(model)): Path(model)}
    return BenchModel(subject, arch.in_channels, folder, images=options.images, largest=options.largest, files=files)


def _of_network(model: str, network: Network, folder: Path, options: ModelOptions, *, named: bool) -> BenchModel:
    own = network.preprocess
    side = own.resolution if options.resolution is None else options.resolution
    check_whole("resolution", side, at_least=network.arch.min_resolution)
    network.preprocess = own.at_resolution(side)
    subject = Subject(model, side, size_of(network.arch, resolution=side).macs)
    if named:
        subject = _with_published(subject)
    return BenchModel(
        subject, network.arch.in_channels, folder, network.eval(), images=options.images, largest=options.largest,
        random=named and not options.pretrained,
        files={"weights": Path(model)} if not named and network.preprocess == own else {},
    )  # fmt: skip


def _with_published(subject: Subject) -> Subject:
    """``subject`` with the published accuracy of its weights at its resolution, if there is one."""
    name = subject.name
    record = RECORDS.get(name) or next((one for one in RECORDS.values() if one.arch.name == name), None)
    accuracies = [one for one in record.accuracy if one.resolution == subject.resolution] if record else []
    if record is None or not accuracies:
        return subject
    license = "" if record.license is None else record.license.value
    source = f"{record.name}: {accuracies[0].evidence.value}, {_YEARS[record.tag]}"
    # FBNetV3's own final training uses distillation (recipes/presets.py, from the paper); timm's does not
    distilled = record.tag == "fb_in1k" and record.arch.name.startswith("fbnetv3_")
    return replace(subject, top1=accuracies[0].top1, source=source, license=license, distilled=distilled)


def _form(path: Path) -> Form:
    """The form of the file ``path``; int8 is recognized by its operators."""
    if path.suffix == ".safetensors":
        return "weights"
    if path.suffix in (".pte", ".param"):
        return "program" if path.suffix == ".pte" else "pair"
    data: Any = path.read_bytes()
    int8 = any(name in data for name in (b"QuantizeLinear", b"FakeQuantize", b"quantized_by"))
    if path.suffix == ".xml":
        return "int8 intermediate" if int8 else "intermediate"
    if path.suffix == ".tflite":
        return "int8 lite" if int8 else "lite"
    return "int8 graph" if int8 else "graph"
