"""``fbnetv3 detect`` as a user calls it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import shapes
from detectors import ARCH, SETTINGS
from folders import ROOT
from PIL import Image
from shell import Ended, run, succeed

from fbnetv3_zoo.detection import RCNNSettings
from fbnetv3_zoo.utils.serialization import from_json, to_json

DOCS = (ROOT / "docs" / "detection.md").read_text()
SHORT = ["--epochs", "2", "--batch-size", "4", "--learning-rate", "0.02"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a small network, settings, and a run of two epochs in ``run``."""
    root = tmp_path_factory.mktemp("detect")
    shapes.write(root / "train", 16, seed=0, side=64, objects=2)
    shapes.write(root / "val", 6, seed=1, side=64, objects=2)
    (root / "arch.json").write_text(ARCH.to_json())
    settings = replace(SETTINGS, score_threshold=0.0)
    (root / "settings.json").write_text(to_json(settings))
    assert train(root, root / "run").code == 0
    return root


def train(root: Path, output: Path, *more: str) -> Ended:
    return run(
        *("detect", "train", "--annotations", root / "train" / "shapes.json", "--validation", root / "val/shapes.json"),
        *("--model", root / "arch.json", "--settings", root / "settings.json", "--output", output, *SHORT, *more),
    )


def test_train_leaves_detector_report_and_picture(folder: Path) -> None:
    made = {path.name for path in (folder / "run").iterdir()}
    assert made >= {
        "model.safetensors",
        "report.html",
        "predictions.png",
        "results.json",
        "metrics.jsonl",
        "checkpoints",
    }
    result = json.loads((folder / "run" / "results.json").read_text())
    last = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert (result["precision"]["ap50"], result["epochs"], result["seed"]) == (last["ap50"], 2, 0)
    assert (result["classes"], result["images"]) == ([*shapes.KINDS], {"train": 16, "validation": 6})
    with Image.open(folder / "run" / "predictions.png") as picture:
        assert picture.size == (4 * 328, 2 * 328 + 43)  # with the legend
    report = (folder / "run" / "report.html").read_text()
    assert "AP50" in report
    assert "triangle" in report
    assert "<script" not in report


def test_train_goes_on_and_says_what_it_did(folder: Path, tmp_path: Path) -> None:
    again = train(folder, folder / "run")
    assert (again.code, again.err) == (
        2,
        f"error: {folder / 'run'}: holds a run; continue it with --resume (resume=True), or give another folder\n",
    )
    ended = train(folder, folder / "run", "--resume", "--json")
    assert ended.code == 0
    told = json.loads(ended.out)
    assert told["folder"] == str(folder / "run")
    assert set(told["precision"]["classes"]) == set(shapes.KINDS)


def test_validate_gives_the_precision_of_the_run(folder: Path) -> None:
    last = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    model, boxes = folder / "run" / "model.safetensors", folder / "val" / "shapes.json"
    told = json.loads(succeed("detect", "validate", model, "--annotations", boxes, "--json"))
    assert (told["images"], told["ap50"], told["ap"]) == (6, last["ap50"], last["ap"])
    words = succeed("detect", "validate", model, boxes, folder / "val")
    assert words.startswith(f"6 images\nAP {last['ap']:.3f}  AP50 {last['ap50']:.3f}")


def test_predict_says_and_draws_what_it_finds(folder: Path, tmp_path: Path) -> None:
    model, image = folder / "run" / "model.safetensors", folder / "val" / "0000.png"
    before = image.read_bytes()
    options = ["--model", model, "--threshold", "0.01", "--output", tmp_path / "found", "--json"]
    (told,) = json.loads(succeed("detect", "predict", image, *options))
    assert told["detections"]
    assert all(one["label"] in shapes.KINDS and one["score"] >= 0.01 for one in told["detections"])
    with Image.open(told["picture"]) as picture, Image.open(image) as original:
        assert picture.size == original.size
        assert picture.tobytes() != original.convert("RGB").tobytes()
    assert image.read_bytes() == before
    boxes = ["--annotations", folder / "val" / "shapes.json", "--output", tmp_path / "true"]
    (compared,) = json.loads(succeed("detect", "predict", image, "--model", model, *boxes, "--json"))
    assert all(" missed: " in line or " found " in line or " taken for " in line for line in compared["mistakes"])
    with Image.open(compared["picture"]) as picture, Image.open(image) as original:
        assert picture.width == original.width
        assert picture.height > original.height  # the legend
    lost = run("detect", "predict", image, "--model", model, "--images", folder / "val")
    assert lost.err == f"error: --images {folder / 'val'} needs --annotations, the true boxes in these images\n"
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    ended = run("detect", "predict", bad, image, "--model", model, "--threshold", "0.01")
    assert ended.code == 2
    assert ended.err.startswith(f"error: {bad}: ")
    assert f"{image}\n" in ended.out


