"""The wheel: what it puts into site-packages, and that the demo runs from it in another folder."""

import json
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
    subprocess.run(build, check=True, capture_output=True)
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
    assert "fbnetv3_zoo/export/site/index.html" in names
    reports = ("report", "training/report", "search/report", "search/supernet", "detection/training")
    templates = {name for name in names if name.endswith((".jinja", ".css")) and "/templates/" in name}
    assert {name.rpartition("/templates/")[0] for name in templates} == {f"fbnetv3_zoo/{part}" for part in reports}
    assert "fbnetv3_zoo/detection/configs/fbnetv3_a_c4.yaml" in names
    assert "fbnetv3_zoo/detection/configs/fbnetv3_a_c4.py" in names


def test_demo_runs_from_the_wheel_in_another_folder(wheel: Path, tmp_path: Path) -> None:
    """The environment holds the wheel alone; its dependencies are seen through a path file, to spare a long install."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--no-deps", "--quiet", wheel], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [environment / "bin" / "fbnetv3", "demo", "--epochs", "1", "--json"],
        cwd=elsewhere, check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout)["test"]
    assert list(found) == ["teacher", "alone", "distilled", "onnx"]
    assert all(told["total"] >= 350 for told in found.values())
    assert found["onnx"]["top1"] == found["distilled"]["top1"]
    assert sorted(path.name for path in (elsewhere / "demo").iterdir()) == [
        "alone", "distilled", "images", "model-int8.onnx", "model.onnx", "predictions.png", "teacher", "web",
    ]  # fmt: skip
    where = [python, "-c", "import fbnetv3_zoo; print(fbnetv3_zoo.__file__)"]
    found = subprocess.run(where, check=True, capture_output=True, text=True, cwd=elsewhere).stdout
    assert Path(found.strip()).is_relative_to(site)
