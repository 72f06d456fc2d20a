"""Mutated files of every format: read, or refused in one line. Thousands of them in benchmarks/fuzz.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from folders import ROOT


@pytest.mark.long
def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    """How long one takes is for benchmarks/fuzz.py alone; a report of a search is written in seconds."""
    command = [sys.executable, "benchmarks/fuzz.py", "--json", "100", "--binary", "10", "--seconds", "600"]
    command += ["--skip", "report of a search", "--keep", str(tmp_path / "kept")]
    ended = subprocess.run(command, capture_output=True, check=False, text=True, cwd=ROOT)
    told = [path.read_text() for path in sorted((tmp_path / "kept").glob("*.txt"))]
    assert (ended.returncode, told) == (0, []), ended.stdout + ended.stderr