def test_predict_takes_folders(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "val", tmp_path / "some" / "below")
    model, alone = folder / "run" / "model.safetensors", folder / "train" / "0007.png"
    options = ("--model", model, "--output", tmp_path / "found", "--json")
    told = json.loads(succeed("detect", "predict", tmp_path / "some", alone, *options))
    names = [f"below/000{n}.png" for n in range(6)]
    assert [one["image"] for one in told] == [*(str(tmp_path / "some" / name) for name in names), str(alone)]
    assert [one["picture"] for one in told] == [str(tmp_path / "found" / name) for name in (*names, "0007.png")]
    assert all(Path(one["picture"]).is_file() for one in told)
    (tmp_path / "none").mkdir()
    none = run("detect", "predict", tmp_path / "none", "--model", model)
    assert none.err == f"error: {tmp_path}/none: has no images (JPEG, PNG, WebP, TIFF, BMP)\n"


def test_predict_names_images_without_true_boxes(folder: Path) -> None:
    model, image, boxes = folder / "run/model.safetensors", folder / "train/0000.png", folder / "val/shapes.json"
    ended = run("detect", "predict", image, "--model", model, "--annotations", boxes)
    assert ended.code == 0
    assert ended.err == f"{boxes}: has no true boxes for {image}; give the folder of its images as --images\n"


def test_training_needs_pycocotools_from_the_beginning(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.delitem(sys.modules, "pycocotools.cocoeval", raising=False)
    ended = train(folder, tmp_path / "run")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: pycocotools is not installed; pip install 'fbnetv3-zoo[detection]'\n"


def test_wrong_input_is_one_line(folder: Path, tmp_path: Path) -> None:
    model, image = folder / "run" / "model.safetensors", folder / "val" / "0000.png"
    same = run("detect", "predict", image, folder / "train" / "0000.png", "--model", model, "--output", tmp_path)
    twice = f"{image} and {folder / 'train' / '0000.png'} would both be drawn as {tmp_path / '0000.png'}"
    assert (same.code, same.err) == (2, f"error: {twice}\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / f"{image.stem}.png").write_bytes((folder / "train" / "0001.png").read_bytes())
    kept = run("detect", "predict", image, "--model", model, "--output", tmp_path / "mine")
    assert "already exists, and was not drawn by this program; give another" in kept.err
    assert (tmp_path / "mine" / f"{image.stem}.png").read_bytes() == (folder / "train" / "0001.png").read_bytes()
    for _ in range(2):  # what it drew itself is replaced
        assert run("detect", "predict", image, "--model", model, "--output", tmp_path / "drawn").code == 0
    itself = run("detect", "predict", image, "--model", model, "--output", image.parent)
    assert itself.err == f"error: {image}: is the image itself; give another --output folder\n"
    gone = run("detect", "predict", image, "--model", tmp_path / "gone.safetensors")
    assert (gone.code, gone.err.count("\n")) == (2, 1)
    other = tmp_path / "other.json"
    told = json.loads((folder / "val" / "shapes.json").read_text())
    other.write_text(json.dumps(told | {"categories": [{"id": 1, "name": "cat"}]}))
    strange = run("detect", "validate", model, "--annotations", other, "--images", folder / "val")
    differ = f"lacks disc, square, triangle and has cat, unlike the training data of {model}"
    expected = f"error: {other}: {differ}; give the same categories"
    assert strange.err.splitlines()[-1] == expected
    assert train(folder, tmp_path / "run", "--freeze-at", "2").err.startswith("error: freeze_at=2 would freeze random")


def test_an_image_that_cannot_be_scaled_drops_no_other(folder: Path, tmp_path: Path) -> None:
    model, image, thin = folder / "run" / "model.safetensors", folder / "val" / "0000.png", tmp_path / "thin.png"
    Image.new("RGB", (3, 700)).save(thin)
    ended = run("detect", "predict", thin, image, "--model", model, "--threshold", "0.01", "--output", tmp_path / "out")
    assert (ended.code, ended.err) == (
        2,
        f"error: {thin}: an image of 3 x 700 pixels is too thin for this detector: scaled to 64 pixels on its "
        "longer side, nothing is left of the shorter; crop it\n",
    )
    assert f"{image} -> {tmp_path / 'out' / '0000.png'}\n" in ended.out


def test_without_validation_annotations_some_images_are_held_out(folder: Path, tmp_path: Path) -> None:
    small = ["--model", folder / "arch.json", "--width", "1.5", "--size", "64", *SHORT]
    boxes, output = folder / "train" / "shapes.json", tmp_path / "my runs" / "1"
    ended = run("detect", "train", boxes, folder / "train", "--output", output, *small, "--val-split", "0.25")
    assert ended.code == 0, ended.err
    header = ended.err.splitlines()[:8]
    assert [line.split("  ")[0] for line in header] == [
        "images", "network", "recipe", "", "", "device", "output", "note",
    ]  # fmt: skip
    assert header[7].endswith("6 steps are few for random weights: --epochs 167 has 501 (docs/fine-tuning.md)")
    assert "12 to train on, 4 to validate on (held out by seed 0); 3 classes with " in header[0]
    assert "_w1.5" in header[1]
    assert "(C4), images scaled to 64 pixels, at most 107, anchors of " in header[1]
    assert header[2].endswith(": 2 epochs of 3 steps of 4 images")
    assert header[3].strip().startswith("SGD, learning rate 0.02")
    follow_up = ended.out.splitlines()[-2:]
    assert f"detect predict IMAGES --model '{output / 'model.safetensors'}' --output FOLDER" in follow_up[0]
    assert f"detect export '{output / 'model.safetensors'}' IMAGES --output " in follow_up[1]
    kept = json.loads((output / "config.json").read_text())
    given = {"annotations": str(boxes), "images": str(folder / "train"), "val-split": 0.25, "width": 1.5, "size": 64}
    assert given.items() <= kept.items()
    again = run("detect", "train", "--config", output / "config.json", "--output", tmp_path / "2", "--json")
    assert again.code == 0, again.err
    assert losses(output) == losses(tmp_path / "2")


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["train_loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--size", "16"], "--size is 16; it must be a whole number of at least 32"),
        (["--size", "64", "--settings", "settings.json"], "--settings and --size both give the size of images"),
        (["--width", "0"], "width is 0.0; it must be a number above 0"),
        (["--depth", "nan"], "depth is nan; it must be a number above 0"),
        (["--width", "0.5", "--pretrained"], "only fit its own width and depth; leave out --width and --depth, or"),
        (["--model", "fbnetv3_a_detector", "--depth", "2"], "published detectors have one width and depth; leave out"),
        (["--val-split", "1"], "--val-split is 1.0; it must be a number above 0 and below 1"),
        (["--val-split", "0.5", "--validation", "val.json"], "--validation and --val-split both say what to validate"),
        (["--validation-images", "val"], "--validation-images needs --validation"),
        (["--annotations", "other.json"], "--annotations other.json both give annotations; give only one"),
        (["--images", "photos", "photos"], "photos and --images photos both give images; give only one"),
    ],
)
def test_wrong_options_of_train_are_one_line(folder: Path, tmp_path: Path, options: list[str], complaint: str) -> None:
    boxes = folder / "train" / "shapes.json"
    ended = run("detect", "train", boxes, "--output", tmp_path / "run", *options)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert complaint in ended.err
    assert not (tmp_path / "run").exists()


