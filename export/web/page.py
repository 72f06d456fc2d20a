"""A page that runs a classifier in the browser, from files of its own folder alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fbnetv3_zoo.classify import Classifier
from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.images import read_image
from fbnetv3_zoo.models.network import network_of
from fbnetv3_zoo.runtimes.ort import open_onnx
from fbnetv3_zoo.utils.onnx_io import entries_of
from fbnetv3_zoo.utils.paths import to_path
from fbnetv3_zoo.utils.serialization import to_plain
from fbnetv3_zoo.weights.cache import WeightsCache

from ..whole_folder import files_in
from .folder import CARD, FORMAT, PAGE, VERSION
from .ort_web import LICENSE, RUNTIME, SCRIPT, package_files

if TYPE_CHECKING:
    import onnx

    from fbnetv3_zoo.models.network import Network

Precision = Literal["float32", "int8"]

SITE = ("index.html", "style.css", "icon.svg", "app.js", "camera.js", "classifier.js", "picture.js", "preprocess.js",
        "view.js")  # fmt: skip
"""The page's own files, the same for every model."""

MODEL = "model.onnx"
SHOWABLE = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
"""Endings of image files that browsers read."""

_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger"}


@dataclass(frozen=True, slots=True)
class WebReport:
    """The page that was written.

    ``size`` is that of all files, ``model_size`` and ``runtime_size`` (ONNX Runtime Web) parts of it, in bytes;
    ``license`` and ``source`` are the weights', as the page shows them.
    """

    folder: Path
    network: str
    precision: Precision
    classes: int
    samples: int
    license: str | None
    source: str | None
    model_size: int
    runtime_size: int
    size: int
    runtime_version: str


def write_web(
    model: str | Path | Network, folder: str | Path, *, samples: Sequence[str | Path] = (),
    runtime: str | Path | None = None, license: str | None = None, source: str | None = None,
    cache: WeightsCache | None = None,
) -> WebReport:  # fmt: skip
    """Write a static page to ``folder`` that classifies images with ``model`` in the browser.

    The page needs no network but its own folder, which any web server can serve, at any path; several threads compute
    where it is served as :func:`fbnetv3_zoo.export.web.server.serve` does. The folder is written whole or not at all;
    an older page in it is replaced, anything else refused.

    Args:
        model: a network, a ``.safetensors`` file, or an ``.onnx`` file of this project (float32 or int8).
        folder: where to write.
        samples: image files shown as samples; they are copied as they are, with whatever their metadata tells.
        runtime: an unpacked package of onnxruntime-web, or its ``.tgz`` (default: the cache, else npm).
        license: license of the weights to show (default: what the file says).
        source: where the weights are from, to show (default: what the file says).
        cache: where packages are kept, and whether the network may be used (default: the environment's).

    Raises :class:`ZooError` for a file that cannot be used, and where the page cannot be written.
    """
    folder = to_path("folder", folder, "the path of a folder")
    PAGE.check_free(folder)
    _check_samples(samples)
    ready = _opened(model)
    parts = package_files(RUNTIME, given=runtime, cache=cache)
    with PAGE.replacing(folder) as new:
        description = _write_model(ready, new / MODEL)
        graph = _graph(new / MODEL, ready)
        for name in SITE:
            (new / name).write_bytes(files("fbnetv3_zoo.export").joinpath("site").joinpath(name).read_bytes())
        runtime_size = _write_runtime(parts, new / "runtime")
        card = _card(description, graph, license, source, _copy_samples(samples, new), (new / MODEL).stat().st_size)
        written = files_in(new)
        text = json.dumps({**card, "files": sorted([*written, CARD])}, ensure_ascii=False, indent=1)
        (new / CARD).write_text(text + "\n", encoding="utf-8")
        size = sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
    return WebReport(
        folder, card["network"], card["precision"], len(card["class_names"]), len(samples), card["licence"],
        card["source"], card["bytes"], runtime_size, size, RUNTIME.version,
    )  # fmt: skip


