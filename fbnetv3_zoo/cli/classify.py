"""``fbnetv3 classify``, also called ``predict``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ZooError, printable
from .common import Json, Pretrained, image_files, open_classifier, print_json
from .output import complain, say

if TYPE_CHECKING:
    from ..classify import Classifier, Prediction


def classify(
    images: Annotated[
        list[Path], typer.Argument(help="Image files (JPEG, PNG, WebP, TIFF, BMP), or folders of images.")
    ],
    model: Annotated[
        str,
        typer.Option(
            help="A .safetensors file (PyTorch), .onnx or .ort (ONNX Runtime), .xml (OpenVINO), .pte (ExecuTorch), "
            ".param (ncnn), .tflite (LiteRT), .mlpackage (Core ML), or a name with --pretrained."
        ),
    ],
    pretrained: Pretrained = False,
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show.")] = 5,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV: image, rank, class, probability; one row for each class.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Classify images: print the most probable classes with their probabilities.

    If an image cannot be read, an error is printed, the others are classified, and the exit code is 2.

    Example: fbnetv3 classify cat.jpg dog.png --model fbnetv3_e --pretrained
    """
    if as_csv and as_json:
        raise ZooError("--csv and --json both choose a format; give only one")
    paths = [path for path, _ in image_files(images)]
    classifier = open_classifier(model, pretrained=pretrained)
    if as_csv:
        say("image,rank,class,probability")
    results, failed = [], False
    for path in paths:
        try:
            (predictions,) = _predicted(classifier, path, top)
        except ZooError as error:
            complain(f"error: {error}")
            failed = True
            continue
        results.append({"image": str(path), "predictions": [asdict(prediction) for prediction in predictions]})
        if as_csv:
            _print_rows(path, predictions)
        elif not as_json:
            say(path)
            for prediction in predictions:
                say(f"  {prediction.probability:7.2%}  {prediction.name}")
    if as_json:
        print_json(results)
    if failed:
        raise typer.Exit(2)


def _print_rows(path: Path, predictions: Sequence[Prediction]) -> None:
    for rank, prediction in enumerate(predictions, start=1):
        row = io.StringIO()
        csv.writer(row, lineterminator="").writerow(
            [printable(str(path)), rank, printable(prediction.name), f"{prediction.probability:.6f}"]
        )
        say(row.getvalue())


def _predicted(classifier: Classifier, path: Path, top: int) -> list[list[Prediction]]:
    """The predictions for the image at ``path``, whose name is in all errors."""
    from ..images import read_image

    image = read_image(path)
    try:
        return classifier([image], top=top)
    except ZooError as error:
        raise ZooError(f"{printable(str(path))}: {error}") from None
