"""``fbnetv3 detect``: train, validate, run and export detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import ZooError, counted, first_few, nearest, printable
from ...utils.paths import exists, is_ours, make_folder
from .. import training_options as training
from ..common import (
    Json,
    command_group,
    image_files,
    leads,
    output_file,
    output_folder,
    print_json,
    written,
)
from ..option_groups import configurable, grouped
from ..output import complain, say
from .options import BoxesOptions, DetectorOptions, TrainingBoxesOptions
from .results import Shown, print_found, print_precision, print_run, tell_faults

if TYPE_CHECKING:
    from PIL.Image import Image

    from fbnetv3_zoo.detection.data.coco import AnnotatedImage, CocoData
    from fbnetv3_zoo.detection.training.evaluate import Detections
    from fbnetv3_zoo.detection.training.predict import Find

    from ...recipes import Recipe


app = command_group(
    """Detectors on torchvision: train on boxes in COCO format, validate, predict, export.

    Example: fbnetv3 detect train boxes.json photos --output runs/boxes
    """
)

_FILE = "A detector's .safetensors or .onnx file, written by `fbnetv3 detect train` or `detect export`."
Model = Annotated[Path, typer.Option(help=_FILE)]


@app.command()
@configurable
def train(
    *,
    boxes: TrainingBoxesOptions,
    output: Annotated[Path, output_folder("Folder for detector, report, metrics and checkpoints.")],
    detector: DetectorOptions,
    freeze_at: Annotated[
        int, typer.Option(min=0, help="Number of first stages to freeze.", rich_help_panel="Recipe")
    ] = 0,
    fixed_norms: Annotated[
        bool, typer.Option("--fixed-norms", help="Freeze batch norms.", rich_help_panel="Recipe")
    ] = False,
    recipe: training.RecipeSource = None,
    changes: training.RecipeOptions,
    running: training.RunOptions,
    as_json: Json = False,
) -> None:
    """Train Faster R-CNN on boxes. Interrupted runs continue with --resume.

    Example: fbnetv3 detect train boxes.json photos --output runs/boxes
    """
    from ...recipes import find_recipe

    boxes.check()
    given = find_recipe(recipe) if recipe else None
    data, judged = boxes.split(changes.data_seed(given))
    spec, source = detector.spec(data), detector.start()
    from fbnetv3_zoo.detection.data.fitting import evaluation_data, training_data
    from fbnetv3_zoo.detection.training.train import train_detector

    from .progress import DetectionProgress, header

    data = training_data(data, spec.settings, mirror=given is None or given.augmentation.flip > 0)
    judged = evaluation_data(judged, spec.settings)
    for file, one in ((boxes.file, data), (boxes.validation or boxes.file, judged)):
        tell_faults(file, one)
    if len(data) < 2:
        raise ZooError(f"{boxes.file}: {counted(len(data), 'image')} with boxes to train on; at least 2 are needed")
    name, base = _named(recipe, given, len(data), changes)
    chosen = changes.applied(base)
    execution = running.execution()
    images = boxes.described(data, judged, changes.data_seed(given))
    lines = [] if as_json else header(images, spec, source, chosen, len(data), execution, output, named=name)
    with DetectionProgress(chosen.epochs, header=lines) as progress:
        run = train_detector(
            spec, data, judged, chosen, output, source=source, freeze_at=freeze_at, fixed_norms=fixed_norms,
            resume=running.resume, execution=execution, callbacks=[progress],
        )  # fmt: skip
    if leads():
        print_run(run, as_json=as_json)


def _named(
    source: str | None, given: Recipe | None, images: int, changes: training.RecipeOptions
) -> tuple[str, Recipe]:
    """The recipe ``given`` by ``source``, by default one fitted to the number of ``images``; and its name."""
    if given is not None:
        return str(source), given
    from ...recipes import fit_detection_recipe

    fitted = fit_detection_recipe(images, epochs=changes.epochs)
    return f"fitted to {fitted.purpose}", fitted.recipe


@app.command()
@grouped
def validate(
    model: Annotated[Path, typer.Argument(help=_FILE)],
    *,
    boxes: BoxesOptions,
    device: training.Device = "cpu",
    workers: Annotated[int, typer.Option(min=0, help="Number of processes that load images (0: only this one).")] = 0,
    as_json: Json = False,
) -> None:
    """Evaluate a detector on PyTorch or ONNX Runtime: COCO's average precision, by size and by class.

    Example: fbnetv3 detect validate runs/boxes/model.safetensors test.json test
    """
    from fbnetv3_zoo.detection.data.faults import Unreadable
    from fbnetv3_zoo.detection.data.fitting import evaluation_data
    from fbnetv3_zoo.detection.opened import open_detector
    from fbnetv3_zoo.detection.training.evaluate import average_precision, check_objects
    from fbnetv3_zoo.detection.training.predict import find_objects

    from ...training.distributed import usable

    file = boxes.file
    detector = open_detector(model, device=usable(device))
    spec, data = detector.spec, boxes.read()
    _check_classes(data, file, spec.class_names, model)
    data = evaluation_data(data, spec.settings)
    tell_faults(file, data)
    check_objects(data)
    unreadable = Unreadable()
    precision = average_precision(data, find_objects(detector.find, data.samples, unreadable, workers=workers))
    if as_json:
        print_json({"images": len(data), **asdict(precision), "faults": [*data.faults, *unreadable.lines]})
        return
    say(f"{len(data)} images")
    print_precision(precision)


@app.command()
def predict(
    images: Annotated[
        list[Path], typer.Argument(help="Image files (JPEG, PNG, WebP, TIFF, BMP), or folders of images.")
    ],
    model: Model,
    output: Annotated[Path | None, output_folder("Folder for PNG images with boxes drawn on them.")] = None,
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="Minimum score of a detection.")] = 0.5,
    annotations: Annotated[
        Path | None, typer.Option(help="Box annotations in COCO format: also draw the true boxes, dashed.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--images", help="Folder of the annotated images (default: that of the annotations).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Detect objects in images, on PyTorch or ONNX Runtime, and draw them.

    If an image cannot be read, an error is printed, the others are processed, and the exit code is 2.

    Example: fbnetv3 detect predict street.jpg photos --model runs/boxes/model.safetensors --output found
    """
    from fbnetv3_zoo.detection.opened import open_detector

    from ...preprocess import read_image

    detector = open_detector(model)
    truths = _truths(annotations, folder, detector.spec.class_names, model)
    paths, names = zip(*image_files(images), strict=True)
    _tell_missing(paths, truths, annotations)
    results, failed = [], False
    for path, target in zip(paths, _targets(paths, names, output), strict=True):
        try:
            image = read_image(path)
            detections = _detected(detector.find, image, path)
        except ZooError as error:
            complain(f"error: {error}")
            failed = True
            continue
        shown = Shown(detections, detector.spec.class_names, threshold, truths.get(path.resolve()))
        if target is not None:
            _save(shown.drawn(image), target)
        results.append({"image": str(path), **shown.summary(), "picture": target and str(target)})
        if not as_json:
            print_found(path, shown, target)
    if as_json:
        print_json(results)
    if failed:
        raise typer.Exit(2)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A detector written by `fbnetv3 detect train`.")],
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
    from fbnetv3_zoo.detection.training.predict import to_pixels

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


