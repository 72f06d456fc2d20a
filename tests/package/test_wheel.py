"""The wheel: what it puts into site-packages, and that the demo runs from it in another folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from folders import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    clean = shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(".*", "build", "dist", "tests"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, clean]
    built = subprocess.run(build, check=True, capture_output=True, text=True)
    assert "would be ignored" not in built.stdout + built.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_nothing_but_the_package_reaches_the_top_level(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"fbnetv3_zoo", wheel.name.split("-py3")[0] + ".dist-info"}
    for room in ("search", "detection", "export"):
        assert {f"fbnetv3_zoo/{room}/__init__.py", f"fbnetv3_zoo/{room}/__init__.pyi"} <= {*names}
    assert {"fbnetv3_zoo/py.typed", "fbnetv3_zoo/__init__.pyi"} <= {*names}
    tables = {f"fbnetv3_zoo/search/tables/nars-{data}.safetensors" for data in ("letters", "emoji")}
    assert {"fbnetv3_zoo/export/site/index.html", *tables} <= {*names}
    reports = (
        "report", "training/report", "search/report", "search/supernet", "detection/training", "export/formats",
    )  # fmt: skip
    templates = {name for name in names if name.endswith((".jinja", ".css")) and "/templates/" in name}
    assert {name.rpartition("/templates/")[0] for name in templates} == {f"fbnetv3_zoo/{part}" for part in reports}
    assert "fbnetv3_zoo/detection/configs/fbnetv3_a_c4.yaml" in names
    assert "fbnetv3_zoo/detection/configs/fbnetv3_a_c4.py" in names


def _printed(*command: object, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``fbnetv3`` in an environment of the wheel alone; it sees its dependencies by a path file: no long install."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment)
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install", "--quiet", "--no-deps"]
    _printed(*pip, wheel, cwd=environment)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin" / "fbnetv3"


def test_the_wheel_alone_runs_in_another_folder(program: Path, tmp_path: Path) -> None:
    code = "import fbnetv3_zoo.export.onnx as onnx; print(onnx.__file__)"
    file = _printed(program.with_name("python"), "-c", code, cwd=tmp_path)
    assert Path(file.strip()).is_relative_to(program.parents[1])
    assert "fbnetv3_a" in _printed(program, "list", cwd=tmp_path)


@pytest.mark.long
def test_a_users_script_type_checks_against_the_wheel(program: Path, tmp_path: Path) -> None:
    script = shutil.copy(ROOT / "examples" / "fine_tune.py", tmp_path)
    python = program.with_name("python")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, script]
    assert _printed(*mypy, cwd=tmp_path) == "Success: no issues found in 1 source file\n"
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    pyright = [sys.executable, "-m", "basedpyright", "--pythonpath", python, script]
    assert _printed(*pyright, cwd=tmp_path).endswith("0 errors, 0 warnings, 0 notes\n")


@pytest.mark.long
def test_demo_runs_from_the_wheel(program: Path, tmp_path: Path) -> None:
    found = json.loads(_printed(program, "demo", "--epochs", 1, "--json", cwd=tmp_path))
    results = [found["teacher"]["test"], found["student"]["test"], found["test"]]
    assert all(result["total"] >= 350 for result in results)
    assert results[2]["top1"] == results[1]["top1"]
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == [
        "digits", "model-int8.onnx", "model.onnx", "predictions.png", "student", "teacher", "web",
    ]  # fmt: skip
