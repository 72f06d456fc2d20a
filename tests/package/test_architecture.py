"""ARCHITECTURE.md against the code: the drawing, the walks, the glossary, and the length of lines."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
STOP = re.compile(r"`([\w/.]+\.py)`(?: `([\w.]+)\(\)`)?")


def _section(title: str) -> str:
    return TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]


def _walks() -> dict[str, list[str]]:
    """The stops of every walk by its title."""
    parts = re.split(r"^### (.*)$", _section("Four walks"), flags=re.MULTILINE)
    return {
        title: re.findall(r"^\d\. (.*(?:\n {3}.*)*)", body, re.MULTILINE)
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def _defined(path: Path) -> set[str]:
    """Functions and classes in the file, methods with their class before them."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def test_the_drawing_is_up_to_date() -> None:
    command = [sys.executable, ROOT / "docs" / "architecture.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_four_walks_of_at_most_eight_stops() -> None:
    walks = _walks()
    assert len(walks) == 4
    assert all(1 < len(stops) <= 8 for stops in walks.values())


@pytest.mark.parametrize("title", _walks())
def test_walks_name_files_and_functions_that_exist(title: str) -> None:
    for stop in _walks()[title]:
        named = STOP.findall(stop)
        assert named, f"names no file: {stop}"
        for file, function in named:
            assert (ROOT / file).is_file(), stop
            assert not function or function in _defined(ROOT / file), stop


def test_the_glossary_is_short() -> None:
    terms = re.findall(r"^- \*\*(.+?)\*\*", _section("Words"), re.MULTILINE)
    assert 1 < len(terms) <= 20
    assert len({term.lower() for term in terms}) == len(terms)


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "MODEL_CARD.md"])
def test_lines_of_text_are_at_most_120_columns(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []
