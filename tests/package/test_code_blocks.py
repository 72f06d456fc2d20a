"""The code of README and docs: every Python block runs, every command parses.

Blocks of a page run one after the other in one namespace, in a folder with the files that they name, with the package's
own small network in place of those whose weights would have to be fetched. One that does not run says why, in a comment
before it: ``<!-- not run: REASON -->``. Commands are run in test_shell_blocks.py; here, each must have the options
shown.
"""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer.main
from pages import PAGES, lines, shell_blocks
from PIL import Image
from sklearn.datasets import load_digits

import fbnetv3_zoo as zoo
from fbnetv3_zoo.cli import app
from fbnetv3_zoo.errors import ZooError

_BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>.+?) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
_LARGE = re.compile(r'"(?:fbnetv3_[a-g]|fbnetv2_l3)"')


def smaller(code: str) -> str:
    """The same with the package's own network, which has maps 0 to 2, two epochs, and no processes that load images."""
    code = _LARGE.sub('"fbnetv3_nano"', code).replace("(1, 2, 3)", "(0, 1, 2)").replace("workers=4", "workers=0")
    return code.replace('fit_recipe(len(photos["train"]),', 'fit_recipe(len(photos["train"]), epochs=2,')


def photos(folder: Path, per_class: int = 6) -> None:
    """Digits as a folder of pictures, by class."""
    digits = load_digits()
    for label in range(3):
        (folder / str(label)).mkdir(parents=True)
        for n, pixels in enumerate(digits.images[digits.target == label][:per_class]):
            Image.fromarray(np.uint8(pixels * 15.9)).save(folder / str(label) / f"{n}.png")


def prepare(folder: Path) -> dict[str, Any]:
    """The files that the pages name, and the names that they take for granted."""
    photos(folder / "PHOTOS")
    photos(folder / "flowers" / "train")
    for name in ("cat.jpg", "new.jpg"):
        Image.new("RGB", (40, 40), "gray").save(folder / name)
    for run, model in {"1": zoo.create("fbnetv3_nano", pretrained=True), "d": zoo.create("fbnetv3_d")}.items():
        (folder / "runs" / run).mkdir(parents=True)
        zoo.save(model, folder / "runs" / run / "model.safetensors")
    return {
        "images": torch.zeros(2, 3, 32, 32),
        "rng": np.random.default_rng(0),
        "my_accuracy": lambda arch, recipe, epoch: recipe.learning_rate * (1 + epoch),
    }


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "```python" in text])
def test_python_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    names = prepare(tmp_path)
    for block in _BLOCK.finditer(PAGES[page]):
        if not block["reason"]:
            line = PAGES[page].count("\n", 0, block.start("code"))
            exec(compile("\n" * line + smaller(block["code"]), page, "exec"), names)


COMMANDS = {
    page: [
        shlex.split(line.partition(" > ")[0])[1:]
        for block in shell_blocks(text)
        for line in lines(block["code"])
        if line.startswith("fbnetv3 ")
    ]
    for page, text in PAGES.items()
}
"""The words of every command that a page shows."""


@pytest.mark.parametrize("page", [page for page, found in COMMANDS.items() if found])
def test_commands_have_the_options_shown(page: str) -> None:
    for words in COMMANDS[page]:
        command: Any = typer.main.get_command(app)
        rest = [*words]
        while hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        # what a command is given is not there, which some notice after reading their options
        with suppress(ZooError):
            command.make_context(" ".join(words), rest)
