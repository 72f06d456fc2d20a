"""A detector's file on PyTorch or ONNX Runtime, and what is refused; loading images by worker processes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import shapes
import torch
from detectors import SETTINGS
from detectors import SPEC as LEARNED
from refusals import refusal
from torch import Tensor

from fbnetv3_zoo.detection import open_detector, save_detector
from fbnetv3_zoo.detection.data.coco import CocoData, read_coco
from fbnetv3_zoo.detection.data.faults import Unreadable
from fbnetv3_zoo.detection.onnx.export import _detached, _metadata, _whole, _write, export_parts
from fbnetv3_zoo.detection.training.evaluate import Detections
from fbnetv3_zoo.detection.training.predict import find_objects, read_pixels
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.runtimes import sandbox

SPEC = replace(LEARNED, settings=replace(SETTINGS, score_threshold=0.0))
"""Random weights find something, too."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes") / "data"
    return read_coco(shapes.write(folder, 7, seed=0, side=64, objects=2), folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``boxes.safetensors`` and ``boxes.onnx``, the same detector, and ``trunk.onnx``, a part of it."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    model = SPEC.build().eval()
    save_detector(model, SPEC, folder / "boxes.safetensors")
    detector = _detached(model, SPEC)
    _write(_whole(detector), folder / "boxes.onnx", _metadata(detector, SPEC))
    export_parts(model, SPEC, folder)
    return folder


def test_an_onnx_file_is_tried_out_and_finds_the_same(
    files: Path, data: CocoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []
    run = sandbox.try_out
    monkeypatch.setattr(sandbox, "known", lambda suffix, parts: False)
    monkeypatch.setattr(sandbox, "try_out", lambda path, *rest, **more: (tried.append(path), run(path, *rest, **more)))
    own, exported = open_detector(files / "boxes.safetensors"), open_detector(files / "boxes.onnx")
    assert tried == [files / "boxes.onnx"]
    assert exported.spec == own.spec == SPEC
    for sample in data.samples:
        expected, found = (one.find(read_pixels(sample)) for one in (own, exported))
        assert len(found.scores) == len(expected.scores) > 0
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.1)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    thin = refusal(partial(exported.find, torch.zeros(3, 700, 3)))
    assert thin == refusal(partial(own.find, torch.zeros(3, 700, 3)))
    assert "is too thin for this detector" in thin


def changed(files: Path, to: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(files / "boxes.onnx")
    change(model)
    onnx.save(model, to)
    return to


def without_description(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def of_another_kind(model: onnx.ModelProto) -> None:
    next(entry for entry in model.metadata_props if entry.key == "format").value = "fbnetv3_zoo.model"


def damaged(model: onnx.ModelProto) -> None:
    next(entry for entry in model.metadata_props if entry.key == "detector").value = "{"


def of_one_class(model: onnx.ModelProto) -> None:
    entry = next(entry for entry in model.metadata_props if entry.key == "detector")
    entry.value = json.dumps(json.loads(entry.value) | {"class_names": ["circle"]})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (without_description, "not a detector; give a file written by `fbnetv3 detect train` or `detect export`"),
        (of_another_kind, "not a detector; give a file written by `fbnetv3 detect train` or `detect export`"),
        (damaged, "detector_spec JSON"),
    ],
)
def test_other_onnx_files_are_refused(
    files: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], object], complaint: str
) -> None:
    path = changed(files, tmp_path / "other.onnx", change)
    told = refusal(partial(open_detector, path))
    assert told.startswith(f"{path}: ")
    assert complaint in told
    assert "\n" not in told


def test_what_is_not_a_whole_detector_is_refused(files: Path, tmp_path: Path) -> None:
    trunk, garbage, weights = files / "trunk.onnx", tmp_path / "garbage.onnx", tmp_path / "boxes.pt"
    assert refusal(partial(open_detector, trunk)) == (
        f"{trunk}: turns images into stride16, not an image into boxes; give a whole detector, as written by "
        "`fbnetv3 detect export`"
    )
    garbage.write_bytes(b"not an ONNX file at all")
    assert refusal(partial(open_detector, garbage)).startswith(f"{garbage}: cannot be read as ONNX (")
    assert refusal(partial(open_detector, weights)).endswith("give one that ends in .safetensors or .onnx")
    on_gpu = refusal(partial(open_detector, files / "boxes.onnx", device=torch.device("cuda")))
    assert on_gpu.endswith("run on the CPU; leave out the device (cuda)")


def test_labels_that_its_description_lacks_are_refused(files: Path, data: CocoData, tmp_path: Path) -> None:
    detector = open_detector(changed(files, tmp_path / "one.onnx", of_one_class))
    assert detector.spec.class_names == ("circle",)
    images = [read_pixels(sample) for sample in data.samples]
    with pytest.raises(ZooError, match="finds other than its 1 classes"):
        [*map(detector.find, images)]


def by_sum(image: Tensor) -> Detections:
    """A box with the mean of the image for its score."""
    return Detections(np.zeros((1, 4), np.float32), image.mean()[None].numpy(), np.ones(1, np.int64))


def test_workers_change_nothing(data: CocoData, tmp_path: Path) -> None:
    samples = [*data.samples]
    samples[3] = replace(samples[3], path=tmp_path / "gone.png")
    answers = []
    for workers in (0, 2):
        unreadable = Unreadable(log=False)
        found = find_objects(by_sum, samples, unreadable, workers=workers)
        answers.append([one.scores.tolist() for one in found])
        assert "1 images that could not be read" in unreadable.lines[0]
    assert answers[0] == answers[1]
    assert [len(scores) for scores in answers[0]] == [1, 1, 1, 0, 1, 1, 1]
    assert answers[0][0][0] == by_sum(read_pixels(data.samples[0])).scores[0]
    assert find_objects(by_sum, [], Unreadable(log=False), workers=2) == []


def test_a_worker_that_dies_is_one_line(data: CocoData, monkeypatch: pytest.MonkeyPatch) -> None:
    here, name = os.getpid(), "fbnetv3_zoo.detection.training.predict.open_image"
    monkeypatch.setattr(name, lambda sample: os.kill(os.getpid(), signal.SIGKILL) if os.getpid() != here else None)
    told = refusal(partial(find_objects, by_sum, data.samples, Unreadable(log=False), workers=1))
    assert told.startswith("a worker process that loads images has died (")
