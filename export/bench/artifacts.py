"""From what the user names to files that a route can run; made in a temporary folder, each once, when first needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3_zoo.arch.cost import cost_of
from fbnetv3_zoo.classify import ENDINGS, Classifier
from fbnetv3_zoo.errors import ZooError, check_whole, in_short
from fbnetv3_zoo.weights.registry import RECORDS

from .backends import Form, Route, check_tools
from .published_baselines import Baseline
from .results import Subject
from .timm_baselines import export_rival
from .worker_process import How, OpenRequest, WorkerError

if TYPE_CHECKING:
    from fbnetv3_zoo.models.fbnet import FBNet
    from fbnetv3_zoo.preprocess import Preprocess

CALIBRATED_ON = 64
"""Photographs for int8, where no folder of images is given."""

_YEARS = {"fb_in1k": "2020", "ra2_in1k": "2024"}
"""When the accuracies of weights were published, by tag: the official records; timm's results."""

_HOW: dict[Route, How] = {Route.COMPILED: "compiled", Route.OPENVINO_BF16: "bfloat16"}
_OF_NETWORK: frozenset[Form] = frozenset({"weights", "graph", "program"})
_FILES: dict[Form, str] = {
    "weights": "model.safetensors",
    "graph": "model.onnx",
    "int8 graph": "int8.onnx",
    "intermediate": "model.xml",
    "int8 intermediate": "int8.xml",
    "program": "model.pte",
}


@dataclass(frozen=True)
class BenchModel:
    """A model to measure: a network, or the file of one form that there is; and the folder for files of other forms.

    ``random`` says that its weights mean nothing, so that int8 need not answer as float does; ``largest`` is the
    largest batch.
    """

    subject: Subject
    channels: int
    folder: Path
    network: FBNet | None = None
    rival: Baseline | None = None
    images: Path | None = None
    random: bool = False
    largest: int = 8
    files: dict[Form, Path] = field(default_factory=dict)

    def routes(self, wanted: Sequence[Route]) -> tuple[Route, ...]:
        """Those of ``wanted`` that make sense: networks of others are timed on ONNX Runtime only."""
        return tuple(wanted) if self.rival is None else tuple(r for r in wanted if r is Route.ONNXRUNTIME)

    def order(self, route: Route, threads: int) -> OpenRequest:
        """What a worker is to open for ``route``. Raises :class:`ZooError` where that cannot be had here."""
        check_tools(route)
        how = "graph" if self.rival else _HOW.get(route, "plain")
        return OpenRequest(str(self.file(route.form)), how, threads, self.channels, self.subject.resolution)

    def file(self, form: Form) -> Path:
        """The file of ``form``, written if it is not there yet. Raises :class:`ZooError` where that cannot be done."""
        if form not in self.files:
            self.files[form] = self._write(form)
        return self.files[form]

    def size(self, form: Form) -> int:
        """Bytes of the file, and of the weights beside it."""
        path = self.files[form]
        beside = path.with_suffix(".bin") if path.suffix == ".xml" else path.with_name(path.name + ".data")
        return sum(one.stat().st_size for one in (path, beside) if one.exists())

    def reason(self, error: Exception) -> str:
        """What ``error`` says, without the temporary file that it may name."""
        told = isinstance(error, (ZooError, WorkerError))
        text = str(error) if told else f"{type(error).__name__}: {in_short(error)}"
        return re.sub(rf"^{re.escape(str(self.folder))}[^:]*: ", "", text)

    def _write(self, form: Form) -> Path:
        path = self.folder / _FILES[form]
        if self.rival is not None:
            return export_rival(self.rival, path)
        network = self.network
        if network is None and (form in _OF_NETWORK or "graph" not in self.files):
            raise ZooError(
                f"cannot be made of a {next(iter(self.files.values())).suffix} file; give a .safetensors file"
            )
        if form in ("int8 graph", "int8 intermediate"):
            self._quantise(path)
        elif form == "intermediate":
            from ..backends.openvino_ir import export_openvino

            export_openvino(self.file("graph") if network is None else network, path)
        else:
            assert network is not None
            _export(network, path, self.largest)
        return path

    def _quantise(self, path: Path) -> None:
        from ..quantization.quantize import quantize
        from ..sample_images import photographs

        images = photographs(CALIBRATED_ON, seed=0) if self.images is None else self.images
        # random weights tell no classes apart, so that there is nothing that int8 could agree with
        quantize(self.file("graph"), path, images, agreement=0.0 if self.random else 0.99)


