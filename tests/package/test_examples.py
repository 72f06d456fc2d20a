"""The examples: notebooks run from top to bottom, the script trains, exports and type-checks as a user's."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from folders import ROOT
from test_code_blocks import photos

NOTEBOOKS = sorted(path.stem for path in (ROOT / "examples").glob("*.ipynb"))
FIRST = "fine_tune_photographs"


@pytest.mark.parametrize(
    "name", [name if name == FIRST else pytest.param(name, marks=pytest.mark.long) for name in NOTEBOOKS]
)
def test_notebooks_run(name: str, tmp_path: Path) -> None:
    """Each in an empty folder; the one that fine-tunes for two epochs."""
    text = (ROOT / "examples" / f"{name}.ipynb").read_text(encoding="utf-8")
    (tmp_path / "notebook.ipynb").write_text(text.replace("epochs=12", "epochs=2") if name == FIRST else text)
    execute = [sys.executable, "-c", "from nbclient.cli import main; main()", "notebook.ipynb", "--inplace"]
    ended = subprocess.run([*execute, "--timeout=600"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    kept, made = (_outputs(path) for path in (ROOT / "examples" / f"{name}.ipynb", tmp_path / "notebook.ipynb"))
    assert min(len(kept), len(made)) >= 2  # the outputs of a run are kept in the file, too


def _outputs(notebook: Path) -> list[str]:
    """The kinds of what the cells of a notebook have given."""
    cells = nbformat.read(notebook, 4).cells
    return [output.output_type for cell in cells for output in cell.get("outputs", ())]


def test_the_script_fine_tunes_and_writes_files_for_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(tmp_path / "photos")
    run = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["fine_tune.py", str(tmp_path / "photos"), "--output", str(run), "--epochs", "1"])
    script = str(ROOT / "examples" / "fine_tune.py")
    runpy.run_path(script, run_name="__main__")
    assert {"model.safetensors", "model.onnx", "model-int8.onnx"} <= {path.name for path in run.iterdir()}
    fault = f"{run}: holds a run; continue it with --resume (resume=True), or give another folder"
    assert _refused(script, capsys) == f"error: {fault}\n"
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--resume"])
    runpy.run_path(script, run_name="__main__")
    monkeypatch.setattr(sys, "argv", ["fine_tune.py", "nofolder"])
    assert _refused(script, capsys) == "error: nofolder: no such folder; give 'digits' or a folder of class folders\n"


def _refused(script: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the script says when it ends with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 2
    return capsys.readouterr().err
