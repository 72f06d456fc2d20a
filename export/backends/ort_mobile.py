"""ONNX Runtime's mobile format: ``.ort`` files, which its small builds read, with the operators that they need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3_zoo.errors import ZooError, check_flag, check_whole, in_short, parse_enum
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.runtimes import sandbox as trial
from fbnetv3_zoo.runtimes.ort import LAID_OUT_FOR
from fbnetv3_zoo.utils.atomic_write import replacing_together, scratch

from ..onnx.passes import BLOCK
from ..parity import FileParity
from .common import compared, source_graph

if TYPE_CHECKING:
    from PIL import Image

_FOUND = re.compile(
    r"(?P<partitions>\d+) partitions with a total of (?P<nodes>\d+)/(?P<all>\d+) nodes can be handled by the"
    r"|Unsupported ops: (?P<operators>\S+)"
    r"|Model should perform well with (?P<name>.+) (?P<form>as is|if modified to have fixed input shapes): "
    r"(?P<verdict>NO|MAYBE|YES)"
)


class Style(Enum):
    """When the graph is optimised.

    FIXED: now, for the CPU. RUNTIME: partly when the file is opened, which leaves more nodes to NNAPI and Core ML; the
    session needs the option ``session.enable_saved_runtime_optimizations`` = 1 for the rest.
    """

    FIXED = "fixed"
    RUNTIME = "runtime"


class Platform(Enum):
    """What the file is for. AMD64 lays weights out for this machine's processor: measured to run there, no promise
    elsewhere.
    """

    ARM = "arm"
    AMD64 = "amd64"


@dataclass(frozen=True, slots=True)
class Usability:
    """What onnxruntime's check says of one accelerator: ``nodes`` of ``all_nodes`` run on it, in ``partitions`` pieces.

    ``suits`` is its verdict, "no", "maybe" or "yes", ``fixed_shapes`` whether that is for a file with a fixed batch
    (``python -m onnxruntime.tools.make_dynamic_shape_fixed``). ``unsupported`` names the operators that do not run.
    """

    accelerator: str
    nodes: int
    all_nodes: int
    partitions: int
    unsupported: tuple[str, ...]
    fixed_shapes: bool
    suits: str

    def __str__(self) -> str:
        lacking = f", without {', '.join(self.unsupported)}" if self.unsupported else ""
        fixed = " with a fixed batch" if self.fixed_shapes else ""
        return (
            f"{self.accelerator}{fixed}: {self.suits} ({self.nodes} of {self.all_nodes} nodes in "
            f"{self.partitions} piece{'s' if self.partitions != 1 else ''}{lacking})"
        )


@dataclass(frozen=True, slots=True)
class MobileReport:
    """What was written: the file, its operators' file, sizes in bytes, and how far its answers are from each reference.

    ``usability`` is onnxruntime's own check of the ONNX file. The CPU runs every file whole.
    """

    path: Path
    operators: Path
    style: Style
    platform: Platform
    file_size: int
    parity: dict[str, FileParity]
    usability: tuple[Usability, ...]


def export_mobile(
    source: FBNet | str | Path, path: str | Path, *, style: Style = Style.FIXED, platform: Platform = Platform.ARM,
    type_reduction: bool = False, batch: int | None = None, images: Sequence[Image.Image] | None = None,
) -> MobileReport:  # fmt: skip
    """Write ``source`` in ONNX Runtime's mobile format, and beside it ``NAME.required_operators.config``.

    That file lists the operators used: ``--include_ops_by_config`` builds an ONNX Runtime with these alone. The
    description travels in the file. It is compared, on ONNX Runtime, with what it was made of; where a logit differs by
    more than 1e-4 of the largest one, :class:`ZooError` is raised and nothing is left.

    Args:
        source: a network, or an ``.onnx`` file of this project.
        path: file to write, ending in ``.ort``.
        style: when the graph is optimised.
        platform: what it is for.
        type_reduction: list the types of the operators, too, so that the build is smaller still.
        batch: how many images the file takes at a time (default: any number); accelerators need a fixed one.
        images: images to compare on (default: photographs).
    """
    path = Path(path)
    if path.suffix != ".ort":
        raise ZooError(f"{path}: ONNX Runtime's mobile files end in .ort; change the extension")
    style, platform = parse_enum("style", style, Style), parse_enum("platform", platform, Platform)
    check_flag("type_reduction", type_reduction)
    if batch is not None:
        check_whole("batch", batch, at_most=1024)
    operators = path.with_suffix(".required_operators.config")
    with scratch() as folder:
        made = source_graph(source, folder, align=BLOCK if platform is Platform.AMD64 else 1)
        given = _copied(made.graph, folder / "given", batch, platform)
        usability = check_usability(given, made.name)
        draft, config = _converted(given, folder / "made", style, platform, type_reduction, made.name)
        trial.remember(".ort", (draft.read_bytes(),))
        parities = compared(made, draft, path, images=images)
        lines = [line for line in config.read_text().splitlines() if not line.startswith("#")]
        with replacing_together(path, operators) as (file, listed):
            shutil.copyfile(draft, file)
            listed.write_text("\n".join([f"# Generated from {path.name}", *lines, ""]))
    return MobileReport(path, operators, style, platform, path.stat().st_size, parities, usability)


def check_usability(graph: Path, name: str | None = None) -> tuple[Usability, ...]:
    """What onnxruntime's check for mobile use finds in an ONNX file: for each accelerator, in the better form.

    Errors call the file ``name``.
    """
    told = _tool("check_onnx_model_mobile_usability", graph.resolve(), name=name or str(graph))
    found: dict[str, Usability] = {}
    counts = (0, 0, 0)
    lacking: tuple[str, ...] = ()
    for match in _FOUND.finditer(told):
        if match["partitions"]:
            counts, lacking = (int(match["nodes"]), int(match["all"]), int(match["partitions"])), ()
        elif match["operators"]:
            lacking = tuple(name.removeprefix("ai.onnx:") for name in match["operators"].split(","))
        else:
            nodes, every, pieces = counts
            accelerator, fixed = match["name"], match["form"] != "as is"
            better = Usability(accelerator, nodes, every, pieces, lacking, fixed, match["verdict"].lower())
            if accelerator not in found or nodes > found[accelerator].nodes:
                found[accelerator] = better
    return tuple(found.values())


def _copied(graph: Path, folder: Path, batch: int | None, platform: Platform) -> Path:
    """A copy of ``graph`` in a ``folder`` of its own, as the tools put files beside what they read.

    It says what processors it will be laid out for.
    """
    import onnx

    folder.mkdir()
    copy = folder / "network.onnx"
    proto = onnx.load(graph)
    proto.metadata_props.add(key=LAID_OUT_FOR, value=platform.value)
    if batch is not None:
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save_model(proto, copy)
    return copy


def _converted(
    graph: Path, made: Path, style: Style, platform: Platform, type_reduction: bool, name: str
) -> tuple[Path, Path]:
    """The converted file and its operators' file, in the folder ``made``."""
    options = ["--optimization_style", style.name.title(), "--target_platform", platform.value]
    options += ["--enable_type_reduction"] if type_reduction else []
    _tool("convert_onnx_models_to_ort", *options, "--output_dir", made, graph, name=name)
    (converted,), (config,) = made.glob("*.ort"), made.glob("*.config")
    return converted, config


def _tool(tool: str, *arguments: str | Path, name: str) -> str:
    """What ``python -m onnxruntime.tools.TOOL`` says, which would set up logging if it were run in this process."""
    command = [sys.executable, "-m", f"onnxruntime.tools.{tool}", *map(str, arguments)]
    with scratch() as folder:
        ended = subprocess.run(
            command, cwd=folder, env={**os.environ, "TMPDIR": str(folder)}, check=False, capture_output=True, text=True,
            errors="replace",
        )  # fmt: skip
        if ended.returncode != 0:
            last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ZooError(f"{name}: onnxruntime.tools.{tool} failed ({in_short(last)})")
    return ended.stdout + ended.stderr
