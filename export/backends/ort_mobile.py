"""Exports ONNX Runtime's mobile format: ``.ort`` files for its minimal builds, with a list of required operators."""

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

from fbnetv3_zoo.errors import ZooError, check_flag, check_whole, parse_enum
from fbnetv3_zoo.models.network import Network
from fbnetv3_zoo.runtimes import sandbox
from fbnetv3_zoo.runtimes.ort import LAID_OUT_FOR
from fbnetv3_zoo.utils.atomic_write import replacing_together, scratch
from fbnetv3_zoo.utils.paths import to_path
from fbnetv3_zoo.utils.processes import last_line

from ..onnx.passes import BLOCK
from ..parity import FileParity
from .common import compared, source_graph

if TYPE_CHECKING:
    from PIL import Image

_RESULT = re.compile(
    r"(?P<partitions>\d+) partitions with a total of (?P<nodes>\d+)/(?P<all>\d+) nodes can be handled by the"
    r"|Unsupported ops: (?P<operators>\S+)"
    r"|Model should perform well with (?P<name>.+) (?P<form>as is|if modified to have fixed input shapes): "
    r"(?P<verdict>NO|MAYBE|YES)"
)


class Style(Enum):
    """When the graph is optimized.

    FIXED: now, for the CPU. RUNTIME: partly when the file is loaded, which leaves more nodes to NNAPI and Core ML; this
    needs the session option ``session.enable_saved_runtime_optimizations`` = 1.
    """

    FIXED = "fixed"
    RUNTIME = "runtime"


class Platform(Enum):
    """Target platform. AMD64 stores weights in the layout of this machine's processor; other ones may not run it."""

    ARM = "arm"
    AMD64 = "amd64"


