"""What may go wrong outside this program, as the one line that the command line prints."""

from __future__ import annotations

import os
import sqlite3

from ..errors import ZooError, in_short
from ..utils.paths import reason_of
from . import output

EXPECTED = (ZooError, OSError, UnicodeError, RecursionError, MemoryError, sqlite3.Error)
"""Causes that lie outside; whatever else is raised is a fault of this program and keeps its traceback."""


def line_of(error: BaseException) -> str | None:
    """What the command line says of one of :data:`EXPECTED`; None where the reader of standard output has gone."""
    if isinstance(error, ZooError):
        return str(error)
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, UnicodeError):
        return f"a text is not what its encoding allows ({in_short(error)})"
    if isinstance(error, RecursionError):
        return "something given is nested too deeply to be read"
    if isinstance(error, MemoryError):
        return "there is not enough memory; give smaller batches, images or files"
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
    """Whether it was raised as a help was printed, which typer does and rich."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return error.filename is None and place.split(".")[0] in ("click", "rich", "typer")
