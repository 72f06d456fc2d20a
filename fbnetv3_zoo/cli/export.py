"""``fbnetv3 export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fbnetv3_zoo.cli.common import Json, Pretrained, Resolution, print_json


def export(
    model: Annotated[str, typer.Argument(help="A .safetensors file; or a name, with random or published weights.")],
    pretrained: Pretrained = False,
    output: Annotated[Path | None, typer.Option(help="The .onnx file to write (default: beside the model).")] = None,
    opset: Annotated[int, typer.Option(help="ONNX operator set, 18 to 23.")] = 18,
    resolution: Resolution = None,
    as_json: Json = False,
) -> None:
    """Write a model as an ONNX file, compared with PyTorch on ONNX Runtime.

    Example: fbnetv3 export demo/model.safetensors --output model.onnx
    """
    from fbnetv3_zoo import create, load
    from fbnetv3_zoo.export import export_onnx

    trained = Path(model).suffix == ".safetensors"
    network = load(model) if trained else create(model, pretrained=pretrained)
    target = output or (Path(model).with_suffix(".onnx") if trained else Path(f"{network.arch.name}.onnx"))
    report = export_onnx(network, target, opset=opset, resolution=resolution)
    if as_json:
        print_json({**asdict(report), "max_difference": report.max_difference})
        return
    if not trained and not pretrained:
        print("weights are random: good for timing, not for classifying")
    print(f"{report.path}: opset {report.opset}, {report.file_size / 1e6:.1f} MB")
    for label, shapes in (("input", report.inputs), ("output", report.outputs)):
        for name, shape in shapes.items():
            print(f"{label} {name}: {' x '.join(map(str, shape))}")
    batches = ", ".join(map(str, report.differences))
    print(
        f"largest difference to PyTorch: {report.max_difference:.2g} at logits up to {report.scale:.2g} "
        f"(batches of {batches})"
    )
