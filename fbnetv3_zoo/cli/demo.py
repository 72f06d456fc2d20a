"""``fbnetv3 demo``: from training to a web page on real images, in a few minutes on a laptop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Json, output_folder, print_json, program, written
from .export import int8 as export_int8
from .output import in_shell, say

if TYPE_CHECKING:
    from fbnetv3_zoo.export import ExportReport
    from fbnetv3_zoo.export.quantization.quantize import QuantizationReport

    from ..arch import Arch
    from ..classify import Classifier
    from ..models.fbnet import FBNet
    from ..recipes import Recipe
    from ..training import Dataset, Evaluation, Run
    from ..training.data import Example

MADE = ("teacher", "alone", "distilled", "model.onnx", "model-int8.onnx", "images", "predictions.png", "web")
"""What the demo writes to its folder."""
SHOWN = ("model.onnx", "model-int8.onnx", "predictions.png", "distilled/model.safetensors", "distilled/report.html")


def demo(
    output: Annotated[Path, output_folder("Folder for everything the demo writes.")] = Path("demo"),
    epochs: Annotated[int | None, typer.Option(help="Number of epochs, if not the recipe's 16.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the training.")] = 0,
    as_json: Json = False,
) -> None:
    """Train a teacher on handwritten digits, distil a slim FBNetV3, and export it to ONNX, int8 and a web page.

    Example: fbnetv3 demo --output /tmp/demo
    """
    from ..recipes import RECIPES
    from ..training import find_dataset

    _check_output(output)
    started = time.perf_counter()
    tell: Callable[..., None] = (lambda *_: None) if as_json else say
    recipe = replace(RECIPES["digits"], seed=seed, epochs=RECIPES["digits"].epochs if epochs is None else epochs)
    digits = find_dataset("digits", seed=seed)
    counts = ", ".join(f"{len(digits[split])} for {split}" for split in digits.splits)
    tell(f"Data: scikit-learn's handwritten digits, {counts}, without overlap.")
    runs = _train_all(output, digits, recipe, tell)
    files = _export_all(runs["distilled"].model, output, digits, tell)
    seconds = time.perf_counter() - started
    if as_json:
        tests = {name: run.test.summary() for name, run in runs.items() if run.test}
        print_json(
            {
                "folder": output,
                "test": {**tests, "onnx": files.accuracy.summary()},
                "int8": export_int8.plain(files.int8),
                "page": files.page,
                "max_difference": files.onnx.max_difference,
                "seconds": round(seconds, 1),
            }
        )
        return
    _print_table(runs)
    say("", f"Made in {seconds:.0f} s:")
    for name in SHOWN:
        say(f"  {written(output / name)}")
    say("", "Now try:")
    say(f"  {program()} classify {in_shell(files.samples[3])} --model {in_shell(output / 'model.onnx')}")
    if files.page is not None:
        say(f"  {program()} serve-demo {in_shell(files.page)}")
    say(f"  {program()} list")


def _train_all(output: Path, digits: Dataset, recipe: Recipe, tell: Callable[..., None]) -> dict[str, Run]:
    """The teacher, the slim network without it, and the slim network with it."""
    from ..zoo import ARCHS

    small = ARCHS["fbnetv3_a"].for_small_images()
    large, slim = small.scaled(width=0.5, depth=0.5), small.scaled(width=0.25, depth=0.25)
    train = partial(_train, data=digits, recipe=recipe, tell=tell)
    tell("", "1. The teacher, on labels")
    teacher = train(large, output / "teacher")
    tell("", "2. The slim network, on labels alone")
    alone = train(slim, output / "alone")
    tell("", "3. The slim network, with the teacher: loss = 0.8 x distillation + 0.2 x cross entropy")
    return {
        "teacher": teacher,
        "alone": alone,
        "distilled": train(slim, output / "distilled", teacher=teacher.model),
    }


@dataclass(frozen=True)
class _Files:
    """What the demo makes of its trained network; ``page`` is None where the page could not be written."""

    onnx: ExportReport
    accuracy: Evaluation
    int8: QuantizationReport
    samples: list[Path]
    page: Path | None


def _export_all(network: FBNet, output: Path, digits: Dataset, tell: Callable[..., None]) -> _Files:
    """Write the ONNX file, its int8 form, sample images, the page, and a picture of predictions."""
    from fbnetv3_zoo.export.quantization.quantize import QuantizationConfig

    from .. import export_onnx
    from ..classify import Classifier
    from ..training import evaluate

    report = export_onnx(network, output / "model.onnx")
    classifier = Classifier.open(report.path)
    accuracy = evaluate(classifier.logits, digits["test"], classifier.description.preprocess)
    tell("", f"4. ONNX: largest difference to PyTorch {report.max_difference:.2g} at logits up to {report.scale:.2g}")
    tell(f"Test accuracy on ONNX Runtime: {accuracy}")
    int8 = export_int8.quantize_on(digits, report.path, output / "model-int8.onnx", QuantizationConfig())
    tell("", f"5. int8: {int8.size_ratio:.2f} of the size, the same class for {int8.agreement:.2%} of the test images")
    tell(f"Test accuracy on int8: {int8.accuracy_int8:.2%}, on float {int8.accuracy_float:.2%}")
    samples = _save_samples(digits["test"], digits, output / "images")
    page = _write_page(report.path, samples, output / "web", tell)
    _draw_predictions(classifier, digits["test"], digits.class_names, output / "predictions.png")
    return _Files(report, accuracy, int8, samples, page)


def _check_output(output: Path) -> None:
    """Raise :class:`ZooError` if the demo would overwrite files that are not those of an earlier demo."""
    from ..errors import ZooError
    from ..training.run_folder import LOCK
    from ..utils.paths import exists

    present = [name for name in MADE if exists(output / name)]
    if present and not exists(output / "teacher" / LOCK):
        raise ZooError(f"{output}: has {present[0]}, which the demo would overwrite; give another --output")


def _train(
    arch: Arch, folder: Path, *, data: Dataset, recipe: Recipe, tell: Callable[..., None],
    teacher: FBNet | None = None,
) -> Run:  # fmt: skip
    """One of the demo's runs, always started from scratch."""
    from ..training import train
    from ..training.checkpoint import Checkpoints
    from .progress import TrainingProgress

    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    checkpoints.discard()
    with TrainingProgress(recipe.epochs) as progress:
        run = train(arch, data, recipe, folder, teacher=teacher, callbacks=[progress])
    checkpoints.discard()
    tell(f"Test accuracy: {run.test}")
    return run