def _export(network: FBNet, path: Path, largest: int) -> None:
    """Write the network itself, as ONNX or as an ExecuTorch program."""
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
    """How models are taken: names with published or random weights, at a resolution if not their own.

    ``images`` is a folder to calibrate int8 with, ``largest`` the largest batch.
    """

    pretrained: bool = False
    resolution: int | None = None
    images: Path | None = None
    largest: int = 8


def find_candidate(model: str, folder: Path, wanted: ModelOptions) -> BenchModel:
    """The model that ``model`` names: a published name, a JSON file of a network, or a model file.

    Raises :class:`ZooError` for a name that is not known and a file that cannot be opened.
    """
    suffix = Path(model).suffix
    if suffix not in ENDINGS:
        from fbnetv3_zoo.factory import create

        return _of_network(model, create(model, pretrained=wanted.pretrained), folder, wanted, named=True)
    if wanted.pretrained:
        raise ZooError(f"{model}: is a file, which has weights; leave out --pretrained")
    if suffix == ".safetensors":
        from fbnetv3_zoo.weights.serialization import load

        network = load(model)
        return _of_network(model, network, folder, wanted, named=False)
    description = Classifier.open(model).description
    arch, side = description.arch, description.preprocess.resolution
    if wanted.resolution not in (None, side):
        raise ZooError(f"{model}: is for {side} pixels; leave out --resolution, or give a .safetensors file")
    subject = Subject(model, side, cost_of(arch, resolution=side).macs)
    files = {_form(Path(model)): Path(model)}
    return BenchModel(subject, arch.in_channels, folder, images=wanted.images, largest=wanted.largest, files=files)


def _of_network(model: str, network: FBNet, folder: Path, wanted: ModelOptions, *, named: bool) -> BenchModel:
    given = network.preprocess
    side = given.resolution if wanted.resolution is None else wanted.resolution
    check_whole("resolution", side, at_least=network.arch.min_resolution)
    network.preprocess = given.at_resolution(side)
    subject = Subject(model, side, cost_of(network.arch, resolution=side).macs)
    if named:
        subject = _with_published(subject)
    return BenchModel(
        subject, network.arch.in_channels, folder, network.eval(), images=wanted.images, largest=wanted.largest,
        random=named and not wanted.pretrained, files={} if named else _as_it_is(model, network, given),
    )  # fmt: skip


def _as_it_is(model: str, network: FBNet, given: Preprocess) -> dict[Form, Path]:
    """The file itself, unless it is measured at another resolution than its own."""
    return {"weights": Path(model)} if network.preprocess == given else {}


def _with_published(subject: Subject) -> Subject:
    """``subject`` with the accuracy of the weights of that name at that resolution, where one was published."""
    name = subject.name
    record = RECORDS.get(name) or next((one for one in RECORDS.values() if one.arch.name == name), None)
    found = [one for one in record.accuracy if one.resolution == subject.resolution] if record else []
    if record is None or not found:
        return subject
    license = "" if record.license is None else record.license.value
    source = f"{record.name}: {found[0].evidence.value}, {_YEARS[record.tag]}"
    # FBNetV3's own final training distils (recipes/presets.py, from the paper); timm's of the same networks does not
    distilled = record.tag == "fb_in1k" and record.arch.name.startswith("fbnetv3_")
    return replace(subject, top1=found[0].top1, source=source, license=license, distilled=distilled)


def _form(path: Path) -> Form:
    """What kind of file ``path`` is; int8 shows in the operators that it names."""
    if path.suffix == ".safetensors":
        return "weights"
    if path.suffix == ".pte":
        return "program"
    data: Any = path.read_bytes()
    int8 = any(name in data for name in (b"QuantizeLinear", b"FakeQuantize"))
    if path.suffix == ".xml":
        return "int8 intermediate" if int8 else "intermediate"
    return "int8 graph" if int8 else "graph"
