"""``fbnetv3 export mobile``, ``openvino``, ``executorch``, ``litert``, ``coreml`` and ``ncnn``: for other runtimes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...errors import ZooError
from ..common import (
    Json,
    NetworkSource,
    Pretrained,
    beside,
    open_network,
    output_file,
    output_folder,
    place_beside,
    print_json,
    print_shapes,
    warn_of_random_weights,
    written,
)
from ..output import say

if TYPE_CHECKING:
    from fbnetv3_zoo.export.backends.coreml import CoreMLReport
    from fbnetv3_zoo.export.backends.executorch_pte import ExecuTorchReport
    from fbnetv3_zoo.export.backends.litert_tflite import LiteRTReport
    from fbnetv3_zoo.export.backends.ncnn_param import NcnnReport
    from fbnetv3_zoo.export.backends.openvino_ir import OpenVINOReport
    from fbnetv3_zoo.export.backends.ort_mobile import MobileReport
    from fbnetv3_zoo.export.parity import FileParity

    from ...models.network import Network

AnyModel = Annotated[
    str,
    typer.Argument(
        help="A .safetensors file, an .onnx file of `fbnetv3 export onnx`, or a name, with random or published weights."
    ),
]


def mobile(
    model: AnyModel,
    pretrained: Pretrained = False,
    output: Annotated[Path | None, output_file("The .ort file to write (default: beside the model).")] = None,
    style: Annotated[
        Literal["fixed", "runtime"],
        typer.Option(help="Optimize now, for the CPU, or partly at load time, which suits NNAPI and Core ML."),
    ] = "fixed",
    platform: Annotated[
        Literal["arm", "amd64"], typer.Option(help="Target: phones and other ARM devices, or x86 like this machine.")
    ] = "arm",
    type_reduction: Annotated[
        bool, typer.Option("--type-reduction", help="Also list the operators' types, for an even smaller build.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option(help="Fixed batch size (default: dynamic), which accelerators need.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a model to ONNX Runtime's mobile format, with a list of operators for a minimal build.

    Example: fbnetv3 export mobile demo/model.safetensors --batch 1
    """
    from fbnetv3_zoo.export.backends.ort_mobile import Platform, Style, export_mobile

    source = _source(model, pretrained=pretrained)
    report = export_mobile(
        source, beside(model, output, source, ".ort"), style=Style(style), platform=Platform(platform),
        type_reduction=type_reduction, batch=batch,
    )  # fmt: skip
    if as_json:
        print_json(_plain(report))
        return
    warn_of_random_weights(model, source, pretrained=pretrained)
    say(f"{written(report.path)}: for {platform}, optimized {'when opened' if style == 'runtime' else 'now'}")
    say(f"operators for a minimal build: {report.operators}")
    _print_parity(report.parity)
    for accelerator in report.usability:
        say(f"suits {accelerator}")