@dataclass(frozen=True, slots=True)
class Usability:
    """Result of onnxruntime's check for one accelerator: ``nodes`` of ``all_nodes`` run on it, in ``partitions``.

    ``suits`` is the verdict, "no", "maybe" or "yes"; ``fixed_shapes`` says whether it is for a file with a fixed batch
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
            f"{self.partitions} partition{'s' if self.partitions != 1 else ''}{lacking})"
        )


@dataclass(frozen=True, slots=True)
class MobileReport:
    """The exported file, the list of its operators, its size in bytes, and its difference from each reference.

    ``usability`` is the result of onnxruntime's own check for accelerators. The CPU runs every file completely.
    """

    path: Path
    operators: Path
    style: Style
    platform: Platform
    file_size: int
    parity: dict[str, FileParity]
    usability: tuple[Usability, ...]


def export_mobile(
    source: Network | str | Path, path: str | Path, *, style: Style = Style.FIXED, platform: Platform = Platform.ARM,
    type_reduction: bool = False, batch: int | None = None, images: Sequence[Image.Image] | None = None,
) -> MobileReport:  # fmt: skip
    """Write ``source`` in ONNX Runtime's mobile format, and ``NAME.required_operators.config`` beside it.

    That file lists the operators used, for building ONNX Runtime with these alone (``--include_ops_by_config``). The
    mobile file includes the description. It is run on ONNX Runtime and compared with its source. If a logit differs by
    more than 1e-4 of the largest one, raises :class:`ZooError` and leaves no file.

    Args:
        source: a network, or an ``.onnx`` file written by this project.
        path: file to write, ending in ``.ort``.
        style: when the graph is optimized.
        platform: target platform.
        type_reduction: also list the types of the operators, for an even smaller build.
        batch: fixed batch size (default: dynamic); accelerators need a fixed one.
        images: images to compare on (default: photographs).
    """
    path = to_path("path", path)
    if path.suffix != ".ort":
        raise ZooError(f"{path}: ONNX Runtime's mobile files end in .ort; change the extension")
    style, platform = parse_enum("style", style, Style), parse_enum("platform", platform, Platform)
    check_flag("type_reduction", type_reduction)
    if batch is not None:
        check_whole("batch", batch, at_most=1024)
    operators = path.with_suffix(".required_operators.config")
    with scratch() as folder:
        onnx_source = source_graph(source, folder, align=BLOCK if platform is Platform.AMD64 else 1)
        graph = _copied(onnx_source.graph, folder / "graph", batch, platform)
        usability = check_usability(graph, onnx_source.name)
        draft, config = _converted(graph, folder / "mobile", style, platform, type_reduction, onnx_source.name)
        sandbox.remember(".ort", (draft.read_bytes(),))
        parities = compared(onnx_source, draft, path, images=images)
        lines = [line for line in config.read_text().splitlines() if not line.startswith("#")]
        with replacing_together(path, operators) as (file, listed):
            shutil.copyfile(draft, file)
            listed.write_text("\n".join([f"# Generated from {path.name}", *lines, ""]))
    return MobileReport(path, operators, style, platform, path.stat().st_size, parities, usability)


def check_usability(graph: Path, name: str | None = None) -> tuple[Usability, ...]:
    """Result of onnxruntime's mobile usability check of an ONNX file, for each accelerator with the better shapes.

    Errors call the file ``name``.
    """
    output = _tool("check_onnx_model_mobile_usability", graph.resolve(), name=name or str(graph))
    usability: dict[str, Usability] = {}
    counts = (0, 0, 0)
    lacking: tuple[str, ...] = ()
    for match in _RESULT.finditer(output):
        if match["partitions"]:
            counts, lacking = (int(match["nodes"]), int(match["all"]), int(match["partitions"])), ()
        elif match["operators"]:
            lacking = tuple(name.removeprefix("ai.onnx:") for name in match["operators"].split(","))
        else:
            nodes, all_nodes, partitions = counts
            accelerator, fixed = match["name"], match["form"] != "as is"
            result = Usability(accelerator, nodes, all_nodes, partitions, lacking, fixed, match["verdict"].lower())
            if accelerator not in usability or nodes > usability[accelerator].nodes:
                usability[accelerator] = result
    return tuple(usability.values())


def _copied(graph: Path, folder: Path, batch: int | None, platform: Platform) -> Path:
    """A copy of ``graph`` in a ``folder`` of its own, since the tools write beside what they read.

    Its metadata names the platform whose layout it will have.
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
    graph: Path, folder: Path, style: Style, platform: Platform, type_reduction: bool, name: str
) -> tuple[Path, Path]:
    """The converted file and the list of its operators, in ``folder``."""
    options = ["--optimization_style", style.name.title(), "--target_platform", platform.value]
    options += ["--enable_type_reduction"] if type_reduction else []
    _tool("convert_onnx_models_to_ort", *options, "--output_dir", folder, graph, name=name)
    (converted,), (config,) = folder.glob("*.ort"), folder.glob("*.config")
    return converted, config


_WITHOUT_TORCH = (
    "import runpy, sys; sys.modules['torch'] = None; runpy.run_module(sys.argv.pop(1), run_name='__main__')"
)


def _tool(tool: str, *arguments: str | Path, name: str) -> str:
    """Output of ``python -m onnxruntime.tools.TOOL``, which would configure logging if run in this process.

    These tools do not use torch, but would import it where it is installed, which takes longer than their work.
    """
    command = [sys.executable, "-c", _WITHOUT_TORCH, f"onnxruntime.tools.{tool}", *map(str, arguments)]
    with scratch() as folder:
        ended = subprocess.run(
            command, cwd=folder, env={**os.environ, "TMPDIR": str(folder)}, check=False, capture_output=True, text=True,
            errors="replace",
        )  # fmt: skip
        if ended.returncode != 0:
            raise ZooError(f"{name}: onnxruntime.tools.{tool} failed ({last_line(ended.stderr) or 'no message'})")
    return ended.stdout + ended.stderr