def _card(
    description: Description, graph: onnx.ModelProto, license: str | None, source: str | None,
    samples: list[dict[str, str]], size: int,
) -> dict[str, Any]:  # fmt: skip
    """The page's description of the network and its file of ``size`` bytes."""
    entries = entries_of(graph)
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "network": description.arch.name,
        "file": MODEL,
        "bytes": size,
        "precision": _precision(graph),
        "class_names": [description.name_of(index) for index in range(description.arch.num_classes)],
        "preprocess": to_plain(description.preprocess, defaults=True),
        "licence": license or description.license or entries.get("license"),
        "source": source or description.weights or entries.get("source"),
        "samples": samples,
        "runtime": {"folder": "runtime/", "script": SCRIPT, "version": RUNTIME.version},
    }


def _opened(model: str | Path | Network) -> Path | Network:
    """An ONNX file that is ours, or a network."""
    if not isinstance(model, (str, Path)):
        return network_of(model)
    if Path(model).suffix == ".onnx":
        open_onnx(Path(model))
        return Path(model)
    if Path(model).suffix != ".safetensors":
        raise ZooError(f"{model}: is not a model file for a page; give a .safetensors or .onnx file")
    from fbnetv3_zoo.weights.serialization import load

    return load(model)


def _write_model(model: Path | Network, path: Path) -> Description:
    """Put the network's ONNX file at ``path``; what it says of itself."""
    if isinstance(model, Path):
        shutil.copyfile(model, path)
    else:
        from ..onnx.export import export_onnx

        try:
            export_onnx(model, path)
        except ZooError as error:  # by the user's name for it, not the temporary file's
            raise ZooError(f"{_named(model)}: {str(error).removeprefix(f'{path}: ')}") from None
    description = Classifier.open(path).description
    if (channels := len(description.preprocess.mean)) not in (1, 3):
        raise ZooError(f"{_named(model)}: takes {channels} channels; a page can fill 1 or 3")
    return description


def _named(model: Path | Network) -> str:
    return str(model) if isinstance(model, Path) else model.arch.name


def _graph(path: Path, model: Path | Network) -> onnx.ModelProto:
    """The file's contents, if a page can fill its input: one batch of prepared images."""
    import onnx

    proto = onnx.load(path, load_external_data=False)
    if any(one.data_location == onnx.TensorProto.EXTERNAL for one in proto.graph.initializer):
        raise ZooError(f"{_named(model)}: keeps its weights in a second file; export it as one")
    (given,) = proto.graph.input
    kind = given.type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT or len(kind.shape.dim) != 4:
        raise ZooError(f"{_named(model)}: prepares images by itself; export it without preprocessing inside")
    return proto


def _precision(graph: onnx.ModelProto) -> Precision:
    return "int8" if any(node.op_type in _QUANTIZED for node in graph.graph.node) else "float32"


def _write_runtime(parts: dict[str, bytes], folder: Path) -> int:
    folder.mkdir()
    for name, content in parts.items():
        (folder / Path(name).name).write_bytes(content)
    (folder / "LICENSE.txt").write_text(LICENSE, encoding="utf-8")
    return sum(path.stat().st_size for path in folder.iterdir())


def _check_samples(samples: Sequence[str | Path]) -> None:
    if isinstance(samples, (str, Path)):
        raise ZooError(f"samples is {str(samples)!r}; give a list of image files")
    for sample in samples:
        read_image(sample)
        if Path(sample).suffix.lower() not in SHOWABLE:
            raise ZooError(f"{sample}: browsers do not read such files; give {', '.join(SHOWABLE)}")


def _copy_samples(samples: Sequence[str | Path], folder: Path) -> list[dict[str, str]]:
    copied = []
    for number, sample in enumerate(map(Path, samples), 1):
        file = f"samples/{number}{sample.suffix.lower()}"
        (folder / "samples").mkdir(exist_ok=True)
        shutil.copyfile(sample, folder / file)
        copied.append({"file": file, "name": sample.stem})
    return copied
