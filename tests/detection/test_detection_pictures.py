"""What went wrong in an image, boxes drawn with the true ones, and the report that shows both."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapes
from detectors import RECIPE, SPEC
from PIL import Image

from fbnetv3_zoo.detection import CocoData, Detections, average_precision, read_coco
from fbnetv3_zoo.detection.data.coco import AnnotatedImage
from fbnetv3_zoo.detection.data.fitting import fitted_anchors
from fbnetv3_zoo.detection.training.mistakes import Outcome, in_short, in_words, outcome_of
from fbnetv3_zoo.detection.training.page import write_detection_report
from fbnetv3_zoo.detection.training.train import DetectionEpoch, DetectionRun
from fbnetv3_zoo.detection.training.visualize import draw_boxes, with_legend

CAT, DOG = 1, 2
PLACES = {"left": (0, 0, 10, 10), "right": (50, 50, 90, 90), "far": (0, 70, 20, 90)}


def truth(*objects: tuple[str, int], crowd: bool = False) -> AnnotatedImage:
    boxes = np.array([PLACES[place] for place, _ in objects], np.float32).reshape(-1, 4)
    labels = np.array([label for _, label in objects], np.int64)
    return AnnotatedImage(Path("a.png"), 1, 100, 100, boxes, labels, np.full(len(objects), crowd))


def found(*objects: tuple[str, int, float]) -> Detections:
    one = truth(*((place, label) for place, label, _ in objects))
    return Detections(one.boxes, np.array([score for *_, score in objects], np.float32), one.labels)


@pytest.mark.parametrize(
    ("image", "detections", "expected"),
    [
        (truth(("left", CAT)), found(("left", CAT, 0.9)), Outcome(found=(CAT,))),
        (truth(("left", CAT)), found(("left", CAT, 0.4)), Outcome(missed=(CAT,))),
        (truth(("left", CAT)), found(("left", DOG, 0.9)), Outcome(confused=((CAT, DOG),))),
        (truth(("left", CAT)), found(("right", CAT, 0.9)), Outcome(missed=(CAT,), alarms=(CAT,))),
        (
            truth(("left", CAT), ("right", DOG)),
            found(("left", DOG, 0.9), ("left", CAT, 0.8), ("right", DOG, 0.7), ("right", DOG, 0.6)),
            Outcome(found=(CAT, DOG), alarms=(DOG,), repeated=(DOG,)),
        ),
        (truth(("left", CAT), crowd=True), found(("left", CAT, 0.9), ("left", DOG, 0.8)), Outcome(alarms=(DOG,))),
        (truth(), found(), Outcome()),
    ],
    ids=["right", "too unsure", "confused", "elsewhere", "repeated", "crowd", "nothing"],
)
def test_what_became_of_objects_and_detections(
    image: AnnotatedImage, detections: Detections, expected: Outcome
) -> None:
    assert outcome_of(image, detections, threshold=0.5) == expected


def test_mistakes_in_words() -> None:
    outcomes = [
        Outcome(found=(CAT,), missed=(DOG, DOG)),
        Outcome(confused=((DOG, CAT),), alarms=(CAT,), repeated=(CAT,)),
    ]
    assert in_words(outcomes, ("cat", "dog")) == [
        "dog missed: 2", "dog taken for cat: 1", "cat found where there is none: 1", "cat found more than once: 1",
    ]  # fmt: skip
    assert in_short(outcomes) == "1 of 4 objects found, 1 taken for another class, 2 missed; 1 false alarm"
    assert sum(one.mistakes for one in outcomes) == 5


def test_true_boxes_are_dashed_and_found_ones_solid() -> None:
    blank = Image.new("RGB", (100, 100), "black")
    picture = np.asarray(draw_boxes(blank, found(("right", CAT, 0.9)), ("cat", "dog"), truth=truth(("far", DOG))))
    edge = {tuple(pixel) for pixel in picture[90, 55:85].tolist()}
    assert edge == {(0, 0x72, 0xB2)}
    dashes = {tuple(pixel) for pixel in picture[72:88, 20].tolist()}
    assert dashes == {(255, 255, 255), (0xD5, 0x5E, 0)}
    assert with_legend(Image.fromarray(picture)).size == (100, 118)
    assert np.array_equal(np.asarray(with_legend(Image.fromarray(picture)))[:100], picture)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes") / "data"
    return read_coco(shapes.write(folder, 6, seed=0, side=64, objects=2), folder)


def test_the_report_names_and_shows_mistakes(data: CocoData, tmp_path: Path) -> None:
    detections = [Detections(one.boxes, np.full(len(one.labels), 0.9, np.float32), one.labels) for one in data.samples]
    objects = sum(len(one.labels) for one in data.samples)
    detections[0] = found()
    missing = replace(data.samples[1], path=tmp_path / "gone.png")
    validation = replace(data, samples=(data.samples[0], missing, *data.samples[2:]))
    epochs = tuple(DetectionEpoch(n, 0.1, 1.0, 0.1, 0.2, 4.0, 30.0) for n in (1, 2))
    run = DetectionRun(tmp_path, SPEC.build(), SPEC, epochs, average_precision(validation, detections), ("a <fault>",))
    write_detection_report(run, data, validation, RECIPE, detections)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    missed = len(data.samples[0].labels)
    assert f"{objects - missed} of {objects} objects found, 0 taken for another class, {missed} missed; 0 false" in page
    assert "missed: " in page
    assert "cannot be read" in page
    assert page.count("data:image/jpeg;base64,") == 5
    assert "large (from 96 x 96 on)" in page
    assert "1 min 00 s for 2 epochs, 30.0 s each with validation" in page
    assert "4 images/s while training" in page
    assert "chosen for this run" in page
    assert "a &lt;fault&gt;" in page
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", page))
    with Image.open(io.BytesIO((tmp_path / "predictions.png").read_bytes())) as picture:
        assert picture.width == 4 * 328


def test_anchors_are_as_large_as_the_objects(data: CocoData) -> None:
    settings = fitted_anchors(data, SPEC.settings.of_size(128))
    sides = [2 * float(box[2] - box[0]) for one in data.samples for box in one.boxes]  # 64 pixels become 128
    assert min(sides) <= settings.anchor_sizes[0] <= settings.anchor_sizes[-1] <= max(sides)
    assert replace(settings, anchor_sizes=SPEC.settings.anchor_sizes) == replace(
        SPEC.settings.of_size(128), anchor_sizes=SPEC.settings.anchor_sizes
    )
    empty = replace(data, samples=tuple(one.only(np.zeros(len(one.labels), bool)) for one in data.samples))
    assert fitted_anchors(empty, SPEC.settings) == SPEC.settings
