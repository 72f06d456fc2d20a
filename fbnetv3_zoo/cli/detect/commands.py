"""``fbnetv3 detect``: train, validate, run and export detectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...errors import ZooError, first_few, printable
from ...utils.paths import check_outside, exists, make_folder
from .. import training_options as running
from ..common import Json, command_group, is_ours, network_of, output_file, output_folder, print_json, written
from ..output import complain, say

if TYPE_CHECKING:
    from PIL.Image import Image
    from torchvision.models.detection import FasterRCNN

    from fbnetv3_zoo.detection.data.coco import CocoData
    from fbnetv3_zoo.detection.models.serialization import DetectorSpec
    from fbnetv3_zoo.detection.training.evaluate import AveragePrecision, Detections
    from fbnetv3_zoo.detection.training.train import DetectionRun

    from ...recipes import Recipe

app = command_group(
    """Detectors on torchvision: train on boxes in COCO format, validate, predict, export.

    Example: fbnetv3 detect train --annotations train.json --images train --validation val.json --output runs/boxes
    """
)

Annotations = Annotated[Path, typer.Option(help="Box annotations, a JSON file in COCO format.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the images (default: that of the annotations).")]
FollowLinks = Annotated[bool, typer.Option("--follow-links", help="Allow links to images outside their folder.")]
Model = Annotated[Path, typer.Option(help="A detector written by `fbnetv3 detect train`.")]


@app.command()
def train(
    annotations: Annotations,
    validation: Annotated[Path, typer.Option(help="Validation annotations, a JSON file in COCO format.")],
    output: Annotated[Path, output_folder("Folder for detector, report, metrics and checkpoints.")],
    images: Images = None,
    validation_images: Annotated[Path | None, typer.Option(help="Folder of the validation images.")] = None,
    follow_links: FollowLinks = False,
    model: Annotated[str, typer.Option(help="A published name or an arch JSON file.")] = "fbnetv3_a",
    kind: Annotated[Literal["c4", "fpn"], typer.Option(help="Conv4 backbone (C4) or feature pyramid (FPN).")] = "c4",
    settings: Annotated[
        Path | None, typer.Option(help="JSON file of RCNNSettings: image size, anchors, proposals (docs/detection.md).")
    ] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Start from the model's published weights.")] = False,
    weights: Annotated[str | None, typer.Option(help="Weights to start from: a file, a tag, a URL.")] = None,
    freeze_at: Annotated[int, typer.Option(min=0, help="Number of first stages to freeze.")] = 0,
    fixed_norms: Annotated[bool, typer.Option("--fixed-norms", help="Freeze batch norms.")] = False,
    recipe: running.RecipeSource = "boxes",
    epochs: running.Epochs = None,
    batch_size: running.BatchSize = None,
    learning_rate: running.LearningRate = None,
    seed: running.RunSeed = None,
    resume: running.Resume = False,
    device: running.Device = "cpu",
    checkpoint_steps: running.CheckpointSteps = 0,
    checkpoint_minutes: running.CheckpointMinutes = 0.0,
    keep_checkpoints: running.Keep = 2,
    as_json: Json = False,
) -> None:
    """Train Faster R-CNN on boxes. Interrupted runs continue with --resume.

    Example: fbnetv3 detect train --annotations train.json --images train --validation val.json --output runs/boxes
    """
    options = dict(locals())
    from fbnetv3_zoo.detection.data.coco import read_coco
    from fbnetv3_zoo.detection.data.fitting import evaluation_data, training_data
    from fbnetv3_zoo.detection.training.train import train_detector

    from ...factory import create
    from ...recipes import find_recipe
    from ...training import Execution
    from .progress import DetectionProgress

    chosen = running.changed(find_recipe(recipe or "boxes"), options)
    for folder in (images, validation_images):
        check_outside(output, folder)
    data = read_coco(annotations, images or annotations.parent, follow_links=follow_links)
    judged = read_coco(validation, validation_images or validation.parent, follow_links=follow_links)
    spec = _spec(model, kind, settings, data)
    data = training_data(data, spec.settings, mirror=chosen.augmentation.flip > 0)
    judged = evaluation_data(judged, spec.settings)
    for file, one in ((annotations, data), (validation, judged)):
        _tell_faults(file, one)
    if pretrained and weights is not None:
        raise ZooError("--pretrained and --weights both give weights to start from; give only one")
    start = create(model, pretrained=weights or True) if pretrained or weights else None
    where = Execution(
        device=device, checkpoint_steps=checkpoint_steps, checkpoint_minutes=checkpoint_minutes,
        keep_checkpoints=keep_checkpoints,
    )  # fmt: skip
    with DetectionProgress(chosen.epochs) as progress:
        run = train_detector(
            spec, data, judged, chosen, output, source=start, freeze_at=freeze_at, fixed_norms=fixed_norms,
            resume=resume, execution=where, observers=[progress],
        )  # fmt: skip
    _write_report(run, data, judged, chosen)
    if as_json:
        print_json({"folder": run.folder, "precision": asdict(run.precision), "faults": run.faults})
        return
    _print_precision(run.precision)
    for name in ("model.safetensors", "report.html", "predictions.png", "metrics.jsonl"):
        say(written(run.folder / name))


@app.command()
def validate(
    model: Annotated[Path, typer.Argument(help="A detector's file, of `fbnetv3 detect train`.")],
    annotations: Annotations,
    images: Images = None,
    follow_links: FollowLinks = False,
    device: running.Device = "cpu",
    as_json: Json = False,
) -> None:
    """Evaluate a detector: COCO's average precision, by size and by class.

    Example: fbnetv3 detect validate runs/boxes/model.safetensors --annotations test.json --images test
    """
    from fbnetv3_zoo.detection.data.coco import read_coco
    from fbnetv3_zoo.detection.data.faults import Unreadable
    from fbnetv3_zoo.detection.data.fitting import evaluation_data
    from fbnetv3_zoo.detection.models.serialization import load_detector
    from fbnetv3_zoo.detection.training.evaluate import average_precision, check_objects
    from fbnetv3_zoo.detection.training.train import find_objects

    from ...training.distributed import usable

    detector, spec = load_detector(model)
    data, place = read_coco(annotations, images or annotations.parent, follow_links=follow_links), usable(device)
    if data.class_names != spec.class_names:
        raise ZooError(f"{annotations}: {_differing(data.class_names, spec.class_names, str(model))}")
    data = evaluation_data(data, spec.settings)
    _tell_faults(annotations, data)
    check_objects(data)
    unreadable = Unreadable()
    found = average_precision(data, find_objects(detector.to(place), data.samples, unreadable, device=place))
    if as_json:
        print_json({"images": len(data), **asdict(found), "faults": [*data.faults, *unreadable.lines]})
        return
    say(f"{len(data)} images")
    _print_precision(found)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files: JPEG, PNG, WebP, TIFF, BMP.")],
    model: Model,
    output: Annotated[Path | None, output_folder("Folder for PNG images with boxes drawn on them.")] = None,
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="Minimum score of a detection.")] = 0.5,
    as_json: Json = False,
) -> None:
    """Detect objects in images, and draw them.

    If an image cannot be read, an error is printed, the others are processed, and the exit code is 2.

    Example: fbnetv3 detect predict street.jpg --model runs/boxes/model.safetensors --output found
    """
    from fbnetv3_zoo.detection.models.serialization import load_detector
    from fbnetv3_zoo.detection.training.visualize import draw_boxes

    from ...preprocess import read_image

    detector, spec = load_detector(model)
    results, failed = [], False
    for path, target in zip(images, _targets(images, output), strict=True):
        try:
            image = read_image(path)
            found = _detected(detector, image, path)
        except ZooError as error:
            complain(f"error: {error}")
            failed = True
            continue
        if target is not None:
            _save(draw_boxes(image, found, spec.class_names, threshold=threshold), target)
        rows = [
            {"label": spec.class_names[label - 1], "score": float(score), "box": [round(float(x), 2) for x in box]}
            for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
            if score >= threshold
        ]
        results.append({"image": str(path), "detections": rows, "picture": target and str(target)})
        if not as_json:
            _print_found(path, rows, target)
    if as_json:
        print_json(results)
    if failed:
        raise typer.Exit(2)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A detector's file, of `fbnetv3 detect train`.")],
    images: Annotated[
        list[Path], typer.Argument(help="Images with objects of its classes, for the comparison with PyTorch.")
    ],
    output: Annotated[Path, output_file("The ONNX file to write.")],
    as_json: Json = False,
) -> None:
    """Export the whole detector to ONNX, from an image of any size to boxes, after a comparison with PyTorch.

    Example: fbnetv3 detect export runs/boxes/model.safetensors val/*.png --output boxes.onnx
    """
    from fbnetv3_zoo.detection.models.serialization import load_detector
    from fbnetv3_zoo.detection.onnx.export import export_detector
    from fbnetv3_zoo.detection.training.train import to_pixels

    from ...preprocess import read_image

    detector, spec = load_detector(model)
    report = export_detector(detector, spec, output, images=[to_pixels(read_image(path)) for path in images])
    if as_json:
        print_json(asdict(report))
        return
    say(
        f"the same as PyTorch on {report.images} images with {sum(report.detections)} detections: boxes within "
        f"{report.box_difference:.2g} pixels, scores within {report.score_difference:.2g}"
    )
    say(written(output))


def _tell_faults(annotations: Path, data: CocoData) -> None:
    for fault in data.faults:
        complain(f"{annotations}: {fault}")


def _detected(detector: FasterRCNN, image: Image, path: Path) -> Detections:
    """What is found in the image of a file, which errors name."""
    from fbnetv3_zoo.detection.training.train import detect, to_pixels

    try:
        (found,) = detect(detector, [to_pixels(image)])
    except ZooError as error:
        raise ZooError(f"{printable(str(path))}: {error}") from None
    return found


def _spec(model: str, kind: str, settings: Path | None, data: CocoData) -> DetectorSpec:
    from fbnetv3_zoo.detection import DETECTORS, RCNNSettings
    from fbnetv3_zoo.detection.models.serialization import DetectorKind, DetectorSpec

    from ...utils.serialization import read_json

    network: dict[str, Any] = {"published": model} if model in DETECTORS else {"arch": network_of(model)}
    chosen = (
        read_json(RCNNSettings, settings)
        if settings
        else RCNNSettings()
        if kind == "c4"
        else RCNNSettings(proposals=1000)
    )
    return DetectorSpec(data.class_names, kind=DetectorKind(kind), settings=chosen, **network)


def _write_report(run: DetectionRun, data: CocoData, validation: CocoData, recipe: Recipe) -> None:
    import torch

    from fbnetv3_zoo.detection.data.faults import Unreadable
    from fbnetv3_zoo.detection.training.page import SHOWN, write_detection_report
    from fbnetv3_zoo.detection.training.train import find_objects

    samples = validation.samples[:: max(1, len(validation) // SHOWN)][:SHOWN]
    detections = find_objects(run.model, samples, Unreadable(), device=torch.device("cpu"))
    write_detection_report(run, data, replace(validation, samples=samples), recipe, detections)


def _print_precision(found: AveragePrecision) -> None:
    from rich.cells import cell_len

    sizes = {"small": found.small, "medium": found.medium, "large": found.large}
    say(f"AP {found.ap:.3f}  AP50 {found.ap50:.3f}  AP75 {found.ap75:.3f}")
    say("  ".join(f"{size} {_figure(value)}" for size, value in sizes.items()))
    names = {name: printable(name) for name in found.classes}
    width = max(map(cell_len, names.values()))
    for name, value in found.classes.items():
        say(f"  {names[name]}{' ' * (width - cell_len(names[name]))}  {_figure(value)}")


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _differing(there: Sequence[str], known: Sequence[str], model: str) -> str:
    """The difference between the categories of annotations and those of ``model``."""
    lacks, more = [name for name in known if name not in there], [name for name in there if name not in known]
    told = [f"lacks {first_few(lacks)}"] if lacks else []
    told += [f"has {first_few(more)}"] if more else []
    if not told:
        return f"has the categories of {model} in another order of ids; use the ids of its training"
    return f"{' and '.join(told)}, unlike the training data of {model}; give the same categories"


def _targets(images: list[Path], output: Path | None) -> list[Path | None]:
    """The output path of each image. Raises :class:`ZooError` if two are the same or a file would be overwritten."""
    if output is None:
        return [None] * len(images)
    targets = [output / f"{path.stem}.png" for path in images]
    for n, target in enumerate(targets):
        if target in targets[:n]:
            raise ZooError(f"{images[targets.index(target)]} and {images[n]} would both be drawn as {target}")
        if exists(target) and exists(images[n]) and target.samefile(images[n]):
            raise ZooError(f"{target}: is the image itself; give another --output folder")
        if exists(target) and not is_ours(target):
            raise ZooError(f"{target}: already exists, and was not drawn by this program; give another --output folder")
    make_folder(output)
    return [*targets]


def _save(picture: Any, target: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    from ...utils.atomic_write import replacing

    mark = PngInfo()
    mark.add_text("Software", "fbnetv3_zoo")
    with replacing(target) as temporary:
        picture.save(temporary, format="PNG", pnginfo=mark)


def _print_found(path: Path, rows: list[dict[str, Any]], target: Path | None) -> None:
    say(path if target is None else f"{path} -> {target}")
    for row in rows:
        x0, y0, x1, y1 = row["box"]
        say(f"  {row['score']:7.2%}  {row['label']}  ({x0:.0f}, {y0:.0f}) to ({x1:.0f}, {y1:.0f})")
    if not rows:
        say("  nothing")
