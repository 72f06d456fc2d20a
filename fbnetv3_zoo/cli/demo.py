"""``fbnetv3 demo``: from a folder of pictures to a web page, by the commands that a user types."""

from __future__ import annotations

import io
import json
import shlex
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import Interrupted, ZooError
from .common import Json, output_folder, print_json, program, written
from .output import in_shell, say

if TYPE_CHECKING:
    from PIL import Image

    from ..classify import Classifier
    from ..training.data import Example

MADE = ("digits", "teacher", "student", "model.onnx", "model-int8.onnx", "predictions.png", "web")
"""What the demo writes to its folder."""
MARK = ".fbnetv3-zoo-demo"
"""An empty file, by which the folder of a demo is recognized."""
SHOWN = ("model.onnx", "model-int8.onnx", "predictions.png", "student/model.safetensors", "student/report.html")
TEACHER_EPOCHS, STUDENT_EPOCHS = 8, 16
_SIDE, _MARGIN = 32, 3


def demo(
    context: typer.Context,
    output: Annotated[Path, output_folder("Folder for everything the demo writes.")] = Path("demo"),
    epochs: Annotated[
        int | None, typer.Option(min=1, help=f"Number of epochs, instead of {TEACHER_EPOCHS} and {STUDENT_EPOCHS}.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and of the training.")] = 0,
    as_json: Json = False,
) -> None:
    """Fine-tune a network on pictures of handwritten digits, distil a smaller one, export it to ONNX, int8 and the web.

    Each step is a command, which is printed before it runs.

    Example: fbnetv3 demo --output /tmp/demo
    """
    from ..training.run_folder import check_foreign
    from ..utils.paths import make_folder

    check_foreign(output, MADE, MARK)
    make_folder(output)
    (output / MARK).touch()
    started = time.perf_counter()
    steps = _Steps(context, output, as_json=as_json)
    pictures = output / "digits"
    count = _write_pictures(pictures)
    steps.tell(f"{in_shell(pictures)}: scikit-learn's {count:,} handwritten digits as pictures, in a folder a class")
    _run_all(steps, pictures, seed, epochs)
    _draw(output, pictures, seed)
    seconds = time.perf_counter() - started
    if as_json:
        print_json({"folder": output, **steps.results, "seconds": round(seconds, 1)})
        return
    say("", f"Made in {seconds:.0f} s:")
    for name in SHOWN:
        say(f"  {written(output / name)}")
    say("", "Now try:")
    say(f"  {program()} classify {in_shell(pictures / '3')} --model {in_shell(output / 'model.onnx')}")
    if steps.results["web"] is not None:
        say(f"  {program()} serve-demo {in_shell(output / 'web')}")
    say(f"  {program()} train PHOTOS --model fbnetv3_nano --pretrained --output runs/photos")


@dataclass
class _Steps:
    """Commands of the program, run one after another; with ``as_json`` silently, each for its result."""

    context: typer.Context
    output: Path
    as_json: bool
    results: dict[str, Any] = field(default_factory=dict)

    def tell(self, *lines: str) -> None:
        """Print ``lines``, unless only the result is wanted."""
        if not self.as_json:
            say(*lines)

    def run(self, name: str, purpose: str, *words: object) -> None:
        """Run ``fbnetv3 WORDS``; its result is that of ``name``."""
        arguments = list(map(str, words))
        self.tell("", f"# {purpose}", f"{program()} {shlex.join(arguments)}")
        if not self.as_json:
            self._call(arguments)
            self.results[name] = {}
            return
        with redirect_stdout(io.StringIO()) as printed:
            self._call([*arguments, "--json"])
        self.results[name] = json.loads(printed.getvalue())

    def _call(self, arguments: list[str]) -> None:
        """Run a command; what ends it, Ctrl-C among it, ends the demo."""
        command: Any = self.context.find_root().command
        try:
            with command.make_context("fbnetv3", arguments) as context:
                command.invoke(context)
        except Interrupted:
            raise Interrupted("ended by SIGTERM; the demo begins anew the next time") from None


