"""Shared by several commands: options, checks of output paths, models, output for scripts."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..arch import Arch
from ..arch.torchvision_arch import AnyArch, TorchvisionArch, is_torchvision
from ..errors import ZooError, printable
from ..utils.atomic_write import scratch, settled
from ..utils.paths import FOREIGN, WEB_PAGE, check_folder, check_place, exists, is_ours, is_web_page
from ..utils.serialization import json_text
from ..utils.tables import size_text
from ..weights.registry import RECORDS, find_network
from ..zoo import ARCHS
from .output import in_shell, say, say_text

if TYPE_CHECKING:
    from ..classify import Classifier
    from ..models.network import Network

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of text.")]
NetworkSource = Annotated[str, typer.Argument(help="A .safetensors file, or a name, with random or published weights.")]
Pretrained = Annotated[
    bool, typer.Option("--pretrained", help="Use the published weights of the model, a name such as fbnetv3_e.")
]
Resolution = Annotated[int | None, typer.Option(help="Image side in pixels, if not the network's own.")]
Seed = Annotated[int, typer.Option(help="Seed of the split into training, validation and test.")]


def processes() -> int:
    """The number of processes that ``torchrun`` has started together with this one, and this one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leads() -> bool:
    """Whether this is the process that prints and writes files: the only one, or the first started by torchrun."""
    return os.environ.get("RANK", "0") == "0" or "WORLD_SIZE" not in os.environ


def output_file(help: str, kind: str = "") -> Any:
    """An option for a file to write, which is checked to be writable before any work.

    A file that is there is only replaced if it is of this ``kind``, as :func:`_kind_of` tells it.
    """

    def place(value: Path | None) -> Path | None:
        if value is not None:
            check_place(value)
            if exists(value) and value.stat().st_size and not is_ours(value):
                raise ZooError(f"{value}: {FOREIGN}; {_OUTPUT}")
            _check_kind(value, kind)
        return value

    return typer.Option(help=help, callback=place)


def output_folder(help: str, *names: str, replaced: bool = False) -> Any:
    """An option for a folder to write to, or to be ``replaced`` as a whole; checked like :func:`output_file`."""
    return typer.Option(*names, help=help, callback=_replaced if replaced else _folder)


def _folder(value: Path | None) -> Path | None:
    if value is not None and leads():
        check_folder(value)
    return value


def _replaced(value: Path | None) -> Path | None:
    if value is not None:
        check_folder(value, replaced=True)
    return value


