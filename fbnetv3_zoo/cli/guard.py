"""One-line messages for errors with causes outside this program."""

from __future__ import annotations

import os
import sqlite3

from ..errors import ZooError, in_short
from ..utils.paths import reason_of
from . import output

EXPECTED = (ZooError, OSError, UnicodeError, RecursionError, MemoryError, sqlite3.Error)
"""Errors with outside causes; all others are bugs and keep their traceback."""


def line_of(error: BaseException) -> str | None:
    """The message for one of :data:`EXPECTED`; None if the reader of standard output has gone."""
    if isinstance(error, ZooError):
        return str(error)
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, UnicodeError):
        return f"a text is invalid in its encoding ({in_short(error)})"
    if isinstance(error, RecursionError):
        return "an input is nested too deeply to be read"
    if isinstance(error, MemoryError):
        return "there is not enough memory; use smaller batches, images or files"
    return f"a database cannot be used ({in_short(error)})"


def _of_system(error: OSError) -> str | None:
    reason = reason_of(error)
    if error.filename == output.STANDARD_OUTPUT or _of_help(error):
        gone = isinstance(error, BrokenPipeError)
        return None if gone else f"{output.STANDARD_OUTPUT}: cannot be written ({reason})"
    given = [name for name in (error.filename, error.filename2) if name is not None]
    if not given:
        return f"a file cannot be read or written ({reason})"
    places = (os.fsdecode(name) if isinstance(name, (str, bytes)) else f"descriptor {name}" for name in given)
    return f"{' and '.join(places)}: cannot be read or written ({reason})"


def _of_help(error: OSError) -> bool:
    """Whether it was raised while typer or rich printed a help text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return error.filename is None and module.split(".")[0] in ("click", "rich", "typer")
