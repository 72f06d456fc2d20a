"""Detectors trained by two processes over gloo, in parts, with image processes, in half precision."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import shapes
from detectors import RECIPE, SPEC
from forks import Job, Server, serving
from jobs import INTERRUPTED
from runs import checkpoints, metadata
from safetensors.torch import load_file
from torch import Tensor

from fbnetv3_zoo.detection import read_coco
from fbnetv3_zoo.detection.data.coco import CocoData
from fbnetv3_zoo.detection.training.train import DetectionRun, train_detector
from fbnetv3_zoo.training import Callback, Execution, Interrupted, Precision, Step
from fbnetv3_zoo.utils.serialization import to_json

train = partial(train_detector, report=False)
SHORT = replace(RECIPE, epochs=2)
EVERY_STEP = Execution(checkpoint_steps=1)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images: four steps an epoch."""
    return shapes.write(tmp_path_factory.mktemp("shapes") / "data", 8, seed=0, side=64, objects=2)


@pytest.fixture(scope="module")
def data(annotations: Path) -> CocoData:
    return read_coco(annotations, annotations.parent)


@pytest.fixture(scope="module")
def alone(data: CocoData, tmp_path_factory: pytest.TempPathFactory) -> DetectionRun:
    return train(SPEC, data, data, SHORT, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def straight(server: Server, annotations: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job]:
    """The folder of an uninterrupted run of two processes, and what they told. Only read."""
    folder = tmp_path_factory.mktemp("straight")
    told = server("detector", size=2, **_job(annotations, folder))
    assert told["codes"] == [0, 0], told
    return folder, told


def _job(annotations: Path, folder: Path, execution: Execution = EVERY_STEP) -> Job:
    return {"annotations": str(annotations), "folder": str(folder), "execution": to_json(execution)}


def _tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors that a run leaves."""
    files = {"model": folder / "model.safetensors", "now": checkpoints(folder)[0]}
    return {f"{kind}.{name}": tensor for kind, file in files.items() for name, tensor in load_file(file).items()}


def _assert_same(one: Path, other: Path) -> None:
    first, second = _tensors(one), _tensors(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not first[name].equal(second[name])] == []


def test_two_processes_end_with_one_detector(straight: tuple[Path, Job], alone: DetectionRun) -> None:
    folder, told = straight
    leader, other = told["lines"]
    assert [line for line in leader if line.startswith(("step", "epoch"))] == [
        *(f"step 1 {n}" for n in range(1, 5)), "epoch 1", *(f"step 2 {n}" for n in range(1, 5)), "epoch 2",
    ]  # fmt: skip
    assert leader[-2:] == other
    assert [line.split()[0] for line in other] == ["parameters", "result"]
    assert _tensors(folder).keys() == _tensors(alone.folder).keys()
    assert not any("module.module" in name for name in _tensors(folder))


def test_two_processes_that_are_killed_go_on_to_the_same(
    straight: tuple[Path, Job], server: Server, annotations: Path, tmp_path: Path
) -> None:
    job = _job(annotations, tmp_path)
    assert server("detector", size=2, kill={"steps": 6}, **job)["codes"] == [-signal.SIGKILL] * 2
    assert metadata(checkpoints(tmp_path)[0])["progress"]["epoch"] == 1
    last = server("detector", size=2, **job)
    assert last["codes"] == [0, 0], last
    assert 0 < sum(line.startswith("step") for line in last["lines"][0]) <= 3
    _assert_same(tmp_path, straight[0])
    assert last["lines"][1] == straight[1]["lines"][1]


def test_sigterm_to_one_of_two_ends_both(
    straight: tuple[Path, Job], server: Server, annotations: Path, tmp_path: Path
) -> None:
    job = _job(annotations, tmp_path, Execution(workers=1))
    told = server("detector", size=2, ends=[1, 2], **job)
    assert told["codes"] == [INTERRUPTED] * 2, told
    for lines in told["lines"]:
        assert lines[-1] == "interrupted: ended by SIGTERM after step 3 of epoch 1; continue with --resume"
    last = server("detector", size=2, **job)
    assert last["codes"] == [0, 0], last
    _assert_same(tmp_path, straight[0])


class _Ending(Callback):
    def on_step(self, step: Step) -> None:
        if (step.epoch, step.step) == (2, 1):
            signal.raise_signal(signal.SIGTERM)


def test_sigterm_and_image_processes(alone: DetectionRun, data: CocoData, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="ended by SIGTERM after step 1 of epoch 2; continue with --resume"):
        train(SPEC, data, data, SHORT, tmp_path, execution=Execution(workers=1), callbacks=[_Ending()])
    train(SPEC, data, data, SHORT, tmp_path, resume=True)
    _assert_same(tmp_path, alone.folder)


def test_in_parts_and_in_half_precision(alone: DetectionRun, data: CocoData, tmp_path: Path) -> None:
    first = alone.epochs[0].train_loss
    for name, execution in (("parts", Execution(accumulation=2)), ("bf16", Execution(precision=Precision.BFLOAT16))):
        run = train(SPEC, data, data, replace(SHORT, epochs=1), tmp_path / name, execution=execution)
        assert run.epochs[0].train_loss == pytest.approx(first, rel=0.3)
        assert run.epochs[0].train_loss != first
