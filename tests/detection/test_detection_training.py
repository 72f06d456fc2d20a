"""Training a detector: it learns, repeats, goes on where it was killed, is kept whole; wrong input is refused."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import shapes
import torch
from detectors import ARCH, RECIPE, SETTINGS, SPEC
from folders import HELPERS
from PIL import Image
from safetensors.torch import load_file, save_file
from waiting import PATIENCE

import fbnetv3_zoo
from fbnetv3_zoo.detection import RCNNSettings
from fbnetv3_zoo.detection.data.coco import CocoData, read_coco
from fbnetv3_zoo.detection.models.serialization import FORMAT, DetectorKind, DetectorSpec, load_detector, save_detector
from fbnetv3_zoo.detection.training.predict import detect, read_pixels
from fbnetv3_zoo.detection.training.train import DetectionRun, train_detector
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.recipes import Augmentation
from fbnetv3_zoo.training import Callback, Execution, Step
from fbnetv3_zoo.utils.serialization import to_json

train = partial(train_detector, report=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes") / "data"
    return read_coco(shapes.write(folder, 16, seed=0, side=64, objects=2), folder)


@pytest.fixture(scope="module")
def run(data: CocoData, tmp_path_factory: pytest.TempPathFactory) -> DetectionRun:
    return train(SPEC, data, data, RECIPE, tmp_path_factory.mktemp("run") / "run")


def refusal(**changes: object) -> str:
    with pytest.raises(ZooError) as caught:
        train(**changes)  # type: ignore[arg-type]
    return str(caught.value)


def test_the_loss_falls_and_every_epoch_is_told(run: DetectionRun) -> None:
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["train_loss"] < 0.75 * lines[0]["train_loss"]
    assert lines[-1]["ap50"] == run.precision.ap50
    assert {path.name for path in run.folder.iterdir()} >= {"checkpoints", "metrics.jsonl", "model.safetensors"}


class Stop(Callback):
    def on_step(self, step: Step) -> None:
        if (step.epoch, step.step) == (2, 3):
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_to_the_same_weights(run: DetectionRun, data: CocoData, tmp_path: Path) -> None:
    often = Execution(checkpoint_steps=2)
    with pytest.raises(KeyboardInterrupt):
        train(SPEC, data, data, RECIPE, tmp_path / "run", execution=often, callbacks=[Stop()])
    again = train(SPEC, data, data, RECIPE, tmp_path / "run", resume=True)
    assert_equal(run.folder, again.folder)
    assert [e.train_loss for e in again.epochs] == [e.train_loss for e in run.epochs]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from detectors import RECIPE, SPEC
from fbnetv3_zoo.detection import read_coco
from fbnetv3_zoo.detection.training.train import train_detector
from fbnetv3_zoo.training import Callback, Execution

class Kill(Callback):
    def on_step(self, step):
        if (step.epoch, step.step) == (2, 2):
            os.kill(os.getpid(), signal.SIGKILL)

data = read_coco(sys.argv[2] + "/shapes.json", sys.argv[2])
train_detector(SPEC, data, data, RECIPE, sys.argv[3], execution=Execution(checkpoint_steps=1), callbacks=[Kill()])
"""


def test_a_killed_run_goes_on_to_the_same_weights(run: DetectionRun, data: CocoData, tmp_path: Path) -> None:
    places = [HELPERS, data.samples[0].path.parent, tmp_path / "run"]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, places)], env={**os.environ, **threads}, timeout=PATIENCE
    )
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "model.safetensors").exists()
    again = train(SPEC, data, data, RECIPE, tmp_path / "run", resume=True)
    assert_equal(run.folder, again.folder)


