"""The command line, run in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fbnetv3_zoo.cli import main
from fbnetv3_zoo.utils.serialization import parse_json


@dataclass(frozen=True)
class Ended:
    """A command that ended: its exit code and what it printed."""

    code: object
    out: str
    err: str


def run(*arguments: object) -> Ended:
    """Run ``fbnetv3 ARGUMENTS`` in this process. What ``--json`` prints must be JSON to any reader: no NaN in it."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    if "--json" in arguments and not caught.value.code:
        parse_json(out.getvalue(), "what --json printed")
    return Ended(caught.value.code, out.getvalue(), err.getvalue())


def script(*arguments: object, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """Start the installed ``fbnetv3 ARGUMENTS`` in a process of its own."""
    command = [str(Path(sys.executable).with_name("fbnetv3")), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=cwd, text=True, **{**pipes, **options})


def succeed(*arguments: object) -> str:
    """What a command printed that must end well."""
    ended = run(*arguments)
    assert (ended.code, ended.err) == (0, "")
    return ended.out