def image_files(paths: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """The image files ``paths``, with the images in and below a folder in its place; each with its path below that.

    Raises :class:`ZooError` for a folder without images.
    """
    from ..images.listing import images_in

    for path in paths:
        if not path.is_dir():
            yield path, Path(path.name)
            continue
        names = images_in(path)
        if not names:
            raise ZooError(f"{printable(str(path))}: has no images (JPEG, PNG, WebP, TIFF, BMP)")
        yield from ((path / name, Path(name)) for name in names)


Shapes = Mapping[str, tuple[int | str, ...]]
"""Names and shapes, in which a word is a dynamic size."""


def network_of(model: str) -> Arch:
    """The network ``model``: a name, an arch JSON file, or a .safetensors file or repository that describes it.

    Raises :class:`ZooError` for a model of torchvision.
    """
    arch = _stored(model) or find_network(model)
    if isinstance(arch, TorchvisionArch):
        raise ZooError(f"{model}: is {arch.name}, a model of torchvision; this is for networks of this project")
    return arch


def any_network_of(model: str) -> AnyArch:
    """As :func:`network_of`; also a model of torchvision."""
    if (arch := _stored(model)) is not None:
        return arch
    if model in ARCHS or model in RECORDS or model.endswith(".json"):
        return find_network(model)
    from ..factory import find_any_network

    return find_any_network(model)


def _stored(model: str) -> AnyArch | None:
    """The network that the file or repository ``model`` describes; None if it is a name or an arch JSON file."""
    if holds_weights(model):
        from .. import load

        return load(model).arch
    if not is_torchvision(model):
        _refuse_other_files(model, "a .safetensors or arch JSON file, or a name")
    return None


def open_classifier(model: str, *, pretrained: bool) -> Classifier:
    """The classifier in the file or repository ``model``, or the network named ``model`` with published weights."""
    from .. import create, load
    from ..classify import ENDINGS, Classifier

    if pretrained:
        if Path(model).suffix in ENDINGS:
            raise brings_weights(model)
        return Classifier.of(create(model, pretrained=True).eval())
    if is_torchvision(model):
        raise ZooError(f"{model}: is a name, not a file; train it, and give its model.safetensors")
    if model in ARCHS or model in RECORDS:
        raise ZooError(f"{model}: is a name, not a file; add --pretrained to use its published weights")
    if Path(model).suffix not in ENDINGS:
        _refuse_other_files(model, "model files")
    return Classifier.of(load(model)) if model.startswith("hf-hub:") else Classifier.open(model)


def open_network(model: str, *, pretrained: bool) -> Network:
    """The network in the file or repository ``model``, or the one named ``model``, with random or published weights."""
    from .. import create, load

    if holds_weights(model):
        if pretrained:
            raise brings_weights(model)
        return load(model)
    _refuse_other_files(model, "a .safetensors file or a name")
    return create(model, pretrained=pretrained)


_CHECKPOINTS = (".pth", ".pt", ".bin", ".ckpt")
_FOR_RUNTIMES = (".onnx", ".ort", ".xml", ".pte", ".param", ".tflite", ".mlpackage")


def _refuse_other_files(model: str, takes: str) -> None:
    """Raise :class:`ZooError` for a file that the command does not take, with a hint how to make one it ``takes``."""
    suffix = Path(model).suffix.lower()
    if suffix in (*_CHECKPOINTS, *_FOR_RUNTIMES) and not exists(model):
        raise ZooError(f"{model}: no such file")
    if suffix in _CHECKPOINTS:
        if _is_web_page(Path(model)):
            raise ZooError(f"{model}: {WEB_PAGE.format('weights')}")
        remedy = f"fbnetv3 weights convert {in_shell(model)} --model NAME"
        raise ZooError(f"{model}: is a PyTorch checkpoint; convert it by `{remedy}`")
    if suffix in _FOR_RUNTIMES:
        commands = "`fbnetv3 export int8`, `mobile`, `openvino`, `litert`, `coreml`, `ncnn` and `web`"
        others = f"; ONNX files are taken by {commands}"
        only = others if suffix == ".onnx" else ""
        raise ZooError(f"{model}: is a file for a runtime; this command takes {takes}{only}")


def _is_web_page(path: Path) -> bool:
    with path.open("rb") as file:
        return is_web_page(file.read(512))


def beside(model: str, output: Path | None, source: Network | Path, suffix: str) -> Path:
    """``output``, by default :func:`place_beside` the model, checked by :func:`target_of`."""
    return target_of(output, place_beside(model, source, suffix))


def place_beside(model: str, source: Network | Path, suffix: str) -> Path:
    """A path beside the model's file, or for a name in this folder."""
    if isinstance(source, Path) or Path(model).suffix == ".safetensors":
        return Path(model).with_suffix(suffix)
    return Path(f"{source.arch.name.replace(':', '_')}{suffix}")


_SECOND = {".xml": ".bin", ".param": ".bin", ".ort": ".required_operators.config"}
"""Extension of the second file that is written with a file, by the extension of the first."""


def target_of(output: Path | None, default: Path, kind: str = "") -> Path:
    """The path to write to: ``output`` or ``default``.

    Raises :class:`ZooError` if a file that this program did not write, or of another ``kind``, would be overwritten, or
    by the second file any.
    """
    path = default if output is None else output
    second = path.with_suffix(_SECOND.get(path.suffix, path.suffix))
    settled(path, second)
    if output is None:
        check_place(path)
        if exists(path) and not is_ours(path):
            raise ZooError(f"{path}: {FOREIGN}; {_OUTPUT}")
        _check_kind(path, kind)
    if not exists(path) and exists(second):
        raise ZooError(f"{second}: already exists, and would be overwritten with {path}; give another --output")
    return path


_OUTPUT = "give another path as --output, or remove that file first"


def _check_kind(path: Path, kind: str) -> None:
    """Raise :class:`ZooError` if a file of ours at ``path`` is of another ``kind``: exports can be made again, but not
    what was trained, drawn by lot or measured.
    """  # fmt: skip
    if not exists(path) or not path.stat().st_size:
        return
    found = _kind_of(path)
    if found not in (kind, "damaged"):
        from ..utils.checksummed import KINDS

        name = {**KINDS, **_TEXTS}.get(found, "something else")
        raise ZooError(f"{path}: already exists, and is {name}; {_OUTPUT}")


CARD = "card"
_TEXTS = {
    CARD: "a model card",
    "fbnetv3_zoo.arch": "a network",
    "fbnetv3_zoo.latency_table": "a latency table",
    "fbnetv3_zoo.recipe": "a recipe",
    "fbnetv3_zoo.recipe_preset": "a recipe",
    "fbnetv3_zoo.results": "the results of a run",
    "fbnetv3_zoo.subset": "a subset of data",
}


def _kind_of(path: Path) -> str:
    """What a file of ours is: the ``format`` of tensors and JSON, :data:`CARD`, "damaged", or "" for any other."""
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(b"---"):
        return CARD
    if start.startswith(b"{"):
        try:
            told = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return "damaged"
        return str(told.get("format", "JSON")).partition(" ")[0]
    if not start.endswith(b"{") and path.suffix != ".safetensors":
        return ""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            return str((tensors.metadata() or {}).get("format", "")).partition(" ")[0]
    except SafetensorError:
        return "damaged"


def check_same(path: Path, write: Callable[[Path], object]) -> None:
    """Raise :class:`ZooError` if there is a file at ``path`` whose contents differ from what ``write`` writes."""
    if not exists(path):
        return
    with scratch() as folder:
        write(folder / path.name)
        if not filecmp.cmp(folder / path.name, path, shallow=False):
            raise ZooError(
                f"{path}: already exists with other contents; give it as --output to overwrite it, or another path"
            )


def warn_of_random_weights(model: str, source: Network | Path, *, pretrained: bool) -> None:
    """Print a line if a published network is used without weights."""
    if not isinstance(source, Path) and not holds_weights(model) and not pretrained:
        say("weights are random: good for timing, not for classifying")


def brings_weights(model: str) -> ZooError:
    """The error for a file given together with --pretrained."""
    return ZooError(f"{model}: is a file with its own weights; leave out --pretrained")


def holds_weights(model: str) -> bool:
    """Whether ``model`` is a file or repository of weights, not a name."""
    return model.startswith("hf-hub:") or Path(model).suffix == ".safetensors"


def command_group(help: str) -> typer.Typer:
    """A group of commands, which without a command shows its help."""
    app = typer.Typer(help=help)

    @app.callback(invoke_without_command=True)
    def _help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            say_text(context.get_help())

    return app


def some_of(names: Sequence[str]) -> str:
    """The number of classes, and the first of them."""
    return f"{len(names)} classes ({printable(', '.join(names[:3]))}{', ...' if len(names) > 3 else ''})"


def print_json(data: Any) -> None:
    """Print ``data`` as JSON, with paths as text and null for figures that could not be measured (nan)."""
    say_text(json_text(data, indent=1))


def print_shapes(inputs: Shapes, outputs: Shapes) -> None:
    """Print the inputs and outputs of a model file, one per line."""
    for label, shapes in (("input", inputs), ("output", outputs)):
        for name, shape in shapes.items():
            say(f"{label} {name}: {' x '.join(map(str, shape))}")


def written(path: Path, size: int | None = None) -> str:
    """A line with the name and size of a file, or of a folder of ``size`` bytes."""
    return f"{path} ({size_text(path.stat().st_size if size is None else size)})"


def program() -> str:
    """The command for this program: its name if the shell finds it, otherwise the way it was called."""
    if shutil.which("fbnetv3"):
        return "fbnetv3"
    called = Path(sys.argv[0])
    return in_shell(called) if called.stem == "fbnetv3" else f"{in_shell(sys.executable)} -m fbnetv3_zoo"
