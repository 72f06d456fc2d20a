"""What commands print: every name as it may be shown, on one line, whatever the terminal can show."""

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


def say(*lines: object) -> None:
    """Print ``lines`` to standard output, one line each: names in them cannot break the line or steer the terminal.

    Where standard output takes nothing, the :class:`OSError` has its name as ``filename``.
    """
    with _named():
        for line in lines or ("",):
            sys.stdout.write(f"{printable(str(line))}\n")


def flush() -> None:
    """Hand over what was said. Raises as :func:`say` does."""
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
    """Print a text of several lines to standard output, such as JSON or a model card."""
    say(*text.removesuffix("\n").split("\n"))


def complain(line: object) -> None:
    """Print a line to standard error, which may be closed or full: there is nobody left to tell then."""
    with suppress(OSError, ValueError):
        print(printable(str(line)), file=sys.stderr, flush=True)


def console() -> Console:
    """Standard error for what rich draws there: bars."""
    from rich.console import Console

    return Console(stderr=True)


def show_above(bar: Console, line: object) -> None:
    """Print a line on ``bar``, above what is drawn at its end."""
    with suppress(OSError):  # standard error may be full: a run does not end for that
        bar.print(printable(str(line)), highlight=False, markup=False, soft_wrap=True)


def in_shell(name: str | Path) -> str:
    """``name`` as one word of a shell's command line, for commands that are suggested."""
    text = str(name)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_escaped, text))}'"


def _escaped(sign: str) -> str:
    plain = sign.isprintable() and sign not in "'\\"
    return sign if plain else "".join(f"\\x{byte:02x}" for byte in os.fsencode(sign))


def prepare() -> None:
    """Ready the standard streams: what an encoding lacks is written out, and closed ones are told from open ones.

    A stream that was closed gets a descriptor that refuses what is written: else the next file that is opened would
    take its number, and be written into. Notices of the package, such as licences, are printed like all else.
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
    """Forget what the standard streams could not take, so that the interpreter does not try again at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _fill(number: int, mode: int) -> None:
    """Open something on the descriptor ``number`` if it is closed; all smaller ones are open."""
    try:
        os.fstat(number)
    except OSError:
        found = os.open(os.devnull, mode)
        if found != number:
            os.dup2(found, number)
            os.close(found)


class _Notices(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage())
