"""``fbnetv3 demo`` with few digits and one epoch, to be quick; ``test_wheel.py`` runs it as it is."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from runs import few_digits, metrics
from shell import Ended, run, script, succeed
from waiting import PATIENCE

from fbnetv3_zoo.cli import demo as command
from fbnetv3_zoo.cli.common import program
from fbnetv3_zoo.training.data import SPLITS, Example, joined
from fbnetv3_zoo.weights.serialization import load

RUNS = ("teacher", "student")
LEFT = {
    "best.safetensors", "config.json", "curve.png", "metrics.jsonl", "model.safetensors", "recipe.json", "report.html",
    "results.json",
}  # fmt: skip


@dataclass(frozen=True)
class Demo:
    """A demo's folder and what it printed."""

    folder: Path
    ended: Ended


def _few() -> Sequence[Example]:
    data = few_digits()
    return joined([data[split] for split in SPLITS])


def _demo(*options: object) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_digits", _few)
        return run("demo", "--epochs", 1, *options)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo") / "made" / "here"
    return Demo(folder, _demo("--output", folder))


def test_what_it_prints(demo: Demo) -> None:
    assert demo.ended.code == 0
    lines = demo.ended.out.splitlines()
    assert lines[0] == f"{demo.folder}/digits: scikit-learn's 152 handwritten digits as pictures, in a folder a class"
    purposes = [line for line in lines if line.startswith("# ")]
    assert purposes == [
        "# A network that knows other characters learns these",
        "# A network half as wide learns from it",
        "# A file for other programs",
        "# It answers as the network does",
        "# Smaller, in whole numbers",
        "# A page that classifies in a browser",
    ]
    tested = [line for line in lines if line.startswith("test accuracy ")]
    assert len(tested) == 3
    assert tested[2] == tested[1]  # the file answers as the network does
    assert any(re.fullmatch(r"Made in \d+ s:", line) for line in lines)


def test_every_step_is_a_command_that_can_be_typed(demo: Demo) -> None:
    lines = demo.ended.out.splitlines()
    typed = [lines[n + 1] for n, line in enumerate(lines) if line.startswith("# ")]
    words = [shlex.split(line.removeprefix(f"{program()} ")) for line in typed]
    assert [" ".join(one[:2]) if one[0] == "export" else one[0] for one in words] == [
        "train", "train", "export onnx", "validate", "export int8", "export web",
    ]  # fmt: skip
    start = lines.index("31 of 152 images of digits (test)")
    assert succeed(*words[3]).splitlines()[:2] == lines[start : start + 2]


def test_what_it_leaves(demo: Demo) -> None:
    assert {path.name for path in demo.folder.iterdir()} == {
        ".fbnetv3-zoo-demo", *RUNS, "digits", "model.onnx", "model-int8.onnx", "predictions.png", "web",
    }  # fmt: skip
    for name in RUNS:
        assert {path.name for path in (demo.folder / name).iterdir()} - {".fbnetv3-zoo.lock"} == LEFT
    for name in ("model.onnx", "model-int8.onnx", "predictions.png", "student/model.safetensors"):
        assert f"  {demo.folder / name} (" in demo.ended.out
    models = [load(demo.folder / name / "model.safetensors") for name in RUNS]
    assert [model.arch.name for model in models] == ["fbnetv3_nano", "fbnetv3_nano_w0.5"]
    assert [model.weights for model in models] == ["fbnetv3_nano.zoo_v1", None]
    with Image.open(demo.folder / "predictions.png") as picture:
        picture.load()
        assert picture.width > 800
        assert picture.height > 500
        levels = picture.convert("L").histogram()
        assert sum(levels[:8]) > 0.03 * picture.width * picture.height  # bright digits on black, as in their files
    assert sorted(path.name for path in (demo.folder / "digits").iterdir()) == list("0123456789")
    assert len(list(demo.folder.glob("digits/*/*.png"))) == 152


def test_the_student_had_the_teacher(demo: Demo) -> None:
    reports = {name: (demo.folder / name / "report.html").read_text() for name in RUNS}
    told = [re.search(r"teacher \S+: validation accuracy", reports[name]) is not None for name in RUNS]
    assert told == [False, True]


def test_its_suggestions_work(demo: Demo) -> None:
    called = f"  {program()} "
    lines = [line.removeprefix(called) for line in demo.ended.out.splitlines() if line.startswith(called)]
    suggestions = [shlex.split(line) for line in lines]
    assert [words[0] for words in suggestions] == ["classify", "serve-demo", "train"]
    assert succeed(*suggestions[0])


def test_again_in_the_same_folder_it_begins_anew(demo: Demo, tmp_path: Path) -> None:
    """Also over checkpoints that an interrupted demo left."""
    folder = Path(shutil.copytree(demo.folder, tmp_path / "again"))
    (folder / "student" / "checkpoints").mkdir()
    (folder / "student" / "checkpoints" / f"epoch-0009-step-000000-{'0' * 16}.safetensors").write_bytes(b"of another")
    ended = _demo("--seed", 1, "--output", folder, "--json")
    assert ended.code == 0
    found = json.loads(ended.out)
    assert list(found) == ["folder", "teacher", "student", "onnx", "test", "int8", "web", "seconds"]
    assert found["folder"] == str(folder)
    assert found["test"]["top1"] == found["student"]["test"]["top1"]
    assert found["onnx"]["max_difference"] < 1e-4
    assert [len(metrics(folder / name)) for name in RUNS] == [1, 1]
    assert not list(folder.glob("*/checkpoints"))
    for name in ("model.onnx", "predictions.png", "student/curve.png"):
        assert (folder / name).read_bytes() != (demo.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "ended by SIGTERM; the demo begins anew the next time"),
    ],
)
def test_a_signal_ends_it(demo: Demo, tmp_path: Path, sent: signal.Signals, code: int, said: str) -> None:
    """Also where an earlier one has left all that the next steps read."""
    folder = Path(shutil.copytree(demo.folder, tmp_path / "again"))
    process = script("demo", "--epochs", 1000, "--output", folder, cwd=tmp_path)
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("epoch   1/1000"))
    process.send_signal(sent)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err.splitlines()[-1]) == (code, said)
    assert [line for line in out.splitlines() if line.startswith("# ")] == [
        "# A network that knows other characters learns these"
    ]
    assert "Traceback" not in err


@pytest.mark.parametrize("teacher", [False, True], ids=["files", "runs of training"])
def test_a_folder_of_somebody_elses_is_left_alone(demo: Demo, tmp_path: Path, teacher: bool) -> None:
    folder = tmp_path / "demo"
    (folder / "digits").mkdir(parents=True)
    if teacher:
        shutil.copytree(demo.folder / "teacher", folder / "teacher")
    (folder / "digits" / "mine.png").write_text("mine")
    said = f"{folder / 'digits'}: already exists, and was not written by this program; give another folder, or move "
    ended = run("demo", "--output", folder)
    assert (ended.code, said in ended.err) == (2, True)
