"""``fbnetv3 export``: one command per format."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..common import (
    Json,
    NetworkSource,
    Pretrained,
    Resolution,
    beside,
    command_group,
    open_network,
    output_file,
    print_json,
    print_shapes,
    warn_of_random_weights,
)
from ..output import say
from . import backends as export_others
from . import formats as export_formats
from . import int8 as export_int8
from . import web as export_web

app = command_group(
    """Export a model to another runtime, after a comparison with PyTorch.

    Example: fbnetv3 export onnx demo/model.safetensors --output model.onnx
    """
)


@app.command()
def onnx(
    model: NetworkSource,
    pretrained: Pretrained = False,
    output: Annotated[Path | None, output_file("The .onnx file to write (default: beside the model).")] = None,
    opset: Annotated[int, typer.Option(help="ONNX operator set, 18 to 23.")] = 18,
    resolution: Resolution = None,
    any_size: Annotated[bool, typer.Option("--any-size", help="Allow images of any height and width.")] = False,
    preprocessing: Annotated[
        bool, typer.Option("--preprocessing", help="From an 8-bit image of any size to probabilities.")
    ] = False,
    align: Annotated[int, typer.Option(help="Pad channels to a multiple of this; 1: do not (docs/export.md).")] = 16,
    as_json: Json = False,
) -> None:
    """Export a model to ONNX, after a comparison of ONNX Runtime with PyTorch.

    Example: fbnetv3 export onnx demo/model.safetensors --output model.onnx
    """
    from fbnetv3_zoo.export import export_onnx

    network = open_network(model, pretrained=pretrained)
    report = export_onnx(
        network, beside(model, output, network, ".onnx"), opset=opset, resolution=resolution, any_size=any_size,
        preprocessing=preprocessing, align=align,
    )  # fmt: skip
    if as_json:
        print_json({**asdict(report), "max_difference": report.max_difference})
        return
    warn_of_random_weights(model, network, pretrained=pretrained)
    say(f"{report.path}: opset {report.opset}, {report.file_size / 1e6:.1f} MB")
    print_shapes(report.inputs, report.outputs)
    batches = ", ".join(map(str, report.differences))
    (answers,) = report.outputs
    say(
        f"largest difference to PyTorch: {report.max_difference:.2g} at {answers} up to {report.scale:.2g} "
        f"(batches of {batches} photographs)"
    )


app.command("int8")(export_int8.int8)
app.command("mobile")(export_others.mobile)
app.command("openvino")(export_others.openvino)
app.command("executorch")(export_others.executorch)
app.command("litert")(export_others.litert)
app.command("ncnn")(export_others.ncnn)
app.command("coreml")(export_others.coreml)
app.command("web")(export_web.web)
app.command("all")(export_formats.export_all)
