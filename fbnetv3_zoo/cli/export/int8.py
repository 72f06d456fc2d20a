"""``fbnetv3 export int8``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..common import Json, Seed, output_file, print_json, target_of
from ..output import in_shell, say

if TYPE_CHECKING:
    from PIL import Image

    from fbnetv3_zoo.export.quantization.quantize import QuantizationReport

    from ...training import Dataset


def int8(
    model: Annotated[Path, typer.Argument(help="A float .onnx file written by `fbnetv3 export onnx`.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder with at least 8 images like those the model will be used on.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Instead of --images: 'digits' or a folder as for `fbnetv3 train`; its training split is for "
            "calibration, its test split for accuracies."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        output_file("File to write: .onnx for ONNX Runtime, .xml for OpenVINO (default: MODEL-int8.onnx)."),
    ] = None,
    target: Annotated[
        Literal["avx2", "vnni", "arm64"] | None, typer.Option(help="Processors to write for (default: this machine's).")
    ] = None,
    clip: Annotated[bool, typer.Option(help="Clip rare large values of maps.")] = True,
    agreement: Annotated[
        float, typer.Option(help="Leave layers in float until this fraction of images has the same class as in float.")
    ] = 0.99,
    most_float: Annotated[int, typer.Option(help="Maximum number of layers to leave in float for that.")] = 16,
    keep: Annotated[list[str] | None, typer.Option(help="Layer to leave in float; may be repeated.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Quantise an ONNX file to int8, and compare accuracy and time with float.

    Calibration images come from a folder (--images) or from the training split of a dataset (--data), whose test split
    then gives the accuracies.

    Example: fbnetv3 export int8 model.onnx --images PHOTOS --output model-int8.onnx
    """
    from fbnetv3_zoo.export.quantization.quantize import Target, quantize

    from ...errors import ZooError

    if model.suffix == ".safetensors":
        remedy = f"fbnetv3 export onnx {in_shell(model)}"
        raise ZooError(f"{model}: is not an ONNX file; export it by `{remedy}` first")
    if (images is None) == (data is None):
        raise ZooError("give calibration images, either --images FOLDER or --data SOURCE")
    place = target_of(output, model.with_name(f"{model.stem}-int8.onnx"))
    shown: Path | list[Image.Image] | None = images
    test, labels = None, None
    if shown is None:
        from ...training import find_dataset

        shown, test, labels = images_of(find_dataset(str(data), seed=seed))
    report = quantize(
        model, place, shown, target=Target(target) if target else None,
        clip=clip, agreement=agreement, most_float=most_float, keep=keep or (), test=test, labels=labels,
    )  # fmt: skip
    if as_json:
        print_json(plain(report))
        return
    print_report(report)


CALIBRATION = 256
"""Number of training images for calibration; up to twice as many are used."""


def images_of(data: Dataset) -> tuple[list[Image.Image], list[Image.Image], list[int]]:
    """Calibration images spread over the training split, all test images, and their labels."""
    training, test = data["train"], data["test"]
    shown = [example.read() for example in training[:: max(1, len(training) // CALIBRATION)]]
    return shown, [example.read() for example in test], [example.label for example in test]


def plain(report: QuantizationReport) -> dict[str, Any]:
    """``report`` as JSON values."""
    return {**asdict(report), "target": report.target.value}


def print_report(report: QuantizationReport) -> None:
    """Print size, agreement, accuracy and time of an int8 file."""
    say(
        f"{report.path}: int8 for {report.route} ({report.target.value}), {report.file_size / 1e6:.2f} MB, "
        f"{report.size_ratio:.2f} of float's size"
    )
    if report.float_layers:
        shown = ", ".join(report.float_layers[:3])
        say(f"left in float: {len(report.float_layers)} layers ({shown}{', ...' if report.float_layers[3:] else ''})")
    say(f"same class as float: {report.agreement:.2%} of {report.images} images")
    if report.accuracy_float is not None and report.accuracy_int8 is not None:
        say(f"accuracy: {report.accuracy_int8:.2%}, float {report.accuracy_float:.2%}")
    low, high = report.time_quartiles
    say(f"time here, one image, one thread: {report.time_ratio:.2f} of float's ({low:.2f} to {high:.2f})")
