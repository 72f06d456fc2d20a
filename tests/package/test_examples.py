"""The examples: notebooks run from top to bottom, the script trains, exports and type-checks as a user's."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import nbformat
import pytest
from folders import ROOT
from nbclient import NotebookClient
from test_code_blocks import photos

NOTEBOOKS = sorted(path.stem for path in (ROOT / "examples").glob("*.ipynb"))
FIRST = "fine_tune_photographs"


@pytest.mark.parametrize(
    "name", [name if name == FIRST else pytest.param(name, marks=pytest.mark.long) for name in NOTEBOOKS]
)
def test_notebooks_run(name: str, tmp_path: Path) -> None:
    """Each in an empty folder; the one that fine-tunes for two epochs."""
    notebook = nbformat.read(ROOT / "examples" / f"{name}.ipynb", 4)
    kept = [len(cell.get("outputs", ())) for cell in notebook.cells]
    for cell in notebook.cells:
        if name == FIRST:
            cell.source = cell.source.replace("epochs=12", "epochs=2")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert sum(kept) >= 4  # the outputs of a run are kept in the file
    assert not any(output.output_type == "error" for cell in notebook.cells for output in cell.get("outputs", ()))


def test_the_script_fine_tunes_and_writes_files_for_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "photos")
    run = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["fine_tune.py", str(tmp_path / "photos"), "--output", str(run), "--epochs", "1"])
    runpy.run_path(str(ROOT / "examples" / "fine_tune.py"), run_name="__main__")
    assert {"model.safetensors", "model.onnx", "model-int8.onnx"} <= {path.name for path in run.iterdir()}
