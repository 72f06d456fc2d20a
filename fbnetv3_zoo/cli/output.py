"""Printing by commands: names are made printable, and stay on one line."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ..errors import printable

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console


STANDARD_OUTPUT = "standard output"
INTERRUPTED = 130
"""The exit code after Ctrl-C."""


def say(*lines: object) -> None:
    """Print ``lines`` to standard output; names in them cannot break lines or control the terminal.

    If standard output cannot be written, the :class:`OSError` names it as ``filename``.
    """
    with _named():
        for line in lines or ("",):
            sys.stdout.write(f"{printable(str(line))}\n")


def flush() -> None:
    """Flush standard output. Raises like :func:`say`."""
    with _named():
        sys.stdout.flush()


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = STANDARD_OUTPUT
        raise


def say_text(text: str) -> None:
    """Print a text of several lines, such as JSON or a model card, to standard output."""
    say(*text.removesuffix("\n").split("\n"))


def complain(line: object) -> None:
    """Print a line to standard error; ignored if that is closed or full."""
    with suppress(OSError, ValueError):
        print(printable(str(line)), file=sys.stderr, flush=True)


def console() -> Console:
    """Standard error as a console for rich's progress bars."""
    from rich.console import Console

    return Console(stderr=True)


def show_above(bar: Console, line: object) -> None:
    """Print a line on ``bar``, above the progress bar."""
    with suppress(OSError):  # a full standard error must not end a run
        bar.print(printable(str(line)), highlight=False, markup=False, soft_wrap=True)


def in_shell(name: str | Path) -> str:
    """``name`` quoted for a shell, for suggested commands."""
    text = str(name)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_escaped, text))}'"


def _escaped(character: str) -> str:
    plain = character.isprintable() and character not in "'\\"
    return character if plain else "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def prepare() -> None:
    """Prepare the standard streams: characters missing in the encoding are escaped, closed streams are reopened.

    A closed stream gets a descriptor that cannot be written: otherwise the next file that is opened would get its
    number and be written to. Log messages of the package, such as licenses, are printed to standard error.
    """
    _fill(0, os.O_WRONLY)
    for name, number, mode in (("stdout", 1, os.O_RDONLY), ("stderr", 2, os.O_WRONLY)):
        _fill(number, mode)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        stream: Any = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logger = logging.getLogger("fbnetv3_zoo")
    if not logger.hasHandlers():
        logger.addHandler(_Notices(logging.WARNING))


def drop() -> None:
    """Discard what the standard streams could not write, so that the interpreter does not retry at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _fill(number: int, mode: int) -> None:
    """Open the descriptor ``number`` on the null device if it is closed; all smaller ones are open."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, mode)
        if null != number:
            os.dup2(null, number)
            os.close(null)


class _Notices(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage())