def assert_equal(first: Path, second: Path) -> None:
    one, other = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_file_restores_the_detector_whole(
    run: DetectionRun, data: CocoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, spec = load_detector(run.folder / "model.safetensors")
    assert spec == run.spec
    for one in (model, run.model):  # so short a training makes few detectors sure of anything
        monkeypatch.setattr(one.roi_heads, "score_thresh", 0.0)
    kept, known = (list(detect(one, map(read_pixels, data.samples[:4]))) for one in (model, run.model))
    assert sum(len(one.scores) for one in known) > 0
    for one, other in zip(kept, known, strict=True):
        assert (one.boxes == other.boxes).all()
        assert (one.scores == other.scores).all()
        assert (one.labels == other.labels).all()


def test_a_network_gives_its_weights_and_colors(data: CocoData, tmp_path: Path) -> None:
    source = fbnetv3_zoo.create(ARCH, generator=torch.Generator().manual_seed(5)).eval()
    source.preprocess = replace(source.preprocess, mean=(0.1, 0.2, 0.3))
    source.weights, source.license = "facebook/tiny_in1k", "CC-BY-NC-4.0"
    once = replace(RECIPE, epochs=1)
    spec = train(SPEC, data, data, once, tmp_path / "run", source=source, freeze_at=2, fixed_norms=True).spec
    model, stored = load_detector(tmp_path / "run" / "model.safetensors")
    assert stored == spec
    assert (spec.weights, spec.license) == ("facebook/tiny_in1k", "CC-BY-NC-4.0")
    assert spec.mean == (0.1, 0.2, 0.3) == tuple(model.transform.image_mean)
    name = "stages.0.0.conv.weight"
    assert torch.equal(model.backbone.trunk.state_dict()[name], source.state_dict()[name])


def test_mirrored_images_have_mirrored_boxes(
    data: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    seen: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []

    def look(model: object, images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]]) -> None:
        seen.extend(zip(images, targets, strict=True))
        raise KeyboardInterrupt

    monkeypatch.setattr("torchvision.models.detection.generalized_rcnn.GeneralizedRCNN.forward", look)
    for share in (1.0, 0.0):
        recipe = replace(RECIPE, augmentation=Augmentation(flip=share))
        with pytest.raises(KeyboardInterrupt):
            train(SPEC, data, data, recipe, tmp_path / str(share))
    (image, boxes), (plain, expected) = seen[0], seen[RECIPE.batch_size]
    assert torch.equal(image, plain.flip(2))
    columns = [2, 1, 0, 3]
    assert torch.equal(boxes["boxes"][:, [1, 3]], expected["boxes"][:, [1, 3]])
    assert torch.equal(boxes["boxes"][:, [0, 2]], 64 - expected["boxes"][:, columns][:, [0, 2]])


def test_wrong_input_is_refused(run: DetectionRun, data: CocoData, tmp_path: Path) -> None:
    given = {"spec": SPEC, "data": data, "validation": data, "recipe": RECIPE, "folder": tmp_path / "run"}
    assert refusal(**given | {"folder": run.folder}) == (
        f"{run.folder}: holds a run; continue it with --resume (resume=True), or give another folder"
    )
    assert refusal(**given | {"spec": replace(SPEC, class_names=("dog",))}) == (
        "shapes: has the classes disc, square, triangle, the detector others"
    )
    assert refusal(**given | {"recipe": replace(RECIPE, batch_size=32)}) == (
        "shapes: has 16 images with boxes, fewer than one batch of 32"
    )
    assert refusal(**given | {"recipe": replace(RECIPE, label_smoothing=0.1)}) == (
        "recipe: a detector is trained with mirroring (augmentation.flip) alone; set the other augmentation, "
        "label_smoothing, dropout and stochastic_depth to nothing"
    )
    assert refusal(**given | {"execution": Execution(channels_last=True)}) == (
        "execution: detectors have no use for channels_last; leave it at None"
    )
    assert refusal(**given | {"execution": Execution(accumulation=4)}) == (
        "batches of 2 images cannot be divided into 1 processes x 4 parts of at least 1 images; use a multiple of 4, "
        "such as 4"
    )
    assert refusal(**given | {"recipe": replace(RECIPE, learning_rate=9e5, clip_norm=0.0)}).startswith("loss is ")
    assert refusal(**given | {"freeze_at": 2, "folder": tmp_path / "frozen"}).startswith(
        "freeze_at=2 would freeze random"
    )


def test_another_seed_is_another_run(run: DetectionRun, data: CocoData) -> None:
    other = replace(RECIPE, seed=1)
    told = refusal(spec=SPEC, data=data, validation=data, recipe=other, folder=run.folder, resume=True)
    assert "recipe" in told


def test_an_image_of_another_size_than_annotated_is_refused(data: CocoData, tmp_path: Path) -> None:
    Image.new("RGB", (32, 64)).save(tmp_path / "0.png")
    sample = replace(data.samples[0], path=tmp_path / "0.png")
    with pytest.raises(ZooError, match="has 32 x 64 pixels but is annotated as 64 x 64; correct the annotation"):
        read_pixels(sample)


