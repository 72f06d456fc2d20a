"""What the commands of ``fbnetv3 detect`` print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import printable
from ..common import print_json, program, written
from ..output import complain, in_shell, say

if TYPE_CHECKING:
    from PIL.Image import Image

    from fbnetv3_zoo.detection.data.coco import AnnotatedImage, CocoData
    from fbnetv3_zoo.detection.training.evaluate import AveragePrecision, Detections
    from fbnetv3_zoo.detection.training.train import DetectionRun


def print_run(run: DetectionRun, *, as_json: bool) -> None:
    """Print the result of a run, and what can be done with it."""
    if as_json:
        print_json({"folder": run.folder, "precision": asdict(run.precision), "faults": run.faults})
        return
    print_precision(run.precision)
    for name in ("model.safetensors", "report.html", "predictions.png", "results.json", "metrics.jsonl"):
        say(written(run.folder / name))
    model, onnx = (in_shell(run.folder / name) for name in ("model.safetensors", "model.onnx"))
    say(
        f"next: {program()} detect predict IMAGES --model {model} --output FOLDER",
        f"      {program()} detect export {model} IMAGES --output {onnx}",
    )


def tell_faults(annotations: Path, data: CocoData) -> None:
    """Print what was left out or corrected."""
    for fault in data.faults:
        complain(f"{annotations}: {fault}")


def print_precision(precision: AveragePrecision) -> None:
    """Print average precision, by size and by class."""
    from rich.cells import cell_len

    sizes = {"small": precision.small, "medium": precision.medium, "large": precision.large}
    say(f"AP {precision.ap:.3f}  AP50 {precision.ap50:.3f}  AP75 {precision.ap75:.3f}")
    say("  ".join(f"{size} {_figure(value)}" for size, value in sizes.items()))
    names = {name: printable(name) for name in precision.classes}
    width = max(map(cell_len, names.values()))
    for name, value in precision.classes.items():
        say(f"  {names[name]}{' ' * (width - cell_len(names[name]))}  {_figure(value)}")


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


@dataclass(frozen=True, slots=True)
class Shown:
    """What was found in an image, from ``threshold`` on, and the image with its true boxes if these are known."""

    found: Detections
    class_names: Sequence[str]
    threshold: float
    truth: AnnotatedImage | None = None

    def drawn(self, image: Image) -> Image:
        """``image`` with the boxes."""
        from fbnetv3_zoo.detection.training.visualize import draw_boxes, with_legend

        picture = draw_boxes(image, self.found, self.class_names, truth=self.truth, threshold=self.threshold)
        return picture if self.truth is None else with_legend(picture)

    def rows(self) -> list[dict[str, Any]]:
        """Class, score and box of each detection, the best first."""
        names, found = self.class_names, self.found
        return [
            {"label": names[label - 1], "score": float(score), "box": [round(float(x), 2) for x in box]}
            for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
            if score >= self.threshold
        ]

    def mistakes(self) -> list[str]:
        """What is not right, if the true boxes are known."""
        from fbnetv3_zoo.detection.training.mistakes import in_words, outcome_of

        if self.truth is None:
            return []
        return in_words([outcome_of(self.truth, self.found, threshold=self.threshold)], self.class_names)

    def summary(self) -> dict[str, Any]:
        """The detections as JSON values, and the mistakes if the true boxes are known."""
        return {"detections": self.rows(), **({} if self.truth is None else {"mistakes": self.mistakes()})}


def print_found(path: Path, shown: Shown, target: Path | None) -> None:
    """Print what was found in an image, and where it is drawn."""
    say(path if target is None else f"{path} -> {target}")
    rows = shown.rows()
    for row in rows:
        x0, y0, x1, y1 = row["box"]
        say(f"  {row['score']:7.2%}  {row['label']}  ({x0:.0f}, {y0:.0f}) to ({x1:.0f}, {y1:.0f})")
    if not rows:
        say("  nothing")
    for line in shown.mistakes():
        say(f"  {line}")
