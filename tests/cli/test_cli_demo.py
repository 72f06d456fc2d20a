"""``fbnetv3 demo`` with tiny networks and few digits, to be quick; ``test_wheel.py`` runs it as it is."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from runs import few_digits, metrics
from shell import Ended, run, succeed

from fbnetv3_zoo import training, zoo
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.cli.common import program
from fbnetv3_zoo.training import Dataset
from fbnetv3_zoo.training.checkpoint import Checkpoints
from fbnetv3_zoo.weights.serialization import load

RUNS = ("teacher", "alone", "distilled")
LEFT = {"best.safetensors", "curve.png", "metrics.jsonl", "model.safetensors", "report.html"}


@dataclass(frozen=True)
class Demo:
    """A demo's folder, what it printed, and on what it was run."""

    folder: Path
    ended: Ended
    data: Dataset


@pytest.fixture(scope="module")
def small(tiny_arch: Arch) -> Arch:
    return tiny_arch.for_small_images()


def _demo(arch: Arch, data: Dataset, *options: object) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "find_dataset", lambda source, seed: data)
        patch.setattr(zoo, "ARCHS", {"fbnetv3_a": arch})
        return run("demo", *options)


@pytest.fixture(scope="module")
def demo(tiny_arch: Arch, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder, data = tmp_path_factory.mktemp("demo") / "made" / "here", few_digits()
    return Demo(folder, _demo(tiny_arch, data, "--epochs", 1, "--output", folder), data)


def test_what_it_prints(demo: Demo, small: Arch) -> None:
    assert demo.ended.code == 0
    assert [line.split("  train")[0] for line in demo.ended.err.splitlines()] == ["epoch   1/1"] * 3
    lines = demo.ended.out.splitlines()
    counts = "90 for train, 31 for validation, 31 for test"
    assert lines[0] == f"Data: scikit-learn's handwritten digits, {counts}, without overlap."
    assert [line for line in lines if re.match(r"\d\. ", line)] == [
        "1. The teacher, on labels",
        "2. The slim network, on labels alone",
        "3. The slim network, with the teacher: loss = 0.8 x distillation + 0.2 x cross entropy",
        next(line for line in lines if line.startswith("4. ONNX: largest difference to PyTorch ")),
        next(
            line for line in lines if re.match(r"5\. int8: \d\.\d\d of the size, the same class for [\d.]+% of", line)
        ),
        next(line for line in lines if re.match(r"6\. Web page: the network in a browser, .* MB$", line)),
    ]
    on_torch = [line.split(": ", 1)[1] for line in lines if line.startswith("Test accuracy: ")]
    (on_onnx,) = [line.split(": ", 1)[1] for line in lines if line.startswith("Test accuracy on ONNX Runtime: ")]
    assert len(on_torch) == 3
    assert on_onnx == on_torch[2]
    start = next(n for n, line in enumerate(lines) if line.startswith("network "))
    large, slim = (arch_cost(load(demo.folder / name / "model.safetensors").arch) for name in ("teacher", "distilled"))
    for line, cost, label, found in zip(
        lines[start + 1 : start + 4],
        (large, slim, slim),
        (r"teacher +labels", r"slim student +labels", r"slim student +teacher and labels"),
        on_torch,
        strict=True,
    ):
        low, high = re.findall(r"[\d.]+%", found.split("interval ")[1])
        figures = rf" +{cost.parameters:,} +{cost.macs / 1e6:.2f}  {found.split()[0]} \({low} to {high}\)"
        assert re.fullmatch(label + figures, line), line
    assert any(re.fullmatch(r"Made in \d+ s:", line) for line in lines)


def test_what_it_leaves(demo: Demo) -> None:
    assert {path.name for path in demo.folder.iterdir()} == {
        *RUNS, "images", "model.onnx", "model-int8.onnx", "predictions.png", "web",
    }  # fmt: skip
    for name in RUNS:
        assert {path.name for path in (demo.folder / name).iterdir()} - {".fbnetv3-zoo.lock"} == LEFT
    for name in ("model.onnx", "model-int8.onnx", "predictions.png", "distilled/model.safetensors"):
        assert f"  {demo.folder / name} (" in demo.ended.out
    names = [load(demo.folder / name / "model.safetensors").arch.name for name in RUNS]
    assert names == ["tiny_small_w0.5_d0.5", *["tiny_small_w0.25_d0.25"] * 2]
    with Image.open(demo.folder / "predictions.png") as picture:
        picture.load()
        assert picture.width > 800
        assert picture.height > 500
    assert sorted(path.name for path in (demo.folder / "images").iterdir()) == [f"digit_{n}.png" for n in range(10)]


def test_the_distilled_one_had_the_teacher(demo: Demo) -> None:
    reports = {name: (demo.folder / name / "report.html").read_text() for name in RUNS}
    told = [re.search(r"teacher \S+: validation accuracy", reports[name]) is not None for name in RUNS]
    assert told == [False, False, True]
    assert metrics(demo.folder / "alone") != metrics(demo.folder / "distilled")


def test_its_suggestions_work(demo: Demo) -> None:
    called = f"  {program()} "
    lines = [line.removeprefix(called) for line in demo.ended.out.splitlines() if line.startswith(called)]
    suggestions = [shlex.split(line) for line in lines]
    assert [words[0] for words in suggestions] == ["classify", "serve-demo", "list"]
    for words in suggestions[::2]:
        assert succeed(*words)


def test_again_in_the_same_folder_it_begins_anew(demo: Demo, tiny_arch: Arch, tmp_path: Path) -> None:
    """Also over checkpoints that an interrupted demo left."""
    folder = Path(shutil.copytree(demo.folder, tmp_path / "again"))
    (folder / "alone" / "checkpoints").mkdir()
    (folder / "alone" / "checkpoints" / f"epoch-0009-step-000000-{'0' * 16}.safetensors").write_bytes(b"of another")
    ended = _demo(tiny_arch, few_digits(seed=1), "--epochs", 2, "--seed", 1, "--output", folder, "--json")
    assert ended.code == 0
    found = json.loads(ended.out)
    assert list(found) == ["folder", "test", "int8", "page", "max_difference", "seconds"]
    assert found["folder"] == str(folder)
    assert list(found["test"]) == [*RUNS, "onnx"]
    assert [told["total"] for told in found["test"].values()] == [31] * 4
    assert found["test"]["onnx"]["top1"] == found["test"]["distilled"]["top1"]
    assert found["max_difference"] < 1e-4
    assert [len(metrics(folder / name)) for name in RUNS] == [2] * 3
    assert not list(folder.glob("*/checkpoints"))
    for name in ("model.onnx", "predictions.png", "distilled/curve.png"):
        assert (folder / name).read_bytes() != (demo.folder / name).read_bytes()


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "mine.png").write_text("mine")
    said = f"{folder}: has images, which the demo would overwrite; give another --output"
    ended = run("demo", "--output", folder)
    assert (ended.code, said in ended.err) == (2, True)
    assert [path.name for path in folder.rglob("*")] == ["images", "mine.png"]


def test_only_its_own_checkpoints_are_removed(tmp_path: Path) -> None:
    names = [f"epoch-0001-step-000000-{'0' * 16}.safetensors", "mine.safetensors"]
    for name in names:
        (tmp_path / name).touch()
    Checkpoints(tmp_path, keep=1).discard()
    assert [path.name for path in tmp_path.iterdir()] == names[1:]
    (tmp_path / names[1]).unlink()
    Checkpoints(tmp_path, keep=1).discard()
    assert not tmp_path.exists()