def _write_page(model: Path, samples: Sequence[Path], folder: Path, tell: Callable[..., None]) -> Path | None:
    """A page that classifies in the browser; None if its runtime is unavailable, for example offline."""
    from fbnetv3_zoo.export.web import write_web

    from ..errors import ZooError

    try:
        page = write_web(model, folder, samples=samples)
    except ZooError as error:
        tell("", f"6. Web page: left out ({error})")
        return None
    tell("", f"6. Web page: the network in a browser, without a server's help, {page.size / 1e6:.1f} MB")
    return folder


def _print_table(runs: Mapping[str, Run]) -> None:
    from .. import cost_of

    say("", f"{'network':14}{'learned from':20}{'parameters':>11}{'MMACs':>7}  test accuracy (95 % interval)")
    sources = {"teacher": "labels", "alone": "labels", "distilled": "teacher and labels"}
    for name, run in runs.items():
        cost, accuracy = cost_of(run.model.arch), run.test
        assert accuracy is not None
        low, high = accuracy.interval
        label = "slim student" if name != "teacher" else "teacher"
        say(
            f"{label:14}{sources[name]:20}{cost.parameters:>11,}{cost.macs / 1e6:>7.2f}  "
            f"{accuracy.fraction:.2%} ({low:.2%} to {high:.2%})"
        )


def _save_samples(examples: Sequence[Example], digits: Dataset, folder: Path) -> list[Path]:
    """One example of each class as a PNG file that ``fbnetv3 classify`` can read, named by its class."""
    from ..utils.atomic_write import replacing

    firsts = {example.label: example for example in reversed(examples)}
    paths = [folder / f"digit_{digits.class_names[label]}.png" for label in sorted(firsts)]
    for label, path in zip(sorted(firsts), paths, strict=True):
        with replacing(path) as temporary:
            firsts[label].read().save(temporary)
    return paths


def _draw_predictions(
    classifier: Classifier, examples: Sequence[Example], names: Sequence[str], path: Path, *, rows: int = 4,
    columns: int = 8,
) -> None:  # fmt: skip
    """Draw test images with predictions: wrong ones first, marked, then others evenly spread."""
    from matplotlib.figure import Figure

    from ..report.charts import INK, SECOND, save_picture, style

    answers = classifier([example.read() for example in examples], top=1)
    wrong = [n for n, (e, (best,)) in enumerate(zip(examples, answers, strict=True)) if best.name != names[e.label]]
    right = [n for n in range(len(examples)) if n not in wrong]
    room = rows * columns - len(wrong[:columns])
    shown = wrong[:columns] + right[:: max(1, len(right) // room)][:room]
    with style():
        figure = Figure(figsize=(columns * 1.25, rows * 1.45))
        figure.suptitle(f"Test digits, never seen in training: {len(wrong)} of {len(examples)} wrong")
        for axes, n in zip(figure.subplots(rows, columns).flat, shown, strict=False):
            (best,), truth = answers[n], names[examples[n].label]
            is_wrong = best.name != truth
            axes.imshow(examples[n].read(), cmap="gray_r")
            title = f"{best.name}  {best.probability:.0%}" + (f" (is {truth})" if is_wrong else "")
            axes.set_title(title, fontsize=9, color=SECOND if is_wrong else INK)
            axes.set_axis_off()
        save_picture(figure, path, dpi=120)
