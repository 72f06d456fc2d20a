"""COCO's format read and checked, and average precision against pycocotools' own path through files."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from refusals import refusal

from fbnetv3_zoo.detection.data.coco import CocoData, read_coco
from fbnetv3_zoo.detection.training.evaluate import Detections, average_precision

KINDS = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]


def write(folder: Path, annotations: list[Any], *, images: list[Any] | None = None, kinds: Any = KINDS) -> Path:
    """A set of three images of 60 x 40 pixels, of which two are there."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 40)).save(folder / name)
    listed = [{"id": n, "file_name": name, "width": 60, "height": 40} for n, name in enumerate(("a.png", "b.png"), 1)]
    told = {"images": listed if images is None else images, "annotations": annotations, "categories": kinds}
    path = folder / "boxes.json"
    path.write_text(json.dumps(told))
    return path


def box(number: int, image: int, bbox: Any, category: int = 3, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, **more}


def test_boxes_labels_and_classes(tmp_path: Path) -> None:
    path = write(
        tmp_path, [box(1, 1, [10, 5, 20, 30]), box(2, 1, [0, 0, 60, 40], 7, iscrowd=1), box(3, 1, [1, 2, 3, 4])]
    )
    data = read_coco(path, tmp_path)
    assert (data.name, data.class_names, data.category_ids, data.faults) == ("boxes", ("dog", "cat"), (3, 7), ())
    first, second = data.samples
    assert first.boxes.tolist() == [[10, 5, 30, 35], [0, 0, 60, 40], [1, 2, 4, 6]]
    assert first.labels.tolist() == [1, 2, 1]
    assert first.crowd.tolist() == [False, True, False]
    assert (first.path, first.width, first.height) == (tmp_path / "a.png", 60, 40)
    assert second.boxes.shape == (0, 4)


def test_faults_are_told_of_and_end_nothing(tmp_path: Path) -> None:
    images = [
        {"id": 1, "file_name": "a.png", "width": 60, "height": 40},
        {"id": 2, "file_name": "gone.png", "width": 60, "height": 40},
        {"id": 3, "file_name": "b.png", "width": 0, "height": 40},
    ]
    wrong = [[0, 0, 0, 5], [0, 0, -3, 5], [0, 0, math.nan, 5], [0, 0, 5], "box", None, [0, 0, True, 5]]
    annotations = [box(n, 1, bbox) for n, bbox in enumerate(wrong, start=10)]
    annotations += [box(30, 2, [0, 0, 5, 5]), box(31, 9, [0, 0, 5, 5]), box(32, 1, [0, 0, 5, 5], 4)]
    annotations += [box(40, 1, [60, 0, 5, 5]), box(41, 1, [50, 30, 40, 40]), box(42, 1, [50, 30, 10.5, 10]), "text"]
    data = read_coco(write(tmp_path, annotations, images=images), tmp_path)
    assert data.samples[0].boxes.tolist() == [[50, 30, 60, 40], [50, 30, 60, 40]]
    assert data.faults == (
        "1 images that do not exist, left out (gone.png)",
        "1 images without a size, left out (b.png)",
        "7 boxes that are not four finite numbers with an area, left out (annotation 10 of a.png, annotation 11 of "
        "a.png, annotation 12 of a.png, annotation 13 of a.png, annotation 14 of a.png and 2 more)",
        "3 boxes of images that are left out or not listed, left out (annotation 30, annotation 31, annotation [13])",
        "1 boxes of categories that are not listed, left out (annotation 32 of a.png)",
        "1 boxes outside their image, left out (annotation 40 of a.png)",
        "1 boxes that extended beyond their image, clipped (annotation 41 of a.png)",
    )


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    assert refusal(lambda: read_coco(tmp_path / "none.json", tmp_path)) == (f"{tmp_path / 'none.json'}: no such file")
    assert refusal(lambda: read_coco(path, tmp_path / "elsewhere")) == (
        f"{path}: none of its images is usable in {tmp_path / 'elsewhere'}; "
        "2 images that do not exist, left out (a.png, b.png); give the folder of its images (--images)"
    )
    for kinds, message in (
        ([], "has no categories; give annotations with at least one category"),
        ([{"id": "1", "name": "cat"}], "categories[0] needs a unique whole number 'id' and a text 'name'"),
        ([*KINDS, KINDS[0]], "categories[2] needs a unique whole number 'id' and a text 'name'"),
        ({}, "has no list 'categories'; give box annotations in COCO format"),
    ):
        assert (
            refusal(lambda kinds=kinds: read_coco(write(tmp_path, [], kinds=kinds), tmp_path)) == f"{path}: {message}"
        )
    same = [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}] * 2
    assert refusal(lambda: read_coco(write(tmp_path, [], images=same), tmp_path)) == (
        f"{path}: images[1] needs a unique whole number 'id' and a text 'file_name'"
    )
    path.write_text("{")
    assert refusal(lambda: read_coco(path, tmp_path)).startswith(f"{path}: is not valid JSON (")


def some(seed: int, tmp_path: Path) -> tuple[Path, CocoData, list[Detections]]:
    """Random boxes in two images, and answers near them with some errors."""
    rng = np.random.default_rng(seed)
    annotations, found = [], []
    for image in (1, 2):
        corner, size = rng.uniform(0, 25, (6, 2)), rng.uniform(4, 14, (6, 2))
        kinds = rng.integers(0, 2, 6)
        for n in range(6):
            made = box(len(annotations) + 1, image, [*corner[n], *size[n]], (3, 7)[kinds[n]], iscrowd=int(n == 5))
            annotations.append({**made, "area": float(size[n].prod())})
        moved = corner + rng.normal(0, 0.7, (6, 2))
        labels = np.where(rng.random(6) < 0.8, kinds + 1, 2 - kinds)
        boxes = np.concatenate([moved, moved + size], 1).astype(np.float32)
        found.append(Detections(boxes, rng.random(6).astype(np.float32), labels))
    path = write(tmp_path, annotations)
    return path, read_coco(path, tmp_path), found


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_those_of_pycocotools_on_the_files(seed: int, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path, data, found = some(seed, tmp_path)
    results = [
        {
            "image_id": image,
            "category_id": data.category_ids[label - 1],
            "bbox": [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])],
            "score": float(score),
        }
        for image, one in enumerate(found, 1)
        for b, score, label in zip(one.boxes, one.scores, one.labels, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ours = average_precision(data, found)
    expected = [value if value >= 0 else math.nan for value in evaluation.stats[:6]]
    np.testing.assert_allclose(
        [ours.ap, ours.ap50, ours.ap75, ours.small, ours.medium, ours.large], expected, atol=1e-6
    )
    assert 0 < ours.ap < 1
    assert ours.ap == pytest.approx(np.mean([*ours.classes.values()]))


def test_right_answers_wrong_answers_and_none(tmp_path: Path) -> None:
    _, data, _ = some(0, tmp_path)
    right = [Detections(s.boxes, np.ones(len(s.boxes), np.float32), s.labels) for s in data.samples]
    assert average_precision(data, right).ap == pytest.approx(1)
    assert math.isnan(average_precision(data, right).large)
    wrong = [Detections(one.boxes, one.scores, 3 - one.labels) for one in right]
    assert average_precision(data, wrong).ap < 0.2
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert average_precision(data, [nothing, nothing]).ap50 == 0
    assert refusal(lambda: average_precision(data, [nothing])) == "boxes: has 2 images but detections were given for 1"
