"""``fbnetv3 export web``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..common import (
    Json,
    Pretrained,
    brings_weights,
    holds_weights,
    open_network,
    output_folder,
    print_json,
    program,
)
from ..output import in_shell, say

RANDOM = "random, its answers mean nothing"


def web(
    model: Annotated[
        str, typer.Argument(help="A .safetensors or .onnx file, or a name, with random or published weights.")
    ],
    output: Annotated[
        Path, output_folder("Folder to write; an older page is replaced.", "--out", "--output", replaced=True)
    ],
    pretrained: Pretrained = False,
    sample: Annotated[list[Path] | None, typer.Option(help="An image to copy as a sample; may be repeated.")] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(help="An unpacked onnxruntime-web package, or its .tgz (default: the cache, else npm)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a web page that classifies images in the browser, without a server's help.

    ONNX Runtime Web is downloaded once by npm, checked and cached.

    Example: fbnetv3 export web demo/model.onnx --out page
    """
    from fbnetv3_zoo.export.web import write_web
    from fbnetv3_zoo.export.web.folder import PAGE

    PAGE.check_free(output)
    is_file = Path(model).suffix in (".safetensors", ".onnx")
    if is_file and pretrained:
        raise brings_weights(model)
    given = model if is_file else open_network(model, pretrained=pretrained)
    source = None if is_file or pretrained or holds_weights(model) else RANDOM
    report = write_web(given, output, samples=sample or [], runtime=runtime, source=source)
    if as_json:
        print_json({"licence" if name == "license" else name: value for name, value in asdict(report).items()})
        return
    if source is not None:
        say("weights are random: good for timing, not for classifying")
    say(
        f"{report.folder}: {report.network}, {report.classes} classes, {report.precision}; {report.size / 1e6:.1f} MB "
        f"(model {report.model_size / 1e6:.1f}, ONNX Runtime Web {report.runtime_version} "
        f"{report.runtime_size / 1e6:.1f})"
    )
    if report.license is not None:
        say(f"license of the weights: {report.license}")
    say(f"look at it: {program()} serve-demo {in_shell(report.folder)}")
