"""No library that is used here tells its maker of it, whatever the environment says of continuous integration."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from folders import ROOT

TALKATIVE = {"onnxruntime", "openvino", "nncf", "ray", "huggingface_hub"}
SILENCED = ("fbnetv3_zoo/runtimes", "fbnetv3_zoo/weights", "export", "detection", "search/executors")
ROOMS = ("fbnetv3_zoo", "export", "detection", "search")


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_talkative_libraries_are_imported_where_they_are_silenced_first() -> None:
    for room in SILENCED:
        assert "utils import telemetry" in (ROOT / room / "__init__.py").read_text(), room
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        place = path.relative_to(ROOT)
        if _imports(path) & TALKATIVE:
            assert any(place.is_relative_to(room) for room in SILENCED), place


PROGRAM = """
import sys
from pathlib import Path
import numpy as np, onnx
from onnx import helper
import fbnetv3_zoo.runtimes.ort, fbnetv3_zoo.export, fbnetv3_zoo.search.executors
graph = helper.make_graph(
    [helper.make_node("Relu", ["a"], ["b"])], "g",
    [helper.make_tensor_value_info("a", 1, [1, 2])], [helper.make_tensor_value_info("b", 1, [1, 2])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
import onnxruntime
session = onnxruntime.InferenceSession(model.SerializeToString())
assert session.run(None, {"a": np.full((1, 2), -1.0, np.float32)})[0].sum() == 0
import openvino
onnx.save(model, "m.onnx")
openvino.convert_model("m.onnx")
import nncf
nncf.quantize(openvino.Core().read_model(model.SerializeToString()), nncf.Dataset([np.zeros((1, 2), np.float32)]))
assert sys.modules["openvino_telemetry"] is None
"""


def test_runtimes_leave_nothing_in_the_users_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    kept = ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"HOME": str(home), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [str(path.relative_to(home)) for path in home.rglob("*")] == []


def test_what_a_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, fbnetv3_zoo.utils.telemetry; print(os.environ['RAY_USAGE_STATS_ENABLED'], os.environ['NNCF_CI'])"
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv("NNCF_CI", raising=False)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]