def openvino(
    model: AnyModel,
    pretrained: Pretrained = False,
    output: Annotated[
        Path | None, output_file("The .xml file to write, with a .bin beside it (default: beside the model).")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store the weights as float16: half the size.")] = False,
    as_json: Json = False,
) -> None:
    """Export a model to OpenVINO: an .xml file with the weights in a .bin file beside it.

    Example: fbnetv3 export openvino demo/model.safetensors
    """
    from fbnetv3_zoo.export.backends.openvino_ir import export_openvino

    source = _source(model, pretrained=pretrained)
    report = export_openvino(source, beside(model, output, source, ".xml"), half=half)
    if as_json:
        print_json(_plain(report))
        return
    warn_of_random_weights(model, source, pretrained=pretrained)
    say(f"{written(report.path)}, weights in {written(report.weights)}, {'float16' if half else 'float32'}")
    print_shapes(report.inputs, report.outputs)
    _print_parity(report.parity)


def executorch(
    model: NetworkSource,
    pretrained: Pretrained = False,
    output: Annotated[Path | None, output_file("The .pte file to write (default: beside the model).")] = None,
    max_batch: Annotated[int, typer.Option(help="Maximum batch size; 1: fixed.")] = 8,
    as_json: Json = False,
) -> None:
    """Export a model to an ExecuTorch program that runs on XNNPACK.

    Example: fbnetv3 export executorch demo/model.safetensors --max-batch 1
    """
    from fbnetv3_zoo.export.backends.executorch_pte import export_executorch

    if Path(model).suffix == ".onnx":
        raise ZooError(f"{model}: ExecuTorch takes networks, not graphs; give the .safetensors file or a name")
    network = open_network(model, pretrained=pretrained)
    report = export_executorch(network, beside(model, output, network, ".pte"), max_batch=max_batch)
    portable = ", ".join(f"{count} {name}" for name, count in report.portable.items()) or "none"
    pieces = f"{report.parts} piece{'s' if report.parts != 1 else ''}"
    lines = (
        f"{written(report.path)}: {'one image' if max_batch == 1 else f'up to {max_batch} images'} at a time",
        f"operators on XNNPACK: {report.delegated} in {pieces}; on ExecuTorch's own: {portable}",
    )
    _print(report, model, network, lines, pretrained=pretrained, as_json=as_json)


def litert(
    model: AnyModel,
    pretrained: Pretrained = False,
    output: Annotated[Path | None, output_file("The .tflite file to write (default: beside the model).")] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Store weights as int8, to make the file small. For int8 throughout, which is faster: "
            "`fbnetv3 export int8` with --output NAME.tflite."
        ),
    ] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Export a model to LiteRT (TensorFlow Lite).

    Example: fbnetv3 export litert demo/model.safetensors
    """
    from fbnetv3_zoo.export.backends.litert_tflite import export_litert

    source = _source(model, pretrained=pretrained)
    report = export_litert(source, beside(model, output, source, ".tflite"), int8=int8)
    operators, numbers = sum(report.operators.values()), "int8 weights" if int8 else "float32"
    lines = [f"{written(report.path)}: {operators} operators, {numbers}"]
    _print(report, model, source, lines, pretrained=pretrained, as_json=as_json)


def coreml(
    model: AnyModel,
    pretrained: Pretrained = False,
    output: Annotated[
        Path | None,
        output_folder(
            "The .mlpackage folder to write; an older package is replaced (default: beside the model).", replaced=True
        ),
    ] = None,
    weights: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(help="How weights are stored; with float32 it also computes so, not on the Neural Engine."),
    ] = "float16",
    as_json: Json = False,
) -> None:
    """Export a model to a Core ML package, which takes an image and names its class.

    Example: fbnetv3 export coreml demo/model.safetensors --weights int8
    """
    from fbnetv3_zoo.export.backends.coreml import WeightsType, export_coreml

    source = _source(model, pretrained=pretrained)
    path = place_beside(model, source, ".mlpackage") if output is None else output
    report = export_coreml(source, path, weights=WeightsType(weights))
    by = report.computed_by
    lines = (
        f"{written(report.path, report.file_size)}, weights in {weights}",
        f"operators: {', '.join(f'{count} {name}' for name, count in report.operators.items())}",
        f"computed by {by}" if by == "Core ML" else f"computed by {by}: Core ML needs macOS",
    )
    _print(report, model, source, lines, pretrained=pretrained, as_json=as_json)


def ncnn(
    model: AnyModel,
    pretrained: Pretrained = False,
    output: Annotated[
        Path | None,
        output_file("The .ncnn.param file to write, with a .ncnn.bin beside it (default: beside the model)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a model to ncnn: a .ncnn.param file with the weights in a .ncnn.bin file beside it, in float32.

    Example: fbnetv3 export ncnn demo/model.safetensors
    """
    from fbnetv3_zoo.export.backends.ncnn_param import ENDING, export_ncnn

    source = _source(model, pretrained=pretrained)
    report = export_ncnn(source, beside(model, output, source, ENDING))
    lines = [f"{written(report.path)}: {report.layers} layers, weights in {written(report.weights)}, float32"]
    _print(report, model, source, lines, pretrained=pretrained, as_json=as_json)


def _source(model: str, *, pretrained: bool) -> Network | Path:
    """The path of an ONNX file, or the network of any other model."""
    return Path(model) if Path(model).suffix == ".onnx" else open_network(model, pretrained=pretrained)


def _print(
    report: ExecuTorchReport | LiteRTReport | CoreMLReport | NcnnReport, model: str, source: Network | Path,
    lines: Sequence[str], *, pretrained: bool, as_json: bool,
) -> None:  # fmt: skip
    """Print ``report`` as JSON, or as ``lines`` and its comparisons; ``model``, opened, is ``source``."""
    if as_json:
        print_json(_plain(report))
        return
    warn_of_random_weights(model, source, pretrained=pretrained)
    for line in lines:
        say(line)
    _print_parity(report.parity)


def _print_parity(parity: Mapping[str, FileParity]) -> None:
    for reference, comparison in parity.items():
        same = "all" if not comparison.disagree else str(comparison.images - len(comparison.disagree))
        say(
            f"largest difference to {reference}: {comparison.difference:.2g} at logits up to {comparison.scale:.2g} "
            f"({comparison.images} images, same top class for {same})"
        )


def _plain(
    report: MobileReport | OpenVINOReport | ExecuTorchReport | LiteRTReport | CoreMLReport | NcnnReport,
) -> dict[str, Any]:
    """A report as JSON values, with the relative difference and agreement of each comparison."""
    data = {key: value.value if isinstance(value, Enum) else value for key, value in asdict(report).items()}
    data["parity"] = {
        name: {**asdict(comparison), "relative": comparison.relative, "agreement": comparison.agreement}
        for name, comparison in report.parity.items()
    }
    return data
