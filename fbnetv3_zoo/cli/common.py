"""What several commands share: options, the console, output for scripts."""

from __future__ import annotations

import filecmp
import mmap
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..arch import Arch
from ..errors import ZooError, printable
from ..utils.atomic_write import scratch, settled
from ..utils.paths import check_folder, check_place, exists
from ..utils.serialization import json_text
from ..weights.registry import RECORDS, find_network
from ..zoo import ARCHS
from .output import in_shell, say, say_text

if TYPE_CHECKING:
    from ..classify import Classifier
    from ..models.fbnet import FBNet

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of text.")]
Network = Annotated[str, typer.Argument(help="A .safetensors file; or a name, with random or published weights.")]
SmallImages = Annotated[bool, typer.Option("--small-images", help="Use the form for 32 x 32 images (paper: CIFAR).")]
Pretrained = Annotated[
    bool, typer.Option("--pretrained", help="The model is a name, such as fbnetv3_e; take its published weights.")
]
Width = Annotated[float, typer.Option(help="Factor on all widths.")]
Depth = Annotated[float, typer.Option(help="Factor on the number of blocks.")]
Resolution = Annotated[int | None, typer.Option(help="Image side in pixels, if not the network's own.")]
DataSource = Annotated[
    str,
    typer.Option(
        "--data", help="'digits', or a folder: of class folders of images, of CIFAR, or of tar files of samples."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the split into training, validation and test.")]


def leads() -> bool:
    """Whether this is the process that speaks and writes: the only one, or the first that torchrun started."""
    return os.environ.get("RANK", "0") == "0" or "WORLD_SIZE" not in os.environ


def output_file(help: str) -> Any:
    """An option for a file to write; a place where none can be is refused before any work."""
    return typer.Option(help=help, callback=_place)


def output_folder(help: str, *names: str, replaced: bool = False) -> Any:
    """An option for a folder to write to, or to be ``replaced`` as a whole; refused as :func:`output_file` does."""
    return typer.Option(*names, help=help, callback=_replaced if replaced else _folder)


def _place(value: Path | None) -> Path | None:
    if value is not None:
        check_place(value)
    return value


def _folder(value: Path | None) -> Path | None:
    if value is not None and leads():
        check_folder(value)
    return value


def _replaced(value: Path) -> Path:
    check_folder(value, replaced=True)
    return value


Shapes = Mapping[str, tuple[int | str, ...]]
"""Names and shapes, in which a word stands for any size."""


def derived_arch(model: str, *, small_images: bool, width: float, depth: float, resolution: int | None) -> Arch:
    """The network that ``model`` and the options of :data:`SmallImages` and so on describe."""
    arch = network_of(model)
    if small_images:
        arch = arch.for_small_images()
    if width != 1 or depth != 1:
        arch = arch.scaled(width=width, depth=depth)
    return arch if resolution is None else replace(arch, resolution=resolution)


def network_of(model: str) -> Arch:
    """The network that ``model`` stands for: a name, a JSON file of one, or a model file (or repository) that tells."""
    if holds_weights(model):
        from .. import load

        return load(model).arch
    _refuse_other_files(model, "a .safetensors or arch JSON file, or a name")
    return find_network(model)


def open_classifier(model: str, *, pretrained: bool) -> Classifier:
    """The classifier in the file or repository ``model``, or the network of that name with its published weights."""
    from .. import create, load
    from ..classify import ENDINGS, Classifier

    if pretrained:
        if Path(model).suffix in ENDINGS:
            raise brings_weights(model)
        return Classifier.of(create(model, pretrained=True).eval())
    if model in ARCHS or model in RECORDS:
        raise ZooError(f"{model}: is a name, not a file; add --pretrained to take its published weights")
    if Path(model).suffix not in ENDINGS:
        _refuse_other_files(model, "model files")
    return Classifier.of(load(model)) if model.startswith("hf-hub:") else Classifier.open(model)


def open_network(model: str, *, pretrained: bool) -> FBNet:
    """The network in the file or repository ``model``, or the one of that name, with random or published weights."""
    from .. import create, load

    if holds_weights(model):
        if pretrained:
            raise brings_weights(model)
        return load(model)
    _refuse_other_files(model, "a .safetensors file or a name")
    return create(model, pretrained=pretrained)


def _refuse_other_files(model: str, takes: str) -> None:
    """Raise for a file of a kind that a command does not take, with what makes one that it ``takes``."""
    suffix = Path(model).suffix.lower()
    if suffix in (".pth", ".pt", ".bin", ".ckpt"):
        remedy = f"fbnetv3 weights convert {in_shell(model)} --model NAME"
        raise ZooError(f"{model}: is a checkpoint of PyTorch's; make it a file of this project: `{remedy}`")
    if suffix in (".onnx", ".ort", ".xml", ".pte"):
        others = "; ONNX files are taken by `fbnetv3 export int8`, `mobile`, `openvino` and `web`"
        only = others if suffix == ".onnx" else ""
        raise ZooError(f"{model}: is a file for a runtime; this command takes {takes}{only}")


def beside(model: str, output: Path | None, source: FBNet | Path, suffix: str) -> Path:
    """``output``; without one a file beside the model's, or for a name in this folder. As of :func:`target_of`."""
    if isinstance(source, Path) or Path(model).suffix == ".safetensors":
        return target_of(output, Path(model).with_suffix(suffix))
    return target_of(output, Path(f"{source.arch.name}{suffix}"))


_MARK = b"fbnetv3_zoo"
"""What every file that this program writes has in it: in its metadata, its section or its methods."""
_SECOND = {".xml": ".bin", ".ort": ".required_operators.config"}
"""The file that is written beside one of this ending."""


def target_of(output: Path | None, default: Path) -> Path:
    """Where to write: ``output``; without one ``default``, unless a file is there that this program did not write.

    Nor is a file replaced that lies where a second one is to be written, which nobody has named.
    """
    path = default if output is None else output
    second = path.with_suffix(_SECOND.get(path.suffix, path.suffix))
    settled(path, second)
    if output is None:
        check_place(path)
        if exists(path) and not is_ours(path):
            raise ZooError(f"{path}: is there already, and not written by this program; {_OUTPUT}")
    if not exists(path) and exists(second):
        raise ZooError(f"{second}: is there already, and would be written over with {path}; give another --output")
    return path


_OUTPUT = "name it with --output to write over it, or another place"


def check_same(path: Path, write: Callable[[Path], object]) -> None:
    """Raise where there is a file at ``path`` that holds anything else than what ``write`` writes to a path."""
    if not exists(path):
        return
    with scratch() as folder:
        write(folder / path.name)
        if not filecmp.cmp(folder / path.name, path, shallow=False):
            raise ZooError(f"{path}: is there already, and holds something else; {_OUTPUT}")


def is_ours(path: Path) -> bool:
    """Whether the file at ``path`` bears the mark of this program."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(_MARK) >= 0


def warn_of_random_weights(model: str, source: FBNet | Path, *, pretrained: bool) -> None:
    """Say so where a network of some name was taken without weights."""
    if not isinstance(source, Path) and not holds_weights(model) and not pretrained:
        say("weights are random: good for timing, not for classifying")


def brings_weights(model: str) -> ZooError:
    """The error for a file that is given together with --pretrained."""
    return ZooError(f"{model}: is a file, which brings its own weights; leave --pretrained out")


def holds_weights(model: str) -> bool:
    """Whether ``model`` is a file or repository of weights, not a name."""
    return model.startswith("hf-hub:") or Path(model).suffix == ".safetensors"


def command_group(help: str) -> typer.Typer:
    """Commands under one name; without any of them, its help is shown."""
    app = typer.Typer(help=help)

    @app.callback(invoke_without_command=True)
    def _help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            say_text(context.get_help())

    return app


def some_of(names: Sequence[str]) -> str:
    """How many classes, and the first of them."""
    return f"{len(names)} classes ({printable(', '.join(names[:3]))}{', ...' if len(names) > 3 else ''})"


def print_json(data: Any) -> None:
    """``data`` on standard output; paths as text, and null for a figure that could not be measured (nan)."""
    say_text(json_text(data, indent=1))


def print_shapes(inputs: Shapes, outputs: Shapes) -> None:
    """What goes into a file's network and comes out, one line each."""
    for label, shapes in (("input", inputs), ("output", outputs)):
        for name, shape in shapes.items():
            say(f"{label} {name}: {' x '.join(map(str, shape))}")


def written(path: Path) -> str:
    """A line that names a file and its size."""
    size = path.stat().st_size
    if size < 1000:
        return f"{path} ({size} bytes)"
    return f"{path} ({size / 1e6:.1f} MB)" if size >= 1e6 else f"{path} ({size / 1e3:.0f} kB)"


def program() -> str:
    """How to call this program from here: by name where the shell finds it, else as it was called."""
    if shutil.which("fbnetv3"):
        return "fbnetv3"
    called = Path(sys.argv[0])
    return in_shell(called) if called.stem == "fbnetv3" else f"{in_shell(sys.executable)} -m fbnetv3_zoo"
