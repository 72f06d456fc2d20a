"""Fine-tune the network that comes with the package on a folder of photographs, and write an int8 file for a device.

python examples/fine_tune.py PHOTOS --output runs/mine    # again with --resume after an interruption
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import fbnetv3_zoo as zoo
from fbnetv3_zoo.export import quantize
from fbnetv3_zoo.recipes import fit_recipe
from fbnetv3_zoo.training import Callback, Epoch, Run, find_dataset, train


class Best(Callback):
    """Remembers the best validation accuracy."""

    def __init__(self) -> None:
        self.accuracy = 0.0

    def on_epoch(self, epoch: Epoch) -> None:
        self.accuracy = max(self.accuracy, epoch.validation_top1)


def fine_tune(photos: Path, output: Path, epochs: int | None, *, resume: bool) -> Run:
    """Train from the package's weights by a recipe that fits the number of photographs."""
    data, best = find_dataset(photos), Best()
    recipe = fit_recipe(len(data["train"]), epochs=epochs, pretrained=True)
    run = train("fbnetv3_nano", data, recipe, output, pretrained=True, resume=resume, callbacks=[best])
    tested = run.test.fraction if run.test else 0
    print(f"{best.accuracy:.1%} of the validation images, {tested:.1%} of the test images")
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune on a folder of photographs.")
    parser.add_argument("photos", type=Path, help="one folder of images per class")
    parser.add_argument("--output", type=Path, default=Path("runs/mine"))
    parser.add_argument("--epochs", type=int, help="default: by the number of photographs")
    parser.add_argument("--resume", action="store_true", help="continue the run in the output folder")
    given = parser.parse_args()
    try:
        run = fine_tune(given.photos, given.output, given.epochs, resume=given.resume)
        report = zoo.export_onnx(run.model, run.folder / "model.onnx")
        print(f"ONNX file: {report.max_difference:.1e} from PyTorch")
        quantize(run.folder / "model.onnx", run.folder / "model-int8.onnx", given.photos)
    except zoo.ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
