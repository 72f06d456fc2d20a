"""``fbnetv3 demo``: the whole way on real images, in a few minutes on a laptop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fbnetv3_zoo.cli.common import Json, print_json, program, written

if TYPE_CHECKING:
    from fbnetv3_zoo.classify import Classifier
    from fbnetv3_zoo.training import Dataset
    from fbnetv3_zoo.training.data import Example


def demo(
    output: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    epochs: Annotated[int | None, typer.Option(help="Epochs, if not the recipe's 24.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the training.")] = 0,
    as_json: Json = False,
) -> None:
    """Train a small FBNetV3 on handwritten digits, export it to ONNX, and classify digits it has never seen.

    Example: fbnetv3 demo --output /tmp/demo
    """
    from fbnetv3_zoo import cost_of, export_onnx
    from fbnetv3_zoo.classify import Classifier
    from fbnetv3_zoo.cli.progress import TrainingProgress
    from fbnetv3_zoo.recipe import RECIPES
    from fbnetv3_zoo.training import evaluate, find_dataset, train
    from fbnetv3_zoo.zoo import ARCHS

    started = time.perf_counter()
    say = (lambda *_: None) if as_json else print
    recipe = replace(RECIPES["digits"], seed=seed, epochs=RECIPES["digits"].epochs if epochs is None else epochs)
    digits = find_dataset("digits", seed=seed)
    counts = ", ".join(f"{len(digits[split])} for {split}" for split in digits.splits)
    say(f"Data: scikit-learn's handwritten digits, {counts}; no image in two of them.")
    arch = ARCHS["fbnetv3_a"].for_small_images().scaled(width=0.5, depth=0.5)
    cost = cost_of(replace(arch, in_channels=1, num_classes=10))
    say(f"Network: {arch.name}, {cost.parameters / 1e6:.2f} M parameters, {cost.macs / 1e6:.1f} M MACs.")
    if (output / "checkpoint.safetensors").exists():  # the demo always begins anew
        (output / "checkpoint.safetensors").unlink()
    with TrainingProgress(recipe.epochs) as progress:
        run = train(arch, digits, recipe, output, on_step=progress.on_step, on_epoch=progress.on_epoch)
    (output / "checkpoint.safetensors").unlink()
    say(f"Test accuracy on PyTorch: {run.test}")
    report = export_onnx(run.model, output / "model.onnx")
    say(f"ONNX: largest difference to PyTorch {report.max_difference:.2g} at logits up to {report.scale:.2g}")
    classifier = Classifier.open(report.path)
    found = evaluate(classifier.logits, digits["test"], classifier.description.preprocess)
    say(f"Test accuracy on ONNX Runtime: {found}")
    samples = _save_samples(digits["test"], digits, output / "images")
    _draw_predictions(classifier, digits["test"], digits.class_names, output / "predictions.png")
    if as_json:
        test = {**asdict(found), "accuracy": found.fraction, "interval": found.interval}
        seconds = round(time.perf_counter() - started, 1)
        print_json({"folder": output, "test": test, "max_difference": report.max_difference, "seconds": seconds})
        return
    print(f"\nMade in {time.perf_counter() - started:.0f} s:")
    for name in ("model.safetensors", "model.onnx", "predictions.png", "curve.png", "metrics.jsonl"):
        print(f"  {written(output / name)}")
    print("\nNow try:")
    print(f"  {program()} classify {samples[3]} --model {output / 'model.onnx'}")
    print(f"  {program()} list")


def _save_samples(examples: Sequence[Example], digits: Dataset, folder: Path) -> list[Path]:
    """One example of each class as a PNG file that ``fbnetv3 classify`` can read, named by its class."""
    folder.mkdir(parents=True, exist_ok=True)
    firsts = {example.label: example for example in reversed(examples)}
    paths = [folder / f"digit_{digits.class_names[label]}.png" for label in sorted(firsts)]
    for label, path in zip(sorted(firsts), paths, strict=True):
        firsts[label].read().save(path)
    return paths


def _draw_predictions(
    classifier: Classifier, examples: Sequence[Example], names: Sequence[str], path: Path, *, rows: int = 4,
    columns: int = 8,
) -> None:  # fmt: skip
    """A picture of test images with the answers: the wrong ones first, marked, then others evenly spread."""
    from matplotlib.figure import Figure

    from fbnetv3_zoo.atomic import replacing

    answers = classifier([example.read() for example in examples], top=1)
    wrong = [n for n, (e, (best,)) in enumerate(zip(examples, answers, strict=True)) if best.name != names[e.label]]
    right = [n for n in range(len(examples)) if n not in wrong]
    room = rows * columns - len(wrong[:columns])
    shown = wrong[:columns] + right[:: max(1, len(right) // room)][:room]
    figure = Figure(figsize=(columns * 1.25, rows * 1.45), layout="constrained")
    figure.suptitle(f"Test digits, never seen in training: {len(wrong)} of {len(examples)} wrong")
    for axes, n in zip(figure.subplots(rows, columns).flat, shown, strict=False):
        (best,) = answers[n]
        truth = names[examples[n].label]
        axes.imshow(examples[n].read(), cmap="gray_r")
        mark = {"color": "tab:red"} if best.name != truth else {}
        note = f" (is {truth})" if best.name != truth else ""
        axes.set_title(f"{best.name}  {best.probability:.0%}{note}", fontsize=9, **mark)
        axes.set_axis_off()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
