"""What is wrong with a data set for detectors is told, all of it, before anything is trained or measured."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectors import RECIPE, SETTINGS, SPEC
from PIL import Image
from refusals import refusal
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from fbnetv3_zoo.detection.data.coco import AnnotatedImage, CocoData, open_image, read_coco
from fbnetv3_zoo.detection.data.fitting import evaluation_data, scaled_size, training_data
from fbnetv3_zoo.detection.data.json_entries import LARGEST_FILE
from fbnetv3_zoo.detection.training.evaluate import Detections, average_precision
from fbnetv3_zoo.detection.training.train import DetectionEpoch, train_detector
from fbnetv3_zoo.recipes import Augmentation
from fbnetv3_zoo.training import Callback

WIDTH, HEIGHT = 96, 64


train = partial(train_detector, report=False)


def write(folder: Path, change: Callable[[dict[str, Any]], object] = lambda told: None, *, images: int = 4) -> Path:
    """A set of noise with a box on every image, changed before it is written."""
    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (images, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for n, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{n}.png")
    told: dict[str, Any] = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in range(images)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [30, 20, 30, 24]} for n in range(images)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(SPEC.class_names, start=1)],
    }
    change(told)
    path = folder / "boxes.json"
    path.write_text(json.dumps(told))
    return path


def read(folder: Path, change: Callable[[dict[str, Any]], object] = lambda told: None, **more: Any) -> CocoData:
    return read_coco(write(folder, change, **more), folder)


def set_box(number: int, box: list[Any]) -> Callable[[dict[str, Any]], object]:
    return lambda told: told["annotations"][number].update(bbox=box)


def found_right(data: CocoData) -> list[Detections]:
    return [Detections(s.boxes, np.ones(len(s.boxes), np.float32), s.labels) for s in data.samples]


# --- boxes ---


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ([95.9999999, 20, 5, 24], "boxes too thin for single precision, left out"),
        ([50, 1e8, 20, 1e-7], "boxes outside their image, left out"),
        ([60, 40, 1e-9, 20], "boxes too thin for single precision, left out"),
        ([10**400, 20, 5, 24], "boxes that are not four finite numbers with an area, left out"),
        ([1e308, 20, 1e308, 24], "boxes that are not four finite numbers with an area, left out"),
        (["1", "2", "3", "4"], "boxes that are not four finite numbers with an area, left out"),
        ([[1], [2], [3], [4]], "boxes that are not four finite numbers with an area, left out"),
    ],
)
def test_a_box_that_cannot_be_used_is_named(box: list[Any], fault: str, tmp_path: Path) -> None:
    data = read(tmp_path, set_box(2, box))
    assert data.faults == (f"1 {fault} (annotation 2 of 2.png)",)
    assert [len(sample.boxes) for sample in data.samples] == [1, 1, 0, 1]


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, min_size=9, max_size=10)])
def test_boxes_have_an_area_wherever_training_rounds(mirror: bool, settings: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)

    def change(told: dict[str, Any]) -> None:
        thin = 10.0 ** rng.uniform(-8, 1, (4000, 2))
        places = rng.choice([0.0, 1e-3, 5.0, 31.999999, 32.0, 63.9999, 95.999], (4000, 2))
        told["annotations"] = [
            {"id": n, "image_id": n % 4, "category_id": 1, "bbox": [*map(float, (*at, *size))]}
            for n, (at, size) in enumerate(zip(places, thin, strict=True))
        ]

    data = training_data(read(tmp_path, change), settings, mirror=mirror)
    assert 0 < sum(len(sample.boxes) for sample in data.samples) < 4000
    transform = GeneralizedRCNNTransform(settings.min_size, settings.max_size, [0.0] * 3, [1.0] * 3)
    for sample in data.samples:
        boxes = torch.from_numpy(sample.boxes)
        turned = torch.stack((WIDTH - boxes[:, 2], boxes[:, 1], WIDTH - boxes[:, 0], boxes[:, 3]), 1)
        for given in (boxes, turned) if mirror else (boxes,):
            _, seen = transform([torch.zeros(3, HEIGHT, WIDTH)], [{"boxes": given}])
            assert (seen[0]["boxes"][:, 2:] > seen[0]["boxes"][:, :2]).all()
    assert "boxes too thin to learn from when scaled, left out" in data.faults[-1]


@pytest.mark.parametrize(("width", "height"), [(3, 700), (700, 3), (1, 64), (700, 520), (97, 96), (1, 1), (33, 2000)])
def test_sizes_are_those_that_torchvision_scales_to(width: int, height: int) -> None:
    for shortest, longest in ((64, 64), (800, 1333), (5, 900)):
        transform = GeneralizedRCNNTransform(shortest, longest, [0.0], [1.0]).eval()
        expected = scaled_size(width, height, shortest, longest)
        if 0 in expected:
            with pytest.raises(RuntimeError):
                transform.resize(torch.zeros(1, height, width))
        else:
            image, _ = transform.resize(torch.zeros(1, height, width))
            assert (image.shape[2], image.shape[1]) == expected


def test_odd_values_of_iscrowd(tmp_path: Path) -> None:
    def change(told: dict[str, Any]) -> None:
        for entry, value in zip(told["annotations"], (1, "yes", [1], True), strict=True):
            entry["iscrowd"] = value

    data = read(tmp_path, change)
    assert [bool(sample.crowd[0]) for sample in data.samples] == [True, False, False, True]
    expected = "boxes whose 'iscrowd' is neither 0 nor 1, taken for single objects"
    assert data.faults == (f"2 {expected} (annotation 1 of 1.png, annotation 2 of 2.png)",)


# --- images ---


def test_images_of_another_size_or_damaged_are_left_out_at_once(tmp_path: Path) -> None:
    def change(told: dict[str, Any]) -> None:
        told["images"][3].update(width=HEIGHT, height=WIDTH)
        (tmp_path / "1.png").write_bytes(b"no image")

    data = read(tmp_path, change)
    assert [sample.path.name for sample in data.samples] == ["0.png", "2.png"]
    other, damaged, boxes = sorted(data.faults, key=lambda fault: "size differs" not in fault)
    assert other == "1 images whose size differs from their annotation, left out (3.png: 96 x 64, annotated 64 x 96)"
    assert damaged.startswith("1 images that cannot be read, left out (1.png: ")
    assert boxes.startswith("2 boxes of images that are left out or not listed, left out (annotation 1, annotation 3)")


def turned(folder: Path, number: int, orientation: int) -> None:
    """The image again, as a camera that was held so stores it."""
    with Image.open(folder / f"{number}.png") as image:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(folder / f"{number}.png", exif=exif)


def test_images_are_as_their_annotations_are(tmp_path: Path) -> None:
    """Turned upright where they were annotated upright, as they are stored where these pixels were annotated."""

    def as_stored(told: dict[str, Any]) -> None:
        for number, orientation in ((1, 6), (2, 3), (3, 8)):
            turned(tmp_path, number, orientation)

    write(tmp_path)
    stored = [np.asarray(Image.open(tmp_path / f"{n}.png")) for n in range(4)]
    data = read(tmp_path, as_stored)
    expected = "images with an EXIF rotation but annotated as stored, not rotated"
    assert data.faults == (f"2 {expected} (1.png, 3.png)",)
    for sample, pixels in zip(data.samples, stored, strict=True):
        assert np.array_equal(np.asarray(open_image(sample)), pixels)

    def upright(told: dict[str, Any]) -> None:
        as_stored(told)
        for number in (1, 3):
            told["images"][number].update(width=HEIGHT, height=WIDTH)

    data = read(tmp_path, upright)
    assert data.faults == ()
    assert np.array_equal(np.asarray(open_image(data.samples[1])), np.rot90(stored[1], -1))
    assert np.array_equal(np.asarray(open_image(data.samples[2])), np.rot90(stored[2], 2))


def test_an_image_too_thin_to_be_scaled_is_left_out(tmp_path: Path) -> None:
    def change(told: dict[str, Any]) -> None:
        Image.new("RGB", (3, 700)).save(tmp_path / "2.png")
        told["images"][2].update(width=3, height=700)
        told["annotations"][2]["bbox"] = [0, 10, 3, 200]

    data = read(tmp_path, change)
    assert data.faults == ()
    for fitted in (training_data(data, SETTINGS, mirror=True), evaluation_data(data, SETTINGS)):
        assert fitted.faults == ("1 images too thin for the detector's size, left out (2.png: 3 x 700)",)
        assert len(fitted) == 3


# --- names ---


def test_names_cannot_lead_outside_the_folder(tmp_path: Path) -> None:
    data, secret = tmp_path / "data", tmp_path / "secret.png"
    Image.new("RGB", (WIDTH, HEIGHT)).save(secret)
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "elsewhere" / "x.png")

    def change(told: dict[str, Any]) -> None:
        (data / "link.png").symlink_to(secret)
        (data / "sub").symlink_to(tmp_path / "elsewhere")
        (data / "inside.png").symlink_to(data / "0.png")
        (data / "deep").mkdir()
        names = (str(secret), "../secret.png", "link.png", "sub/x.png", "C:\\secret.png", "inside.png", "deep/../0.png")
        told["images"] = [{"id": n, "file_name": name, "width": 96, "height": 64} for n, name in enumerate(names)]

    path = write(data, change)
    told = read_coco(path, data)
    assert [str(sample.path.relative_to(data)) for sample in told.samples] == ["inside.png", "deep/../0.png"]
    assert told.faults[0] == (
        f"5 images whose names or links lead outside {data}, left out ({secret}, ../secret.png, link.png, sub/x.png, "
        "C:\\secret.png)"
    )
    (tmp_path / "linked").symlink_to(data)
    assert len(read_coco(path, tmp_path / "linked")) == 2
    assert len(read_coco(path, data, follow_links=True)) == 4


def test_names_that_a_terminal_would_obey_or_no_file_can_have(tmp_path: Path) -> None:
    def change(told: dict[str, Any]) -> None:
        for entry, name in zip(told["images"], ("\x1b[31m.png", "\0", "n" * 5000, "\udcff.png"), strict=True):
            entry["file_name"] = name
        told["images"].append({"id": 9, "file_name": "0.png", "width": 96, "height": 64})
        told["annotations"][0].update(id="\x1b]0;title\x07", image_id=9, category_id=9)

    data = read(tmp_path, change)
    assert [sample.path.name for sample in data.samples] == ["0.png"]
    assert all(fault.isprintable() for fault in data.faults)
    assert data.faults[0].startswith("4 images that do not exist, left out (\\x1b[31m.png, \\x00, nnnn")
    assert "1 boxes of categories that are not listed, left out (annotation \\x1b]0;title\\x07 of 0.png)" in data.faults


def test_a_name_that_is_no_unicode_opens_its_file(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "0.png").rename(tmp_path / "\udcff.png")
    path = write(tmp_path, lambda told: told["images"][0].update(file_name="\udcff.png"))
    assert read_coco(path, tmp_path).samples[0].path.name == "\udcff.png"


def test_a_category_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, lambda told: told["categories"][1].update(name="\ud800"))
    assert refusal(lambda: read_coco(path, tmp_path)) == (
        f"{path}: categories[1] has a 'name' that is not valid Unicode text; rename it"
    )


# --- files ---


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no { at character 0"),
        ("[]", "no { at character 0"),
        ('{"images": [], "images": []}', "has 'images' twice"),
        ('{"images": [1', "ends too early"),
        ('{"images": [] "a": 1}', "no , or } at character 14"),
        ('{"images": []} {}', "trailing text at character 15"),
        ('{"annotations": [], "images": [], "categories": [' + "[" * 200_000 + "]" * 200_000 + "]}", "nested too"),
        ('{"a": ' + "9" * 5000 + ', "categories": [' + "9" * 5000 + '], "annotations": [], "images": []}', "Exceeds"),
        ('{"annotations": [], "images": [], "categories": [{"id": 1 "name": "a"}]}', "Expecting ',' delimiter"),
    ],
)
def test_files_that_are_no_json(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(text)
    assert complaint in refusal(lambda: read_coco(path, tmp_path))


def test_a_file_of_many_gigabytes_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    assert f"is larger than {LARGEST_FILE:,} bytes" in refusal(lambda: read_coco(path, tmp_path))


def test_an_entry_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, lambda told: told["annotations"][0].update(segmentation=["[]" * (9 << 20)]))
    assert "an entry of 'annotations' has 18,87" in refusal(lambda: read_coco(path, tmp_path))


def test_what_is_not_used_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path)
    told = json.loads(path.read_text())
    odd = {"info": {"a": ['"]}', "\\", [[{}]]], "b": None}, "licenses": 'a "quoted\\" text', "year": -1.5e3}
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({**odd, **dict(reversed(told.items()))}, indent=3).encode())
    data = read_coco(path, tmp_path)
    assert (len(data), data.class_names, data.faults) == (4, SPEC.class_names, ())


# --- precision ---


def test_a_class_listed_twice_is_one(tmp_path: Path) -> None:
    def change(told: dict[str, Any]) -> None:
        told["categories"].append({"id": 9, "name": "disc"})
        told["annotations"][3]["category_id"] = 9

    data = read(tmp_path, change)
    assert (data.class_names, data.category_ids) == (SPEC.class_names, (1, 2, 3))
    assert data.faults == ("1 categories with the name of another, merged (disc)",)
    found = average_precision(data, found_right(data))
    assert (found.ap, found.classes["disc"]) == (pytest.approx(1), pytest.approx(1))
    assert math.isnan(found.classes["square"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"spec": "fbnetv3_a"}, "spec is 'fbnetv3_a'; it must be a DetectorSpec"),
        ({"data": "boxes.json"}, "data is 'boxes.json'; it must be a CocoData, as read_coco(FILE, FOLDER) gives"),
        ({"validation": None}, "validation is None; it must be a CocoData, as read_coco(FILE, FOLDER) gives"),
        ({"recipe": None}, "recipe is None; it must be a Recipe, such as fit_detection_recipe(IMAGES).recipe"),
        ({"folder": None}, "folder is None; it must be the path of a folder, such as 'runs/first'"),
        ({"execution": {}}, "execution is {}; it must be an Execution, such as Execution(device='cuda')"),
        ({"callbacks": [Callback]},
         "callbacks[0] is the class Callback; callbacks must be instances of fbnetv3_zoo.training.Callback, such as "
         "Callback()"),
    ],
)  # fmt: skip
def test_arguments_of_other_types_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    data = read(tmp_path / "data")
    given = {"spec": SPEC, "data": data, "validation": data, "recipe": RECIPE, "folder": tmp_path / "run", **changes}
    assert refusal(lambda: train(**given)) == said
    assert not (tmp_path / "run").exists()


def test_nothing_to_find_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    data = read(tmp_path / "train")
    empty = read(tmp_path / "empty", lambda told: told.update(annotations=[]))
    crowds = read(tmp_path / "crowds", lambda told: [entry.update(iscrowd=1) for entry in told["annotations"]])
    for judged, but in ((empty, ""), (crowds, " except crowds")):
        expected = f"boxes: has no objects{but}, so precision cannot be measured; annotate some"
        assert refusal(lambda judged=judged: average_precision(judged, found_right(judged))) == expected
        assert refusal(lambda judged=judged: train(SPEC, data, judged, RECIPE, tmp_path / "run")) == expected
    assert not (tmp_path / "run").exists()


# --- training ---


class Epochs(Callback):
    def __init__(self) -> None:
        self.epochs: list[DetectionEpoch] = []

    def on_epoch(self, epoch: DetectionEpoch) -> None:
        self.epochs.append(epoch)


def cut_short(sample: AnnotatedImage) -> None:
    """Damage the pixels; header and end of the file stay."""
    data = bytearray(sample.path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    sample.path.write_bytes(data)


def test_images_that_turn_out_damaged_end_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, judged = read(tmp_path / "train", images=8), read(tmp_path / "val")
    cut_short(data.samples[5])
    cut_short(judged.samples[1])
    seen = Epochs()
    recipe = replace(RECIPE, epochs=2, batch_size=4)
    with caplog.at_level(logging.WARNING, "fbnetv3_zoo"):
        run = train(SPEC, data, judged, recipe, tmp_path / "run", callbacks=[seen])
    assert [epoch.skipped for epoch in seen.epochs] == [1, 1]
    assert run.faults == (
        "1 images that could not be read, replaced by another in training (5.png)",
        "1 images that could not be read, counted as if nothing was found in it (1.png)",
    )
    assert [record.getMessage().count("5.png") for record in caplog.records] == [1, 0]


def test_what_does_not_fit_the_detector_is_told_before_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, judged = read(tmp_path / "train", set_box(0, [0, 20, 1e-6, 24])), read(tmp_path / "val")
    recipe = replace(RECIPE, epochs=1, batch_size=3, augmentation=Augmentation(flip=1.0))
    with caplog.at_level(logging.WARNING, "fbnetv3_zoo"):
        run = train(SPEC, data, judged, recipe, tmp_path / "run")
    told = "1 boxes too thin to learn from when scaled, left out (annotation 0 of 0.png)"
    assert [record.getMessage() for record in caplog.records] == [f"boxes: {told}"]
    assert run.faults == (told,)