def test_damaged_files_are_refused(run: DetectionRun, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(ZooError) as caught:
            load_detector(path)
        return str(caught.value)

    good = run.folder / "model.safetensors"
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:5000])
    assert refused(tmp_path / "cut.safetensors").startswith(f"{tmp_path / 'cut.safetensors'}: ")
    other = tmp_path / "other.safetensors"
    save_file(load_file(good), other)
    written = "give a file written by `fbnetv3 detect train` or `detect export`"
    assert refused(other) == f"{other}: not a detector; {written}"
    model, spec = load_detector(good)
    misfit = "its tensors do not match the detector it describes (roi_heads.box_predictor.deltas.bias, "
    two = replace(spec, class_names=("one", "two"))
    save_file(load_file(good), other, {"format": FORMAT, "detector": to_json(two)})
    assert refused(other).startswith(f"{other}: {misfit}")
    save_file(
        {**load_file(good), "rpn.head.logits.bias": torch.tensor([math.nan, 0.0])}, other,
        {"format": FORMAT, "detector": to_json(spec)},
    )  # fmt: skip
    assert refused(other) == f"{other}: its weights have NaN or infinite values (rpn.head.logits.bias); train it again"
    with pytest.raises(ZooError, match="not written, since it could not be loaded again: its tensors do not match"):
        save_detector(model, two, tmp_path / "unsaved.safetensors")
    assert not (tmp_path / "unsaved.safetensors").exists()
    with pytest.raises(ZooError, match=r"model.pt: weights are saved as .safetensors; change the extension"):
        save_detector(model, spec, "model.pt")


@pytest.mark.parametrize("kind", [DetectorKind.C4, DetectorKind.FPN])
def test_what_is_saved_loads_and_answers(kind: DetectorKind, tmp_path: Path) -> None:
    """Compiled, wrapped, with frozen norms, of half precision: the file gives the plain detector."""
    source, spec = fbnetv3_zoo.create(ARCH), replace(SPEC, kind=kind, settings=replace(SETTINGS, score_threshold=0.0))
    model = spec.build(source=source, freeze_at=2, fixed_norms=True).eval()
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    (expected,) = detect(model, [image])
    for name, given in (
        ("compiled", torch.compile(model)),
        ("wrapped", torch.nn.DataParallel(model)),
        ("half", copy.deepcopy(model).half()),
    ):
        save_detector(given, spec, tmp_path / f"{name}.safetensors")  # type: ignore[arg-type]
        restored, told = load_detector(tmp_path / f"{name}.safetensors")
        (found,) = detect(restored, [image])
        assert told == spec
        assert found.boxes.dtype == expected.boxes.dtype
        if name != "half":
            assert torch.allclose(torch.from_numpy(found.scores), torch.from_numpy(expected.scores), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (
            {"anchor_sizes": (32, -1)},
            "RCNNSettings.anchor_sizes[1] is -1; it must be a number at least 0.01 and at most 10000",
        ),
        ({"anchor_sizes": (32,) * 101}, "RCNNSettings.anchor_sizes has 101 values; give 1 to 100"),
        ({"aspect_ratios": (math.nan,)}, "RCNNSettings.aspect_ratios[0] is nan; it must be a number at least 0.01"),
        ({"aspect_ratios": ("1",)}, "RCNNSettings.aspect_ratios[0] is '1'; it must be a number at least 0.01"),
        ({"score_threshold": 2.0}, "RCNNSettings.score_threshold is 2.0; it must be a number at least 0 and at most 1"),
        ({"max_size": 10**9}, "RCNNSettings.max_size is 1000000000; it must be a whole number of at most 10000"),
        ({"pooled": True}, "RCNNSettings.pooled is True; it must be a whole number of at least 1"),
    ],
)
def test_settings_are_checked(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ZooError) as caught:
        RCNNSettings(**fields)  # type: ignore[arg-type]
    assert complaint in str(caught.value)


def test_a_description_is_checked() -> None:
    with pytest.raises(ZooError, match="takes 1 channels; detectors need 3"):
        DetectorSpec(("a",), arch=replace(ARCH, in_channels=1))
    with pytest.raises(ZooError, match="which is not valid Unicode text; rename it"):
        DetectorSpec(("a", "\ud800"), arch=ARCH)
    with pytest.raises(ZooError, match="give both mean and std"):
        DetectorSpec(("a",), arch=ARCH, mean=(0.0, 0.0, 0.0))
    with pytest.raises(ZooError, match="std has 1 values; give one for each of R, G and B"):
        DetectorSpec(("a",), arch=ARCH, mean=(0.0, 0.0, 0.0), std=(1.0,))
    with pytest.raises(ZooError, match="give a network"):
        DetectorSpec(("a",))
    with pytest.raises(ZooError, match="unknown detector 'fbnetv3_b'"):
        DetectorSpec(("a",), published="fbnetv3_b")
    with pytest.raises(ZooError, match="name at least one class"):
        DetectorSpec((), arch=ARCH)
    assert (
        DetectorSpec(("a",), arch=ARCH, kind=DetectorKind.FPN).build().roi_heads.box_predictor.cls_score.out_features
        == 2
    )