def test_no_annotations_is_one_line(folder: Path, tmp_path: Path) -> None:
    model = folder / "run" / "model.safetensors"
    for command in (["train", "--output", tmp_path / "run"], ["validate", model]):
        ended = run("detect", *command)
        complaint = "no box annotations are given; give a JSON file in COCO format, such as boxes.json"
        assert (ended.code, ended.err) == (2, f"error: {complaint}\n")


def changed(folder: Path, to: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The validation set again, with other annotations."""
    shutil.copytree(folder / "val", to)
    told = json.loads((to / "shapes.json").read_text())
    change(told)
    (to / "shapes.json").write_text(json.dumps(told))
    return to / "shapes.json"


def test_what_cannot_be_measured_is_a_dash_and_null(folder: Path, tmp_path: Path) -> None:
    model = folder / "run" / "model.safetensors"

    def squares_away(told: dict[str, Any]) -> None:
        told["annotations"] = [one for one in told["annotations"] if one["category_id"] != 2]

    boxes = changed(folder, tmp_path / "val", squares_away)
    told = json.loads(succeed("detect", "validate", model, "--annotations", boxes, "--json"))
    assert (told["large"], told["classes"]["square"]) == (None, None)
    words = succeed("detect", "validate", model, "--annotations", boxes)
    assert words.splitlines()[2].endswith("large -")
    assert "  square    -" in words.splitlines()
    nothing = changed(folder, tmp_path / "nothing", lambda told: told.update(annotations=[]))
    ended = run("detect", "validate", model, "--annotations", nothing)
    expected = "error: shapes: has no objects, so precision cannot be measured; annotate some\n"
    assert (ended.code, ended.out, ended.err) == (2, "", expected)


def test_faults_are_told_before_training_and_in_the_report(folder: Path, tmp_path: Path) -> None:
    def spoil(told: dict[str, Any]) -> None:
        told["categories"][0]["name"] = "<b>disc\x1b[31m</b>"
        told["images"][0]["file_name"] = "../0000.png"
        told["images"][1]["width"] = 63

    whole = lambda told: told["categories"][0].update(name="<b>disc\x1b[31m</b>")  # noqa: E731
    ended = run(
        *("detect", "train", "--annotations", changed(folder, tmp_path / "train", whole), "--output", tmp_path / "run"),
        *("--validation", changed(folder, tmp_path / "val", spoil), "--model", folder / "arch.json"),
        *("--settings", folder / "settings.json", "--epochs", "1", "--batch-size", "4"),
    )
    assert ended.code == 0, ended.err
    outside = f"images whose names or links lead outside {tmp_path / 'val'}, left out (../0000.png)"
    told = f"{tmp_path / 'val' / 'shapes.json'}: 1 {outside}"
    assert told in ended.err.splitlines()
    assert ended.err.index(told) < ended.err.index("epoch ")
    assert "1 images whose size differs from their annotation, left out (0001.png: 64 x 64, anno" in ended.err
    assert "\x1b[31m" not in ended.out
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;disc\\x1b[31m&lt;/b&gt;" in report
    assert outside in report
    assert "\x1b" not in report


def test_export_compares_with_pytorch(folder: Path, tmp_path: Path) -> None:
    model, image = folder / "run" / "model.safetensors", folder / "val" / "0000.png"
    told = json.loads(succeed("detect", "export", model, image, "--output", tmp_path / "boxes.onnx", "--json"))
    assert told["path"] == str(tmp_path / "boxes.onnx")
    assert min(told["detections"]) >= 3
    assert told["box_difference"] < 0.1
    shutil.copy(image, tmp_path / "street.jpg")  # the docs' name; what it is, its contents say
    onnx, boxes = tmp_path / "boxes.onnx", folder / "val" / "shapes.json"
    found = json.loads(succeed("detect", "predict", image, "--model", model, "--threshold", "0.01", "--json"))
    by_onnx = succeed("detect", "predict", image, "--model", onnx, "--threshold", "0.01", "--output", tmp_path / "out")
    lines = [f"  {one['score']:7.2%}  {one['label']}" for one in found[0]["detections"]]
    assert [line.partition("  (")[0] for line in by_onnx.splitlines()[1:]] == lines
    with Image.open(tmp_path / "out" / "0000.png") as picture:
        assert picture.size == (64, 64)
    measured = [
        json.loads(succeed("detect", "validate", one, "--annotations", boxes, "--json", *more))
        for one, more in ((model, ()), (model, ("--workers", "2")), (onnx, ()))
    ]
    assert measured[0] == measured[1]
    # one epoch of training gives many boxes scores that are nearly the same: rounding changes their order
    assert measured[0]["ap50"] == pytest.approx(measured[2]["ap50"], abs=0.1)
    rows = [(one["label"], f"{one['score']:.2%}") for one in found[0]["detections"]]
    example = re.search(r"<!-- not run: the exported detector.*? -->\n```python\n(.*?)```", DOCS, re.DOTALL)
    assert example is not None
    code = [sys.executable, "-c", example[1].replace("0.5", "0.01")]
    ended = subprocess.run(code, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [tuple(line.split()[:2]) for line in ended.stdout.splitlines()] == rows
    wrong = run("detect", "export", model, image, "--output", tmp_path / "boxes.pt")
    assert wrong.err == f"error: {tmp_path / 'boxes.pt'}: ONNX files end in .onnx; change the extension\n"


def test_every_field_of_the_settings_is_told() -> None:
    told = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", DOCS.split("#### Settings")[1].split("####")[0], re.MULTILINE)
    defaults = {f.name: f.default for f in fields(RCNNSettings)}
    assert [name for name, _ in told] == [*defaults]
    for name, value in told:
        default = defaults[name]
        assert value == (f"{default:g}" if isinstance(default, (int, float)) else ", ".join(f"{x:g}" for x in default))
    example = re.search(r'^(\{"format": "fbnetv3_zoo.settings".*\})$', DOCS, re.MULTILINE)
    assert example is not None
    assert from_json(RCNNSettings, example[1]).anchor_sizes == (24, 48, 96)


def test_outputs_may_lie_beside_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No later run takes them for images: annotations name these. Two are too few, which is what ends the command."""
    shapes.write(tmp_path / "boxes", 2, seed=0, side=64)
    monkeypatch.chdir(tmp_path / "boxes")
    ended = run("detect", "train", "shapes.json", "--model", "fbnetv3_nano", "--output", "runs/boxes")
    assert (ended.code, "data folder" in ended.err) == (2, False)
    assert "2 images with objects" in ended.err
    assert not (tmp_path / "boxes" / "runs").exists()