def _detected(find: Find, image: Image, path: Path) -> Detections:
    """What is found in the image of a file, which errors name."""
    from fbnetv3_zoo.detection.training.predict import to_pixels

    try:
        return find(to_pixels(image))
    except ZooError as error:
        raise ZooError(f"{printable(str(path))}: {error}") from None


def _truths(
    annotations: Path | None, folder: Path | None, class_names: Sequence[str], model: Path
) -> dict[Path, AnnotatedImage]:
    """The annotated images by path; none without annotations."""
    from fbnetv3_zoo.detection.data.coco import read_coco

    if annotations is None:
        if folder is not None:
            raise ZooError(f"--images {folder} needs --annotations, the true boxes in these images")
        return {}
    data = read_coco(annotations, folder or annotations.parent)
    tell_faults(annotations, data)
    _check_classes(data, annotations, class_names, model)
    if turned := [sample.path for sample in data.samples if sample.orientation != 1]:
        complain(f"{annotations}: true boxes are not drawn in images that are stored turned: {first_few(turned)}")
    return {sample.path.resolve(): sample for sample in data.samples if sample.orientation == 1}


def _tell_missing(paths: Sequence[Path], truths: Mapping[Path, object], annotations: Path | None) -> None:
    """Print which of the images have no true boxes, though there are annotations."""
    if annotations is None:
        return
    if missing := [path for path in paths if path.resolve() not in truths]:
        remedy = "give the folder of its images as --images"
        complain(f"{annotations}: has no true boxes for {first_few(missing)}; {remedy}")


def _check_classes(data: CocoData, file: Path, known: Sequence[str], model: Path) -> None:
    if [*data.class_names] != [*known]:
        raise ZooError(f"{file}: {_differing(data.class_names, known, str(model))}")


def _differing(there: Sequence[str], known: Sequence[str], model: str) -> str:
    """The difference between the categories of annotations and those of ``model``."""
    lacks, more = [name for name in known if name not in there], [name for name in there if name not in known]
    differences = [f"lacks {first_few(lacks)}"] if lacks else []
    guess = printable(nearest(more[0], lacks)) if more else ""
    differences += [f"has {first_few(more)}{guess}"] if more else []
    if not differences:
        return f"has the categories of {model} in another order of ids; use the ids of its training"
    return f"{' and '.join(differences)}, unlike the training data of {model}; give the same categories"


def _targets(images: Sequence[Path], names: Sequence[Path], output: Path | None) -> list[Path | None]:
    """The output path of each image: its name, or path below a folder that was given, as a PNG file in ``output``.

    Raises :class:`ZooError` if two are the same or a file would be overwritten.
    """
    if output is None:
        return [None] * len(images)
    targets = [output / name.with_suffix(".png") for name in names]
    for n, target in enumerate(targets):
        if target in targets[:n]:
            raise ZooError(f"{images[targets.index(target)]} and {images[n]} would both be drawn as {target}")
        if exists(target) and exists(images[n]) and target.samefile(images[n]):
            raise ZooError(f"{target}: is the image itself; give another --output folder")
        if exists(target) and not is_ours(target):
            raise ZooError(f"{target}: already exists, and was not drawn by this program; give another --output folder")
    for folder in {output, *(target.parent for target in targets)}:
        make_folder(folder)
    return [*targets]


def _save(picture: Any, target: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    from ...utils.atomic_write import replacing

    mark = PngInfo()
    mark.add_text("Software", "fbnetv3_zoo")
    with replacing(target) as temporary:
        picture.save(temporary, format="PNG", pnginfo=mark)
