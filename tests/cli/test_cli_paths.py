"""Every command, new ones too, against paths that the system refuses: one printable line, and exit code 2."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import commands, needed_value
from shell import run

from fbnetv3_zoo.cli import app

ENDINGS = {
    "annotations": ".json", "file": ".pth", "images": ".png", "latency": ".json", "model": ".safetensors",
    "models": ".json", "plan": ".json", "recipe": ".json", "settings": ".json", "space": ".json", "subset": ".json",
    "table": ".safetensors", "teacher": ".onnx", "validation": ".json", "weights": ".safetensors",
}  # fmt: skip
PATHS = {*ENDINGS, "cache", "class_names", "data", "folder", "output", "runtime", "sample"}
"""Parameters that take a path; lock is left out: a cache without a lock file is none that is broken."""


def calls() -> Iterator[Any]:
    """For each command and each of its parameters that take a path the words before and after it."""
    for names, command in commands(typer.main.get_command(app)):
        needed = [one for one in command.params if one.required]
        for chosen in (one for one in command.params if one.name in PATHS):
            if chosen.name == "output" and not chosen.required and len(needed) > 0:
                continue  # looked at after what is needed, which is refused here
            words = []
            for one in needed if chosen in needed else [*needed, chosen]:
                value = "{path}" if one is chosen else needed_value(one)
                words += [value] if one.param_type_name == "argument" else [one.opts[0], value]
            yield pytest.param([*names, *words], ENDINGS.get(chosen.name, ""), id=f"{' '.join(names)}: {chosen.name}")


@pytest.mark.parametrize(("words", "ending"), list(calls()))
def test_a_path_that_the_system_refuses(words: list[str], ending: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    hostile = os.fsdecode(b"\x1b[31m\ncaf\xe9")
    for path in (tmp_path / ("n" * 300 + ending), tmp_path / "file" / f"{hostile}{ending}"):
        ended = run(*(word.replace("{path}", str(path)).replace("{folder}", str(tmp_path)) for word in words))
        line = ended.err.splitlines()[-1]
        assert (ended.code, line.partition(":")[0]) == (2, "error"), line
        assert line.isprintable()
        assert "Traceback" not in ended.err