def _run_all(steps: _Steps, pictures: Path, seed: int, epochs: int | None) -> None:
    from ..training.run_folder import MODEL

    output = steps.output
    teacher, student = output / "teacher", output / "student"
    model, page = output / "model.onnx", output / "web"
    train = ("train", pictures, "--model", "fbnetv3_nano", "--seed", seed)
    for folder in (teacher, student):
        _discard_checkpoints(folder)
        (folder / MODEL).unlink(missing_ok=True)
    steps.run(
        "teacher", "A network that knows other characters learns these", *train, "--pretrained",
        "--epochs", epochs or TEACHER_EPOCHS, "--output", teacher,
    )  # fmt: skip
    steps.run(
        "student", "A network half as wide learns from it", *train, "--width", 0.5,
        "--teacher", teacher / "model.safetensors", "--epochs", epochs or STUDENT_EPOCHS, "--output", student,
    )  # fmt: skip
    for folder in (teacher, student):
        _discard_checkpoints(folder)
    steps.run("onnx", "A file for other programs", "export", "onnx", student / "model.safetensors", "--output", model)
    steps.run("test", "It answers as the network does", "validate", model, pictures, "--split", "test", "--seed", seed)
    steps.run(
        "int8", "Smaller, in whole numbers", "export", "int8", model, "--data", pictures, "--seed", seed,
        "--output", output / "model-int8.onnx",
    )  # fmt: skip
    samples = [word for label in (2, 5, 8) for word in ("--sample", min((pictures / str(label)).glob("*.png")))]
    try:
        steps.run("web", "A page that classifies in a browser", "export", "web", model, "--output", page, *samples)
    except ZooError as error:  # offline, its runtime may be unavailable
        steps.results["web"] = None
        steps.tell(f"left out: {error}")


def _discard_checkpoints(folder: Path) -> None:
    """Remove what an earlier demo left to resume; this one begins anew."""
    from ..training.checkpoint import Checkpoints
    from ..training.run_folder import CHECKPOINTS

    Checkpoints(folder / CHECKPOINTS, keep=1).discard()


def _digits() -> Sequence[Example]:
    """The images of the demo."""
    from ..training.data import digits, joined

    data = digits()
    return joined([data[split] for split in data.splits])


def _write_pictures(folder: Path) -> int:
    """Write the digits as PNG files, in a folder for each class; returns their number."""
    from ..utils.atomic_write import replacing_folder

    examples = sorted(_digits(), key=lambda example: int(example.key))
    with replacing_folder(folder) as temporary:
        for example in examples:
            place = temporary / str(example.label)
            place.mkdir(exist_ok=True)
            _enlarged(example.read()).save(place / f"{int(example.key):04}.png")
    return len(examples)


def _enlarged(image: Image.Image) -> Image.Image:
    """The digit with a margin, which the crop of evaluation removes."""
    from PIL import Image

    framed = Image.new("L", (_SIDE + 2 * _MARGIN,) * 2)
    framed.paste(image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), (_MARGIN, _MARGIN))
    return framed


def _draw(output: Path, pictures: Path, seed: int) -> None:
    """Draw test images with the answers of the exported network."""
    from ..classify import Classifier
    from ..training import find_dataset

    data = find_dataset(pictures, seed=seed)
    classifier = Classifier.open(output / "model.onnx")
    _draw_predictions(classifier, data["test"], data.class_names, output / "predictions.png")


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
        places = figure.subplots(rows, columns).ravel()
        for axes in places:
            axes.set_axis_off()
        for axes, n in zip(places, shown, strict=False):
            (best,), truth = answers[n], names[examples[n].label]
            is_wrong = best.name != truth
            axes.imshow(examples[n].read(), cmap="gray", vmin=0, vmax=255)  # as they are: bright on black
            title = f"{best.name}  {best.probability:.0%}" + (f" (is {truth})" if is_wrong else "")
            axes.set_title(title, fontsize=9, color=SECOND if is_wrong else INK)
        save_picture(figure, path, dpi=120)
